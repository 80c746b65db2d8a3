# SPDX-License-Identifier: Apache-2.0
"""A sheet of three pages with a scorecard, a server that has it, and what an export of it holds."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_promptlayer.testing import (
    Column,
    Criterion,
    LocalPromptLayer,
    Reply,
    Scorecard,
    ScoredRow,
    Sheet,
    Table,
)

COLUMNS = [Column("Question", type="TEXT"), Column("Answer", is_stale=False)]
QUESTIONS = [f"Question {number}" for number in range(250)]
SCORES = [
    ScoredRow("fail", 0.1, reasons={"Polite": "Rude."}) if number == 120 else ScoredRow()
    for number in range(250)
]
SHEET = Sheet(
    "Cases",
    COLUMNS,
    rows=[{"Question": question, "Answer": question.upper()} for question in QUESTIONS],
    scorecard=Scorecard("Quality", [Criterion("Polite")], SCORES),
)
EMPTY = Sheet("Empty", [Column("Question", type="TEXT")], rows=[])
TABLE = Table("Support answers", [SHEET, EMPTY])
IDS = TABLE.id, SHEET.id
REFUSAL = Reply(400, '{"success": false, "message": "Invalid query parameter cursor"}')
ROWS_PATH = f"/api/public/v2/tables/{TABLE.id}/sheets/{SHEET.id}/rows"


def serving(
    monkeypatch: pytest.MonkeyPatch, table: Table = TABLE, **how: Any
) -> Iterator[LocalPromptLayer]:
    with LocalPromptLayer(tables=[table], **how) as server:
        monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", server.airflow_connection_json)
        yield server


def read_file(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return list(csv.DictReader(text.splitlines()))
    return [json.loads(line) for line in text.splitlines()]
