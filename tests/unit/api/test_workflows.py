# SPDX-License-Identifier: Apache-2.0
"""Workflows: what each answer means. The requests are in test_arguments.py."""

from __future__ import annotations

import math
from typing import Any

import pytest
from unit.api.answers import NOW, answer, check_start_rules

from airflow_provider_promptlayer.api.arguments import MAX_ID
from airflow_provider_promptlayer.api.http import Response
from airflow_provider_promptlayer.api.workflows import (
    NodeResult,
    StartedRun,
    WorkflowResults,
    WorkflowRun,
    run_workflow,
    workflow_count,
)
from airflow_provider_promptlayer.exceptions import (
    PromptLayerAuthError,
    PromptLayerError,
    PromptLayerNotFoundError,
    PromptLayerRefusedError,
    PromptLayerServerError,
    PromptLayerStartUncertainError,
    PromptLayerUnexpectedAnswerError,
    PromptLayerUnreachableError,
)


def node(status: str = "SUCCESS", value: Any = None, **fields: Any) -> dict[str, Any]:
    return {
        "status": status,
        "value": value,
        "error_message": None,
        "raw_error_message": None,
        "is_output_node": False,
        **fields,
    }


def poll(response: Response, *, all_outputs: bool = True) -> WorkflowResults:
    return WorkflowRun(42).results_call(return_all_outputs=all_outputs).read(response, NOW)


# Starting

STARTED = {
    "success": True,
    "message": "Workflow started",
    "warning": None,
    "workflow_version_execution_id": 7,
}


@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize(
    ("changes", "run"),
    [
        ({}, StartedRun(7)),
        ({"warning": "Missing: a"}, StartedRun(7, "Missing: a")),
        ({"warning": "Missing:\n\x1ba"}, StartedRun(7, "Missing: \\x1ba")),
        ({"warning": ["a"]}, StartedRun(7, "['a']")),
        ({"warning": ""}, StartedRun(7)),
        ({"workflow_version_execution_id": "8"}, StartedRun(8)),
        ({"workflow_version_execution_id": MAX_ID}, StartedRun(MAX_ID)),
    ],
    ids=["plain", "warning", "nasty-warning", "odd-warning", "empty-warning", "text-id", "max-id"],
)
def test_a_started_run(status: int, changes: dict[str, Any], run: StartedRun) -> None:
    assert run_workflow("Digest").read(answer(status, STARTED | changes), NOW) == run


def test_a_warning_is_not_needed() -> None:
    body = {"workflow_version_execution_id": 7}
    assert run_workflow("Digest").read(answer(201, body), NOW) == StartedRun(7)


def test_what_leaves_open_whether_a_run_was_started() -> None:
    call = run_workflow("Digest")
    check_start_rules(call, "workflow_version_execution_id", STARTED)
    with pytest.raises(PromptLayerStartUncertainError, match=r"may have started.*airflow_run_id"):
        call.read(answer(502), NOW)


@pytest.mark.parametrize(
    "run_id",
    [
        *(b"0", b"-1", b"1.0", b"true", b"[]", b"{}", b'""', b'"x"', b"NaN", b"1" * 5000),
        *(b"9223372036854775808", b'"%s"' % (b"9" * 50), b"[" * 500 + b"]" * 500),
    ],
    ids=lambda run_id: repr(run_id[:20]),
)
def test_a_start_without_an_id_is_uncertain(run_id: bytes) -> None:
    with pytest.raises(PromptLayerStartUncertainError, match="has no workflow_ver") as caught:
        run_workflow("Digest").read(
            answer(201, b'{"workflow_version_execution_id": ' + run_id + b"}"), NOW
        )
    assert caught.value.status == 201
    assert str(caught.value).isprintable()


# Polling


@pytest.mark.parametrize(("all_outputs", "text"), [(True, "true"), (False, "false")])
def test_the_request_of_a_poll(all_outputs: bool, text: str) -> None:
    call = WorkflowRun.of(" 42 ").results_call(return_all_outputs=all_outputs)
    assert (call.request.method, call.request.body) == ("GET", None)
    assert call.request.path == (
        "/workflow-version-execution-results"
        f"?workflow_version_execution_id=42&return_all_outputs={text}"
    )
    lost = PromptLayerUnreachableError("reset", arrived=True)
    assert call.unanswered(lost) is lost


@pytest.mark.parametrize("all_outputs", [True, False])
@pytest.mark.parametrize(
    ("response", "names"),
    [
        pytest.param(answer(202, {"a": node("RUNNING")}), ["a"], id="202-running"),
        pytest.param(answer(202, {"a": node("QUEUED"), "b": node()}), ["a", "b"], id="202-queued"),
        pytest.param(answer(202, {"a": node()}), ["a"], id="202-with-final-nodes-only"),
        pytest.param(answer(202, {}), [], id="202-no-nodes"),
        pytest.param(answer(202, b" \n"), [], id="202-blank"),
        pytest.param(answer(202, {"success": True}), [], id="202-no-map"),
        pytest.param(answer(202, None), [], id="202-null"),
        pytest.param(answer(204), [], id="204"),
        pytest.param(answer(204, b"odd"), [], id="204-with-a-body"),
        pytest.param(answer(200, {"a": node("QUEUED")}), ["a"], id="200-queued"),
        pytest.param(
            answer(200, {"a": node(), "b": node("RUNNING")}), ["a", "b"], id="200-running"
        ),
    ],
)
def test_the_run_goes_on(response: Response, names: list[str], all_outputs: bool) -> None:
    results = poll(response, all_outputs=all_outputs)
    assert not results.is_complete
    if all_outputs or response.status == 202:
        assert list(results.nodes) == names
    assert results.final_output is None


def test_the_whole_results() -> None:
    results = poll(
        answer(
            200,
            {
                "fetch": node(value={"page": 1}),
                "miss": node("FAILED", error_message="why", raw_error_message="Traceback"),
                "skip": node("SKIPPED", is_output_node=True),
                "null": node(value="?", is_output_node=None),
                "main": node(value=[1], is_output_node=True),
                "late": node(value="too late", is_output_node=True),
                "odd": node("EXPLODED"),
            },
        )
    )
    assert results.is_complete
    assert results.workflow_version_execution_id == 42
    assert list(results.nodes) == ["fetch", "miss", "skip", "null", "main", "late", "odd"]
    assert results.nodes["miss"] == NodeResult("FAILED", None, "why", "Traceback", False)
    assert results.nodes["null"].is_output_node is None
    assert results.final_output == [1]
    assert results.outputs == {
        "fetch": {"page": 1},
        "null": "?",
        "main": [1],
        "late": "too late",
    }
    assert results.message is None
    assert results.progress == "7 of 7 nodes done"
    failed = [name for name, found in results.nodes.items() if found.failed]
    assert failed == ["miss", "odd"]
    assert "too late" not in repr(results)
    assert "why" not in repr(results)


@pytest.mark.parametrize(
    ("nodes", "output"),
    [
        ([node(value=1)], None),
        ([node(value=1, is_output_node=None)], None),
        ([node("FAILED", 1, is_output_node=True)], None),
        ([node("FAILED", 1, is_output_node=True), node(value=2, is_output_node=True)], 2),
        ([node("SKIPPED", is_output_node=True), node(value=0, is_output_node=True)], 0),
        ([node(value=None, is_output_node=True), node(value=2, is_output_node=True)], None),
        ([{"status": "SUCCESS"}], None),
        ([node(value=1, is_output_node="true")], None),
    ],
    ids=["none", "null", "failed", "second", "falsy", "null-value", "bare", "odd-mark"],
)
def test_the_main_output_is_that_of_the_first_output_node_that_succeeded(
    nodes: list[Any], output: Any
) -> None:
    results = poll(answer(200, dict(zip("ab", nodes, strict=False))))
    assert results.is_complete
    assert results.final_output == output


@pytest.mark.parametrize(
    "status", ["SUCCESS", "FAILED", "SKIPPED", "CANCELLED", "", "success", "running", "😀"]
)
def test_every_other_status_is_final(status: str) -> None:
    results = poll(answer(200, {"a": node(status)}))
    assert results.is_complete
    assert results.nodes["a"].status == status
    assert results.nodes["a"].succeeded is (status == "SUCCESS")
    assert results.nodes["a"].failed is (status not in ("SUCCESS", "SKIPPED"))


@pytest.mark.parametrize(
    "value",
    [
        *("AAA", "", 0, None, False, [], {}, {"a": 1}, {"status": "RUNNING"}),
        *([{"status": "QUEUED"}], {"a": {"status": "DONE"}}, {"a": {"status": 5}}),
        *("\ud800\x00", 2**80, "x" * 900_000),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_the_bare_main_output(value: Any) -> None:
    results = poll(answer(200, value), all_outputs=False)
    assert results.is_complete
    assert results.final_output == value
    assert results.nodes == {}
    assert results.progress == "ended"


def test_the_bare_main_output_may_be_nan() -> None:
    assert math.isnan(poll(answer(200, b"NaN"), all_outputs=False).final_output)


@pytest.mark.parametrize("all_outputs", [True, False])
@pytest.mark.parametrize("status", [400, 500])
def test_an_ending_without_output(status: int, all_outputs: bool) -> None:
    nodes = {"a": node("FAILED", error_message="why"), "b": node(value="x" * 900_000)}
    body = {"success": False, "message": "No output\nnode succeeded\x1b.", "output": nodes}
    results = poll(answer(status, body), all_outputs=all_outputs)
    assert results.is_complete
    assert results.nodes["a"].error_message == "why"
    assert results.nodes["b"].value == "x" * 900_000
    assert results.message == "No output node succeeded\\x1b."
    assert results.final_output is None


@pytest.mark.parametrize("output", [None, [], "text", {}, {"a": 1}], ids=repr)
def test_an_ending_without_output_whose_nodes_are_odd(output: Any) -> None:
    results = poll(answer(500, {"success": False, "message": None, "output": output}))
    assert results == WorkflowResults(42, True, ended_without_output=True)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (answer(400, {"success": False, "message": "no"}), PromptLayerRefusedError),
        (answer(400, {"success": True, "output": {}}), PromptLayerRefusedError),
        (answer(400, {"success": None, "output": {}}), PromptLayerRefusedError),
        (answer(400, {"success": 0, "output": {}}), PromptLayerRefusedError),
        (answer(400, [False, "output"]), PromptLayerRefusedError),
        (answer(500, {"success": False, "message": "oops"}), PromptLayerServerError),
        (answer(500, b'{"success": false, "outp'), PromptLayerServerError),
        (answer(500, b"[" * 100_000), PromptLayerServerError),
        (answer(502, {"success": False, "output": {}}), PromptLayerServerError),
        (answer(422, {"success": False, "output": {}}), PromptLayerRefusedError),
        (answer(404, {"success": False, "message": "none"}), PromptLayerNotFoundError),
        (answer(201, {"a": node()}), PromptLayerUnexpectedAnswerError),
        (answer(206, {"a": node()}), PromptLayerUnexpectedAnswerError),
    ],
    ids=lambda value: f"{value.status}-{value.body[:30]!r}" if isinstance(value, Response) else "",
)
@pytest.mark.parametrize("all_outputs", [True, False])
def test_an_error_answer_is_no_ending(
    response: Response, error: type[PromptLayerError], all_outputs: bool
) -> None:
    with pytest.raises(PromptLayerError) as caught:
        poll(response, all_outputs=all_outputs)
    assert type(caught.value) is error
    assert caught.value.status == response.status
    assert "workflow run 42" in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"<html>",
            b'{"a": {"status": "SUCC',
            b'"AAA"',
            b"null",
            b"[]",
            b"17",
            b"{}",
            b"\xff",
        ),
        *(b'{"success": true}', b'{"a": null}', b'{"a": {"status": null}}', b'{"a": {"value": 1}}'),
        *(b'{"a": {"status": ["SUCCESS"]}}', b'{"a": {"status": "SUCCESS"}, "b": 1}'),
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body)[:40],
)
def test_anything_but_a_map_of_nodes_is_unexpected(body: bytes) -> None:
    with pytest.raises(PromptLayerUnexpectedAnswerError) as caught:
        poll(answer(200, body))
    assert caught.value.retry_helps


@pytest.mark.parametrize(
    ("field", "text"), [({"a": 1}, "{'a': 1}"), (5, "5"), ("", ""), (None, None), ("x", "x")]
)
def test_error_messages_are_texts(field: Any, text: str | None) -> None:
    found = poll(
        answer(200, {"a": node("FAILED", error_message=field, raw_error_message=field)})
    ).nodes["a"]
    assert found.error_message == text
    assert found.raw_error_message == text


@pytest.mark.parametrize(
    ("nodes", "progress"),
    [
        ({}, "running"),
        ({"a": node("QUEUED"), "b": node()}, "1 of 2 nodes done"),
        ({"a": node("RUNNING"), "b\n": node("RUNNING")}, "0 of 2 nodes done, running: a, b"),
        (
            {f"{index}": node("RUNNING") for index in range(500)},
            "0 of 500 nodes done, running: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 490 more",
        ),
    ],
)
def test_progress(nodes: dict[str, Any], progress: str) -> None:
    assert poll(answer(202, nodes)).progress == progress


@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize("last", ["SUCCESS", "RUNNING", "QUEUED"])
def test_the_status_call_goes_by_the_status(status: int, last: str) -> None:
    """At 200 a map may as well be the main output of a run that has ended: a worker finds out."""
    nodes = {"A": node(value=["some words"]), "B": node("FAILED"), "C": node(last)}
    summary = WorkflowRun(42).status_call().read(answer(status, nodes), NOW)
    whole = WorkflowRun(42).fetch_call().read(answer(status, nodes), NOW)
    assert whole.is_complete == (status == 200 and last == "SUCCESS")
    assert summary.is_complete == (status == 200)
    if not summary.is_complete:
        assert summary.progress == whole.progress


# Counting


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ({"items": [], "total": 0}, 0),
        ({"items": [{}], "total": 17}, 17),
        ({"items": []}, None),
        ({"items": [], "total": "17"}, None),
        ({"items": [], "total": True}, None),
    ],
)
def test_workflow_count(body: Any, count: int | None) -> None:
    call = workflow_count()
    assert (call.request.method, call.request.path) == ("GET", "/workflows?page=1&per_page=1")
    found = call.read(answer(200, body), NOW)
    assert (found, type(found)) == (count, type(count))


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (answer(200, b"<html>"), PromptLayerUnexpectedAnswerError),
        (answer(200, {}), PromptLayerUnexpectedAnswerError),
        (answer(200, []), PromptLayerUnexpectedAnswerError),
        (answer(200, {"items": {}}), PromptLayerUnexpectedAnswerError),
        (answer(401, {"error": "key"}), PromptLayerAuthError),
    ],
    ids=lambda value: f"{value.status}-{value.body!r}" if isinstance(value, Response) else "",
)
def test_a_count_that_is_not_given(response: Response, error: type[PromptLayerError]) -> None:
    with pytest.raises(PromptLayerError) as caught:
        workflow_count().read(response, NOW)
    assert type(caught.value) is error


def test_its_repr_says_what_came_and_nothing_of_it() -> None:
    values: dict[str, Any] = {
        "Summarize": "secret",
        "Topics": ["secret"] * 1200,
        "Fields": {"secret": 1},
        "Score": 0.5,
        "Polite": True,
        "Nothing": None,
    }
    nodes = {name: NodeResult("SUCCESS", value) for name, value in values.items()}
    nodes["Draft"] = NodeResult("FAILED", error_message="secret")
    assert repr(WorkflowResults(7, True, nodes, final_output="secret")) == (
        "<WorkflowResults of run 7: 7 of 7 nodes done; 'Summarize': text of 6 characters; "
        "'Topics': list of 1,200; 'Fields': object of 1; 'Score': number; 'Polite': boolean; "
        "'Nothing': null; 'Draft': FAILED>"
    )
    assert repr(WorkflowResults(7, False)) == "<WorkflowResults of run 7: running>"
    running = WorkflowResults(7, False, {"Draft": NodeResult("RUNNING")})
    assert repr(running) == (
        "<WorkflowResults of run 7: 0 of 1 nodes done, running: Draft; 'Draft': RUNNING>"
    )
