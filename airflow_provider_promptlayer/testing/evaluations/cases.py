# SPDX-License-Identifier: Apache-2.0
"""What an import reads: the cases of a file, and PromptLayer's rules for such a file.

The rules are those of the import in PromptLayer's dashboard (changelog of July 2026).
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from ..json_text import JsonValue

_MOST_COLUMNS = 999
_LONGEST_TITLE = 255


class Cases(NamedTuple):
    """Titles of columns, and the values of each row in their order."""

    titles: Sequence[str]
    rows: Sequence[Sequence[JsonValue]]


ReadCases: TypeAlias = Callable[[], Cases]
"""Raises ``RejectedImportError`` for cases that cannot be imported."""


class RejectedImportError(ValueError):
    """An import fails; the text is its ``error_message``."""


def read_csv(content: bytes) -> Cases:
    """Read a CSV file, whose first line has the titles; empty lines are skipped."""
    # A BOM is kept: it becomes a part of the first title.
    reader = csv.reader(io.StringIO(_text(content), newline=""), strict=True)
    rows: list[list[str]] = []
    try:
        titles = next(reader, [])
        check_titles(titles)
        for row in filter(None, reader):
            if len(row) != len(titles):
                raise RejectedImportError(
                    f"Line {reader.line_num} has {len(row)} fields, expected {len(titles)}"
                )
            rows.append(row)
    except csv.Error as error:
        raise RejectedImportError(f"Invalid CSV in line {reader.line_num}: {error}") from None
    return Cases(titles, rows)


def read_json(content: bytes) -> Cases:
    """Read a JSON array of objects; a value that an object lacks is an empty text."""
    try:
        records = json.loads(_text(content))
    except (ValueError, RecursionError):
        raise RejectedImportError("The file is not valid JSON") from None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise RejectedImportError("The file is not a JSON array of objects")
    titles = list(dict.fromkeys(title for record in records for title in record))
    check_titles(titles)
    return Cases(titles, [[record.get(title, "") for title in titles] for record in records])


def check_titles(titles: Sequence[str]) -> None:
    """Refuse titles that a sheet cannot have."""
    if not titles:
        raise RejectedImportError("The file has no header")
    if len(titles) > _MOST_COLUMNS:
        raise RejectedImportError(f"{len(titles)} columns, at most {_MOST_COLUMNS} are allowed")
    for number, (title, times) in enumerate(Counter(titles).items(), 1):
        if not title.strip():
            raise RejectedImportError(f"Column {number} has an empty header")
        if times > 1:
            raise RejectedImportError(f"The header {title!r} appears {times} times")
        if len(title) > _LONGEST_TITLE:
            raise RejectedImportError(f"The header of column {number} has {len(title)} characters")


def _text(content: bytes) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise RejectedImportError("The file is not valid UTF-8") from None
    if "\0" in text:
        raise RejectedImportError("The file has a NUL character")
    return text
