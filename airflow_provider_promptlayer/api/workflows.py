# SPDX-License-Identifier: Apache-2.0
"""Workflows: the requests that start and read them, and what the answers say.

Facts are those of PromptLayer's published API description ("Run Workflow", "Get Workflow Version
Execution Results"); what it leaves open is noted where it matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Final
from urllib.parse import unquote, urlencode

from airflow_provider_promptlayer.api.arguments import (
    encode,
    execution_id,
    mapping,
    path_segment,
    positive,
    text_values,
    web_address,
)
from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.fields import FieldError, Fields, object_call
from airflow_provider_promptlayer.api.http import (
    Call,
    Request,
    Response,
    decode_json,
    error_for,
    json_or_none,
    unexpected,
)
from airflow_provider_promptlayer.api.job import IdParsers, RemoteJob
from airflow_provider_promptlayer.api.links import Page
from airflow_provider_promptlayer.api.submit import submit_call
from airflow_provider_promptlayer.api.text import listed, one_line, quoted, shown


class NodeStatus(StrEnum):
    """The statuses of a node that PromptLayer documents."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


_NODES_NAMED: Final = 10
"""How many nodes a line names."""

_NOTES_KEPT: Final = 5
"""How many remarks on an answer are kept."""

_UNFINISHED: Final = frozenset({NodeStatus.QUEUED, NodeStatus.RUNNING})


@dataclass(frozen=True, slots=True)
class NodeResult:
    """One node of a run.

    :param status: as PromptLayer wrote it; :class:`NodeStatus` has the documented ones. An
        unknown status counts as final, and not as a success.
    :param value: any JSON value; None unless the node succeeded.
    :param error_message: the failure for people, or None.
    :param raw_error_message: the failure for developers, or None. May quote prompts.
    :param is_output_node: None where PromptLayer does not say.
    """

    status: str
    value: Any = field(default=None, repr=False)
    error_message: str | None = field(default=None, repr=False)
    raw_error_message: str | None = field(default=None, repr=False)
    is_output_node: bool | None = None

    @property
    def gist(self) -> str:
        """The status, or of what kind and size the value is, but nothing of what it says."""
        if not self.succeeded:
            return self.status
        if isinstance(self.value, str):
            return f"text of {len(self.value):,} characters"
        if isinstance(self.value, (list, dict)):
            return f"{'list' if isinstance(self.value, list) else 'object'} of {len(self.value):,}"
        return {bool: "boolean", type(None): "null"}.get(type(self.value), "number")

    @property
    def is_final(self) -> bool:
        """Whether the node will not change any more."""
        return self.status not in _UNFINISHED

    @property
    def succeeded(self) -> bool:
        """Whether the node has a value."""
        return self.status == NodeStatus.SUCCESS

    @property
    def failed(self) -> bool:
        """Whether the node ended badly. A skipped node, on a branch not taken, has not."""
        return self.is_final and self.status not in (NodeStatus.SUCCESS, NodeStatus.SKIPPED)


@dataclass(frozen=True, slots=True, repr=False)
class WorkflowResults:
    """What a poll of a run has found.

    :param workflow_version_execution_id: the run.
    :param is_complete: whether the run has ended, well or badly.
    :param nodes: node name → result, in PromptLayer's order. Empty where only the main output
        was asked for.
    :param final_output: the main output: the value of the first output node that succeeded, or
        None.
    :param message: PromptLayer's word on a run that ended without output, or None.
    :param ended_without_output: PromptLayer says that no output node succeeded, whatever the nodes
        say.
    :param notes: a phrase for each thing in the answer that could not be taken as it was sent,
        such as a key that occurs twice; at most five.
    """

    workflow_version_execution_id: int
    is_complete: bool
    nodes: Mapping[str, NodeResult] = field(default_factory=dict)
    final_output: Any = field(default=None, repr=False)
    message: str | None = None
    ended_without_output: bool = False
    notes: tuple[str, ...] = ()

    @property
    def outputs(self) -> dict[str, Any]:
        """Node name → value, of every node that succeeded."""
        return {name: node.value for name, node in self.nodes.items() if node.succeeded}

    @property
    def summary(self) -> str:
        """One line for people about a run that has ended.

        ``"5 of 7 nodes succeeded, 2 skipped"``, ``"no output, 1 of 2 nodes succeeded, 1 failed"``.
        """
        nodes = self.nodes.values()
        if not nodes:
            return "ended without output" if self.ended_without_output else "ended"
        failed, done = sum(node.failed for node in nodes), len(self.outputs)
        counts = {"failed": failed, "skipped": len(nodes) - failed - done}
        has_output = not self.ended_without_output and main_node(self.nodes) is not None
        return (
            ("" if has_output else "no output, ")
            + f"{done} of {len(nodes)} nodes succeeded"
            + "".join(f", {count} {status}" for status, count in counts.items() if count)
        )

    def __repr__(self) -> str:
        """Return what has come: the status of each node, or what kind of output, and how large."""
        nodes = [f"{quoted(name)}: {node.gist}" for name, node in self.nodes.items()]
        what = listed([self.progress, *nodes], len(nodes) + 1, _NODES_NAMED)
        return f"<WorkflowResults of run {self.workflow_version_execution_id}: {what}>"

    @property
    def progress(self) -> str:
        """One line for people: ``"3 of 7 nodes done, running: Summarize"``."""
        if not self.nodes:
            return "ended" if self.is_complete else "running"
        done = sum(node.is_final for node in self.nodes.values())
        line = f"{done} of {len(self.nodes)} nodes done"
        running = [name for name, node in self.nodes.items() if node.status == NodeStatus.RUNNING]
        if not running:
            return line
        named = listed((one_line(name, 80) for name in running), len(running), _NODES_NAMED, ", ")
        return f"{line}, running: {named}"


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run that PromptLayer has accepted.

    :param warning: names missing or unused input variables; the run started all the same.
    """

    workflow_version_execution_id: int
    warning: str | None = None


def run_workflow(
    workflow_id_or_name: int | str,
    *,
    input_variables: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    workflow_label_name: str | None = None,
    workflow_version_number: int | str | None = None,
    return_all_outputs: bool = True,
    callback_url: str | None = None,
) -> Call[StartedRun]:
    """``POST /workflows/{name}/run``: start a run.

    Arguments: :meth:`.PromptLayerHook.run_workflow`; dates are sent in ISO 8601. PromptLayer
    answers 201, or 202 where a callback was asked for.

    :raises PromptLayerInvalidInputError: for an argument that cannot be sent.
    """
    segment = path_segment(workflow_id_or_name)
    shown = one_line(unquote(segment), 80)
    refuse_two_versions(workflow_label_name, workflow_version_number)
    body: dict[str, Any] = {
        "input_variables": mapping("input_variables", input_variables),
        "return_all_outputs": return_all_outputs,
    }
    if metadata:
        body["metadata"] = text_values(metadata)
    if workflow_label_name is not None:
        body["workflow_label_name"] = str(workflow_label_name)
    if workflow_version_number is not None:
        body["workflow_version_number"] = positive(
            "workflow_version_number", workflow_version_number
        )
    if callback_url is not None:
        body["callback_url"] = web_address("callback_url", callback_url)
    return submit_call(
        Request(
            "POST",
            f"/workflows/{segment}/run",
            f"start workflow {shown!r}",
            encode("input_variables", body),
        ),
        _read_started_run,
        id_field="workflow_version_execution_id",
        advice=(
            "A run may have started all the same, so it was not asked for again: look for it in "
            "PromptLayer by its metadata (airflow_run_id, airflow_task_id, airflow_try_number) "
            "before you clear this task."
        ),
    )


def check_inputs(
    workflow_id_or_name: int | str,
    *,
    input_variables: Mapping[str, Any] | None = None,
    workflow_label_name: str | None = None,
    workflow_version_number: int | str | None = None,
) -> Call[None]:
    """``GET /workflows/{name}``: check that the version to run gets the inputs that it requires.

    Arguments: :func:`run_workflow`. An answer that does not say what is required passes. Answers
    have it at the top, recorded ones also below ``workflow``.

    :raises PromptLayerInvalidInputError: for an argument that cannot be sent; from the answer on,
        if inputs are missing.
    """
    segment = path_segment(workflow_id_or_name)
    shown = one_line(unquote(segment), 80)
    given = mapping("input_variables", input_variables)
    refuse_two_versions(workflow_label_name, workflow_version_number)
    query: dict[str, Any] = {}
    if workflow_label_name is not None:
        query["label"] = workflow_label_name
    if workflow_version_number is not None:
        query["version"] = positive("workflow_version_number", workflow_version_number)
    path = f"/workflows/{segment}" + (f"?{urlencode(query)}" if query else "")

    def check(answer: Fields) -> None:
        places = (answer, answer.object_if_any("workflow"))
        said = (place.get("required_input_variables") for place in places)
        required = next((names for names in said if isinstance(names, dict)), {})
        missing = [name for name in required if name not in given]
        if missing:
            names = listed((quoted(name) for name in missing), len(missing), 10, ", ")
            raise PromptLayerInvalidInputError(
                f"Workflow {shown!r} requires input variables that are not given: {names}. Nothing "
                "was started."
            )

    return object_call(Request("GET", path, f"read the inputs of workflow {shown!r}"), check)


def refuse_two_versions(label: str | None, number: int | str | None) -> None:
    """Raise if both of the arguments are given that say which version runs."""
    if label is not None and number is not None:
        raise PromptLayerInvalidInputError(
            "workflow_label_name and workflow_version_number exclude each other: give one of them."
        )


@dataclass(frozen=True, slots=True)
class _ReadResults:
    # An object with slots and no closure: there is one for each of thousands of waits.
    run_id: int
    request: Request
    return_all_outputs: bool
    by_status: bool

    def __call__(self, response: Response, now: float) -> WorkflowResults:
        status = response.status
        if status in (400, 500) and (ended := _ended_without_output(response)):
            return WorkflowResults(
                self.run_id,
                is_complete=True,
                nodes=_nodes_or_none(ended.get("output")) or {},
                message=one_line(_text_or_none(ended.get("message")) or "") or None,
                ended_without_output=True,
            )
        if not response.is_success:
            raise error_for(self.request, response, now=now)
        if status == 204 or (status == 202 and not response.body.strip()):
            return WorkflowResults(self.run_id, is_complete=False)
        if status not in (200, 202):
            raise unexpected(self.request, response, "has a status that is not documented")
        notes: list[str] = []
        payload = decode_json(self.request, response, notes.append if status == 200 else None)
        nodes = _nodes_or_none(payload)
        if status == 202:
            return WorkflowResults(self.run_id, is_complete=False, nodes=nodes or {})
        if not self.return_all_outputs and (self.by_status or not _is_unfinished(nodes)):
            return WorkflowResults(
                self.run_id,
                is_complete=True,
                final_output=payload,
                notes=tuple(notes[:_NOTES_KEPT]),
            )
        if not nodes:  # no workflow is without one
            raise unexpected(self.request, response, "is not a map of nodes")
        main = main_node(nodes)
        return WorkflowResults(
            self.run_id,
            is_complete=not _is_unfinished(nodes),
            nodes=nodes,
            final_output=None if main is None else nodes[main].value,
            notes=tuple(notes[:_NOTES_KEPT]),
        )


@dataclass(frozen=True)
class WorkflowRun(RemoteJob[WorkflowResults]):
    """A run of a workflow, as a job to wait for."""

    workflow_version_execution_id: int

    id_parsers: ClassVar[IdParsers] = {"workflow_version_execution_id": positive}
    noun = "workflow run"
    counted_as = "workflow"
    abandoned_phrase = "goes on at PromptLayer, which cannot cancel it"

    @property
    def page(self) -> Page:
        """The web page of the run."""
        return Page("run", (self.workflow_version_execution_id,))

    def fetch_call(self) -> Call[WorkflowResults]:
        """Ask for the outputs of all nodes."""
        return self.results_call()

    def status_call(self) -> Call[WorkflowResults]:
        """Ask for the main output alone, which makes the answer for an ended run small.

        While the run goes on both calls are answered with the nodes so far.
        """
        return self.results_call(return_all_outputs=False, by_status=True)

    def results_call(
        self, *, return_all_outputs: bool = True, by_status: bool = False
    ) -> Call[WorkflowResults]:
        """``GET /workflow-version-execution-results``: poll the run.

        - 202, or 204 without a body: the run goes on.
        - 200 with a map of nodes: the run has ended, unless a node is still QUEUED or RUNNING
          (PromptLayer's release notes of March 2026 tell of a moment in which the status is wrong).
        - 200 where only the main output was asked for: the body is that output, any JSON value. A
          body that is a map with an unfinished node is taken for the moment described above.
        - 400 or 500 with ``{"success": false, "output": …}``: the run has ended without output.
          PromptLayer announced it in March 2026; it is an ending and not a server error.

        :param by_status: take every 200 for the end of the run. For a caller that then asks for all
            outputs: a run whose main output looks like a map with an unfinished node would never
            end otherwise.
        """
        run_id = self.workflow_version_execution_id
        all_outputs = "true" if return_all_outputs else "false"
        request = Request(
            "GET",
            f"/workflow-version-execution-results?workflow_version_execution_id={run_id}"
            f"&return_all_outputs={all_outputs}",
            f"read the results of workflow run {run_id}",
        )
        return Call(request, _ReadResults(run_id, request, return_all_outputs, by_status))


def workflow_count() -> Call[int | None]:
    """``GET /workflows`` for one workflow: the cheapest authenticated call.

    The result is the number of workflows, or None where PromptLayer does not say.
    """

    def build(answer: Fields) -> int | None:
        if not isinstance(answer.get("items"), list):
            raise FieldError("is not PromptLayer's list of workflows")
        return answer.count_if_any("total")

    return object_call(Request("GET", "/workflows?page=1&per_page=1", "list workflows"), build)


def _read_started_run(answer: Fields) -> StartedRun:
    try:
        run_id = execution_id(answer.get("workflow_version_execution_id"))
    except PromptLayerInvalidInputError:
        raise FieldError("has no workflow_version_execution_id") from None
    warning = answer.get("warning")
    return StartedRun(run_id, one_line(_text_or_none(warning) or "") if warning else None)


def _ended_without_output(response: Response) -> dict[str, Any] | None:
    payload = json_or_none(response)
    if isinstance(payload, dict) and payload.get("success") is False and "output" in payload:
        return payload
    return None


def _nodes_or_none(payload: Any) -> dict[str, NodeResult] | None:
    """Return the nodes if ``payload`` is a map of nodes, else None."""
    if not isinstance(payload, dict):
        return None
    nodes = {}
    for name, node in payload.items():
        if not isinstance(node, dict) or not isinstance(node.get("status"), str):
            return None
        output = node.get("is_output_node")
        nodes[name] = NodeResult(
            status=node["status"],
            value=node.get("value"),
            error_message=_text_or_none(node.get("error_message")),
            raw_error_message=_text_or_none(node.get("raw_error_message")),
            is_output_node=output if isinstance(output, bool) else None,
        )
    return nodes


def _is_unfinished(nodes: Mapping[str, NodeResult] | None) -> bool:
    return any(not node.is_final for node in (nodes or {}).values())


def main_node(nodes: Mapping[str, NodeResult]) -> str | None:
    """Return the first output node that succeeded, which has the main output; None without one."""
    return next(
        (name for name, node in nodes.items() if node.is_output_node and node.succeeded), None
    )


def _text_or_none(value: Any) -> str | None:
    # The description has text here; anything else is shown within bounds.
    return value if value is None or isinstance(value, str) else shown(value)
