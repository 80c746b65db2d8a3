# SPDX-License-Identifier: Apache-2.0
"""A run that is waited for in every mode, and a PromptLayer that misbehaves meanwhile."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import pytest
from support.connections import connect
from support.modes import MODES, Ending
from support.waits import trigger_for

from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Workflow
from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerWorkflowTrigger

T = TypeVar("T")

WORKFLOWS = [
    Workflow("Done", [Node("Answer", "true", is_output_node=True)]),
    Workflow("Never done", [Node("Answer", duration=math.inf, is_output_node=True)]),
]
PATIENCE = 60.0
"""Seconds: longer than any test takes, however busy the machine is. A wait that the code must not
make takes longer."""
POKE_INTERVAL = 0.01
THOROUGH = ("hook", "deferred")
"""The modes that meet every fault. Between them they use both HTTP clients, and read the status and
the results. The other modes are made of the same parts, and meet a typical fault of each class."""


def in_every_mode(faults: Iterable[T], *typical: T) -> list[tuple[str, T]]:
    """Return each mode with each fault that it meets."""
    every = list(faults)
    return [(mode, fault) for mode in MODES for fault in (every if mode in THOROUGH else typical)]


@pytest.fixture(params=list(MODES))
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPromptLayer]:
    with LocalPromptLayer(WORKFLOWS) as server:
        connect(server, monkeypatch)
        yield server


@pytest.fixture
def run_id(server: LocalPromptLayer) -> int:
    """A run that has ended well."""
    return server.start_execution("Done")


@pytest.fixture
def endless_run_id(server: LocalPromptLayer) -> int:
    return server.start_execution("Never done")


def wait(mode: str, run_id: int, **arguments: Any) -> Ending:
    return MODES[mode](run_id, poke_interval=POKE_INTERVAL, **arguments)


def assert_succeeds(mode: str, run_id: int, **arguments: Any) -> None:
    ending = wait(mode, run_id, **arguments)
    assert (ending.kind, ending.value) == ("success", run_id), ending


def trigger_of(run_id: int, **arguments: Any) -> Any:
    return trigger_for(
        PromptLayerWorkflowTrigger, WorkflowRun(run_id), poke_interval=POKE_INTERVAL, **arguments
    )
