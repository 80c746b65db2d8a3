# SPDX-License-Identifier: Apache-2.0
"""What the ending of a run means: the one place that calls it a success or a failure.

A finished run is not a successful one. Nodes on a branch that was not taken are skipped, and a
workflow may have several output nodes on different branches, so a run has succeeded when at
least one output node has.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from airflow_provider_promptlayer.api.errors import (
    PromptLayerInvalidInputError,
    PromptLayerOutcomeError,
)
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.workflows import NodeResult, NodeStatus, WorkflowResults


class PromptLayerRunFailedError(PromptLayerOutcomeError):
    """The run has ended, and its outcome counts as a failure. Polling it again never helps.

    :param results: what the run left behind; ``results.nodes`` has each node's error.
    """

    def __init__(self, message: str, *, results: WorkflowResults) -> None:
        super().__init__(message, outcome=results)
        self.results = results


FailOn = Literal["no_output", "any_node", "never"]
"""Which ending counts as a failure.

``no_output``: no output node succeeded. ``any_node``: any node failed, or there is no output.
``never``: none.
"""

_NODES_NAMED: Final = 10


def check_fail_on(fail_on: str) -> None:
    """Refuse an unknown ``fail_on``.

    :raises PromptLayerInvalidInputError: listing those that there are.
    """
    if fail_on not in get_args(FailOn):
        raise PromptLayerInvalidInputError(
            f"fail_on must be one of {', '.join(map(repr, get_args(FailOn)))}, not {fail_on!r}."
        )


def raise_for_outcome(results: WorkflowResults, fail_on: FailOn) -> None:
    """Accept the ending of a run, or raise.

    :raises PromptLayerRunFailedError: naming each failed node with its error, cut to a sensible
        length, and nothing of what other nodes said.
    """
    check_fail_on(fail_on)
    if fail_on == "never":
        return
    has_output = not results.ended_without_output and any(
        node.is_output_node and node.succeeded for node in results.nodes.values()
    )
    failed = {name: node for name, node in results.nodes.items() if node.failed}
    if has_output and not (failed and fail_on == "any_node"):
        return
    problem = (
        f"{len(failed)} of its nodes failed"
        if has_output
        else f"no output node succeeded{_skipped(results)}"
    )
    raise PromptLayerRunFailedError(
        f"Workflow run {results.workflow_version_execution_id} has failed: {problem}."
        + (f" PromptLayer says: {results.message}" if results.message else "")
        + _name(failed),
        results=results,
    )


def _skipped(results: WorkflowResults) -> str:
    skipped = [
        f"{one_line(name, 80)!r}"
        for name, node in results.nodes.items()
        if node.is_output_node and node.status == NodeStatus.SKIPPED
    ]
    more = len(skipped) - _NODES_NAMED
    return (
        f" (skipped: {', '.join(skipped[:_NODES_NAMED])}"
        + (f" and {more} more" if more > 0 else "")
        + ")"
        if skipped
        else ""
    )


def _name(failed: dict[str, NodeResult]) -> str:
    lines = [
        f" {one_line(name, 80)!r} ({one_line(node.status, 40)}): {_why(node)}"
        for name, node in list(failed.items())[:_NODES_NAMED]
    ]
    if (more := len(failed) - len(lines)) > 0:
        lines.append(f" and {more} more")
    return ";".join(lines)


def _why(node: NodeResult) -> str:
    for message in (node.error_message, node.raw_error_message):
        if message and (line := one_line(message)):
            return line
    return "no reason given"
