# SPDX-License-Identifier: Apache-2.0
"""A PromptLayer with the workflows of the batch's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.batches import SLOW
from support.clocks import timed_by_looks

from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Workflow


def _echo(inputs: Any, _: Any) -> Any:
    if inputs.get("n") in inputs.get("broken", ()):
        raise ValueError("broken")
    return inputs.get("n")


@pytest.fixture
def promptlayer_workflows() -> list[Workflow]:
    return [
        Workflow("Echo", [Node("Answer", _echo, is_output_node=True)]),
        Workflow("Slow", [Node("Answer", _echo, duration=SLOW, is_output_node=True)]),
        Workflow("Slower", [Node("Answer", duration=200, is_output_node=True)]),
        Workflow("Endless", [Node("Answer", duration=1e9, is_output_node=True)]),
        Workflow("Broken", [Node("Answer", status="FAILED", is_output_node=True)]),
    ]


@pytest.fixture
def promptlayer_server(promptlayer_workflows: list[Workflow]) -> Iterator[LocalPromptLayer]:
    with timed_by_looks(promptlayer_workflows) as server:
        yield server


@pytest.fixture
def server(promptlayer_connection: str, promptlayer_server: LocalPromptLayer) -> LocalPromptLayer:
    return promptlayer_server


@pytest.fixture(params=[False, True], ids=["poke", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Return what was logged: Airflow 3 logs to the standard output, Airflow 2 through logging."""
    caplog.set_level("INFO")
    return lambda: "\n".join(r.getMessage() for r in caplog.records) or capsys.readouterr().out


@pytest.fixture
def there(
    promptlayer_workflows: list[Workflow], monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalPromptLayer]:
    """Another PromptLayer, which the connection ``there`` leads to, and which has a run 1 too."""
    with LocalPromptLayer(promptlayer_workflows) as other:
        monkeypatch.setenv("AIRFLOW_CONN_THERE", other.airflow_connection_json)
        other.start_execution("Echo", {"n": 7})
        yield other
