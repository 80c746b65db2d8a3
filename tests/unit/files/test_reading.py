# SPDX-License-Identifier: Apache-2.0
"""Every format becomes the same CSV, and what PromptLayer would refuse is refused in one line."""

from __future__ import annotations

import csv
import datetime
import io
import json
import random
import re
import sys
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest

from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError
from airflow_provider_promptlayer.files import reading
from airflow_provider_promptlayer.files.reading import csv_of_file, csv_of_rows


def read(content: bytes | str, name: str = "cases.csv", **how: Any) -> list[list[str]]:
    """Return the rows, the titles among them, of the CSV that a file becomes."""
    source = io.BytesIO(content if isinstance(content, bytes) else content.encode())
    with csv_of_file(source, name, **how) as made:
        made.file.seek(0)
        rows = list(csv.reader(io.StringIO(made.file.read().decode(), newline="")))
        assert made.row_count == len([row for row in rows if row]) - 1
    return rows


def rows_of(rows: Any, columns: Any = None) -> list[list[str]]:
    with csv_of_rows(rows, columns) as made:
        made.file.seek(0)
        return list(csv.reader(io.StringIO(made.file.read().decode(), newline="")))


def refused(content: bytes | str, name: str = "cases.csv", **how: Any) -> str:
    with pytest.raises(PromptLayerInvalidInputError) as error:
        read(content, name, **how)
    message = str(error.value)
    assert "\n" not in message
    return message


DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]

ROWS = [{"Question": "Who?", "Topic": 'say "hi",\nthen go'}, {"Question": "=cmd()"}]
AWKWARD = 'say "hi",\nthen go'


class TestFormats:
    EXPECTED = (["Question", "Topic"], ["Who?", AWKWARD], ["=cmd()", ""])

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.csv", 'Question,Topic\nWho?,"say ""hi"",\nthen go"\n=cmd(),\n'),
            ("a.CSV", '\ufeffQuestion,Topic\r\nWho?,"say ""hi"",\nthen go"\r\n=cmd(),\r\n'),
            (
                "a.json",
                json.dumps(ROWS),
            ),
            ("a.jsonl", "\n\n".join(map(json.dumps, ROWS))),
        ],
        ids=["csv", "csv with a byte order mark", "json", "jsonl"],
    )
    def test_become_the_same_rows(self, name: str, content: str) -> None:
        assert read(content, name) == list(self.EXPECTED)

    def test_parquet(self) -> None:
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        table = arrow.table({"Question": ["Who?", "=cmd()"], "Topic": [AWKWARD, None]})
        parquet.write_table(table, file := io.BytesIO())
        assert read(file.getvalue(), "a.parquet") == list(self.EXPECTED)
        assert refused(b"PAR1", "a.parquet").startswith("a.parquet: it is no Parquet")
        doubled = arrow.table([arrow.array(["Who?"])] * 2, names=["A", "A"])
        parquet.write_table(doubled, file := io.BytesIO())
        assert refused(file.getvalue(), "a.parquet") == "a.parquet: two columns are titled 'A'."

    def test_parquet_without_pyarrow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        assert refused(b"PAR1", "a.parquet").endswith("which is not installed here.")

    def test_csv_goes_out_as_it_is(self) -> None:
        content = b'A,B\n"1",2\n\n'
        with csv_of_file(io.BytesIO(content), "a.csv") as made:
            assert (made.file.seek(0), made.file.read()) == (0, content)

    def test_other_delimiters(self) -> None:
        assert read("A;B\n1,5;2\n", delimiter=";") == [["A", "B"], ["1,5", "2"]]

    def test_a_title_in_quotes_may_hold_a_delimiter(self) -> None:
        assert read('"A; or B"\n1\n') == [["A; or B"], ["1"]]
        assert read('[{"A|B": 1}]', "a.json") == rows_of([{"A|B": 1}]) == [["A|B"], ["1"]]

    def test_the_wrong_delimiter(self) -> None:
        assert "separated by a comma: give delimiter=','" in refused("A,B\n1,2\n", delimiter=";")

    @pytest.mark.parametrize("delimiter", ["", ";;", "\n", '"'])
    def test_what_is_no_delimiter(self, delimiter: str) -> None:
        assert "delimiter must be one character" in refused("A\n1\n", delimiter=delimiter)

    def test_the_digest_is_that_of_the_content(self) -> None:
        digests = []
        for content in (b"A\n1\n", b"\xef\xbb\xbfA\n1\n", b"A\n2\n"):
            with csv_of_file(io.BytesIO(content), "a.csv") as made:
                digests.append(made.digest)
        assert digests[0] == digests[1] != digests[2]

    def test_cells_may_be_large(self) -> None:
        large = "x" * 300_000
        assert read(f"A\n{large}\n")[1] == [large]


class TestRows:
    def test_every_title_of_any_row_has_a_column(self) -> None:
        assert rows_of([{"A": 1}, {"B": 2, "A": None}]) == [["A", "B"], ["1", ""], ["", "2"]]

    def test_values_become_texts(self) -> None:
        moment = datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC)
        row = {
            "a": True,
            "b": 1.5,
            "c": Decimal("1.10"),
            "d": moment,
            "e": moment.date(),
            "f": {"ä": [None, Decimal("1.10")]},
            "g": {"z", "x", "y"},
            "h": [MappingProxyType({"A": 1})],
        }
        assert rows_of([row])[1] == [
            "true",
            "1.5",
            "1.10",
            "2026-01-02T03:00:00+00:00",
            "2026-01-02",
            '{"ä": [null, "1.10"]}',
            '["x", "y", "z"]',
            '[{"A": 1}]',
        ]

    def test_lists_with_columns(self) -> None:
        assert rows_of([(1, 2), [3, None]], ["A", "B"]) == [["A", "B"], ["1", "2"], ["3", ""]]

    @pytest.mark.parametrize(
        ("rows", "columns", "message"),
        [
            ([], None, "rows: there are no rows"),
            ([], ["A"], "rows: there are no rows"),
            ([{}], None, "rows: there are no rows"),
            ([{"A": 1}, (1,)], None, "rows[1] must be a mapping from title to value, not tuple;"),
            ([(1,), (1, 2)], ["A"], "rows[1] must be a list of 1 values"),
            (["a"], ["A"], "rows[0] must be a list of 1 values"),
            ([5], ["A"], "rows[0] must be a list of 1 values"),
            ([{"A": b"x"}], None, "rows: row 1 cannot be imported: bytes are no text."),
            ([{"A": "\0"}], None, "rows: row 1 cannot be imported: a cell has a NUL character."),
            ([{"A": "\ud800"}], None, "rows: row 1 cannot be imported: "),
            ([{"A": {(1, 2): 3}}], None, "rows: row 1 cannot be imported: keys must be"),
            ([{"A": DEEP}], None, "rows: row 1 cannot be imported: maximum recursion depth"),
            ([{1: "x"}], None, "rows: the title of column 1 is empty or no text."),
            ([{"A\0": 1}], None, "rows: the title of column 1 is no text: a cell has a NUL"),
            ([{"\ud800": 1}], None, "rows: the title of column 1 is no text: 'utf-8' codec"),
            ([(1, 2)], ["A", "A"], "rows: two columns are titled 'A'."),
        ],
    )
    def test_what_cannot_be_imported(self, rows: Any, columns: Any, message: str) -> None:
        with pytest.raises(PromptLayerInvalidInputError, match=re.escape(message)):
            rows_of(rows, columns)


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "cases.csv: it has no titles in its first line."),
            ("\nA\n1\n", "cases.csv: it has no titles in its first line."),
            ("A,B\n", "cases.csv: there are no rows to import."),
            ("A,,C\n1,2,3\n", "cases.csv: the title of column 2 is empty or no text."),
            ("A,B,A\n1,2,3\n", "cases.csv: two columns are titled 'A'."),
            (
                f"A,{'x' * 256}\n1,2\n",
                "cases.csv: the title of column 2 has 256 characters, but PromptLayer takes 255.",
            ),
            (
                ",".join(f"c{n}" for n in range(1000)) + "\n",
                "cases.csv: 1000 columns, but PromptLayer takes 999.",
            ),
            ("A,B\n1,2\n\n1\n", "cases.csv, line 4: 1 fields, but there are 2 titles."),
            ('A,B\n"1\n",2,3\n', "cases.csv, line 3: 3 fields, but there are 2 titles."),
            ('A,B\n1,"2\n', "cases.csv, line 2: it is no CSV (unexpected end of data)."),
            ('A,B\n1,"2"3\n', "cases.csv, line 2: it is no CSV (',' expected after '\"')."),
            (
                "A;B\n1;2\n",
                "cases.csv, line 1: its fields seem to be separated by a semicolon: give "
                "delimiter=';', or put a title that has one in quotes.",
            ),
            (b"A\n1\n\xff\n", "cases.csv, line 3: it is not UTF-8."),
            ("A\n1\n".encode("utf-16"), "cases.csv: it is UTF-16: save it as UTF-8."),
            (
                b"A\n1\n2\0\n",
                "cases.csv, line 3: it has a NUL byte: it is no CSV, or is not UTF-8.",
            ),
        ],
    )
    def test_csv(self, content: bytes | str, message: str) -> None:
        assert refused(content) == message

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.json", "{}", "a.json: it must be a list of objects."),
            ("a.json", "[1]", "a.json: it must be a list of objects."),
            ("a.json", "[", "a.json: it is no JSON ("),
            ("a.jsonl", '{"A": 1}\n[]\n', "a.jsonl, line 2: it must be an object."),
            ("a.jsonl", '{"A": 1}\n{\n', "a.jsonl, line 2: it is no JSON ("),
            ("a.txt", "", "The ending of a file says its format: .csv, .json, .jsonl"),
        ],
    )
    def test_other_formats(self, name: str, content: str, message: str) -> None:
        assert refused(content, name).startswith(message)

    def test_too_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reading, "MAX_BYTES", 1_000)
        assert len(read("A\n" + "x\n" * 499)) == 500
        assert "larger than 0 MB" in refused("A\n" + "x\n" * 500)
        assert "larger than 0 MB" in refused('{"A": "x"}\n' * 400, "a.jsonl")
        with pytest.raises(PromptLayerInvalidInputError, match="larger"):  # before the last row
            rows_of([{"A": "x" * 10_000}, {"A": b"x"}])


class TestRowsAreCheckedAsPythonReadsThem:
    """Whatever a file holds: ``csv.reader`` says whether it is CSV, and how wide its rows are."""

    PIECES = ("a", "a", "é", '"', '"', '""', '"a"', ",", ",", ";", " ", "\n", "\r\n", "\r", "a,a\n")

    @staticmethod
    def expected(text: str, width: int, delimiter: str) -> str:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        count = -1
        try:
            for row in reader:
                if row and len(row) != width:
                    return f"line {reader.line_num}: {len(row)} fields, but there are {width}"
                count += bool(row)
        except csv.Error as error:
            return f"line {reader.line_num}: it is no CSV ({error})"
        return f"{count} rows" if count else "no rows"

    @pytest.mark.parametrize(
        ("titles", "width", "delimiter"),
        [("A\n", 1, ","), ("A,B\n", 2, ","), ('"A",B,"C"\r\n', 3, ","), ('"A"-B\n', 2, "-")],
        ids=["one column", "two columns", "in quotes", "another delimiter"],
    )
    @pytest.mark.parametrize("chunk", [8, 256 * 1024])
    def test_at_random(
        self,
        titles: str,
        width: int,
        delimiter: str,
        chunk: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(reading, "_CHUNK", chunk)
        chance = random.Random(titles)
        found, expected = {}, {}
        for _ in range(2_000):
            rows = "".join(chance.choices(self.PIECES, k=chance.randrange(20)))
            text = titles + rows.replace(",", delimiter)
            expected[text] = self.expected(text, width, delimiter)
            try:
                source = io.BytesIO(text.encode())
                with csv_of_file(source, "a.csv", delimiter=delimiter) as made:
                    found[text] = f"{made.row_count} rows"
            except PromptLayerInvalidInputError as error:
                found[text] = str(error)
        wrong = {text: found[text] for text in found if expected[text] not in found[text]}
        assert not wrong
        assert len({outcome[:5] for outcome in expected.values()}) > 3
