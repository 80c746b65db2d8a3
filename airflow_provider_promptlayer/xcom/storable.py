# SPDX-License-Identifier: Apache-2.0
"""Values as language models write them, changed so that every Airflow stores and returns them.

Airflow fails to store each of these values, or returns another one; found by running 2.11.2 and
3.3.2 on SQLite and PostgreSQL:

=====================================  ==========================================================
what                                   becomes
=====================================  ==========================================================
NUL and lone surrogates in text        U+FFFD, the replacement character. PostgreSQL's JSONB
                                       refuses NUL, and no lone surrogate can be written as UTF-8.
NaN, ±Infinity                         the text ``NaN``, ``Infinity``, ``-Infinity``. JSON has
                                       none of them.
integers beyond 64 bits (signed)       the text of their digits. msgpack refuses them from 65 bits
                                       on, and SQLite rounds one of 64 that is the whole value.
floats of 2⁶³ or more                  their text, ``1e+20``. JSONB returns them as integers.
parts deeper than :data:`MAX_DEPTH`    their JSON text, for ``json.loads``. Airflow 3 stores 255
                                       levels and reads 199, Airflow 2.11 some 400.
keys that Airflow's deserializer acts  the key in parentheses: ``(__classname__)``. Airflow refuses
on (``__classname__``, ``__id__``,     to store some of them and takes others for an object to be
``__type`` next to ``__var``)          restored, or fails to.
keys that became equal to another      ``key (2)``, so that none is lost.
=====================================  ==========================================================

Two values are left as they are although SQLite returns another type: a whole output that is
``1.0`` as ``1``, and ``-0.0`` as ``0``.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

MAX_DEPTH: Final = 100
"""Levels of lists and objects that a value keeps; see the module for what Airflow takes."""

_MIN_INT: Final = -(2**63)
_MAX_INT: Final = 2**63 - 1
_RESERVED: Final = frozenset({"__classname__", "__id__"})
"""``CLASSNAME`` and ``SCHEMA_ID`` of Airflow's serde: it refuses to store them."""

_WRAPPER: Final = ("__type", "__var")
"""``OLD_TYPE`` and ``OLD_DATA`` of Airflow's serde: together they are taken for an object."""

_TEXTS: Final = "NUL or half characters in text became U+FFFD"
_NUMBERS: Final = "numbers that are not finite or beyond 64 bits became text"
_DEEP: Final = f"parts nested deeper than {MAX_DEPTH} levels became their JSON text"
_KEYS: Final = "keys were renamed"
_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Stored:
    """A value that can be stored.

    :param value: the very object that was given, where nothing had to change.
    :param changes: what was changed, one phrase for each kind.
    :param size: about the bytes that it takes as JSON.
    """

    value: Any
    changes: tuple[str, ...]
    size: int


def storable(value: Any) -> Stored:
    """Return ``value``, or a changed copy that shares what did not change.

    Linear in the size of the value.

    :param value: what a JSON parser returns. Tuples are taken as lists.
    :raises TypeError: for a type that JSON does not have.
    """
    walk = _Walk()
    stored = walk.visit(value, MAX_DEPTH)
    changes = tuple(f"{count} × {what}" for what, count in walk.changes.items())
    return Stored(stored, changes, walk.size)


def storable_text(text: str) -> str:
    """Return ``text`` without NUL and lone surrogates; two halves of a pair are joined."""
    if text.isascii():  # known without reading the text
        return text.replace("\0", "\ufffd") if "\0" in text else text
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "\ufffd")


def safe_keys(names: Collection[str]) -> dict[str, str]:
    """Return those of ``names`` that cannot be keys of one object → the key for each in its place.

    :param names: all keys of the object, each once.
    """
    changed = {}
    is_wrapper = all(name in names for name in _WRAPPER)
    for name in names:
        new = storable_text(name)
        if new in _RESERVED or (new in _WRAPPER and is_wrapper):
            new = f"({new})"
        if new != name:
            changed[name] = new
    if changed:
        taken = {name for name in names if name not in changed}
        tries: Counter[str] = Counter()
        for name, new in changed.items():
            unique = new
            while unique in taken:
                tries[new] += 1
                unique = f"{new} ({tries[new] + 1})"
            taken.add(unique)
            changed[name] = unique
    return changed


def json_text(value: Any) -> str:
    """Return ``value`` as ASCII JSON, however deep it is nested.

    Python's own writer is recursive; what is too deep for it is written without recursion.

    :param value: what a JSON parser returns.
    """
    try:
        return json.dumps(value)
    except RecursionError:
        return "".join(_written(value))


class _Walk:
    """One pass over a value."""

    def __init__(self) -> None:
        self.changes: Counter[str] = Counter()
        self.size = 0

    def visit(self, value: Any, room: int) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, (dict, list, tuple)):
            if room == 0:
                self.changes[_DEEP] += 1
                text = json_text(value)
                self.size += len(text) + 2
                return text
            if isinstance(value, dict):
                return self._object(value, room - 1)
            return self._items(value, room - 1)
        if value is None or isinstance(value, bool):
            self.size += 4
            return value
        if isinstance(value, (int, float)):
            return self._number(value)
        raise TypeError(f"JSON has no {type(value).__name__}")

    def _text(self, text: str) -> str:
        stored = storable_text(text)
        if stored != text:
            self.changes[_TEXTS] += 1
            text = stored
        self.size += len(text) + 2 if text.isascii() else len(text.encode()) + 2
        return text

    def _number(self, number: int | float) -> int | float | str:
        if isinstance(number, float):
            fits = math.isfinite(number) and abs(number) <= _MAX_INT
        else:
            fits = _MIN_INT <= number <= _MAX_INT
        if fits:
            self.size += 8
            return number
        self.changes[_NUMBERS] += 1
        written = json.dumps(number)  # knows NaN and Infinity
        self.size += len(written) + 2
        return written

    def _items(self, items: list[Any] | tuple[Any, ...], room: int) -> list[Any]:
        stored = items if isinstance(items, list) else list(items)
        self.size += 2 + 2 * len(items)
        for index, item in enumerate(items):
            new = self.visit(item, room)
            if new is not item:
                if stored is items:
                    stored = list(items)
                stored[index] = new
        return stored

    def _object(self, items: dict[str, Any], room: int) -> dict[str, Any]:
        self.size += 2 + 6 * len(items) + sum(map(len, items))
        names = safe_keys(items.keys()) if _may_rename(items) else {}
        changed = {}
        for key, item in items.items():
            new = self.visit(item, room)
            if new is not item:
                changed[key] = new
        if not names and not changed:
            return items
        if names:
            self.changes[_KEYS] += len(names)
        return {names.get(key, key): changed.get(key, item) for key, item in items.items()}


def _may_rename(items: dict[str, Any]) -> bool:
    """Return whether a key may have to change: a quick test, which nearly always says no."""
    return any(not key.isascii() or "\0" in key or key.startswith("__") for key in items)


def _written(value: Any) -> Iterator[str]:
    open_ones: list[tuple[Iterator[Any], bool]] = []
    while True:
        if isinstance(value, (dict, list, tuple)) and value:
            is_object = isinstance(value, dict)
            open_ones.append((iter(value.items() if isinstance(value, dict) else value), is_object))
            yield "{" if is_object else "["
            separator = ""
        else:
            yield json.dumps(value)
            separator = ", "
        while open_ones:
            items, is_object = open_ones[-1]
            value = next(items, _MISSING)
            if value is not _MISSING:
                yield separator
                if is_object:
                    key, value = value
                    yield f"{json.dumps(key)}: "
                break
            yield "}" if is_object else "]"
            open_ones.pop()
            separator = ", "
        else:
            return
