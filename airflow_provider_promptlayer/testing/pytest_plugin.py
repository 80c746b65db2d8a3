# SPDX-License-Identifier: Apache-2.0
"""pytest fixtures to test DAGs against a local PromptLayer.

pytest imports this module in every run wherever the package is installed. So it imports neither
aiohttp nor pydantic nor Airflow; a fixture does when it is used.

    def test_my_dag(promptlayer_connection, promptlayer_server):
        ...  # run the DAG; then ask promptlayer_server.executions what it started
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from . import LocalPromptLayer, Workflow

__all__ = ["promptlayer_connection", "promptlayer_server", "promptlayer_workflows"]


@pytest.fixture
def promptlayer_workflows() -> Iterable[Workflow] | None:
    """Return the workflows of ``promptlayer_server``; override it to define your own."""
    return None


@pytest.fixture
def promptlayer_server(
    promptlayer_workflows: Iterable[Workflow] | None,
) -> Iterator[LocalPromptLayer]:
    """Run a local PromptLayer for one test."""
    from . import LocalPromptLayer

    with LocalPromptLayer(promptlayer_workflows) as server:
        yield server


@pytest.fixture
def promptlayer_connection(
    promptlayer_server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Define ``promptlayer_default``, which leads to ``promptlayer_server``; return its id."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_PROMPTLAYER_DEFAULT", promptlayer_server.airflow_connection_json
    )
    return "promptlayer_default"
