# SPDX-License-Identifier: Apache-2.0
"""Definitions of workflows: nodes, the order in which they run, and how each of them ends.

A definition that exists is valid: every mistake that shows without running it (an unknown
dependency, a cycle, two nodes of one name) raises ``ValueError`` with one line that names the
definition, so that the engine and the server need no checks.
"""

from __future__ import annotations

import json
import re
from collections import ChainMap, Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import TypeAlias
from uuid import NAMESPACE_URL, uuid5

from ..json_text import JsonValue, dumps

ValueFunction: TypeAlias = Callable[[Mapping[str, JsonValue], Mapping[str, JsonValue]], JsonValue]
"""``(input_variables, values of the nodes it depends on, directly or indirectly) -> value``."""

NO_OUTPUT_STATUSES = (200, 400, 500)

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


def derived_id(kind: str, *parts: object) -> str:
    """Return a UUID, always the same for the same kind and parts, so that tests may rely on it."""
    text = "/".join((kind, *map(str, parts)))
    # Names may hold lone surrogates, which UTF-8 cannot encode.
    return str(uuid5(NAMESPACE_URL, text.encode(errors="backslashreplace").decode()))


@dataclass(frozen=True)
class OnlyIf:
    """A conditional edge: the node that has it runs only if the value of ``node`` is ``equals``.

    The other node counts as a dependency, whether or not ``depends_on`` repeats it. Values are
    compared by ``==``; a node that did not succeed has no value to compare.
    """

    node: str
    equals: JsonValue


@dataclass(frozen=True)
class Node:
    """One node of a workflow, and how it ends.

    A node is ``QUEUED`` until all nodes it depends on have ended, ``RUNNING`` for ``duration``
    seconds, and then has ``status``. Instead it is ``SKIPPED``, with the value null, if

    - its ``only_if`` does not hold, or
    - all nodes it depends on were ``SKIPPED``, or
    - a node it depends on ended neither ``SUCCESS`` nor ``SKIPPED``. (The description does not
      say what a failure does to the nodes after it.)

    :param name: unique within the workflow; any text, also the empty one.
    :param value: any JSON value, or a ``ValueFunction``. It is called once, at the start of an
        execution, and should be quick: the server waits for it. If it raises, or returns an object
        that is not JSON, the node is ``FAILED``.
    :param status: the final status. PromptLayer has ``SUCCESS``, ``FAILED`` and ``SKIPPED``; any
        other text is served as it is. With ``QUEUED`` or ``RUNNING`` the node never ends.
    :param duration: seconds in ``RUNNING``; ``math.inf`` for a node that never ends.
    :param depends_on: names of the nodes that must have ended before.
    :param is_output_node: ``True``, ``False`` or ``None``: the API answers all three.
    :param error_message: what went wrong, for people.
    :param raw_error_message: what went wrong, for developers.
    :param only_if: a condition on the value of another node.
    :param node_type: only shown, by ``GET /workflows/{workflow_id_or_name}``.
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
        if not isinstance(self.name, str):
            raise ValueError(f"a node needs a name, not {self.name!r}")
        if isinstance(self.depends_on, str):
            raise ValueError(f"node {self.name!r}: depends_on is a list of names, not one name")
        # `not >=` rather than `<` refuses NaN too.
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
        """Names of the nodes that must end before this one starts, including ``only_if``'s."""
        condition = () if self.only_if is None else (self.only_if.node,)
        return tuple(dict.fromkeys((*self.depends_on, *condition)))


@dataclass(frozen=True)
class Workflow:
    """One version of a workflow. Several versions are several ``Workflow`` of the same name.

    :param name: any text: the API takes ``/``, spaces and emoji.
    :param nodes: in the order in which the API lists them; the first output node that succeeds
        gives the main output.
    :param id: the workflow's number, the same for all its versions; the server chooses it if
        ``None``.
    :param version: a positive number. A run that names no version and no label gets the highest.
    :param labels: release labels that point to this version.
    :param required_input_variables: names mapped to types, as in ``{"topic": "string"}``. The
        answer to a run warns of missing and unused ones; ``None`` never warns.
    :param commit_message: only shown, by ``GET /workflows/{workflow_id_or_name}``.
    :param no_output_status: the HTTP status of the results once the run has ended and no output
        node has succeeded: 200, or the 400 or 500 that PromptLayer announced in March 2026.
        ``None``: as the server's ``no_output_status``.
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
        """The nodes, each after those it depends on."""
        by_name = {node.name: node for node in self.nodes}
        sorter = TopologicalSorter({node.name: node.dependencies for node in self.nodes})
        try:
            return tuple(by_name[name] for name in sorter.static_order())
        except CycleError as error:
            cycle = " -> ".join(repr(name) for name in reversed(error.args[1]))
            raise ValueError(f"workflow {self.name!r}: nodes depend in a circle: {cycle}") from None


@dataclass(frozen=True)
class Template:
    """A ``ValueFunction`` for definition files: a value with ``{name}`` placeholders.

    - Placeholders may stand in strings at any depth, but not in the keys of objects.
    - ``name`` is all the text between the braces (``{Draft reply}`` is fine): an input variable
      or, if there is none of that name, a node that this one depends on, directly or indirectly.
    - A string that is a single placeholder becomes the value itself, of whatever type.
    - Inside a longer string, text is inserted as it is and any other value as JSON.
    - Braces around any other text stay as they are: JSON text needs no escaping, and a variable
      that was not given is visible in the output.
    - Inserted text is not searched for placeholders. There are no attributes, indexes or formats,
      so that neither a definition nor an input can reach anything but the values.
    """

    value: JsonValue

    def __call__(
        self, inputs: Mapping[str, JsonValue], values: Mapping[str, JsonValue]
    ) -> JsonValue:
        """Return the value with its placeholders filled in."""
        return _fill(self.value, ChainMap(dict(inputs), dict(values)))


def has_placeholder(value: JsonValue) -> bool:
    """Return whether ``Template(value)`` could differ from ``value``."""
    match value:
        case str():
            return _PLACEHOLDER.search(value) is not None
        case list():
            return any(has_placeholder(item) for item in value)
        case dict():
            return any(has_placeholder(item) for item in value.values())
    return False


def _fill(value: JsonValue, names: Mapping[str, JsonValue]) -> JsonValue:
    match value:
        case str():
            return _fill_text(value, names)
        case list():
            return [_fill(item, names) for item in value]
        case dict():
            return {key: _fill(item, names) for key, item in value.items()}
    return value


def _fill_text(text: str, names: Mapping[str, JsonValue]) -> JsonValue:
    def replacement(match: re.Match[str]) -> str:
        if match[1] not in names:
            return match[0]
        found = names[match[1]]
        return found if isinstance(found, str) else json.dumps(found)

    whole = _PLACEHOLDER.fullmatch(text)
    if whole and whole[1] in names:
        return names[whole[1]]
    return _PLACEHOLDER.sub(replacement, text)
