# SPDX-License-Identifier: Apache-2.0
"""What a workflow is: nodes, the order they run in, and how each of them ends.

The rule here: a definition that exists is a valid one. Every mistake that can be seen without
running (an unknown dependency, a cycle, two nodes of one name) raises ``ValueError`` with one line
when the definition is made, so that the engine and the server never have to ask.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeAlias

from airflow_provider_promptlayer.testing.json_text import dumps

JsonValue: TypeAlias = Any
"""Anything ``json.dumps`` takes, at any depth: NaN and the like too, as language models have it."""

ValueFunction: TypeAlias = Callable[[Mapping[str, JsonValue], Mapping[str, JsonValue]], JsonValue]
"""``(input_variables, values of the nodes this one depends on, directly or not) -> value``."""

NO_OUTPUT_STATUSES = (200, 400, 500)


@dataclass(frozen=True)
class OnlyIf:
    """A conditional edge: the node that carries it runs only if ``node`` gave ``equals``.

    The named node counts as a dependency, whether or not ``depends_on`` repeats it. Values are
    compared as Python compares them; a node that did not succeed has given nothing.
    """

    node: str
    equals: JsonValue


@dataclass(frozen=True)
class Node:
    """One node of a workflow, and what becomes of it.

    A node is ``QUEUED`` until everything it depends on has ended, ``RUNNING`` for ``duration``
    seconds, and then has ``status``. It is ``SKIPPED`` instead, with the value null, when

    - its ``only_if`` does not hold, or
    - everything it depends on was ``SKIPPED``, or
    - something it depends on ended neither ``SUCCESS`` nor ``SKIPPED``: the description does not
      say what a failure does to the nodes after it; here they have nothing to work with.

    Args:
        name: unique within the workflow; any text, empty too.
        value: any JSON value, or a ``ValueFunction``. It is called once per execution, when that
            starts, and should be quick: the server waits for it. If it raises, or gives something
            that is not JSON, the node is ``FAILED``.
        status: the status the node ends with. PromptLayer has ``SUCCESS``, ``FAILED`` and
            ``SKIPPED``; any other text is served as it is. ``QUEUED`` and ``RUNNING`` are no
            endings, so a node given one of these never ends.
        duration: seconds spent in ``RUNNING``; ``math.inf`` for a node that never ends.
        depends_on: names of the nodes that must have ended before.
        is_output_node: ``True``, ``False`` or ``None``: the API answers all three.
        error_message: what went wrong, for people.
        raw_error_message: what went wrong, for developers.
        only_if: a condition on the value of another node.
        node_type: only shown, by ``GET /workflows/{workflow_id_or_name}``.

    Raises:
        ValueError: with one line that names the node.

    """

    name: str
    value: JsonValue | ValueFunction = None
    _: KW_ONLY
    status: str = "SUCCESS"
    duration: float = 0.0
    depends_on: Sequence[str] = ()
    is_output_node: bool | None = False
    error_message: str | None = None
    raw_error_message: str | None = None
    only_if: OnlyIf | None = None
    node_type: str = "PROMPT_TEMPLATE"

    def __post_init__(self) -> None:
        """Refuse what could never be served."""
        if not isinstance(self.name, str):
            raise ValueError(f"a node needs a name, not {self.name!r}")
        if isinstance(self.depends_on, str):
            raise ValueError(f"node {self.name!r}: depends_on is a list of names, not one name")
        # `not >=` rather than `<`, so that NaN is refused too.
        if not self.duration >= 0:
            raise ValueError(f"node {self.name!r}: duration is {self.duration}, must be >= 0")
        if not callable(self.value):
            try:
                dumps(self.value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"node {self.name!r}: the value is not JSON: {error}") from error
        object.__setattr__(self, "depends_on", tuple(self.depends_on))

    @cached_property
    def dependencies(self) -> tuple[str, ...]:
        """Names of the nodes that must end before this one starts, that of ``only_if`` included."""
        condition = () if self.only_if is None else (self.only_if.node,)
        return tuple(dict.fromkeys((*self.depends_on, *condition)))


@dataclass(frozen=True)
class Workflow:
    """One version of a workflow. Several versions are several of these with the same name.

    Args:
        name: any text: the API takes ``/``, spaces and emoji.
        nodes: in the order in which the API lists them; the first output node that succeeds gives
            the main output.
        id: the workflow's number, the same for all its versions; chosen by the server if ``None``.
        version: a positive number. A run that names no version and no label gets the highest.
        labels: release labels that point to this version.
        required_input_variables: names mapped to types, as in ``{"topic": "string"}``. A run is
            warned of missing and unused ones; with ``None`` it is never warned.
        commit_message: only shown, by ``GET /workflows/{workflow_id_or_name}``.
        no_output_status: the HTTP status of the results once the run has ended and no output node
            has succeeded: 200, or the 400 or 500 that PromptLayer announced in March 2026.
            ``None`` leaves it to the server.

    Raises:
        ValueError: with one line that names the workflow.

    """

    name: str
    nodes: Sequence[Node]
    _: KW_ONLY
    id: int | None = None
    version: int = 1
    labels: Sequence[str] = ()
    required_input_variables: Mapping[str, str] | None = None
    commit_message: str | None = None
    no_output_status: int | None = None

    def __post_init__(self) -> None:
        """Refuse a graph that cannot be run."""
        if not self.name or not isinstance(self.name, str):
            raise ValueError(f"a workflow needs a name, not {self.name!r}")
        if isinstance(self.labels, str):
            raise ValueError(f"workflow {self.name!r}: labels is a list of names, not one name")
        object.__setattr__(self, "nodes", tuple(self.nodes))
        object.__setattr__(self, "labels", tuple(self.labels))
        if self.id is not None and self.id < 1:
            raise ValueError(f"workflow {self.name!r}: id is {self.id}, must be >= 1")
        if self.version < 1:
            raise ValueError(f"workflow {self.name!r}: version is {self.version}, must be >= 1")
        if self.no_output_status not in (None, *NO_OUTPUT_STATUSES):
            raise ValueError(f"workflow {self.name!r}: no_output_status is 200, 400 or 500")
        names = Counter(node.name for node in self.nodes)
        if repeated := [name for name, times in names.items() if times > 1]:
            raise ValueError(f"workflow {self.name!r}: two nodes are called {repeated[0]!r}")
        for node in self.nodes:
            for dependency in node.dependencies:
                if dependency not in names:
                    raise ValueError(
                        f"workflow {self.name!r}: node {node.name!r} depends on {dependency!r}, "
                        "which does not exist"
                    )
        _ = self.nodes_in_running_order

    @cached_property
    def nodes_in_running_order(self) -> tuple[Node, ...]:
        """Every node after those it depends on."""
        by_name = {node.name: node for node in self.nodes}
        sorter = TopologicalSorter({node.name: node.dependencies for node in self.nodes})
        try:
            return tuple(by_name[name] for name in sorter.static_order())
        except CycleError as error:
            cycle = " -> ".join(repr(name) for name in reversed(error.args[1]))
            raise ValueError(f"workflow {self.name!r}: nodes depend in a circle: {cycle}") from None
