# SPDX-License-Identifier: Apache-2.0
"""Executions of workflows, and the state of every node at any moment.

No node ever runs. Its value, and when it has it, follow from the definition and the inputs, so
both are planned once when an execution starts; its state is then computed from the plan and the
seconds elapsed. There is no timer and no task, so executions cost nothing between two requests.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from ..json_text import JsonValue, dumps
from .model import Node, Workflow

QUEUED = "QUEUED"
RUNNING = "RUNNING"
SUCCESS = "SUCCESS"
FAILED = "FAILED"
SKIPPED = "SKIPPED"
UNFINISHED = frozenset({QUEUED, RUNNING})

NodeMap: TypeAlias = dict[str, dict[str, JsonValue]]
"""Node name -> ``status``, ``value``, ``error_message``, ``raw_error_message``,
``is_output_node``: the body of ``GET /workflow-version-execution-results``."""


@dataclass(frozen=True)
class PlannedNode:
    """When a node starts and ends, in seconds after the execution started, and how it ends."""

    name: str
    is_output_node: bool | None
    starts_at: float
    ends_at: float
    status: str
    value: JsonValue = None
    error_message: str | None = None
    raw_error_message: str | None = None

    def at(self, elapsed: float) -> dict[str, JsonValue]:
        """Return the node as the API shows it; value and errors show only once it has ended."""
        ended = elapsed >= self.ends_at
        unfinished = QUEUED if elapsed < self.starts_at else RUNNING
        return {
            "status": self.status if ended else unfinished,
            "value": self.value if ended else None,
            "error_message": self.error_message if ended else None,
            "raw_error_message": self.raw_error_message if ended else None,
            "is_output_node": self.is_output_node,
        }


Plan: TypeAlias = tuple[PlannedNode, ...]


def plan(workflow: Workflow, input_variables: Mapping[str, JsonValue]) -> Plan:
    """Plan every node of an execution, in the order in which the nodes are defined."""
    planned: dict[str, PlannedNode] = {}
    ancestors: dict[str, set[str]] = {}
    for node in workflow.nodes_in_running_order:
        ancestors[node.name] = set(node.dependencies).union(
            *(ancestors[name] for name in node.dependencies)
        )
        planned[node.name] = _plan_node(
            node,
            input_variables,
            {name: planned[name] for name in planned if name in ancestors[node.name]},
        )
    return tuple(planned[node.name] for node in workflow.nodes)


def node_map(plan: Plan, elapsed: float) -> NodeMap:
    """Return the state of every node ``elapsed`` seconds after the execution started."""
    return {node.name: node.at(elapsed) for node in plan}


def is_finished(nodes: NodeMap) -> bool:
    """Return whether no node is ``QUEUED`` or ``RUNNING``: then the API answers 200, else 202."""
    return all(node["status"] not in UNFINISHED for node in nodes.values())


def successful_outputs(nodes: NodeMap) -> list[JsonValue]:
    """Return the values of the output nodes that succeeded; the first is the main output."""
    return [
        node["value"]
        for node in nodes.values()
        if node["is_output_node"] and node["status"] == SUCCESS
    ]


def _plan_node(
    node: Node, input_variables: Mapping[str, JsonValue], earlier: Mapping[str, PlannedNode]
) -> PlannedNode:
    dependencies = [earlier[name] for name in node.dependencies]
    starts_at = max((dependency.ends_at for dependency in dependencies), default=0.0)
    if starts_at == math.inf or node.status == QUEUED:
        return PlannedNode(node.name, node.is_output_node, math.inf, math.inf, QUEUED)
    if _is_skipped(node, dependencies):
        return PlannedNode(node.name, node.is_output_node, starts_at, starts_at, SKIPPED)

    status, value = node.status, node.value
    error_message, raw_error_message = node.error_message, node.raw_error_message
    if callable(value):
        try:
            value = value(input_variables, {name: earlier[name].value for name in earlier})
            dumps(value)
        # Any exception of user code fails the node, as in a code node of PromptLayer.
        except Exception as error:  # noqa: BLE001
            status, value = FAILED, None
            error_message, raw_error_message = str(error), repr(error)
    return PlannedNode(
        name=node.name,
        is_output_node=node.is_output_node,
        starts_at=starts_at,
        ends_at=math.inf if status in UNFINISHED else starts_at + node.duration,
        status=status,
        value=value,
        error_message=error_message,
        raw_error_message=raw_error_message,
    )


def _is_skipped(node: Node, dependencies: Iterable[PlannedNode]) -> bool:
    statuses = {dependency.status for dependency in dependencies}
    if statuses - {SUCCESS, SKIPPED} or statuses == {SKIPPED}:
        return True
    condition = node.only_if
    return condition is not None and not any(
        dependency.status == SUCCESS and dependency.value == condition.equals
        for dependency in dependencies
        if dependency.name == condition.node
    )


class Origin(NamedTuple):
    """The task that requested a run, from the run's metadata; "" for what the metadata lacks.

    For a run of a batch, also the index of its input.
    """

    airflow_dag_id: str
    airflow_run_id: str
    airflow_task_id: str
    airflow_map_index: str
    airflow_batch_index: str = ""


@dataclass(frozen=True)
class Execution:
    """One run of a workflow, as it was requested.

    ``started_at`` is in seconds of the server's clock. A ``callback_url`` is kept, never called.
    ``was_posted`` says whether a request has started it.
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

    @property
    def origin(self) -> Origin:
        """The task that requested it."""
        return Origin(*(self.metadata.get(name, "") for name in Origin._fields))


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
        """Return the execution of that number, or ``None``."""
        return self._by_id.get(execution_id)

    def nodes_now(self, execution: Execution) -> NodeMap:
        """Return the present state of every node."""
        return node_map(execution.plan, self._clock() - execution.started_at)

    def snapshot(self) -> dict[int, Execution]:
        """Return a copy of all executions, by number."""
        with self._lock:
            return dict(self._by_id)
