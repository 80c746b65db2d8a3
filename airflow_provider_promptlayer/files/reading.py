# SPDX-License-Identifier: Apache-2.0
"""Rows from a file or a list, as a CSV file on disk that PromptLayer imports as it is.

All that PromptLayer would find wrong with the file minutes later is refused here, before anything
is sent: headers that are missing, empty, doubled or too long, too many columns, rows with another
number of fields, and too many bytes. Memory stays flat, except for JSON, which is read whole.
"""

from __future__ import annotations

import codecs
import csv
import datetime
import hashlib
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Final

from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.text import one_line, quoted

MAX_BYTES: Final = 100_000_000
MAX_COLUMNS: Final = 999
MAX_TITLE: Final = 255
"""What PromptLayer takes of one import."""

_CHUNK: Final = 256 * 1024
_PARQUET_ROWS: Final = 1_000
"""Rows of Parquet that are held at once."""

_DELIMITERS: Final = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}

Rows = Iterable[Mapping[str, Any]]


class NothingToImportError(PromptLayerInvalidInputError):
    """A file or a list has no rows."""


@dataclass(frozen=True)
class CsvFile:
    """A file that has been checked: UTF-8 with a line of titles, and all rows as wide as that.

    :param file: open for reading; gone once the block of :func:`csv_of_file` is left.
    :param digest: the same for the same bytes.
    :param row_count: without the titles.
    """

    file: BinaryIO
    digest: str
    row_count: int


def check_delimiter(delimiter: str) -> None:
    """Raise unless ``delimiter`` can separate the fields of CSV.

    :raises PromptLayerInvalidInputError: saying what can.
    """
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise PromptLayerInvalidInputError(
            f"delimiter must be one character that separates fields, not {delimiter!r}."
        )


@contextmanager
def csv_of_file(source: BinaryIO, name: str, *, delimiter: str = ",") -> Iterator[CsvFile]:
    """Read rows from CSV, JSON, JSONL or Parquet, by the ending of a file's name.

    JSON is a list of objects, JSONL an object in each line.

    :param source: read once, from where it is.
    :param name: what messages call the file.
    :param delimiter: what separates the fields of CSV.
    :raises PromptLayerInvalidInputError: naming the file and the line, if it cannot be imported.
    """
    check_delimiter(delimiter)
    ending = PurePosixPath(name).suffix.lower()
    if ending not in (".csv", *_READERS):
        raise PromptLayerInvalidInputError(
            f"The ending of a file says its format: .csv, {', '.join(_READERS)}. "
            f"{one_line(name, 200)!r} has none of them."
        )
    with tempfile.TemporaryFile() as copy:
        if ending != ".csv":
            for chunk in iter(lambda: source.read(_CHUNK), b""):
                copy.write(chunk)
            read = _READERS[ending]
            with _csv_of(lambda: read(copy, _File(name)), _File(name)) as made:
                yield made
            return
        _copy_text(source, copy, _File(name))
        row_count = _check(copy, _File(name), delimiter)
        if delimiter == ",":
            yield _checked(copy, row_count, _File(name))
            return
        with tempfile.TemporaryFile() as converted:
            with _text(copy) as read_from, _text(converted) as write_to:
                rows = csv.reader(read_from, delimiter=delimiter, strict=True)
                csv.writer(write_to).writerows(row for row in rows if row)
            yield _checked(converted, row_count, _File(name))


@contextmanager
def csv_of_rows(rows: Sequence[Any], columns: Sequence[str] | None = None) -> Iterator[CsvFile]:
    """Read rows from a list.

    :param rows: mappings from title to value; or, with ``columns``, lists of values.
    :param columns: the titles, for rows without.
    :raises PromptLayerInvalidInputError: naming the row, if one cannot be imported.
    """
    about = _File("rows")
    if rows and columns is not None:
        _check_titles(columns, about)  # a mapping would have only one of two of one title

    def mappings() -> Iterator[Mapping[str, Any]]:
        for number, row in enumerate(rows):
            where = f"rows[{number}]"
            if columns is None:
                if not isinstance(row, Mapping):
                    raise PromptLayerInvalidInputError(
                        f"{where} must be a mapping from title to value, not "
                        f"{type(row).__name__}; give columns for rows without titles."
                    )
                yield row
            elif (
                not isinstance(row, Sequence)
                or isinstance(row, str | bytes)
                or len(row) != len(columns)
            ):
                raise PromptLayerInvalidInputError(
                    f"{where} must be a list of {len(columns)} values, one for each of columns."
                )
            else:
                yield dict(zip(columns, row, strict=True))

    with _csv_of(mappings, about) as made:
        yield made


@dataclass(frozen=True)
class _File:
    """Makes the errors about a file."""

    name: str

    def error(self, problem: str, line: int | None = None) -> PromptLayerInvalidInputError:
        where = one_line(self.name, 200) + ("" if line is None else f", line {line}")
        return PromptLayerInvalidInputError(f"{where}: {problem}.")

    def is_empty(self) -> NothingToImportError:
        return NothingToImportError(f"{one_line(self.name, 200)}: there are no rows to import.")


@contextmanager
def _csv_of(read: Callable[[], Rows], about: _File) -> Iterator[CsvFile]:
    """Write rows as CSV, with a column for each title that any of them has.

    :param read: is called twice, as the titles come before the rows.
    """
    titles = list(dict.fromkeys(title for row in read() for title in row))
    if not titles:
        raise about.is_empty()
    _check_titles(titles, about)
    row_count = 0
    with tempfile.TemporaryFile() as made:
        with _text(made) as file:
            writer = csv.writer(file)
            writer.writerow(titles)
            for row_count, row in enumerate(read(), 1):
                try:
                    writer.writerow([_cell(row.get(title)) for title in titles])
                except (ValueError, TypeError, RecursionError) as error:
                    raise about.error(f"row {row_count} cannot be imported: {error}") from None
                if made.tell() > MAX_BYTES:  # before the disk is full
                    raise _too_large(about)
        yield _checked(made, row_count, about)


def _checked(file: BinaryIO, row_count: int, about: _File) -> CsvFile:
    size = file.seek(0, io.SEEK_END)
    if size > MAX_BYTES:
        raise _too_large(about)
    if not row_count:
        raise about.is_empty()
    file.seek(0)
    digest = hashlib.sha256()
    for chunk in iter(lambda: file.read(_CHUNK), b""):
        digest.update(chunk)
    return CsvFile(file, digest.hexdigest(), row_count)


def _too_large(about: _File) -> PromptLayerInvalidInputError:
    return about.error(
        f"it is larger than {MAX_BYTES // 1_000_000} MB as CSV, the most that PromptLayer takes: "
        "split it"
    )


def _copy_text(source: BinaryIO, copy: BinaryIO, about: _File) -> None:
    """Copy a text without its byte order mark; refuse what is no text, and what is too large."""
    for number, read in enumerate(iter(lambda: source.read(_CHUNK), b"")):
        chunk = read
        if number == 0:
            if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise about.error("it is UTF-16: save it as UTF-8")
            chunk = chunk.removeprefix(codecs.BOM_UTF8)
        before, nul, _ = chunk.partition(b"\0")
        if nul:
            copy.write(before)
            raise about.error(
                "it has a NUL byte: it is no CSV, or is not UTF-8", 1 + _line_ends(copy)
            )
        if copy.tell() + len(chunk) > MAX_BYTES:
            raise _too_large(about)
        copy.write(chunk)


def _line_ends(file: BinaryIO) -> int:
    file.seek(0)
    return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_CHUNK), b""))


def _check(file: BinaryIO, about: _File, delimiter: str) -> int:
    """Read CSV through once; return how many rows it has besides the titles."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_BYTES))
    row_count = 0
    regular = _regular_rows(file, delimiter)
    file.seek(0)
    is_quoted = file.read(1) == b'"'
    try:
        with _text(file) as text:
            reader = csv.reader(text, delimiter=delimiter, strict=True)
            titles = next(reader, [])
            if len(titles) == 1 and not is_quoted:
                _check_delimiter(titles[0], about)
            _check_titles(titles, about)
            if regular is not None:
                return regular - 1
            width = len(titles)
            for row in reader:
                if len(row) == width:
                    row_count += 1
                elif row:  # PromptLayer skips empty lines
                    raise about.error(
                        f"{len(row)} fields, but there are {width} titles", reader.line_num
                    )
    except csv.Error as error:
        raise about.error(f"it is no CSV ({error})", reader.line_num) from None
    except UnicodeDecodeError:
        raise about.error("it is not UTF-8", _first_line_not_utf8(file)) from None
    return row_count


def _regular_rows(file: BinaryIO, delimiter: str) -> int | None:
    """Return how many rows CSV has, the titles among them, if all are regular; else None.

    Regular rows have as many fields as the first one, no quote inside of a field without quotes,
    and the same end of line; there is no empty line among them. To find that out takes a fraction
    of the time of ``csv.reader``, which then has to read only a file that is not regular.

    :param file: without a NUL byte, which stands for a quoted field here.
    """
    if not delimiter.isascii():
        return None
    separator = delimiter.encode()
    quoted_field = re.compile(
        rb'"(?<=[%b\n]")[^"]*+(?:""[^"]*+)*+"(?![^%b\r\n])' % ((re.escape(separator),) * 2)
    )
    no_separators = bytes(set(range(256)) - {*separator, *b"\r\n"})
    file.seek(0)
    line_end = b"\r\n" if file.readline().endswith(b"\r\n") else b"\n"
    count, width = 0, None
    for block in _blocks(file):
        rows = line_end + block.rstrip(b"\r\n")
        without_quoted = quoted_field.sub(b"\0", rows)
        separators = without_quoted.translate(None, no_separators)
        new = separators.count(b"\n")
        if width is None:
            width = separators.count(separator) // new
        if (
            separators != (line_end + separator * width) * new
            or b'"' in without_quoted
            or (width == 0 and line_end * 2 in without_quoted + line_end)  # an empty line
            or not _is_utf8(block)
        ):
            return None
        count += new
    return count


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of CSV in blocks of whole lines, none of which ends inside of quotes."""
    file.seek(0)
    while chunk := file.read(_CHUNK):
        lines = [chunk]
        quotes = chunk.count(b'"')
        while (not lines[-1].endswith(b"\n") or quotes % 2) and (line := file.readline()):
            lines.append(line)
            quotes += line.count(b'"')
        yield b"".join(lines)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _first_line_not_utf8(file: BinaryIO) -> int | None:
    file.seek(0)
    for number, line in enumerate(file, 1):
        try:
            line.decode()
        except UnicodeDecodeError:
            return number
    return None


def _check_delimiter(only_title: str, about: _File) -> None:
    for delimiter, its_name in _DELIMITERS.items():
        if delimiter in only_title:
            raise about.error(
                f"its fields seem to be separated by {its_name}: give delimiter={delimiter!r}, or "
                "put a title that has one in quotes",
                1,
            )


def _check_titles(titles: Sequence[Any], about: _File) -> None:
    if not titles:
        raise about.error("it has no titles in its first line")
    if len(titles) > MAX_COLUMNS:
        raise about.error(f"{len(titles)} columns, but PromptLayer takes {MAX_COLUMNS}")
    seen = set[str]()
    for number, title in enumerate(titles, 1):
        if not isinstance(title, str) or not title.strip():
            raise about.error(f"the title of column {number} is empty or no text")
        try:
            _cell(title).encode()
        except ValueError as error:
            raise about.error(f"the title of column {number} is no text: {error}") from None
        if title in seen:
            raise about.error(f"two columns are titled {quoted(title)}")
        if len(title) > MAX_TITLE:
            raise about.error(
                f"the title of column {number} has {len(title)} characters, but PromptLayer takes "
                f"{MAX_TITLE}"
            )
        seen.add(title)


def _cell(value: Any) -> str:
    """Return a value as the text of a cell.

    :raises ValueError: if it cannot be one; or TypeError, or RecursionError.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        text = value
    elif isinstance(value, datetime.date | datetime.time):  # and datetime
        text = value.isoformat()
    elif isinstance(value, bool | Mapping | list | tuple | set | frozenset):
        text = json.dumps(value, ensure_ascii=False, default=_in_json)
    elif isinstance(value, bytes | bytearray | memoryview):
        raise ValueError("bytes are no text")
    else:
        text = str(value)
    if "\0" in text:
        raise ValueError("a cell has a NUL character")
    return text


def _in_json(value: Any) -> Any:
    """Return, as JSON has it, a part of a cell that JSON does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)  # in the same order in every process, as is the digest
    return _cell(value)


def _read_json(file: BinaryIO, about: _File) -> Rows:
    file.seek(0)
    try:
        rows = json.load(file)
    except (ValueError, RecursionError) as error:
        raise about.error(f"it is no JSON ({one_line(str(error), 200)})") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise about.error("it must be a list of objects")
    return rows


def _read_jsonl(file: BinaryIO, about: _File) -> Rows:
    file.seek(0)
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line)
        except (ValueError, RecursionError) as error:
            raise about.error(f"it is no JSON ({one_line(str(error), 200)})", number) from None
        if not isinstance(row, dict):
            raise about.error("it must be an object", number)
        yield row


def _read_parquet(file: BinaryIO, about: _File) -> Rows:
    try:
        parquet, arrow = import_module("pyarrow.parquet"), import_module("pyarrow")
    except ImportError:
        raise about.error("Parquet needs pyarrow, which is not installed here") from None
    file.seek(0)
    try:
        source = parquet.ParquetFile(file)
        _check_titles(source.schema_arrow.names, about)  # a row has only one of two of one title
        for batch in source.iter_batches(batch_size=_PARQUET_ROWS):
            yield from batch.to_pylist()
    except arrow.ArrowException as error:
        raise about.error(f"it is no Parquet ({one_line(str(error), 200)})") from None


_READERS: Final[Mapping[str, Callable[[BinaryIO, _File], Rows]]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
}


@contextmanager
def _text(file: BinaryIO) -> Iterator[io.TextIOWrapper]:
    """Read or write a file as text, from its beginning; it stays open."""
    file.seek(0)
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    try:
        yield text
    finally:
        text.detach()
