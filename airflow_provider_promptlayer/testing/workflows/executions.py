# SPDX-License-Identifier: Apache-2.0
"""The executions that were started, and what is to be known of each at the present moment.

The rule here: an execution is a start time and a plan, both fixed; only the clock moves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType

from airflow_provider_promptlayer.testing.workflows.engine import NodeMap, Plan, node_map, plan
from airflow_provider_promptlayer.testing.workflows.model import JsonValue, Workflow


@dataclass(frozen=True)
class Execution:
    """One run of a workflow, as it was asked for.

    ``started_at`` is in seconds of the server's clock. A ``callback_url`` is kept, never called.
    ``was_posted`` tells whether a request has started it.
    """

    id: int
    workflow_name: str
    version: int
    input_variables: Mapping[str, JsonValue]
    metadata: Mapping[str, str]
    return_all_outputs: bool
    callback_url: str | None
    was_posted: bool
    started_at: float
    workflow: Workflow = field(repr=False)
    plan: Plan = field(repr=False)


class Executions:
    """All executions of one server. Safe to use from any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ids = count(1)
        self._by_id: dict[int, Execution] = {}

    def start(
        self,
        workflow: Workflow,
        *,
        input_variables: Mapping[str, JsonValue],
        metadata: Mapping[str, str],
        return_all_outputs: bool = False,
        callback_url: str | None = None,
        was_posted: bool = False,
    ) -> Execution:
        """Start an execution now."""
        planned = plan(workflow, input_variables)
        with self._lock:
            execution = Execution(
                id=next(self._ids),
                workflow_name=workflow.name,
                version=workflow.version,
                input_variables=MappingProxyType(dict(input_variables)),
                metadata=MappingProxyType(dict(metadata)),
                return_all_outputs=return_all_outputs,
                callback_url=callback_url,
                was_posted=was_posted,
                started_at=self._clock(),
                workflow=workflow,
                plan=planned,
            )
            self._by_id[execution.id] = execution
        return execution

    def get(self, execution_id: int) -> Execution | None:
        """Give the execution of that number, or ``None``."""
        return self._by_id.get(execution_id)

    def nodes_now(self, execution: Execution) -> NodeMap:
        """Give the state of every node at this moment."""
        return node_map(execution.plan, self._clock() - execution.started_at)

    def snapshot(self) -> dict[int, Execution]:
        """Give a copy of all executions, by number."""
        with self._lock:
            return dict(self._by_id)
