# SPDX-License-Identifier: Apache-2.0
"""JSON as language models cause it to be sent: what Python's parser takes, and deeper nesting."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from airflow_provider_promptlayer.api.text import quoted

MAX_DEPTH: Final = 10_000
"""Levels of nesting beyond which a document is refused, in every version of Python alike."""

_MOST_PHRASES: Final = 100
"""How many notes on a document are kept: a hostile document could cause millions."""

_BLANKS: Final = re.compile(r"[ \t\n\r]*")

_scan_string: Final[Callable[[str, int], tuple[str, int]]] = json.decoder.scanstring  # type: ignore[attr-defined]


def loads(body: bytes, *, note: Callable[[str], None] | None = None) -> Any:
    """Return the value that ``body`` holds, in any encoding that :func:`json.loads` takes.

    NaN, ±Infinity and lone surrogates are taken as they come. An integer of more digits than
    Python converts (4,300) becomes the text of its digits, and of a key that occurs twice in an
    object the last value counts, as in every JSON parser.

    Python's parser is recursive: it goes about 1,000 levels deep in Python 3.11, 10,000 in 3.13 and
    tens of thousands in 3.14. A deeper document is read without recursion, which is about ten
    times slower. The recursion limit is left alone, as it belongs to the whole interpreter.

    :param note: is called with a phrase for each integer that became text and each key that occurs
        twice, a hundred different ones at most. It makes parsing about a third slower.
    :raises ValueError: if it is not JSON, or nested deeper than :data:`MAX_DEPTH`.
    """
    noted: dict[str, None] = {}  # emptied when another parser begins anew

    def add(phrase: str) -> None:
        if len(noted) < _MOST_PHRASES:
            noted[phrase] = None

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    shown = quoted(key)
                    add(f"the key {shown} occurs twice in one object, the last counts")
                seen.add(key)
        return found

    def integer(digits: str) -> int | str:
        try:
            return int(digits)
        except ValueError:
            add(f"an integer of {len(digits)} digits became text")
            return digits

    hook = None if note is None else unique
    try:
        try:
            value = json.loads(body, object_pairs_hook=hook)
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise
        except ValueError:  # an integer of thousands of digits
            noted.clear()
            value = json.loads(body, object_pairs_hook=hook, parse_int=integer)
        if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
            _refuse_too_deep(value)
    except RecursionError:
        noted.clear()
        text = body.decode(json.detect_encoding(body), "surrogatepass")
        value = _read_deep(text, unique if note else dict, integer)
    if note is not None:
        for phrase in noted:
            note(phrase)
    return value


def _refuse_too_deep(value: Any) -> None:
    """Raise if what Python's parser has read is nested deeper than :data:`MAX_DEPTH`."""
    holders: list[list[Any] | dict[str, Any]] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        holders = [
            inner
            for holder in holders
            for inner in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(inner, (list, dict))
        ]
        if not holders:
            return
    raise ValueError("nested too deeply")


def _read_deep(
    text: str,
    make_object: Callable[[list[tuple[str, Any]]], dict[str, Any]],
    parse_int: Callable[[str], Any],
) -> Any:
    """Do what :func:`json.loads` does, with the open lists and objects on a stack of our own."""
    scan_scalar = json.JSONDecoder(parse_int=parse_int).scan_once  # type: ignore[attr-defined]
    open_ones: list[tuple[list[Any], list[str] | None]] = []  # the members so far; an object's keys
    at = _skip_blanks(text, 0)
    while True:
        value: Any = None
        is_opened = text[at : at + 1] in ("[", "{")
        if is_opened:
            if len(open_ones) == MAX_DEPTH:
                raise ValueError("nested too deeply")
            open_ones.append(([], [] if text[at] == "{" else None))
            at += 1
        else:
            try:
                value, at = scan_scalar(text, at)
            except StopIteration:
                raise json.JSONDecodeError("Expecting value", text, at) from None
        at = _skip_blanks(text, at)
        while open_ones:  # a complete value may complete the lists and objects around it
            members, keys = open_ones[-1]
            mark = text[at : at + 1]
            if not is_opened:
                members.append(value)
            if mark == ("]" if keys is None else "}"):
                value = (
                    members if keys is None else make_object(list(zip(keys, members, strict=True)))
                )
                open_ones.pop()
                is_opened = False
                at = _skip_blanks(text, at + 1)
                continue
            if not is_opened:
                if mark != ",":
                    raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
                at = _skip_blanks(text, at + 1)
            if keys is not None:
                at = _read_key(text, at, keys)
            break
        else:
            if at < len(text):
                raise json.JSONDecodeError("Extra data", text, at)
            return value


def _read_key(text: str, at: int, keys: list[str]) -> int:
    """Add the key at ``at`` to ``keys``; return where its value begins."""
    if text[at : at + 1] != '"':
        raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
    key, at = _scan_string(text, at + 1)
    at = _skip_blanks(text, at)
    if text[at : at + 1] != ":":
        raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
    keys.append(key)
    return _skip_blanks(text, at + 1)


def _skip_blanks(text: str, at: int) -> int:
    blanks = _BLANKS.match(text, at)
    return blanks.end() if blanks else at
