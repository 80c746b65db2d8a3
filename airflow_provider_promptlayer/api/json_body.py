# SPDX-License-Identifier: Apache-2.0
"""JSON as language models cause it to be sent: whatever Python's parser takes, and a bit more."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from airflow_provider_promptlayer.api import deep_json
from airflow_provider_promptlayer.api.text import one_line


def loads(body: bytes, *, note: Callable[[str], None] | None = None) -> Any:
    """Return what ``body`` says. NaN, ±Infinity and lone surrogates are taken as they come.

    An integer of more digits than Python converts (4,300) is returned as the text of its digits,
    and of a key that occurs twice in an object the last value counts, as in every JSON parser.

    Documents nested deeper than Python's parser goes (about 1,000 levels, depending on the
    version and on who calls) are parsed in Python, at a seventh of the speed, and without touching
    the recursion limit, which belongs to the whole interpreter.

    :param note: told, in a phrase, each of these two things. Looking for them makes parsing
        about a third slower.
    :raises ValueError: if it is no JSON, or nested deeper than :data:`.deep_json.MAX_DEPTH`.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs) and note is not None:
            _note_repeated([key for key, _ in pairs], note)
        return found

    def integer(digits: str) -> int | str:
        try:
            return int(digits)
        except ValueError:
            if note is not None:
                note(f"an integer of {len(digits)} digits became text")
            return digits

    hook = None if note is None else unique
    try:
        return json.loads(body, object_pairs_hook=hook)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except RecursionError:
        return deep_json.loads(
            body.decode(json.detect_encoding(body), "surrogatepass"),
            parse_object=unique,
            parse_int=integer,
        )
    except ValueError:
        pass
    try:
        return json.loads(body, object_pairs_hook=hook, parse_int=integer)
    except RecursionError:
        return deep_json.loads(
            body.decode(json.detect_encoding(body), "surrogatepass"),
            parse_object=unique,
            parse_int=integer,
        )


def _note_repeated(keys: list[str], note: Callable[[str], None]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            note(f"the key {one_line(repr(key), 80)} occurs twice in one object, the last counts")
        seen.add(key)
