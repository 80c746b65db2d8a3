# SPDX-License-Identifier: Apache-2.0
"""The outputs of a run, as XComs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.arguments import texts
from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.workflows import NodeResult, WorkflowResults
from airflow_provider_promptlayer.xcom.storable import safe_keys, storable, storable_text

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

EXECUTION_ID_KEY: Final = "promptlayer_execution_id"
EXECUTION_IDS_KEY: Final = "promptlayer_execution_ids"
ERRORS_KEY: Final = "promptlayer_errors"
FINAL_OUTPUT_KEY: Final = "promptlayer_final_output"
NODE_STATUSES_KEY: Final = "promptlayer_node_statuses"
RETURN_VALUE_KEY: Final = "return_value"
OPERATION_ID_KEY: Final = "promptlayer_operation_id"
CALCULATION_ID_KEY: Final = "promptlayer_calculation_id"
REPORT_ID_KEY: Final = "promptlayer_report_id"
SCORE_KEY: Final = "promptlayer_score"
VERDICT_KEY: Final = "promptlayer_verdict"
CRITERION_SUMMARIES_KEY: Final = "promptlayer_criterion_summaries"
DRIFT_SUMMARY_KEY: Final = "promptlayer_drift_summary"

_OWN_KEYS: Final = frozenset(
    {EXECUTION_ID_KEY, FINAL_OUTPUT_KEY, NODE_STATUSES_KEY, RETURN_VALUE_KEY}
)

LARGE: Final = 1_000_000
"""Bytes of outputs from which on a hint at object storage is given."""

_NODES_NAMED: Final = 20
"""How many nodes get a warning of their own."""

_UNFIT: Final = re.compile(
    r"[\x00-\x1f\x7f?#\ud800-\udfff]"
    r"|%[0-9A-Fa-f]{2}"
    r"|(?:^|/)\.\.?(?:/|$)"
    r"|/slice$|/item/[^/]*$"
)
"""What the URL of Airflow 3's execution API does not carry, or misreads."""


def select(results: WorkflowResults, nodes: Iterable[str] | str | None) -> dict[str, Any]:
    """Return the outputs of the named nodes, or all of them.

    :param nodes: see :func:`.texts`.
    :raises PromptLayerInvalidInputError: for a node that the run does not have, listing those
        that it has.
    """
    names = texts("nodes", nodes)
    if names is None:
        return results.outputs
    if missing := [name for name in names if name not in results.nodes]:
        raise PromptLayerInvalidInputError(
            f"Workflow run {results.workflow_version_execution_id} has no node "
            f"{', '.join(one_line(repr(name), 80) for name in missing)}. It has: "
            f"{', '.join(one_line(repr(name), 80) for name in results.nodes)}."
        )
    return {name: value for name, value in results.outputs.items() if name in names}


def statuses(nodes: Mapping[str, NodeResult]) -> dict[str, str]:
    """Return node name → status, in a form that Airflow can store."""
    names = safe_keys(nodes.keys())
    return {names.get(name, name): storable_text(node.status) for name, node in nodes.items()}


def storable_key(name: str) -> bool:
    """Return whether any Airflow stores an XCom under ``name``, and returns it.

    Airflow 3 puts the key into a URL path: it cuts the key at ``?`` and ``#``, resolves dot
    segments and ``%41``, takes ``…/slice`` and ``…/item/3`` for other routes, and fails for control
    characters. Most of that is silent, and then two nodes can share a key; and on Airflow 3.0 a
    key that is refused can end the scheduler. Airflow 2.11 would take all these names; one rule
    for both lets a DAG move from one to the other. Only ``/``, which is common, depends on the
    version: Airflow 3.0 alone refuses it.
    """
    return (
        name.strip() not in ("", *_OWN_KEYS)
        and not _UNFIT.search(name)
        and ("/" not in name or not version_compat.REFUSES_SLASHES_IN_XCOM_KEYS)
        and len(name) <= 512  # the column's characters
        and len(name.encode()) <= 1_024  # PostgreSQL's index entries end at 2,704 bytes
    )


@dataclass(frozen=True, slots=True)
class Outputs:
    """The outputs of a run, in a form that Airflow can store.

    :param by_node: node name → value.
    :param by_stored_name: the same under the names that can be keys of an object in XCom.
    :param size: about the bytes that they take as JSON.
    """

    by_node: Mapping[str, Any]
    by_stored_name: dict[str, Any]
    size: int
    _main: str | None
    _findings: StorageWarnings

    def final(self, results: WorkflowResults) -> Any:
        """Return the main output, whether or not its node was selected."""
        if self._main is not None and self._main in self.by_node:
            return self.by_node[self._main]
        stored = storable(results.final_output)
        if self._main is not None:
            self._findings.add_changes(self._main, stored.changes)
        return stored.value


def storable_outputs(
    selected: Mapping[str, Any], nodes: Mapping[str, NodeResult], findings: StorageWarnings
) -> Outputs:
    """Return the selected outputs of a run that has ``nodes``, and note what had to change."""
    by_node, size = {}, 0
    for name, value in selected.items():
        stored = storable(value)
        findings.add_changes(name, stored.changes)
        by_node[name] = stored.value
        size += stored.size
    names = safe_keys(nodes.keys())
    return Outputs(
        by_node,
        {names.get(name, name): value for name, value in by_node.items()},
        size,
        next(
            (name for name, node in nodes.items() if node.is_output_node and node.succeeded), None
        ),
        findings,
    )


class StorageWarnings:
    """What is not in XCom as PromptLayer sent it: a line for each node, up to twenty.

    :param results: the run; nodes whose names have to change in XCom are noted at once.
    """

    def __init__(self, results: WorkflowResults | None = None) -> None:
        self._notes = results.notes if results else ()
        self._of_node: dict[str, list[str]] = {}
        for name, new in safe_keys(results.nodes.keys()).items() if results else ():
            self.add(name, f"is called {one_line(repr(new), 80)} in XCom")

    def add(self, node: str, finding: str) -> None:
        """Note a phrase that goes on after the name of a node."""
        self._of_node.setdefault(node, []).append(finding)

    def add_changes(self, node: str, changes: Iterable[str]) -> None:
        """Note what was changed in the output of a node."""
        if changes := tuple(changes):
            self.add(node, f"was changed so that Airflow can store it: {', '.join(changes)}")

    def lines(self) -> list[str]:
        """Return what to log."""
        lines = [
            f"Node {one_line(repr(name), 80)} {'; '.join(findings)}."
            for name, findings in list(self._of_node.items())[:_NODES_NAMED]
        ]
        if (more := len(self._of_node) - len(lines)) > 0:
            lines.append(f"The same kind of thing was found in {more} more nodes.")
        if self._notes:
            lines.insert(0, f"Read from PromptLayer's answer: {'; '.join(self._notes)}.")
        return lines


def size_hint(size: int) -> str | None:
    """Return a hint for outputs that are too large for Airflow's database; None for others."""
    if size <= LARGE or has_custom_backend():
        return None
    return (
        f"The outputs take about {size / 1e6:.1f} MB in Airflow's metadata database. An object "
        "storage backend would keep large ones elsewhere: see [core] xcom_backend and "
        "[common.io] xcom_objectstorage_path, xcom_objectstorage_threshold."
    )


def has_custom_backend() -> bool:
    """Return whether another backend than Airflow's own stores XComs."""
    from airflow.providers.common.compat.sdk import conf

    return not conf.get("core", "xcom_backend", fallback="BaseXCom").endswith(".BaseXCom")


def pull_own(context: Context, key: str) -> Any:
    """Return what the running task has pushed under ``key``, or None."""
    ti = context["ti"]
    return ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)


def push(context: Context, key: str, value: Any) -> None:
    """Push one XCom of the running task."""
    context["ti"].xcom_push(key=key, value=value)
