# SPDX-License-Identifier: Apache-2.0
"""Arguments, made fit to be sent or refused with a line that says what is wrong with them."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import date, timedelta
from enum import Enum
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.text import one_line, shown

_DIGITS: Final = re.compile(r"0*[0-9]{1,19}")
"""A 64-bit number; Python refuses to convert thousands of digits."""

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

MAX_ID: Final = 2**63 - 1
"""Execution ids are int64."""


class NotSet(Enum):
    """The type of :data:`NOTSET`."""

    NOTSET = "not set"


NOTSET: Final = NotSet.NOTSET
"""The default of an argument for which None is no value, as a missing XCom renders to None."""


def execution_id(value: Any) -> int:
    """Return a ``workflow_version_execution_id`` given as int or as digits in a string.

    :raises PromptLayerInvalidInputError: if it is not a positive 64-bit integer.
    """
    return positive("workflow_version_execution_id", value)


def path_segment(workflow_id_or_name: object) -> str:
    """Return a workflow's name or id as one percent-encoded path segment.

    The segment is encoded whole: names may hold ``/``, spaces, ``?``, ``#``, ``%`` and any
    Unicode.

    :raises PromptLayerInvalidInputError: for an empty name, one that no URL can carry, or
        something that is no name at all.
    """
    if isinstance(workflow_id_or_name, bool) or not isinstance(workflow_id_or_name, (int, str)):
        raise PromptLayerInvalidInputError(
            "workflow_id_or_name must be a name or a number, "
            f"not {type(workflow_id_or_name).__name__}."
        )
    name = _text("workflow_id_or_name", workflow_id_or_name)
    if not name.strip():
        raise PromptLayerInvalidInputError(
            "workflow_id_or_name is empty: give a workflow's name or id."
        )
    if name in (".", ".."):
        # Every HTTP library resolves dot segments, encoded or not.
        raise PromptLayerInvalidInputError(
            f"A workflow named {name!r} cannot be addressed by its name: give its numeric id."
        )
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:
        raise PromptLayerInvalidInputError(
            "workflow_id_or_name holds a lone surrogate, which no URL can carry."
        ) from None


def mapping(name: str, value: Any) -> dict[str, Any]:
    """Return a mapping that was given as such, as JSON, or as a template renders one.

    None gives an empty one. A template that renders a mapping as text gives Python's form of it,
    with single quotes.

    :raises PromptLayerInvalidInputError: if argument ``name`` is something else, or has keys that
        are no text.
    """
    if value is None:
        return {}
    found = _literal(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        given = _given(value) if isinstance(value, str) else type(value).__name__
        raise PromptLayerInvalidInputError(
            f"{name} must be a mapping with strings as keys, or one as JSON, not {given}."
        )
    return dict(found)


def positive(name: str, value: Any) -> int:
    """Return a positive 64-bit integer that was given as int or as digits in a string.

    :raises PromptLayerInvalidInputError: if argument ``name`` is something else.
    """
    number = value
    if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 < number <= MAX_ID:
        raise PromptLayerInvalidInputError(
            f"{name} must be a positive integer, not {_given(value)}."
        )
    return number


def uuid(name: str, value: Any) -> str:
    """Return a UUID that was given as text or as :class:`uuid.UUID`, in its usual form.

    :raises PromptLayerInvalidInputError: if argument ``name`` is something else.
    """
    text = str(value).strip() if isinstance(value, (str, UUID)) else ""
    if not _UUID.fullmatch(text):
        raise PromptLayerInvalidInputError(
            f"{name} must be a UUID such as 123e4567-e89b-12d3-a456-426614174000, "
            f"not {_given(value)}."
        )
    return text.lower()


def opaque_text(name: str, value: Any) -> str:
    """Return an id of unknown form as text.

    Digits may come as a number, which a native template makes of them.

    :raises PromptLayerInvalidInputError: if argument ``name`` is no text that a URL can carry.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ID:
        return str(value)
    if isinstance(value, str) and value.strip() and value.strip() not in (".", ".."):
        try:
            value.encode()
        except UnicodeEncodeError:
            pass
        else:
            return value.strip()
    raise PromptLayerInvalidInputError(f"{name} must be an id as text, not {_given(value)}.")


def uuids(name: str, value: Any) -> list[str] | None:
    """Return a list of UUIDs, see :func:`items`."""
    found = _some(name, value)
    return found and [uuid(f"{name}[{number}]", item) for number, item in enumerate(found)]


def row_numbers(name: str, value: Any) -> list[int] | None:
    """Return a list of zero-based row numbers, see :func:`items`."""
    found = _some(name, value)
    return found and [row_number(f"{name}[{number}]", item) for number, item in enumerate(found)]


def row_number(name: str, value: Any) -> int:
    """Return a zero-based row number, given as int or as digits in a string.

    :raises PromptLayerInvalidInputError: if argument ``name`` is something else.
    """
    number = value
    if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_ID:
        raise PromptLayerInvalidInputError(
            f"{name} must be a row number, 0 for the first row, not {_given(value)}."
        )
    return number


def choices(name: str, value: Any, known: Collection[str]) -> list[str] | None:
    """Return a list of some of the words in ``known``, in any case; it may be empty.

    :raises PromptLayerInvalidInputError: listing the words that there are.
    """
    found = items(name, value)
    words = {word.casefold(): word for word in known}
    for item in found or ():
        if not isinstance(item, str) or item.strip().casefold() not in words:
            raise PromptLayerInvalidInputError(
                f"{name} must be a list of {', '.join(known)}; {_given(item)} is none of them."
            )
    return found and [words[item.strip().casefold()] for item in found]


def items(name: str, value: Any) -> list[Any] | None:
    """Return a list that was given as such, as JSON, or as a template renders one.

    None stays None. A template that renders a list as text gives Python's form of it, with
    single quotes.

    :raises PromptLayerInvalidInputError: if argument ``name`` is something else. A text is not
        taken for a list of one: neither is the text ``None``, which is a template gone wrong.
    """
    if value is None:
        return None
    found = _literal(value) if isinstance(value, str) else value
    if not isinstance(found, Sequence | set | frozenset) or isinstance(found, str | bytes):
        raise PromptLayerInvalidInputError(
            f"{name} must be a list, or a list as JSON, not {_given(value)}."
        )
    return sorted(found, key=repr) if isinstance(found, set | frozenset) else list(found)


def texts(name: str, value: Any) -> list[str] | None:
    """Return a list of texts that was given as such, or as one text alone.

    None stays None. A text that is a list of texts, as JSON or as a template renders one, counts
    as that list.

    :raises PromptLayerInvalidInputError: if argument ``name`` is something else.
    """
    if isinstance(value, str):
        rendered = _literal(value)
        found: Any = rendered if isinstance(rendered, list) and rendered else [value]
    else:
        found = items(name, value)
    for item in found or ():
        if not isinstance(item, str):
            raise PromptLayerInvalidInputError(
                f"{name} must be a list of texts; {_given(item)} is none."
            )
    return found and list(found)


def score(name: str, value: Any, *, highest: float = math.inf) -> float:
    """Return a score to compare with, a number from 0 to ``highest``.

    :raises PromptLayerInvalidInputError: if argument ``name`` is something else.
    """
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = None
    if (
        isinstance(number, bool)
        or not isinstance(number, (int, float))
        or not 0 <= number <= highest
        or number == math.inf
    ):
        upto = "" if highest == math.inf else f" to {highest:g}"
        raise PromptLayerInvalidInputError(
            f"{name} must be a number from 0{upto}, not {_given(value)}."
        )
    return number


def seconds(name: str, value: Any, *, zero: bool = False) -> float:
    """Return a time that was given as a number of seconds or as a ``timedelta``, in seconds.

    :param zero: whether 0 is taken too.
    :raises PromptLayerInvalidInputError: if argument ``name`` is something else, negative or NaN.
    """
    found = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
    if not is_number or not (found > 0 or (zero and found == 0)):  # NaN is neither
        least = "0 or more" if zero else "more than 0"
        raise PromptLayerInvalidInputError(
            f"{name} must be a number of seconds or a timedelta, {least}, not {_given(value)}."
        )
    return float(found)


def _some(name: str, value: Any) -> list[Any] | None:
    found = items(name, value)
    if found is not None and not found:
        raise PromptLayerInvalidInputError(
            f"{name} is empty, and PromptLayer does not say whether that means none or all: "
            "give at least one, or leave it out for all."
        )
    return found


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def text_values(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return ``metadata`` with texts as values, which is all that PromptLayer takes.

    :raises PromptLayerInvalidInputError: for a value that is no scalar.
    """
    texts = {}
    for key, value in mapping("metadata", metadata).items():
        if not isinstance(value, (str, int, float, date)):
            raise PromptLayerInvalidInputError(
                f"metadata[{_given(key)}] must be a string, not {type(value).__name__}."
            )
        texts[key] = _text(f"metadata[{_given(key)}]", value)
    return texts


def encode(name: str, body: dict[str, Any]) -> bytes:
    """Return ``body`` as JSON.

    :raises PromptLayerInvalidInputError: if it holds what JSON cannot, blaming argument ``name``.
    """
    try:
        return json.dumps(body, default=_plain, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise PromptLayerInvalidInputError(
            f"{name} cannot be sent as JSON: {one_line(str(error))}."
        ) from None


def canonical(name: str, body: dict[str, Any]) -> bytes:
    """Return ``body`` as JSON that is the same for every order of its keys.

    :raises PromptLayerInvalidInputError: as :func:`encode`.
    """
    return json.dumps(json.loads(encode(name, body)), sort_keys=True).encode()


def _plain(value: Any) -> Any:
    """Turn what Airflow hands to a task, such as a lazy sequence of XComs, into plain JSON."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return list(value)
    if isinstance(value, date):  # and datetime
        return value.isoformat()
    raise TypeError(f"a value of type {type(value).__name__}")


def _text(name: str, value: Any) -> str:
    try:
        return value.isoformat() if isinstance(value, date) else str(value)
    except ValueError:  # Python does not write out integers of thousands of digits
        raise PromptLayerInvalidInputError(f"{name} is an integer of too many digits.") from None


def _given(value: Any) -> str:
    """Return a line that shows what was given instead of what was wanted."""
    return one_line(repr(value[:80]) if isinstance(value, str) else shown(value), 80)
