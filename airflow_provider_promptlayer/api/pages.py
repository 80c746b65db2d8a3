# SPDX-License-Identifier: Apache-2.0
"""Lists that PromptLayer answers page by page.

The description of tables, sheets, columns and rows has ``next_cursor`` and ``has_more`` at the top
of an answer. That of versions, and PromptLayer's own libraries, have them in ``pagination``. Both
forms are read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from airflow_provider_promptlayer.api.errors import PromptLayerUnexpectedAnswerError
from airflow_provider_promptlayer.api.fields import FieldError, Fields
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.job import CallFlow

T = TypeVar("T")

PAGE_SIZE: Final = 100
"""The most items that PromptLayer puts on a page."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list.

    :param next_cursor: for the next page, or None after the last.
    """

    items: tuple[T, ...]
    next_cursor: str | None


P = TypeVar("P", bound=Page[Any])


def read_page(answer: Fields, parse: Callable[[Fields], T], *, size: int = PAGE_SIZE) -> Page[T]:
    """Return the page that an answer has in ``data``.

    :param parse: reads an item.
    :param size: the ``limit`` that was asked for.
    :raises FieldError: if the answer is not as documented.
    """
    items = tuple(map(parse, answer.objects("data")))
    return Page(items, next_cursor(answer, is_full=len(items) >= size))


def next_cursor(answer: Fields, *, is_full: bool) -> str | None:
    """Return the cursor for the page after this one, or None after the last.

    :param is_full: whether the page has as many items as were asked for. If such an answer does
        not say that it is the last, the list may go on.
    :raises FieldError: if the answer leaves open whether, or where, the list goes on.
    """
    places = (answer, answer.object_if_any("pagination"))
    has_more = next(
        (found for place in places if (found := place.get("has_more")) is not None), None
    )
    cursor = next((found for place in places if (found := place.get("next_cursor"))), None)
    if cursor is not None and has_more is not False:
        if not isinstance(cursor, str):
            raise FieldError("has a next_cursor that is no text")
        return cursor
    if has_more is True or (is_full and has_more is None):
        raise FieldError("has no next_cursor, although the list may go on")
    return None


def visit_pages(
    page_call: Callable[[str | None], Call[P]], visit: Callable[[P], bool | None]
) -> Generator[Call[P], P, None]:
    """Visit the pages of a list in their order until ``visit`` returns True.

    A driver may request a page ahead: it is known as soon as the one before was sent in.

    :param page_call: takes a cursor, None for the first page.
    :raises PromptLayerUnexpectedAnswerError: if a cursor leads back to an earlier page.
    """
    seen = set[str]()
    cursor: str | None = None
    while True:
        call = page_call(cursor)
        page = yield call
        if visit(page):
            return
        cursor = page.next_cursor
        if cursor is None:
            return
        if cursor in seen:
            raise PromptLayerUnexpectedAnswerError(
                f"Could not {call.request.purpose}: the next_cursor of a page leads back to an "
                "earlier one"
            )
        seen.add(cursor)


def visit_items(
    page_call: Callable[[str | None], Call[Page[T]]], visit: Callable[[T], bool | None]
) -> CallFlow[None]:
    """Visit the items of a list in their order, page by page, until ``visit`` returns True.

    :param page_call: takes a cursor, None for the first page.
    :raises PromptLayerUnexpectedAnswerError: if a cursor leads back to an earlier page.
    """
    return visit_pages(page_call, lambda page: any(map(visit, page.items)))
