# SPDX-License-Identifier: Apache-2.0
"""JSON of any size and depth, read in small steps.

Python's parser is written in C: it holds the interpreter's lock until the whole document is read,
so that no other thread runs, and gives up on some depth of nesting: about 1,000 levels in Python
3.11, 10,000 in 3.13, tens of thousands in 3.14. Here it only ever gets a window of the document,
and what does not fit into one is put together around it:

- elements in a row that fit into a window are read at once, between brackets of our own;
- of a list or an object larger than a window, or too deep, the elements are read one by one, with
  a stack of our own;
- a string larger than a window is read in pieces.

Between two windows another thread may run. Nor is the document ever decoded as a whole, of which
a single emoji would make four times its size. The outcome is that of :func:`json.loads`.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from typing import Any, Final

from airflow_provider_promptlayer.api.text import one_line

MAX_DEPTH: Final = 10_000
"""Levels beyond which a document is refused."""

WINDOW: Final = 64 * 1024
"""Bytes that are decoded at once. The C parser gets at most twice as many characters."""

OUTLINE_WINDOW: Final = 8 * 1024
"""The same where values are let go of.

A window holds fewer lists and objects than make Python's garbage collector look at them. If they
lived to see it often, it would soon look at all that there is in the process, in one step.
"""

_OUTLINE_DEPTH: Final = 2

_TRIED_DEPTH: Final = 100
"""Levels around a list or an object from which on the C parser is not tried.

An attempt on one that is larger than a window costs a window, and only Python 3.11 would refuse
the attempts soon.
"""

_BLANKS: Final = re.compile(r"[ \t\n\r]*")
_NUMBER: Final = re.compile(r"[-+.eE0-9]*")
_NUMBER_AT_END: Final = re.compile(r"-?[0-9][-+.eE0-9]*\Z")
_FIRST_KEY: Final = re.compile(r'\{[ \t\n\r]*"[^"\\]{0,80}"')
_HIGH_SURROGATE: Final = re.compile(r"\\u[dD][89abAB]")

_LONGEST_LITERAL: Final = len("-Infinity")

_Container = list[Any] | dict[str, Any]
_TOO_LARGE: Final = object()

_scan_string: Final[Callable[[str, int], tuple[str, int]]] = json.decoder.scanstring  # type: ignore[attr-defined]


def loads(
    body: bytes,
    *,
    note: Callable[[str], None] | None = None,
    skeleton: bool = False,
    window: int | None = None,
) -> Any:
    """Return what ``body`` says, in any encoding that :func:`json.loads` takes.

    An integer of more digits than Python converts becomes the text of its digits.

    :param note: told, in a phrase, of each such integer and of each key that occurs twice in an
        object.
    :param outline: of what is larger than a window, keep but the objects of the two outer levels,
        and of a string but its beginning. The document is checked as a whole all the same.
    :param window: bytes that are decoded at once; None for :data:`WINDOW`, or
        :data:`OUTLINE_WINDOW`.
    :raises ValueError: if it is no JSON, or nested deeper than :data:`MAX_DEPTH`.
    """
    if window is None:
        window = OUTLINE_WINDOW if skeleton else WINDOW
    return _Reader(body, note, skeleton=skeleton, window=window).read()


def unique_keys(note: Callable[[str], None]) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """Return an ``object_pairs_hook`` that tells ``note`` of keys that occur twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    note(_repeated(key))
                seen.add(key)
        return found

    return unique


def refuse_too_deep(value: Any, brackets: int, levels: int = MAX_DEPTH) -> None:
    """Hold what the C parser has read to a limit that no version and no thread changes.

    :param brackets: that open in the text of ``value``: hardly ever enough to have to look.
    :raises ValueError: if ``value`` has more levels than that.
    """
    if brackets <= levels:
        return
    holders: list[_Container] = [[value]]
    for _ in range(levels + 1):
        holders = [
            inner
            for holder in holders
            for inner in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(inner, (list, dict))
        ]
        if not holders:
            return
    raise ValueError("nested too deeply")


def _repeated(key: str) -> str:
    return f"the key {one_line(repr(key), 80)} occurs twice in one object, the last counts"


class _Reader:
    """A place in a document, and the window of text around it."""

    def __init__(
        self, body: bytes, note: Callable[[str], None] | None, *, skeleton: bool, window: int
    ) -> None:
        self._body = body
        self._note = note
        self._skeleton = skeleton
        self._window = window
        self._decoder = codecs.getincrementaldecoder(json.detect_encoding(body))("surrogatepass")
        self._offset = 0  # in the body, of what is to be decoded next
        self._text = ""
        self._at = 0  # in the text, of what is to be read next
        self._is_last = False  # nothing follows the text
        self._in_a_row = True  # worth a try, in this window
        self._is_deep = False
        self._noted: list[str] = []  # by a scan that may yet fail
        hook = None if note is None else unique_keys(self._noted.append)
        self._scan_fast = _scanner(object_pairs_hook=hook)
        self._scan_any = _scanner(object_pairs_hook=hook, parse_int=self._int)

    def read(self) -> Any:
        outer: list[tuple[_Container, str]] = []  # what holds what is open, and its key there
        inner: _Container = []  # what is open
        key = ""  # of the next value, if that is an object
        deep_from = MAX_DEPTH  # levels that were open around what the C parser is not tried on
        self._next()
        while True:
            value = self._value(len(outer))
            is_complete = value is not _TOO_LARGE
            if not is_complete:
                if len(outer) == MAX_DEPTH:
                    raise ValueError("nested too deeply")
                if self._is_deep or len(outer) == _TRIED_DEPTH:
                    self._is_deep, deep_from = True, min(deep_from, len(outer))
                outer.append((inner, key))
                is_object = self._text[self._at] == "{"
                inner = {} if is_object else []
                self._at += 1
                if self._next() == ("}" if is_object else "]"):
                    self._at += 1
                    is_complete = True
                else:
                    key, is_complete = self._members(inner, len(outer))
                value = inner
            # A value that is complete may complete those around it.
            while is_complete:
                if value is inner:
                    inner, key = outer.pop()
                    if len(outer) == deep_from:
                        self._is_deep, deep_from = False, MAX_DEPTH
                mark = self._next()
                if not outer:
                    if mark:
                        raise self._error("Extra data")
                    return value
                self._put(inner, key, value)
                self._forget(inner, len(outer))
                if mark == ",":
                    self._at += 1
                    key, is_complete = self._members(inner, len(outer))
                elif mark == ("}" if isinstance(inner, dict) else "]"):
                    self._at += 1
                else:
                    raise self._error("Expecting ',' delimiter")
                value = inner

    def _members(self, holder: _Container, depth: int) -> tuple[str, bool]:
        """Go on to the next member that has to be read on its own.

        :returns: its key, if ``holder`` is an object; and whether ``holder`` ended instead.
        """
        key = ""
        while True:
            if self._in_a_row and not self._is_last and self._rest < self._window:
                self._more()
            self._next()
            text, start = self._text, self._at
            if isinstance(holder, dict):
                key = self._key()
            if not self._in_a_row or self._is_deep or text is not self._text:
                return key, False
            self._in_a_row = False
            cut = _last_comma(text, self._at)
            if cut <= self._at:
                return key, False
            brackets = "{}" if isinstance(holder, dict) else "[]"
            # Only a comma of the holder itself makes this valid JSON.
            row = brackets[0] + text[start:cut] + brackets[1]
            scanned = self._scan_nested(row, 0, MAX_DEPTH - depth + 1)
            if scanned is None:
                return key, False
            members, end = scanned
            if not members:  # a bracket straight after a comma
                raise self._error("Expecting value")
            if isinstance(holder, list):
                holder.extend(members)
            else:
                if self._note is not None:
                    for again in holder.keys() & members.keys():
                        self._note(_repeated(again))
                holder.update(members)
            self._forget(holder, depth)
            if end < len(row):  # at a bracket of the document
                self._at = start + end - 1
                return key, True
            self._at = cut + 1
            if not self._is_last:
                self._more()

    def _put(self, holder: _Container, key: str, value: Any) -> None:
        if isinstance(holder, list):
            holder.append(value)
            return
        if self._note is not None and key in holder:
            self._note(_repeated(key))
        holder[key] = value

    def _forget(self, holder: _Container, depth: int) -> None:
        if self._skeleton and (depth > _OUTLINE_DEPTH or isinstance(holder, list)):
            holder.clear()

    def _value(self, depth: int) -> Any:
        """Read a value whole, or return that it is too large or too deep for that."""
        first = self._text[self._at : self._at + 1]
        if first == '"':
            return self._string()
        if first not in ("[", "{"):
            return self._scalar()
        while not self._is_deep:
            scanned = self._scan_nested(self._text, self._at, MAX_DEPTH - depth)
            if scanned is not None:
                value, self._at = scanned
                return value
            if self._is_last or self._rest >= self._window:
                break
            self._more()
        return _TOO_LARGE

    def _key(self) -> str:
        if self._next() != '"':
            raise self._error("Expecting property name enclosed in double quotes")
        key = self._string()
        if self._next() != ":":
            raise self._error("Expecting ':' delimiter")
        self._at += 1
        self._next()
        return key

    def _string(self) -> str:
        try:
            value, self._at = _scan_string(self._text, self._at + 1)
        except json.JSONDecodeError:
            if self._is_last:
                raise
            return self._long_string()
        return value

    def _long_string(self) -> str:
        self._at += 1
        value = ""
        while True:
            end = len(self._text) if self._is_last else _end_of_whole_escapes(self._text, self._at)
            piece, stop = _scan_string(self._text[self._at : end] + '"', 0)
            if not (self._skeleton and value):
                # Python lengthens in place what nothing else refers to: neither are all the pieces
                # kept beside the whole, nor is all of it copied in one step.
                value += piece
            is_complete = stop <= end - self._at  # at a quote of the document
            self._at = self._at + stop if is_complete else end
            if is_complete:
                return value
            if self._is_last:
                raise self._error("Unterminated string")
            self._more()

    def _scalar(self) -> Any:
        while self._rest < _LONGEST_LITERAL and not self._is_last:
            self._more()
        if not self._is_last and _NUMBER_AT_END.match(self._text, self._at):
            return self._cut_number()
        scanned = self._scan(self._text, self._at)
        if scanned is None:
            raise self._error("Expecting value")
        value, self._at = scanned
        return value

    def _int(self, digits: str) -> int | str:
        try:
            return int(digits)
        except ValueError:
            self._noted.append(f"an integer of {len(digits)} digits became text")
            return digits

    def _scan_nested(self, text: str, at: int, levels: int) -> tuple[Any, int] | None:
        """Have the C parser read a list or an object, of so many levels at most."""
        scanned = self._scan(text, at)
        if scanned is not None:
            value, end = scanned
            refuse_too_deep(value, text.count("[", at, end) + text.count("{", at, end), levels)
        return scanned

    def _scan(self, text: str, at: int) -> tuple[Any, int] | None:
        """Have the C parser read a value, unless the text ends first or it is no JSON."""
        self._noted.clear()
        scanned: tuple[Any, int]
        try:
            try:
                scanned = self._scan_fast(text, at)
            except (json.JSONDecodeError, RecursionError):
                raise
            except ValueError:  # an integer of thousands of digits
                self._noted.clear()
                scanned = self._scan_any(text, at)
        except (json.JSONDecodeError, StopIteration):
            return None
        except RecursionError:
            self._is_deep = True
            return None
        if self._note is not None:
            for phrase in self._noted:
                self._note(phrase)
        return scanned

    def _next(self) -> str:
        """Skip blanks; return the next character, or none at the end."""
        while True:
            blanks = _BLANKS.match(self._text, self._at)
            self._at = blanks.end() if blanks else self._at
            if self._rest or self._is_last:
                return self._text[self._at : self._at + 1]
            self._more()

    @property
    def _rest(self) -> int:
        return len(self._text) - self._at

    def _more(self) -> None:
        """Move the window on."""
        end = self._offset + self._window
        self._is_last = end >= len(self._body)
        decoded = self._decoder.decode(self._body[self._offset : end], self._is_last)
        self._text = self._text[self._at :] + decoded
        self._offset, self._at = end, 0
        self._in_a_row = True

    def _error(self, message: str) -> json.JSONDecodeError:
        return json.JSONDecodeError(message, self._text, self._at)

    def _cut_number(self) -> Any:
        """Read a number that the window's end may have cut."""
        pieces = []
        while True:
            digits = _NUMBER.match(self._text, self._at)
            end = digits.end() if digits else self._at
            pieces.append(self._text[self._at : end])
            self._at = end
            if self._rest or self._is_last:
                break
            self._more()
        number = "".join(pieces)
        scanned = self._scan(number, 0)
        if scanned is None or scanned[1] < len(number):
            raise self._error("Expecting ',' delimiter")
        return scanned[0]


def _scanner(**hooks: Any) -> Callable[[str, int], tuple[Any, int]]:
    scanner: Callable[[str, int], tuple[Any, int]]
    scanner = json.JSONDecoder(**hooks).scan_once  # type: ignore[attr-defined]
    return scanner


def _last_comma(text: str, at: int) -> int:
    """Guess the last comma in ``text`` between elements like the one at ``at``; or be below it."""
    first = text[at : at + 1]
    if first == "{":
        head = _FIRST_KEY.match(text, at)
        if head is None:  # an empty object, most likely among others
            return text.rfind("},", at) + 1
        return text.rfind(",", at, text.rfind(head.group(), at))
    if first == "[":
        return text.rfind("],", at) + 1
    if first == '"':
        return text.rfind('",', at) + 1
    return text.rfind(",", at)


def _end_of_whole_escapes(text: str, at: int) -> int:
    """Return how far the part of a string that starts at ``at`` can be read on its own.

    That is to the end, or to before an escape that is cut there, be it as half of a pair.
    """
    end = len(text)
    last = text.rfind("\\", max(at, end - len("\\ud83")), end)
    if last >= 0 and _is_escape(text, at, last) and (last + 1 == end or text[last + 1] == "u"):
        end = last
    pair = end - len("\\ud83d")
    if pair >= at and _HIGH_SURROGATE.match(text, pair) and _is_escape(text, at, pair):
        end = pair
    return end


def _is_escape(text: str, at: int, backslash: int) -> bool:
    """Whether an escape begins with this backslash, and not the one before it."""
    before = text[at : backslash + 1]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1
