# SPDX-License-Identifier: Apache-2.0
"""The keys of a definition file: a misspelled one is an error and not a default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Types: TypeAlias = type | tuple[type, ...]
TEXT_OR_NULL = (str, type(None))


def check_keys(item: Any, keys: Mapping[str, Types], required: tuple[str, ...], where: str) -> None:
    """Refuse an object of a file with a key too many or too few, or of another type.

    Raises:
        ValueError: with one line that names it.

    """
    if not isinstance(item, dict):
        raise ValueError(f"{where}: should be a table of keys, not {item!r}")
    for name in required:
        if name not in item:
            raise ValueError(f"{where}: {name!r} is missing")
    for name, value in item.items():
        if name not in keys:
            raise ValueError(f"{where}: unknown key {name!r}; known are {', '.join(keys)}")
        types = keys[name]
        # To Python true is an integer; in a file it is a mistake.
        is_stray_boolean = (
            isinstance(value, bool) and types is not object and not _takes_bool(types)
        )
        if is_stray_boolean or not isinstance(value, types):
            raise ValueError(f"{where}: {name!r} cannot be {value!r}")


def _takes_bool(types: Types) -> bool:
    return bool in (types if isinstance(types, tuple) else (types,))


def check_texts(items: list[Any], where: str) -> None:
    """Refuse a list of a file that has something but text.

    Raises:
        ValueError: with one line that names it.

    """
    for item in items:
        if not isinstance(item, str):
            raise ValueError(f"{where}: should be text, not {item!r}")
