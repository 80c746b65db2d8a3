# SPDX-License-Identifier: Apache-2.0
"""The outputs of a run, as XComs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.arguments import texts
from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.text import quoted
from airflow_provider_promptlayer.api.workflows import WorkflowResults, main_node
from airflow_provider_promptlayer.xcom.storable import Stored, safe_keys, storable, storable_text

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

Push: TypeAlias = Callable[[str, Any], None]
"""Pushes a value to XCom under a key; does nothing where ``do_xcom_push`` is off."""

EXECUTION_ID_KEY: Final = "promptlayer_execution_id"
EXECUTION_IDS_KEY: Final = "promptlayer_execution_ids"
INPUTS_KEY: Final = "promptlayer_inputs"
ERRORS_KEY: Final = "promptlayer_errors"
FINAL_OUTPUT_KEY: Final = "promptlayer_final_output"
NODE_STATUSES_KEY: Final = "promptlayer_node_statuses"
RETURN_VALUE_KEY: Final = "return_value"
OPERATION_ID_KEY: Final = "promptlayer_operation_id"
TABLE_ID_KEY: Final = "promptlayer_table_id"
SHEET_ID_KEY: Final = "promptlayer_sheet_id"
CALCULATION_ID_KEY: Final = "promptlayer_calculation_id"
REPORT_ID_KEY: Final = "promptlayer_report_id"
SCORE_KEY: Final = "promptlayer_score"
VERDICT_KEY: Final = "promptlayer_verdict"
CRITERION_SUMMARIES_KEY: Final = "promptlayer_criterion_summaries"
DRIFT_SUMMARY_KEY: Final = "promptlayer_drift_summary"
USAGE_KEY: Final = "promptlayer_usage"
WATCH_KEY: Final = "promptlayer_previous_version"
URL_KEY: Final = "promptlayer_url"
SCORE_HISTORY_KEY: Final = "promptlayer_score_history"
UNSCHEDULED_SCORE_HISTORY_KEY: Final = "promptlayer_score_history_unscheduled"
"""The same, of a DAG run that has a logical date, though not one of the schedule.

A scheduled run may have an earlier logical date than one that was triggered before it: among both
kinds, Airflow's last one is without the scores of those between.
"""
BACKFILL_SCORE_HISTORY_KEY: Final = "promptlayer_score_history_backfill"
"""The same, of a DAG run of a backfill, which has an earlier logical date than those before it."""
UNDATED_SCORE_HISTORY_KEY: Final = "promptlayer_score_history_undated"
"""The same, of a DAG run without a logical date.

Airflow takes the last run that has an XCom by logical date, so among runs with and without one it
finds the wrong one, another one on SQLite than on PostgreSQL (``XComModel.get_many`` of 3.3.2).
"""

_OWN_KEYS: Final = frozenset(
    {EXECUTION_ID_KEY, FINAL_OUTPUT_KEY, NODE_STATUSES_KEY, RETURN_VALUE_KEY, URL_KEY}
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
            f"{', '.join(quoted(name) for name in missing)}. It has: "
            f"{', '.join(quoted(name) for name in results.nodes)}."
        )
    return {name: value for name, value in results.outputs.items() if name in names}


def storable_key(name: str) -> bool:
    """Return whether every Airflow stores an XCom under ``name``, and returns it.

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


class RunOutputs:
    """The outputs of one run, in a form that Airflow can store.

    :param results: of a run that has ended.
    :param nodes: the names of the nodes whose outputs to keep; None for those of all nodes.
    :param return_all_outputs: False returns the bare main output.
    :param push_node_xcoms: whether each node has an XCom of its own.
    """

    def __init__(
        self,
        results: WorkflowResults,
        nodes: Sequence[str] | None,
        *,
        return_all_outputs: bool = True,
        push_node_xcoms: bool = True,
    ) -> None:
        self._results = results
        self._nodes = nodes
        self._returns_all = return_all_outputs
        self._pushes_nodes = push_node_xcoms
        self._keys = safe_keys(results.nodes.keys())
        self._remarks: dict[str, list[str]] = {}  # node → phrases that go on after its name
        self._hint: str | None = None
        self.size = 0  # about the bytes of the outputs, as JSON
        for name, key in self._keys.items():
            self._remark(name, f"is called {quoted(key)} in XCom")

    @property
    def metadata(self) -> dict[str, Any]:
        """The statuses of the nodes, under their XCom key."""
        nodes = self._results.nodes.items()
        statuses = {self._keys.get(name, name): storable_text(node.status) for name, node in nodes}
        return {NODE_STATUSES_KEY: statuses}

    @cached_property
    def by_node(self) -> dict[str, Any]:
        """Node → output.

        :raises PromptLayerInvalidInputError: see :func:`select`.
        """
        found = {}
        for name, value in select(self._results, self._nodes).items():
            stored = storable(value)
            self._remark_changes(name, stored)
            self.size += stored.size
            found[name] = stored.value
        return found

    @cached_property
    def final_output(self) -> Any:
        """The main output, whether or not its node is one of those to keep."""
        main = main_node(self._results.nodes)
        if main is not None and main in self.by_node:
            return self.by_node[main]
        stored = storable(self._results.final_output)
        if main is not None:
            self._remark_changes(main, stored)
        return stored.value

    @property
    def result(self) -> Any:
        """What the task returns."""
        if not self._returns_all:
            return self.final_output
        return {self._keys.get(name, name): value for name, value in self.by_node.items()}

    def push(self, push: Push) -> Any:
        """Push the outputs; return the task's result.

        :raises PromptLayerInvalidInputError: see :func:`select`.
        """
        for name, value in self.by_node.items() if self._pushes_nodes else ():
            if not self._is_pushed(name, value, push):
                where = "; its value is in return_value" if self._returns_all else ""
                self._remark(
                    name,
                    "has no XCom of its own, because Airflow cannot keep one under that name"
                    + where,
                )
        push(FINAL_OUTPUT_KEY, self.final_output)
        self._hint = size_hint(self.size)
        return self.result

    def warnings(self) -> list[str]:
        """Return a line for each node, up to twenty, that is not in XCom as PromptLayer sent it."""
        lines = []
        if notes := self._results.notes:
            lines.append(f"Read from PromptLayer's answer: {'; '.join(notes)}.")
        for name, remarks in list(self._remarks.items())[:_NODES_NAMED]:
            lines.append(f"Node {quoted(name)} {'; '.join(remarks)}.")
        if (more := len(self._remarks) - _NODES_NAMED) > 0:
            lines.append(f"The same kind of thing was found in {more} more nodes.")
        return [*lines, self._hint] if self._hint else lines

    def _is_pushed(self, name: str, value: Any, push: Push) -> bool:
        if not storable_key(name):
            return False
        try:
            push(name, value)
        except UnicodeError:  # dag.test() takes names in ASCII alone
            return False
        return True

    def _remark(self, node: str, phrase: str) -> None:
        self._remarks.setdefault(node, []).append(phrase)

    def _remark_changes(self, node: str, stored: Stored) -> None:
        if stored.changes:
            changes = ", ".join(stored.changes)
            self._remark(node, f"was changed so that Airflow can store it: {changes}")


class NodeOutput(version_compat.PlainXComArg):
    """An XCom of a task that pushes the outputs of a workflow run, for another task."""

    def __getitem__(self, item: str) -> NodeOutput:
        """Return the output of a node, or another XCom of the task."""
        super().__getitem__(item)  # refuses what is no text
        return NodeOutput(self.operator, item)

    def resolve(self, context: Any, **how: Any) -> Any:
        """Pull the XCom.

        :raises XComNotFound: if the task has pushed none, with the nodes of its run.
        """
        try:
            return super().resolve(context, **how)
        except version_compat.XComNotFound as error:
            statuses = version_compat.PlainXComArg(self.operator, NODE_STATUSES_KEY)
            try:
                nodes = statuses.resolve(context, **how)
            except version_compat.XComNotFound:
                raise error from None
            raise _NodeNotFoundError(error, nodes) from None


class _NodeNotFoundError(version_compat.XComNotFound):
    """There is no output of a node, which may not exist."""

    def __init__(self, error: version_compat.XComNotFound, nodes: Mapping[str, str]) -> None:
        super().__init__(error.dag_id, error.task_id, error.key)
        self.nodes = nodes

    def __str__(self) -> str:
        nodes = ", ".join(f"{quoted(name)} ({of})" for name, of in self.nodes.items())
        return (
            f"Task {self.task_id!r} has pushed no output of a node {quoted(self.key)}. "
            f"Its workflow run has {nodes}. The outputs of nodes that succeeded are pushed, unless "
            "nodes= or push_node_xcoms= leaves them out."
        )


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


def pull_earlier(context: Context, key: str) -> Any:
    """Return what the task has pushed under ``key`` in the last DAG run that has it, or None."""
    ti = context["ti"]
    return ti.xcom_pull(
        task_ids=ti.task_id, key=key, map_indexes=ti.map_index, include_prior_dates=True
    )


def push(context: Context, key: str, value: Any) -> None:
    """Push one XCom of the running task."""
    context["ti"].xcom_push(key=key, value=value)
