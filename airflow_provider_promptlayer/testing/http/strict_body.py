# SPDX-License-Identifier: Apache-2.0
"""Bodies, ids and queries of the endpoints below ``/api/public/v2``.

The rule here: their description knows no 422. Every mistake is a 400 in PromptLayer's own words,
and a field that is not declared is one (``additionalProperties: false``). An id in a path that is
no UUID is a 400 too: the description is silent on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from airflow_provider_promptlayer.testing.http.messages import Request, refusal
from airflow_provider_promptlayer.testing.http.validation import read_boolean

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]{1,18}")

Check = Callable[[Any], bool]


def is_uuid(value: Any) -> bool:
    """Tell whether a value is the text of a UUID."""
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def is_row(value: Any) -> bool:
    """Tell whether a value is an integer of 0 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def list_of(check: Check) -> Check:
    """Give the check of a list."""
    return lambda value: isinstance(value, list) and all(map(check, value))


def one_of(words: Collection[str]) -> Check:
    """Give the check of one of some words."""
    return lambda value: isinstance(value, str) and value in words


def check_uuids(**ids: str) -> None:
    """Refuse ids of a path that are no UUIDs.

    Raises:
        RefusalError: 400, naming the first.

    """
    for name, value in ids.items():
        if not is_uuid(value):
            raise refusal(400, f"{name} is not a valid UUID")


def read_body(
    request: Request, checks: Mapping[str, Check], *, nullable: Collection[str], required: bool
) -> dict[str, Any]:
    """Read a JSON object of known fields.

    Args:
        request: whose body it is.
        checks: name of a field -> whether a value is valid.
        nullable: the fields that may be null, which is then as if they were missing.
        required: whether there must be a body.

    Raises:
        RefusalError: 400, naming every mistake.

    """
    if not request.body:
        if required:
            raise refusal(400, "A JSON body is required")
        return {}
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if content_type != "application/json":
            raise ValueError(content_type)
        document = json.loads(request.body)
    except (ValueError, RecursionError):
        raise refusal(400, "The body is not valid JSON") from None
    if not isinstance(document, dict):
        raise refusal(400, "The body is not a JSON object")
    mistakes = [f"unknown field {name!r}" for name in document if name not in checks]
    fields = {}
    for name, check in checks.items():
        value = document.get(name)
        if name not in document or (value is None and name in nullable):
            continue
        if not check(value):
            mistakes.append(f"invalid {name}")
        fields[name] = value
    if mistakes:
        raise refusal(400, f"Invalid request: {', '.join(mistakes)}")
    return fields


def query_number(
    query: Mapping[str, str], name: str, *, least: int, most: int | None = None
) -> int | None:
    """Read an integer of a query.

    Raises:
        RefusalError: 400, it is none or out of bounds.

    """
    text = query.get(name)
    if text is None:
        return None
    number = int(text) if _DIGITS.fullmatch(text) else -1
    if number < least or (most is not None and number > most):
        raise refusal(400, f"Invalid query parameter {name}")
    return number


def query_word(query: Mapping[str, str], name: str, words: tuple[str, ...]) -> str:
    """Read one of some words of a query; the first is the default.

    Raises:
        RefusalError: 400, it is none of them.

    """
    text = query.get(name, words[0])
    if text not in words:
        raise refusal(400, f"Invalid query parameter {name}")
    return text


def query_flag(query: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Read a boolean of a query in any of the spellings FastAPI takes.

    PromptLayer's Python library sends ``True`` and ``False``.

    Raises:
        RefusalError: 400, it is no boolean.

    """
    if name not in query:
        return default
    value = read_boolean(query[name])
    if value is None:
        raise refusal(400, f"Invalid query parameter {name}")
    return value
