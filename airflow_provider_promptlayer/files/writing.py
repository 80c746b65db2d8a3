# SPDX-License-Identifier: Apache-2.0
"""Records as JSONL, CSV or Parquet, written a page at a time, so that memory stays flat."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any, BinaryIO, Final, Protocol

from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.records import FieldType, Record, RecordField
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.xcom.storable import storable

_ROW_GROUP_BYTES: Final = 4 * 1024 * 1024
"""When a row group of Parquet is written: readers like large ones, and memory is to stay flat."""

# What a JSON parser has returned holds no circles.
_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False).encode


class RecordWriter(Protocol):
    """Writes records to a file that is open."""

    def write(self, records: Iterable[Record]) -> None:
        """Write records."""

    def finish(self) -> None:
        """Write what is left; the file stays open."""


WriterType = Callable[[BinaryIO, Sequence[RecordField]], RecordWriter]


def check_ending(path: str) -> WriterType:
    """Return the writer that the ending of a file's name asks for, installed or not.

    :raises PromptLayerInvalidInputError: for another ending.
    """
    found = next((_WRITERS[ending] for ending in _WRITERS if path.lower().endswith(ending)), None)
    if found is None:
        known = ", ".join(_WRITERS)
        raise PromptLayerInvalidInputError(
            f"The ending of a file says its format: {known}. {one_line(path, 200)!r} has none of "
            "them."
        )
    return found


def writer_for(path: str) -> WriterType:
    """Return what makes a writer for a file, by the ending of its name.

    :raises PromptLayerInvalidInputError: for another ending; for Parquet without pyarrow.
    """
    found = check_ending(path)
    if found is ParquetWriter:
        try:
            import_module("pyarrow.parquet")
        except ImportError:
            raise PromptLayerInvalidInputError(
                f"{one_line(path, 200)!r} needs pyarrow, which is not installed here."
            ) from None
    return found


def json_line(value: Any) -> str:
    """Return a value as JSON that every reader takes, in one line.

    What no JSON has, such as NaN, and what is nested too deep become text.
    """
    try:
        return _encode(value)
    except (ValueError, RecursionError):
        return _encode(storable(value).value)


class JsonLinesWriter:
    """An object in each line. The values keep their JSON types."""

    def __init__(self, file: BinaryIO, fields: Sequence[RecordField]) -> None:
        self._file = file
        self._names = [field.name for field in fields]

    def write(self, records: Iterable[Record]) -> None:
        """Write records."""
        lines = (json_line(dict(zip(self._names, record, strict=True))) for record in records)
        self._file.write(_encoded("".join(f"{line}\n" for line in lines)))

    def finish(self) -> None:
        """Nothing is left."""


class CsvWriter:
    """RFC 4180 in UTF-8, with a header. What is no text is JSON, and None is empty."""

    def __init__(self, file: BinaryIO, fields: Sequence[RecordField]) -> None:
        self._file = file
        self._write([field.name for field in fields])

    def write(self, records: Iterable[Record]) -> None:
        """Write records."""
        self._write(*(map(_text, record) for record in records))

    def finish(self) -> None:
        """Nothing is left."""

    def _write(self, *rows: Iterable[str | None]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        self._file.write(_encoded(text.getvalue()))


class ParquetWriter:
    """A table whose schema depends on the types of the fields alone: any JSON value is text."""

    def __init__(self, file: BinaryIO, fields: Sequence[RecordField]) -> None:
        pyarrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
        types = {
            FieldType.INTEGER: pyarrow.int64(),
            FieldType.NUMBER: pyarrow.float64(),
            FieldType.INTEGERS: pyarrow.list_(pyarrow.int64()),
        }
        self._is_text = [field.type not in types for field in fields]
        self._schema = pyarrow.schema(
            (_clean(field.name), types.get(field.type, pyarrow.string())) for field in fields
        )
        self._writer = parquet.ParquetWriter(file, self._schema)
        self._pyarrow = pyarrow
        self._batches: list[Any] = []
        self._bytes = 0

    def write(self, records: Iterable[Record]) -> None:
        """Keep records until there are enough for a row group."""
        columns = list(zip(*records, strict=True))
        if not columns:
            return
        arrays = [
            self._pyarrow.array(map(_clean_text, values) if is_text else values, type=kind)
            for values, is_text, kind in zip(
                columns, self._is_text, self._schema.types, strict=True
            )
        ]
        batch = self._pyarrow.record_batch(arrays, schema=self._schema)
        self._batches.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def finish(self) -> None:
        """Write the last row group, and the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._batches:
            self._writer.write_table(self._pyarrow.Table.from_batches(self._batches))
            self._batches, self._bytes = [], 0


def _clean_text(value: Any) -> str | None:
    text = _text(value)
    return text if text is None else _clean(text)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json_line(value)


def _encoded(text: str) -> bytes:
    """Return text in UTF-8; a lone surrogate, which has none, as its escape in JSON."""
    return text.encode("utf-8", "backslashreplace")


def _clean(text: str) -> str:
    return text if text.isascii() else _encoded(text).decode()


_WRITERS: Final[dict[str, WriterType]] = {
    ".jsonl": JsonLinesWriter,
    ".csv": CsvWriter,
    ".parquet": ParquetWriter,
}
