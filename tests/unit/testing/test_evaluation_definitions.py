# SPDX-License-Identifier: Apache-2.0
"""What may be defined of tables and reports, in Python and in files."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from airflow_provider_promptlayer.testing import (
    Column,
    Criterion,
    LocalPromptLayer,
    Report,
    Scorecard,
    ScoredRow,
    Sheet,
    Table,
    builtin_evaluations,
    load_definitions,
    load_workflows,
)

ID = "5c0a1e00-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Column(""), "a column needs a name"),
        (lambda: Column("C", id="x"), "column 'C': id is 'x', must be a UUID"),
        (lambda: Column("C", cell_duration=math.nan), "column 'C': cell_duration is nan"),
        (lambda: Criterion("C", verdict="bad"), "criterion 'C': the verdict is 'bad'"),
        (lambda: ScoredRow("PASS"), "a row of a scorecard: the verdict is 'PASS'"),
        (lambda: Scorecard("S", duration=-1), "scorecard 'S': duration is -1"),
        (lambda: Scorecard("S", [Criterion("A"), Criterion("A")]), "two criteria have the same id"),
        (
            lambda: Scorecard("S", rows=[ScoredRow(reasons={"Polite": "no"})]),
            "scorecard 'S': a row names the criterion 'Polite': unknown",
        ),
        (lambda: Sheet("S", row_count=-1), "sheet 'S': row_count is -1"),
        (lambda: Sheet("S", [Column("A"), Column("A")]), "sheet 'S': two columns"),
        (lambda: Table("T", [Sheet("S"), Sheet("S")]), "table 'T': two sheets"),
        (lambda: Report("R", id=0), "report 'R': id is 0"),
        (lambda: Report("R", cells=2, failed_cells=3), "failed_cells is 3 of 2 cells"),
        (lambda: LocalPromptLayer(tables=[Table("T"), Table("T")]), "two tables have the id"),
        (
            lambda: LocalPromptLayer(reports=[Report("A", id=1), Report("B", id=1)]),
            "two reports have the same id",
        ),
    ],
)
def test_mistakes_are_one_clear_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_ids_are_derived_and_stay_the_same() -> None:
    assert Table("T").id == Table("T").id != Table("U").id
    assert str(UUID(Table("T").id)) == Table("T").id
    assert Table("T", id=ID.upper()).id == ID
    assert str(UUID(Column("\ud800").id)) == Column("\ud800").id


def test_ids_that_are_given_are_not_given_out_again() -> None:
    server = LocalPromptLayer(reports=[Report("A", is_blueprint=False), Report("B", id=1)])
    assert set(server.reports) == {2}
    assert server.start_report(1, "n") == 3


TOML = f"""
workflows = []
[[tables]]
title = "T"
id = "{ID}"
[[tables.sheets]]
title = "S"
row_count = 2
confirm_above = 1
columns = [{{ title = "A", cell_duration = 0.5, failing_rows = [1] }}]
[tables.sheets.scorecard]
name = "Card"
verdict = "fail"
criteria = [{{ title = "Polite" }}]
rows = [{{ verdict = "fail", reasons = {{ Polite = "no" }} }}]
[[reports]]
name = "R"
cells = 3
score = 50
"""
DEFINED = (
    (
        Table(
            "T",
            [
                Sheet(
                    "S",
                    [Column("A", cell_duration=0.5, failing_rows=[1])],
                    2,
                    confirm_above=1,
                    scorecard=Scorecard(
                        "Card",
                        [Criterion("Polite")],
                        [ScoredRow("fail", reasons={"Polite": "no"})],
                        verdict="fail",
                    ),
                )
            ],
            id=ID,
        ),
    ),
    (Report("R", cells=3, score=50),),
)


def test_toml_and_json_say_the_same_as_python(tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text(TOML)
    (tmp_path / "d.json").write_text(json.dumps(tomllib.loads(TOML)))
    for name in ("d.toml", "d.json"):
        definitions = load_definitions(tmp_path / name)
        assert definitions.evaluations == DEFINED
        assert definitions.workflows == load_workflows(tmp_path / name) == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tables": [{"title": "T", "colour": 1}]}, "tables[0].colour: unknown key"),
        (
            {"tables": [{"title": "T", "sheets": [{"title": "S", "scorecard": {"name": 1}}]}]},
            "tables[0].sheets[0].scorecard.name: Input should be a valid string",
        ),
        ({"reports": [{"name": "R", "id": 0}]}, "report 'R': id is 0"),
    ],
)
def test_a_mistake_in_a_file(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"workflows": [], **change}))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_definitions(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_the_built_in_ones_are_a_file_to_copy(tmp_path: Path) -> None:
    source = files("airflow_provider_promptlayer.testing") / "builtin_evaluations.toml"
    path = tmp_path / "mine.toml"
    path.write_text("workflows = []\n" + source.read_text(encoding="utf-8"))
    assert load_definitions(path).evaluations == builtin_evaluations()
