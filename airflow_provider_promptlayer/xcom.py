# SPDX-License-Identifier: Apache-2.0
"""The outputs of a run, as XComs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.workflows import NodeResult, WorkflowResults
from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

EXECUTION_ID_KEY: Final = "promptlayer_execution_id"
FINAL_OUTPUT_KEY: Final = "promptlayer_final_output"
NODE_STATUSES_KEY: Final = "promptlayer_node_statuses"
RETURN_VALUE_KEY: Final = "return_value"

_OWN_KEYS: Final = frozenset(
    {EXECUTION_ID_KEY, FINAL_OUTPUT_KEY, NODE_STATUSES_KEY, RETURN_VALUE_KEY}
)


def select(results: WorkflowResults, nodes: Iterable[str] | str | None) -> dict[str, Any]:
    """Return the outputs of the named nodes, or all of them.

    :raises PromptLayerInvalidInputError: for a node that the run does not have, listing those
        that it has.
    """
    if nodes is None:
        return results.outputs
    names = [nodes] if isinstance(nodes, str) else list(nodes)
    if missing := [name for name in names if name not in results.nodes]:
        raise PromptLayerInvalidInputError(
            f"Workflow run {results.workflow_version_execution_id} has no node "
            f"{', '.join(one_line(repr(name), 80) for name in missing)}. It has: "
            f"{', '.join(one_line(repr(name), 80) for name in results.nodes)}."
        )
    return {name: value for name, value in results.outputs.items() if name in names}


def statuses(nodes: Mapping[str, NodeResult]) -> dict[str, str]:
    """Return node name → status."""
    return {name: node.status for name, node in nodes.items()}


def storable_key(name: str) -> bool:
    """Return whether an XCom can be kept under ``name`` and comes back under it.

    Airflow 3 puts the key into a URL: it silently cuts keys at ``?`` and ``#``, and fails for
    dot segments, empty keys and control characters.
    """
    return (
        name.strip() not in ("", ".", "..")
        and name not in _OWN_KEYS
        and name.isprintable()
        and not set(name) & {"?", "#"}
        and len(name) <= 512
    )


def pull_own(context: Context, key: str) -> Any:
    """Return what the running task has pushed under ``key``, or None."""
    ti = context["ti"]
    return ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)


def push(context: Context, key: str, value: Any) -> None:
    """Push one XCom of the running task."""
    context["ti"].xcom_push(key=key, value=value)
