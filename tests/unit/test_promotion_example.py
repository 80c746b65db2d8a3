# SPDX-License-Identifier: Apache-2.0
"""What the functions and edges of the example DAG promote_on_new_version do."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_promptlayer.version_compat import HAS_ASSET_WATCHERS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """The names that the DAG file defines."""
    path = ROOT / "example_dags" / "promote_on_new_version.py"
    scope: dict[str, Any] = {"__name__": "example_dag", "__file__": str(path)}
    exec(compile(path.read_text("utf-8"), str(path), "exec"), scope)
    return scope


def event(version: int, minute: int) -> Any:
    """Return an event as the asset watcher makes it."""
    when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    return SimpleNamespace(timestamp=when, extra={"payload": {"version": version}})


UNSORTED = [event(7, 1), event(9, 3), event(8, 2)]


def test_the_version_of_the_last_event(example: dict[str, Any]) -> None:
    """Also where the label was moved back: the last event counts, not the highest version."""
    new_version = example["new_version"].function
    assert new_version({"version": 1}, {"staging": UNSORTED}) == 9
    assert new_version({"version": 1}, {"staging": [event(2, 5), *UNSORTED]}) == 2
    assert new_version({"version": 4}) == 4


@pytest.mark.skipif(not HAS_ASSET_WATCHERS, reason="Airflow 2 has no watchers")
def test_the_version_of_the_last_event_as_readme_reads_it() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(from airflow.sdk import DAG, Asset.*?)```", readme, re.S)
    scope: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert scope["new_version"].function({scope["asset"]: UNSORTED}) == 9
