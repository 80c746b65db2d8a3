# SPDX-License-Identifier: Apache-2.0
"""JSON as language models cause it to be sent: whatever Python's parser takes, and a bit more."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from airflow_provider_promptlayer.api import json_steps

LARGE: Final = 4 * json_steps.WINDOW
"""Bytes of a document beyond which it is read in steps, which takes no longer then."""


def loads(body: bytes, *, note: Callable[[str], None] | None = None, skeleton: bool = False) -> Any:
    """Return what ``body`` says. NaN, ±Infinity and lone surrogates are taken as they come.

    An integer of more digits than Python converts (4,300) is returned as the text of its digits,
    and of a key that occurs twice in an object the last value counts, as in every JSON parser.

    Documents nested deeper than Python's parser goes (from 1,000 levels to tens of thousands,
    depending on the version and on who calls) are read all the same, and without touching the
    recursion limit, which belongs to the whole interpreter.

    :param note: told, in a phrase, each of these two things. Looking for them makes parsing
        about a third slower.
    :param outline: let go of values that are large, see :func:`.loads`.
    :raises ValueError: if it is no JSON, or nested deeper than :data:`.MAX_DEPTH`.
    """
    if len(body) <= LARGE:
        hook = None if note is None else json_steps.unique_keys(note)
        try:
            value = json.loads(body, object_pairs_hook=hook)
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise
        except (RecursionError, ValueError):
            pass  # too deep, or with an integer of thousands of digits
        else:
            json_steps.refuse_too_deep(value, body.count(b"[") + body.count(b"{"))
            return value
    return json_steps.loads(body, note=note, skeleton=skeleton)
