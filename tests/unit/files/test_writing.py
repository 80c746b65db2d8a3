# SPDX-License-Identifier: Apache-2.0
"""Records in each format of file, read back by libraries that know nothing of this provider."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import pytest

from airflow_provider_promptlayer.api.records import FieldType, RecordField
from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError
from airflow_provider_promptlayer.files import writing

FIELDS = [
    RecordField("row_index", FieldType.INTEGER),
    RecordField('Ünïted, "A"\r\n', FieldType.ANY),
    RecordField("price", FieldType.NUMBER),
    RecordField("ids", FieldType.INTEGERS),
    RecordField("reasons", FieldType.OBJECT),
]
VALUES = [
    None,
    "",
    "plain",
    '"quoted", and; with\nline\r\nbreaks\rof all kinds\u2028',
    "=cmd|' /C calc'!A0",
    "NUL \0, BOM \ufeff, emoji 🙂",
    True,
    7,
    1.5,
    [1, {"a": None}],
    {"ключ": "значение"},
]
ODD = [("half \ud83d", "half \ud83d"), (math.nan, "NaN"), ([math.inf], ["Infinity"])]


def written(ending: str, records: list[list[Any]], fields: list[RecordField] = FIELDS) -> bytes:
    file = io.BytesIO()
    writer = writing.writer_for(f"folder.x/file{ending}")(file, fields)
    for record in records:
        writer.write([tuple(record)])
    writer.write([])
    writer.finish()
    return file.getvalue()


def record(number: int, value: Any) -> list[Any]:
    return [number, value, 0.25, (1, 2), {"Polite": "Rude."}]


RECORDS = [record(number, value) for number, value in enumerate(VALUES)]


def test_json_lines() -> None:
    lines = written(".jsonl", RECORDS).decode().split("\n")
    assert lines.pop() == ""
    names = [field.name for field in FIELDS]
    assert [json.loads(line) for line in lines] == [
        dict(zip(names, values, strict=True)) | {"ids": [1, 2]} for values in RECORDS
    ]
    assert "значение" in lines[-1]
    for value, expected in ODD:
        line = json.loads(written(".JSONL", [[value]], FIELDS[1:2]), parse_constant=pytest.fail)
        assert line == {FIELDS[1].name: expected}


def test_what_is_nested_deep_is_written_too() -> None:
    deep: Any = "bottom"
    for _ in range(5_000):
        deep = [deep]
    line = json.loads(written(".jsonl", [[deep]], FIELDS[1:2]))
    assert "bottom" in json.dumps(line)


def test_csv() -> None:
    text = written(".csv", RECORDS).decode()
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert rows[0] == [field.name for field in FIELDS]
    assert rows[1:] == [
        [
            str(number),
            value
            if isinstance(value, str)
            else ""
            if value is None
            else json.dumps(value, ensure_ascii=False),
            "0.25",
            "[1, 2]",
            '{"Polite": "Rude."}',
        ]
        for number, value in enumerate(VALUES)
    ]
    assert written(".csv", [["half \ud83d"]], FIELDS[1:2]).endswith(b"half \\ud83d\r\n")


def test_a_file_without_rows_has_its_header() -> None:
    assert written(".csv", [], FIELDS[2:4]) == b"price,ids\r\n"
    assert written(".jsonl", []) == b""


def test_parquet(monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(writing, "_ROW_GROUP_BYTES", 500)
    file = parquet.ParquetFile(io.BytesIO(written(".parquet", RECORDS)))
    assert 1 < file.metadata.num_row_groups < len(RECORDS)
    table = file.read()
    assert [str(kind) for kind in table.schema.types] == [
        "int64",
        "string",
        "double",
        "list<element: int64>",
        "string",
    ]
    columns = table.to_pydict()
    assert columns["row_index"] == list(range(len(VALUES)))
    assert columns[FIELDS[1].name] == [
        value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for value in VALUES
    ]
    assert columns["ids"] == [[1, 2]] * len(VALUES)
    odd = [[value] for value, _ in ODD]
    assert parquet.read_table(io.BytesIO(written(".parquet", odd, FIELDS[1:2])))[0].to_pylist() == [
        "half \\ud83d",
        '"NaN"',
        '["Infinity"]',
    ]
    empty = parquet.read_table(io.BytesIO(written(".parquet", [])))
    assert (empty.num_rows, empty.num_columns) == (0, len(FIELDS))


@pytest.mark.parametrize("path", ["x", "x.json", ".jsonl/x", "x.csv.gz", "x.csv/"])
def test_the_ending_says_the_format(path: str) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match=r"\.jsonl, \.csv, \.parquet"):
        writing.writer_for(path)


def test_parquet_needs_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(PromptLayerInvalidInputError, match="needs pyarrow"):
        writing.writer_for("x.parquet")
