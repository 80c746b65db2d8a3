# SPDX-License-Identifier: Apache-2.0
"""Parsers of arguments: each returns the value to send, or refuses it and says what is wrong.

Every parser raises :class:`PromptLayerInvalidInputError` with the name of the argument.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import date, timedelta
from enum import Enum
from typing import Any, Final, TypeVar
from urllib.parse import quote
from uuid import UUID

from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.text import one_line, shown

T = TypeVar("T")

_DIGITS: Final = re.compile(r"0*[0-9]{1,19}")
"""A 64-bit number; Python refuses to convert thousands of digits."""

_IN_BRACKETS: Final = re.compile(r"\s*\[.*\]\s*", re.DOTALL)
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

MAX_ID: Final = 2**63 - 1
"""Execution ids are int64."""


class NotSet(Enum):
    """The type of :data:`NOTSET`."""

    NOTSET = "not set"


MAX_TITLE: Final = 255
"""The most characters of a title, or of the name of a report or of a version."""

NOTSET: Final = NotSet.NOTSET
"""The default of an argument that refuses None, because a missing XCom renders to None."""


def execution_id(value: Any) -> int:
    """Return a ``workflow_version_execution_id``, see :func:`positive`."""
    return positive("workflow_version_execution_id", value)


def positive(name: str, value: Any) -> int:
    """Return a positive 64-bit integer, given as int or as digits in a string."""
    return _integer(name, value, 1, "a positive integer")


def row_number(name: str, value: Any) -> int:
    """Return a zero-based row number, given as int or as digits in a string."""
    return _integer(name, value, 0, "a row number, 0 for the first row")


def version_number(name: str, value: Any) -> int:
    """Return the number of a version, or 0, which is before the first one."""
    return _integer(name, value, 0, "the number of a version, or 0")


def is_uuid(value: Any) -> bool:
    """Return whether :func:`uuid` takes ``value``."""
    return isinstance(value, (str, UUID)) and bool(_UUID.fullmatch(str(value).strip()))


def uuid(name: str, value: Any) -> str:
    """Return a UUID in lower case, given as text or as :class:`uuid.UUID`."""
    if not is_uuid(value):
        raise PromptLayerInvalidInputError(
            f"{name} must be a UUID such as 123e4567-e89b-12d3-a456-426614174000, "
            f"not {_given(value)}."
        )
    return str(value).strip().lower()


def opaque_text(name: str, value: Any) -> str:
    """Return an id of unknown form as text that a URL can carry.

    Digits may come as a number, which a native template makes of them.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ID:
        return str(value)
    text = value.strip() if isinstance(value, str) else ""
    if text in ("", ".", "..") or not _is_encodable(text):
        raise PromptLayerInvalidInputError(f"{name} must be an id as text, not {_given(value)}.")
    return text


def title_text(name: str, value: Any) -> str:
    """Return a title or a name of 1 to 255 characters.

    Digits may come as a number, which a native template makes of them, such as those of a date.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ID:
        return str(value)
    text = value if isinstance(value, str) else ""
    if not text.strip() or len(text) > MAX_TITLE or not _is_encodable(text):
        raise PromptLayerInvalidInputError(
            f"{name} must be a text of 1 to {MAX_TITLE} characters, not {_given(value)}."
        )
    return text


def title_or_uuid(name: str, value: Any) -> str:
    """Return the title, or the UUID, of a table, a sheet or a column."""
    return uuid(name, value) if is_uuid(value) else title_text(name, value)


def refuse_none(name: str, value: Any) -> None:
    """Raise if an argument that was given is None by now, which a missing XCom renders to."""
    if value is None:
        raise PromptLayerInvalidInputError(
            f"{name} is None, as a missing XCom is: give a value, or leave {name} out."
        )


def web_address(name: str, value: Any) -> str:
    """Return a URL. Errors do not quote it, as it may have a secret in it."""
    text = value.strip() if isinstance(value, str) else ""
    if not text.startswith(("https://", "http://")):
        raise PromptLayerInvalidInputError(
            f"{name} must be a URL that begins with https:// or http://."
        )
    return text


def exactly_one(what: str, **given: Any) -> None:
    """Refuse two arguments of which both or none are given, that is not None.

    :param what: what they are.
    """
    (name, value), (other, its_value) = given.items()
    if (value is None) == (its_value is None):
        which = "none" if value is None else "both"
        raise PromptLayerInvalidInputError(f"Give one of {name} and {other}, {what}; not {which}.")


def path_segment(value: object, name: str = "workflow_id_or_name", noun: str = "workflow") -> str:
    """Return the name or id of a workflow or a prompt as one percent-encoded path segment.

    Names may hold ``/``, spaces, ``?``, ``#``, ``%`` and any Unicode.

    :param name: of the argument.
    :param noun: of what it names.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise PromptLayerInvalidInputError(
            f"{name} must be a name or a number, not {type(value).__name__}."
        )
    text = _text(name, value)
    if not text.strip():
        raise PromptLayerInvalidInputError(f"{name} is empty: give a {noun}'s name or id.")
    if text in (".", ".."):
        # Every HTTP library resolves dot segments, encoded or not.
        raise PromptLayerInvalidInputError(
            f"A {noun} named {text!r} cannot be addressed by its name: give its numeric id."
        )
    if not _is_encodable(text):
        raise PromptLayerInvalidInputError(
            f"{name} holds a lone surrogate, which no URL can carry."
        )
    return quote(text, safe="")


def name_or_id(name: str, value: Any) -> str:
    """Return what ``name`` calls by its name or id, see :func:`path_segment`."""
    return path_segment(value, name, name)


def mapping(name: str, value: Any) -> dict[str, Any]:
    """Return a mapping with texts as keys; None gives an empty one.

    As text it may be JSON, or Python's form of a dict, which a template renders.
    """
    if value is None:
        return {}
    found = value
    if isinstance(value, str):
        found = _json(value)
        if found is None:
            with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                found = ast.literal_eval(value.strip())
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        given = _given(value) if isinstance(value, str) else type(value).__name__
        raise PromptLayerInvalidInputError(
            f"{name} must be a mapping with strings as keys, or one as JSON, not {given}."
        )
    return dict(found)


def items(name: str, value: Any, otherwise: str = "") -> list[Any] | None:
    """Return a list, given as such or as JSON; None stays None.

    Any other text is refused: neither is it a list of one, nor is ``None``, which a template
    renders for a missing XCom, a list of none.
    """
    if value is None:
        return None
    found = _json(value) if isinstance(value, str) else value
    if not isinstance(found, Sequence | set | frozenset) or isinstance(found, str | bytes):
        hint = (
            " In a template write '{{ … | tojson }}', or set render_template_as_native_obj=True "
            "on the DAG."
            if isinstance(value, str)
            else ""
        )
        raise PromptLayerInvalidInputError(
            f"{name} must be a list, or a list as JSON{otherwise}, not {_given(value)}.{hint}"
        )
    return sorted(found, key=repr) if isinstance(found, set | frozenset) else list(found)


def list_of(parse: Callable[[str, Any], T], name: str, value: Any) -> list[T] | None:
    """Return a list of at least one item, see :func:`items`, with each item parsed."""
    found = items(name, value)
    if found is None:
        return None
    if not found:
        raise PromptLayerInvalidInputError(
            f"{name} is empty, and PromptLayer does not say whether that means none or all: "
            "give at least one, or leave it out for all."
        )
    return [parse(f"{name}[{number}]", item) for number, item in enumerate(found)]


def choices(
    name: str, value: Any, known: Collection[str], *, otherwise: str = ""
) -> list[str] | None:
    """Return a list of some of the words in ``known``, in any case; it may be empty.

    :param otherwise: what else the error says the argument may be.
    """
    found = items(name, value, otherwise)
    words = {word.casefold(): word for word in known}
    for item in found or ():
        if not isinstance(item, str) or item.strip().casefold() not in words:
            raise PromptLayerInvalidInputError(
                f"{name} must be a list of {', '.join(known)}{otherwise}; {_given(item)} is none "
                "of them."
            )
    return found and [words[item.strip().casefold()] for item in found]


def one_of(name: str, value: Any, known: Collection[str]) -> str:
    """Return ``value`` if it is one of the words in ``known``."""
    if value not in known:
        words = ", ".join(repr(str(word)) for word in known)
        raise PromptLayerInvalidInputError(f"{name} must be one of {words}, not {_given(value)}.")
    return str(value)


def texts(name: str, value: Any) -> list[str] | None:
    """Return a list of texts, given as such, as JSON, or as one text alone; None stays None.

    A text in square brackets has to be JSON: a template may have rendered a list in Python's form,
    which must not pass for one text.
    """
    is_one = isinstance(value, str) and not _IN_BRACKETS.fullmatch(value)
    found = [value] if is_one else items(name, value)
    for item in found or ():
        if not isinstance(item, str):
            raise PromptLayerInvalidInputError(
                f"{name} must be a list of texts; {_given(item)} is none."
            )
    return found and list(found)


def text_list(name: str, value: Any) -> list[str] | None:
    """Return what :func:`texts` does, and refuse one text alone, which a list was meant to have."""
    return texts(name, items(name, value))


def score(name: str, value: Any, *, highest: float = math.inf) -> float:
    """Return a score to compare with, a finite number from 0 to ``highest``."""
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
        upto = " up" if highest == math.inf else f" to {highest:g}"
        raise PromptLayerInvalidInputError(
            f"{name} must be a number from 0{upto}, not {_given(value)}."
        )
    return number


def seconds(name: str, value: Any, *, zero: bool = False) -> float:
    """Return a time in seconds, given as a number of seconds or as a ``timedelta``.

    :param zero: whether 0 is taken too.
    """
    found = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
    if not is_number or not (found > 0 or (zero and found == 0)):  # NaN is neither
        least = "0 or more" if zero else "more than 0"
        raise PromptLayerInvalidInputError(
            f"{name} must be a number of seconds or a timedelta, {least}, not {_given(value)}."
        )
    return float(found)


def text_values(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return ``metadata`` with scalar values as texts, which is all that PromptLayer takes."""
    texts = {}
    for key, value in mapping("metadata", metadata).items():
        if not isinstance(value, (str, int, float, date)):
            raise PromptLayerInvalidInputError(
                f"metadata[{_given(key)}] must be a string, not {type(value).__name__}."
            )
        texts[key] = _text(f"metadata[{_given(key)}]", value)
    return texts


def text_mapping(name: str, value: Any) -> dict[str, str]:
    """Return what :func:`text_values` does, and refuse values that are no texts."""
    for key, item in mapping(name, value).items():
        if not isinstance(item, str):
            raise PromptLayerInvalidInputError(
                f"{name}[{_given(key)}] must be a string, not {_given(item)}."
            )
    return mapping(name, value)


def is_constant(value: Any) -> bool:
    """Return whether ``value`` is what a DAG file has written out, and no template is in it.

    Not: what only Airflow knows how to resolve, such as the output of another task.
    """
    if isinstance(value, str):
        return "{{" not in value and "{%" not in value
    if isinstance(value, Mapping):
        return all(map(is_constant, value)) and all(map(is_constant, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(is_constant, value))
    return value is None or isinstance(value, (int, float, date, timedelta, UUID))


def encode(name: str, body: Any) -> bytes:
    """Return ``body`` as JSON.

    :param name: the argument to blame for what JSON cannot hold.
    """
    try:
        return json.dumps(body, default=_plain, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise PromptLayerInvalidInputError(
            f"{name} cannot be sent as JSON: {one_line(str(error))}."
        ) from None


def canonical(name: str, body: dict[str, Any]) -> bytes:
    """Return what :func:`encode` does, the same for every order of the keys."""
    return json.dumps(json.loads(encode(name, body)), sort_keys=True).encode()


def _integer(name: str, value: Any, least: int, wanted: str) -> int:
    number = value
    if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= MAX_ID:
        raise PromptLayerInvalidInputError(f"{name} must be {wanted}, not {_given(value)}.")
    return number


def _json(text: str) -> Any:
    """Return what JSON says, or None where ``text`` is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


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


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _given(value: Any) -> str:
    """Return a line that shows what was given instead of what was wanted."""
    return one_line(repr(value[:80]) if isinstance(value, str) else shown(value), 80)
