# SPDX-License-Identifier: Apache-2.0
"""Whether a workflow run that has ended is a success by ``fail_on``. No other module decides it.

Nodes on a branch that was not taken are skipped, and a workflow may have several output nodes on
different branches, so a run has succeeded when at least one output node has.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from airflow_provider_promptlayer.api.arguments import one_of
from airflow_provider_promptlayer.api.errors import PromptLayerOutcomeError
from airflow_provider_promptlayer.api.text import listed, one_line
from airflow_provider_promptlayer.api.workflows import (
    NodeResult,
    NodeStatus,
    WorkflowResults,
    main_node,
)


class PromptLayerRunFailedError(PromptLayerOutcomeError):
    """The run has ended, and its outcome counts as a failure. Polling it again never helps.

    :param results: of the run; ``results.nodes`` has each node's error.
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

    :raises PromptLayerInvalidInputError: listing the known ones.
    """
    one_of("fail_on", fail_on, get_args(FailOn))


def raise_for_outcome(results: WorkflowResults, fail_on: FailOn) -> None:
    """Accept the ending of a run, or raise.

    :raises PromptLayerRunFailedError: with the failed nodes and their errors, cut to a sensible
        length, and no other node's output.
    """
    check_fail_on(fail_on)
    if fail_on == "never":
        return
    has_output = not results.ended_without_output and main_node(results.nodes) is not None
    failed = {name: node for name, node in results.nodes.items() if node.failed}
    if has_output and not (failed and fail_on == "any_node"):
        return
    text = f"Workflow run {results.workflow_version_execution_id} has failed: "
    if has_output:
        text += f"{len(failed)} of its nodes failed."
    else:
        skipped = [
            f"{one_line(name, 80)!r}"
            for name, node in results.nodes.items()
            if node.is_output_node and node.status == NodeStatus.SKIPPED
        ]
        named = listed(skipped, len(skipped), _NODES_NAMED, ", ")
        text += f"no output node succeeded{f' (skipped: {named})' if skipped else ''}."
    if results.message:
        text += f" PromptLayer says: {results.message}"
    if failed:
        reasons = (
            f"{one_line(name, 80)!r} ({one_line(node.status, 40)}): {_why(node)}"
            for name, node in failed.items()
        )
        text += f" {listed(reasons, len(failed), _NODES_NAMED)}"
    raise PromptLayerRunFailedError(text, results=results)


def _why(node: NodeResult) -> str:
    for message in (node.error_message, node.raw_error_message):
        if message and (line := one_line(message)):
            return line
    return "no reason given"
