# SPDX-License-Identifier: Apache-2.0
"""What README.md names and quotes, held against the code."""

from __future__ import annotations

import datetime
import re
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.connections import connect
from support.modes import run_task

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowOperator
from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerScorecardSensor
from airflow_provider_promptlayer.testing import (
    LocalPromptLayer,
    builtin_evaluations,
    load_workflows,
)

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", README)
    files = {link for link in links if not link.startswith(("#", "https://"))}
    assert {link for link in files if not (ROOT / link).exists()} == set()
    headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert {link[1:] for link in links if link.startswith("#")} <= anchors


def test_every_test_that_is_named_is_where_it_is_said_to_be() -> None:
    in_files = re.findall(r"`(test_\w+|Test\w+)` in `([\w/]+\.py)`", README)
    names = {*re.findall(r"`(test_\w+|Test\w+)`", README)} - {"test_connection"}  # of the hook
    named = {*in_files, *((name, "tests") for name in names)}
    assert len(named) > 50
    assert all((ROOT / file).is_file() for file in re.findall(r"`(tests/[\w/]+\.py)`", README))
    for name, where in named:
        files = [ROOT / where] if where.endswith(".py") else (ROOT / where).rglob("*.py")
        definition = re.compile(rf"^ *(def|class) {name}\b", re.MULTILINE)
        assert any(definition.search(file.read_text("utf-8")) for file in files), (name, where)


def test_its_code_and_its_definitions_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    for language, text in blocks:
        if language == "python":
            compile(text, "README.md", "exec")
        elif language == "toml":
            (tmp_path / "readme.toml").write_text(text)
            assert load_workflows(tmp_path / "readme.toml")
    assert {"python", "toml"} <= {language for language, _ in blocks}


def test_its_first_dag_renders_without_a_logical_date() -> None:
    """A run that is triggered by hand has none on Airflow 3."""
    template = re.findall(r'input_variables={"day": "(.+)"}', README)[0]
    run_after = datetime.datetime(2026, 1, 2, 3)
    context: Any = {"dag_run": SimpleNamespace(logical_date=None, run_after=run_after)}
    task = PromptLayerRunWorkflowOperator(task_id="digest", workflow_id_or_name="Daily digest")
    assert task.render_template(template, context) == "2026-01-02"


def test_the_page_about_the_etl_quotes_the_example() -> None:
    page = (ROOT / "docs" / "evaluation-etl.md").read_text(encoding="utf-8")
    quoted, *_ = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    example = (ROOT / "example_dags" / "evaluation_etl.py").read_text(encoding="utf-8")
    assert example.endswith(quoted)
    assert len(quoted.splitlines()) <= 40


def test_the_error_of_the_gate_is_quoted_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    (quoted,) = re.findall(
        r"^```\n(Scorecard calculation .*?)```", README, re.DOTALL | re.MULTILINE
    )
    (table,) = builtin_evaluations().tables
    sheet = table.sheets[1]
    # A clock that leaps: the calculation has ended at the first poll.
    with LocalPromptLayer(clock=count(0.0, 10.0).__next__) as server:
        connect(server, monkeypatch)
        where: dict[str, Any] = {"table_id": table.id, "sheet_id": sheet.id}
        where["calculation_id"] = server.start_calculation(table.id, sheet.id)
        ending = run_task(
            lambda: PromptLayerScorecardSensor(
                task_id="gate", **where, min_score=0.8, deferrable=False
            )
        )
    assert ending.message.replace(where["calculation_id"], "…") == " ".join(quoted.split())
