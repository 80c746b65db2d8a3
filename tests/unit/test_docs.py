# SPDX-License-Identifier: Apache-2.0
"""What README.md and docs/ name and quote, held against the code.

A row of a table names the tests that hold it in a comment, `<!-- tests: name, name in file -->`,
which the built site leaves out.
"""

from __future__ import annotations

import datetime
import re
import runpy
import sys
from importlib import import_module
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG
from support.connections import connect
from support.modes import run_task

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowOperator
from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerScorecardSensor
from airflow_provider_promptlayer.testing import (
    LocalPromptLayer,
    builtin_evaluations,
    load_definitions,
)
from airflow_provider_promptlayer.version_compat import HAS_ASSET_WATCHERS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
TESTS = re.compile(r"<!-- tests: ([^>]*) -->")


def blocks(language: str, page: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def test_readme_is_short_and_names_no_test() -> None:
    assert len(README.splitlines()) <= 150
    assert "<!--" not in README


def test_files_that_readme_links_or_names_are_there() -> None:
    links = set(re.findall(r"\]\(([^)\s]+)\)", README))
    named = set(re.findall(r"`((?:docs/|example_dags/|[A-Z]+\.md)[\w/.-]*)`", README))
    files = {link for link in links | named if not link.startswith("https://")}
    assert len(files) > 10
    assert {name for name in files if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize("repository", ["", "https://example.com/owner/name"])
def test_links_of_readme_work_on_a_package_index(
    repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("REPOSITORY_URL", repository)
    monkeypatch.setitem(sys.modules, "setuptools", SimpleNamespace(setup=given.update))
    runpy.run_path("setup.py")
    text = given["long_description"]
    links = re.findall(r"!?\[[^]]*\]\(([^)]*)\)", text)
    assert all(link.startswith("https://") for link in links)
    picture = "raw/main/docs/images/task-log.png"
    assert [link for link in links if picture in link] == (
        [f"{repository}/{picture}"] if repository else []
    )
    assert ("[Limits](" in text) == bool(repository)
    assert "Limits" in text
    assert "![" not in text or repository


@pytest.mark.parametrize("page", sorted(PAGES))
def test_each_row_of_a_table_of_behaviour_names_its_test(page: str) -> None:
    for table in re.findall(r"(?:^\|.*\n?)+", PAGES[page], re.MULTILINE):
        _, _, *rows = table.splitlines()
        held = [bool(TESTS.search(row)) or "<!-- no test: " in row for row in rows]
        assert all(held) or not any(held), rows[held.index(False)]


def test_every_test_that_is_named_is_where_it_is_said_to_be() -> None:
    notes = [note for page in PAGES.values() for note in TESTS.findall(page)]
    assert len(notes) > 60
    for note in notes:
        in_files = re.findall(r"\b(test_\w+|Test\w+) in (tests/[\w/]+\.py)", note)
        names = re.findall(r"\b(test_\w+|Test\w+)\b(?!\.py)", re.sub(r"tests/[\w/]+\.py", "", note))
        files = re.findall(r"tests/[\w/]+\.py", note)
        assert names or files, note
        assert all((ROOT / file).is_file() for file in files), note
        for name, where in {*in_files, *((name, "tests") for name in names)}:
            sources = [ROOT / where] if where.endswith(".py") else (ROOT / where).rglob("*.py")
            definition = re.compile(rf"^ *(def|class) {name}\b", re.MULTILINE)
            found = any(definition.search(source.read_text("utf-8")) for source in sources)
            assert found, (name, where)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_code_and_definitions_are_valid(page: str, tmp_path: Path) -> None:
    for code in blocks("python", PAGES[page]):
        compile(code, page, "exec")
    for definitions in blocks("toml", PAGES[page]):
        (tmp_path / "definitions.toml").write_text(definitions)
        load_definitions(tmp_path / "definitions.toml")


@pytest.mark.parametrize(
    "when",
    [
        {"logical_date": datetime.datetime(2026, 1, 2)},  # Airflow 2 has no run_after
        {"logical_date": None, "run_after": datetime.datetime(2026, 1, 2, 3)},
    ],
    ids=["scheduled", "triggered without a logical date"],
)
def test_the_template_for_the_day_renders(when: dict[str, Any]) -> None:
    page = PAGES["docs/guides/run-a-workflow.md"]
    (template,) = re.findall(r'input_variables=\{"day": "(.+)"\}', page)
    task = PromptLayerRunWorkflowOperator(task_id="digest", workflow_id_or_name="Daily digest")
    context: Any = {"dag_run": SimpleNamespace(**when)}
    assert task.render_template(template, context) == "2026-01-02"


def test_the_recipes_of_readme_make_a_dag() -> None:
    _, *recipes = blocks("python", README)
    assert len(recipes) == 7
    assert max(len(recipe.splitlines()) for recipe in recipes) <= 8
    scope: dict[str, Any] = {}
    for module in ("operators", "sensors", "triggers"):
        public = import_module(f"airflow_provider_promptlayer.{module}.promptlayer")
        scope |= {name: getattr(public, name) for name in public.__all__}
    if HAS_ASSET_WATCHERS:
        sdk = import_module("airflow.sdk")
        scope |= {name: getattr(sdk, name) for name in ("Asset", "AssetWatcher", "DAG")}
    with DAG("recipes", schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
        for recipe in recipes:
            if HAS_ASSET_WATCHERS or "AssetWatcher" not in recipe:
                exec(compile(recipe, "README.md", "exec"), scope)
    assert dag.task_dict["gate"].downstream_task_ids == {"promote"}
    assert len(dag.task_dict) == 7


def test_the_chain_of_the_etl_takes_forty_lines() -> None:
    """As docs/evaluation-etl.md quotes it, and docs/guides/nightly-evaluation.md says."""
    (start,) = re.findall(r':start-at: "(.+)"', PAGES["docs/evaluation-etl.md"])
    example = (ROOT / "example_dags" / "evaluation_etl.py").read_text(encoding="utf-8")
    assert len(example[example.index(start) :].splitlines()) <= 40


def test_the_error_of_the_gate_is_quoted_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    quotes = {
        " ".join(quote.split())
        for page in PAGES.values()
        for quote in re.findall(r"^```(?:text)?\n(Scorecard calculation .*?)```", page, re.M | re.S)
    }
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
    assert {ending.message.replace(where["calculation_id"], "…")} == quotes
