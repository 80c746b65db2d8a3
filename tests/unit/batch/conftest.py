# SPDX-License-Identifier: Apache-2.0
"""A PromptLayer with the workflows of the batch's tests, and another one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.batches import SLOW
from support.clocks import timed_by_polls
from support.kinds import Serve

from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Workflow


def _echo(inputs: Any, _: Any) -> Any:
    if inputs.get("n") in inputs.get("broken", ()):
        raise ValueError("broken")
    return inputs.get("n")


WORKFLOWS = [
    Workflow("Echo", [Node("Answer", _echo, is_output_node=True)]),
    Workflow("Slow", [Node("Answer", _echo, duration=SLOW, is_output_node=True)]),
    Workflow("Slower", [Node("Answer", duration=200, is_output_node=True)]),
    Workflow("Endless", [Node("Answer", duration=1e9, is_output_node=True)]),
    Workflow("Broken", [Node("Answer", status="FAILED", is_output_node=True)]),
]


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    return serve(timed_by_polls(WORKFLOWS))


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPromptLayer]:
    """Another PromptLayer, which the connection ``there`` leads to, and which has a run 1 too."""
    with LocalPromptLayer(WORKFLOWS) as other:
        monkeypatch.setenv("AIRFLOW_CONN_THERE", other.airflow_connection_json)
        other.start_execution("Echo", {"n": 7})
        yield other
