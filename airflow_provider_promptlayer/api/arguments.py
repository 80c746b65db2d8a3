# SPDX-License-Identifier: Apache-2.0
"""Arguments, made fit to be sent or refused with a line that says what is wrong with them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final
from urllib.parse import quote

from airflow_provider_promptlayer.api.text import one_line, shown
from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError

_DIGITS: Final = re.compile(r"0*[0-9]{1,19}")
"""A 64-bit number; Python refuses to convert thousands of digits."""

MAX_ID: Final = 2**63 - 1
"""Execution ids are int64."""


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
    """Return a mapping that was given as argument ``name``, as a dict; None gives an empty one.

    :raises PromptLayerInvalidInputError: if it is something else, or has keys that are no text.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise PromptLayerInvalidInputError(
            f"{name} must be a mapping with strings as keys, not {type(value).__name__}."
        )
    return dict(value)


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
