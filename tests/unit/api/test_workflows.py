# SPDX-License-Identifier: Apache-2.0
"""Workflows: the bytes of a request, and what each answer means."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import unquote

import pytest
from unit.api.answers import check_refusals

from airflow_provider_promptlayer.api.arguments import MAX_ID, execution_id, path_segment
from airflow_provider_promptlayer.api.http import Response
from airflow_provider_promptlayer.api.workflows import (
    NodeResult,
    StartedRun,
    WorkflowResults,
    WorkflowRun,
    run_workflow,
    workflow_count,
    workflow_results,
)
from airflow_provider_promptlayer.exceptions import (
    PromptLayerAuthError,
    PromptLayerError,
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
    PromptLayerRateLimitError,
    PromptLayerRefusedError,
    PromptLayerServerError,
    PromptLayerStartUncertainError,
    PromptLayerUnexpectedAnswerError,
    PromptLayerUnreachableError,
)

NOW = 1_800_000_000.0


def answer(status: int, body: Any = b"", **headers: str) -> Response:
    return Response(
        status,
        {name.replace("_", "-"): value for name, value in headers.items()},
        body if isinstance(body, bytes) else json.dumps(body).encode(),
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


def body_of(**arguments: Any) -> Any:
    body = run_workflow("Digest", **arguments).request.body
    assert body is not None
    return json.loads(body)


def poll(response: Response, *, all_outputs: bool = True) -> WorkflowResults:
    return workflow_results(42, return_all_outputs=all_outputs).read(response, NOW)


# Starting: the request


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("Digest", "Digest"),
        (17, "17"),
        ("a/b", "a%2Fb"),
        ("a?b", "a%3Fb"),
        ("a#b", "a%23b"),
        ("100%", "100%25"),
        ("%2F", "%252F"),
        ("a b", "a%20b"),
        ("a+b", "a%2Bb"),
        ("a\\b", "a%5Cb"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("🎉", "%F0%9F%8E%89"),
        ("a\nb\x00", "a%0Ab%00"),
        ("../../reports", "..%2F..%2Freports"),
        ("a/../b", "a%2F..%2Fb"),
        ("...", "..."),
        ("x;y=1&z@h:1", "x%3By%3D1%26z%40h%3A1"),
        ("~tilde-._", "~tilde-._"),
    ],
)
def test_a_name_is_one_segment_of_the_path(name: int | str, segment: str) -> None:
    request = run_workflow(name).request
    assert request.path == f"/workflows/{segment}/run"
    assert request.method == "POST"
    assert path_segment(name) == segment
    assert unquote(segment) == str(name)


@pytest.mark.parametrize(
    "name",
    ["", "  ", "\n", ".", "..", "\ud800", None, True, 1.5, ["a"], b"a", 10**5000],
    ids=lambda name: repr(name)[:20] if not isinstance(name, int) else type(name).__name__,
)
def test_a_name_that_no_url_can_carry(name: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match=r"named|workflow_id_or_name"):
        run_workflow(name)


def test_the_body_of_a_start() -> None:
    assert body_of() == {"input_variables": {}, "return_all_outputs": True}
    assert body_of(
        input_variables={"a": [1, None, {"b": "ü"}]},
        metadata={"run": "x", "try": 2},
        workflow_label_name="prod",
        return_all_outputs=False,
    ) == {
        "input_variables": {"a": [1, None, {"b": "ü"}]},
        "metadata": {"run": "x", "try": "2"},
        "workflow_label_name": "prod",
        "return_all_outputs": False,
    }


@pytest.mark.parametrize("number", [3, "3", " 3 "])
def test_a_version_is_sent_as_a_number(number: int | str) -> None:
    body = body_of(workflow_version_number=number)
    assert body["workflow_version_number"] == 3
    assert "workflow_label_name" not in body


@pytest.mark.parametrize("number", [0, -1, "x", "", 1.0, True])
def test_a_version_that_is_none(number: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="workflow_version_number"):
        run_workflow("Digest", workflow_version_number=number)


@pytest.mark.parametrize(("label", "number"), [("prod", 3), ("", 1), ("prod", 0), ("prod", "x")])
def test_label_and_version_exclude_each_other(label: str, number: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="exclude each other"):
        run_workflow("Digest", workflow_label_name=label, workflow_version_number=number)


class Lazy(Sequence[Any]):
    """Like the lazy sequence of XComs that Airflow hands to a task."""

    def __init__(self, *items: Any) -> None:
        self._items = items

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)


class View(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        return {"a": 1, "b": Lazy(2)}[key]

    def __iter__(self) -> Iterator[str]:
        return iter("ab")

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        pytest.param(Lazy("a", Lazy(1), {"x": Lazy()}), ["a", [1], {"x": []}], id="lazy-sequence"),
        pytest.param(View(), {"a": 1, "b": [2]}, id="mapping"),
        pytest.param((1, 2), [1, 2], id="tuple"),
        pytest.param(date(2027, 1, 2), "2027-01-02", id="date"),
        pytest.param(
            datetime(2027, 1, 2, 3, tzinfo=UTC), "2027-01-02T03:00:00+00:00", id="datetime"
        ),
        pytest.param(2**70, 2**70, id="big-integer"),
        pytest.param("\x00\ud800🎉", "\x00\ud800🎉", id="odd-text"),
    ],
)
def test_input_variables_may_be_what_airflow_hands_over(value: Any, sent: Any) -> None:
    assert body_of(input_variables={"v": value})["input_variables"] == {"v": sent}
    assert body_of(input_variables=View())["input_variables"] == {"a": 1, "b": [2]}


def test_the_body_is_ascii_json() -> None:
    body = run_workflow("Digest", input_variables={"v": "\ud800ü"}).request.body
    assert body is not None
    assert body.isascii()


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


class Endless(Lazy):
    def __getitem__(self, index: Any) -> Any:
        if index:
            raise IndexError
        return Endless()

    def __len__(self) -> int:
        return 1


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(math.nan, id="nan"),
        pytest.param([math.inf], id="infinity"),
        pytest.param({1, 2}, id="set"),
        pytest.param(object(), id="object"),
        pytest.param(CIRCLE, id="circle"),
        pytest.param(nested(100_000), id="deep"),
        pytest.param(Endless(), id="endless"),
        pytest.param({(1, 2): 3}, id="tuple-as-key"),
        pytest.param(10**5000, id="5000-digits"),
        pytest.param(b"bytes", id="bytes"),
        pytest.param(bytearray(b"bytes"), id="bytearray"),
    ],
)
def test_input_variables_that_json_cannot_hold(value: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="input_variables") as caught:
        run_workflow("Digest", input_variables={"v": value})
    assert " at 0x" not in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    "value", ["text", "{1: 2}", [1], 5, {1: 2}, {None: 1}, Lazy(1)], ids=lambda v: type(v).__name__
)
@pytest.mark.parametrize("argument", ["input_variables", "metadata"])
def test_what_is_no_mapping_with_strings_as_keys(argument: str, value: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match=f"{argument} must be a mapping"):
        run_workflow("Digest", **{argument: value})


@pytest.mark.parametrize(
    ("value", "text"),
    [("x", "x"), (5, "5"), (1.5, "1.5"), (True, "True"), (date(2027, 1, 2), "2027-01-02")],
)
def test_metadata_is_sent_as_strings(value: Any, text: str) -> None:
    assert body_of(metadata={"key": value})["metadata"] == {"key": text}


@pytest.mark.parametrize("value", [None, [], {}, b"x", object(), 10**5000], ids=lambda v: "")
def test_metadata_that_is_no_string(value: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="metadata"):
        run_workflow("Digest", metadata={"key": value})


def test_the_purpose_is_one_line() -> None:
    purpose = run_workflow("a\nb\x1b[2J" + "x" * 500).request.purpose
    assert purpose.isprintable()
    assert len(purpose) < 120


# Starting: the answer

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


NO_IDS: list[Any] = [None, 0, -1, 1.0, True, [], {}, "", "x", 2**63, "9" * 50]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"success": true, "workflow_version_execu',
        [],
        "x",
        7,
        None,
        {},
        {"success": True},
        b"[" * 100_000,
        *({"workflow_version_execution_id": run_id} for run_id in NO_IDS),
        b'{"workflow_version_execution_id": ' + b"1" * 5000 + b"}",
        b'{"workflow_version_execution_id": NaN}',
        b'{"workflow_version_execution_id": ' + b"[" * 500 + b"]" * 500 + b"}",
    ],
    ids=lambda body: repr(body)[:50],
)
def test_a_start_without_an_id_is_uncertain(body: Any) -> None:
    with pytest.raises(PromptLayerStartUncertainError) as caught:
        run_workflow("Digest").read(answer(201, body), NOW)
    assert not caught.value.retry_helps
    assert caught.value.status == 201
    assert "may have started" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 520, 599])
def test_a_start_that_the_server_stumbled_over_is_uncertain(status: int) -> None:
    with pytest.raises(PromptLayerStartUncertainError, match="airflow_run_id") as caught:
        run_workflow("Digest").read(answer(status, b"<html>"), NOW)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (307, PromptLayerRefusedError),
        (400, PromptLayerRefusedError),
        (401, PromptLayerAuthError),
        (403, PromptLayerAuthError),
        (404, PromptLayerNotFoundError),
        (422, PromptLayerRefusedError),
        (429, PromptLayerRateLimitError),
        (503, PromptLayerServerError),
    ],
)
def test_a_start_that_was_refused_is_certain(status: int, error: type[PromptLayerError]) -> None:
    with pytest.raises(PromptLayerError) as caught:
        run_workflow("Digest").read(answer(status, {"success": False, "message": "no"}), NOW)
    assert type(caught.value) is error


def test_a_refusal_that_names_a_run_is_uncertain() -> None:
    check_refusals(run_workflow("Digest"), "workflow_version_execution_id", 7)


def test_an_unanswered_start_is_uncertain_only_if_it_may_have_arrived() -> None:
    call = run_workflow("Digest")
    lost = PromptLayerUnreachableError("reset", arrived=True)
    assert type(call.unanswered(lost)) is PromptLayerStartUncertainError
    assert "reset" in str(call.unanswered(lost))
    never = PromptLayerUnreachableError("refused", arrived=False)
    assert call.unanswered(never) is never


def test_an_unanswered_look_is_what_it_is() -> None:
    lost = PromptLayerUnreachableError("reset", arrived=True)
    assert workflow_results(42).unanswered(lost) is lost
    assert workflow_count().unanswered(lost) is lost


# Looking: the request


@pytest.mark.parametrize(("all_outputs", "text"), [(True, "true"), (False, "false")])
@pytest.mark.parametrize("run_id", [42, "42", " 42 "])
def test_the_request_of_a_look(run_id: int | str, all_outputs: bool, text: str) -> None:
    request = workflow_results(run_id, return_all_outputs=all_outputs).request
    assert request.method == "GET"
    assert request.body is None
    assert request.path == (
        "/workflow-version-execution-results"
        f"?workflow_version_execution_id=42&return_all_outputs={text}"
    )


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1),
        ("1", 1),
        ("007", 7),
        ("0" * 18 + "12345", 12345),
        ("0" * 30 + "12345", 12345),
        (2**63 - 1, 2**63 - 1),
        (str(2**63 - 1), 2**63 - 1),
    ],
    ids=["int", "text", "zeros", "18-zeros", "30-zeros", "max", "max-text"],
)
def test_execution_id(value: int | str, number: int) -> None:
    assert execution_id(value) == number


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        2**63,
        str(2**63),
        "0",
        "-1",
        "1.0",
        1.0,
        True,
        False,
        None,
        "",
        " ",
        "x",
        "٣",
        "²",
        "1_0",
        "0x1",
        [1],
        math.nan,
        "9" * 5000,
        "9" * 5000 + "x",
        10**5000,
        -(10**5000),
    ],
    ids=lambda value: str(value)[:12] if not isinstance(value, int) or abs(value) < 2**64 else "",
)
def test_an_execution_id_that_is_none(value: Any) -> None:
    for ask in (execution_id, workflow_results):
        with pytest.raises(
            PromptLayerInvalidInputError, match="must be a positive integer"
        ) as caught:
            ask(value)
        assert len(str(caught.value)) < 200


# Looking: the answer


@pytest.mark.parametrize("all_outputs", [True, False])
@pytest.mark.parametrize(
    ("response", "names"),
    [
        pytest.param(answer(202, {"a": node("RUNNING")}), ["a"], id="202-running"),
        pytest.param(answer(202, {"a": node("QUEUED"), "b": node()}), ["a", "b"], id="202-queued"),
        pytest.param(answer(202, {"a": node()}), ["a"], id="202-with-final-nodes-only"),
        pytest.param(answer(202, {}), [], id="202-no-nodes"),
        pytest.param(answer(202, b""), [], id="202-empty"),
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
    if names and (all_outputs or response.status == 202):
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


@pytest.mark.parametrize(
    ("nodes", "output"),
    [
        ({"a": node(value=1)}, None),
        ({"a": node(value=1, is_output_node=None)}, None),
        ({"a": node("FAILED", 1, is_output_node=True)}, None),
        ({"a": node("FAILED", 1, is_output_node=True), "b": node(value=2, is_output_node=True)}, 2),
        ({"a": node("SKIPPED", is_output_node=True), "b": node(value=0, is_output_node=True)}, 0),
        (
            {"a": node(value=None, is_output_node=True), "b": node(value=2, is_output_node=True)},
            None,
        ),
        ({"a": {"status": "SUCCESS"}}, None),
        ({"a": node(value=1, is_output_node="true")}, None),
    ],
    ids=["none", "null", "failed", "second", "falsy", "null-value", "bare", "odd-mark"],
)
def test_the_main_output_is_that_of_the_first_output_node_that_succeeded(
    nodes: dict[str, Any], output: Any
) -> None:
    results = poll(answer(200, nodes))
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
        "AAA",
        "",
        0,
        None,
        False,
        [],
        {},
        {"a": 1},
        {"status": "RUNNING"},
        [{"status": "QUEUED"}],
        {"a": {"status": "DONE"}},
        {"a": {"status": 5}},
        "\ud800\x00",
        2**80,
    ],
    ids=repr,
)
def test_the_bare_main_output(value: Any) -> None:
    results = poll(answer(200, value), all_outputs=False)
    assert results.is_complete
    assert results.final_output == value
    assert results.nodes == {}
    assert results.progress == "ended"


def test_the_bare_main_output_may_be_nan() -> None:
    results = poll(answer(200, b"NaN"), all_outputs=False)
    assert results.is_complete
    assert math.isnan(results.final_output)


@pytest.mark.parametrize("all_outputs", [True, False])
@pytest.mark.parametrize("status", [400, 500])
def test_an_ending_without_output(status: int, all_outputs: bool) -> None:
    body = {
        "success": False,
        "message": "No output\nnode succeeded\x1b.",
        "output": {"a": node("FAILED", error_message="why")},
    }
    results = poll(answer(status, body), all_outputs=all_outputs)
    assert results.is_complete
    assert results.nodes["a"].error_message == "why"
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
        (answer(400, b""), PromptLayerRefusedError),
        (answer(400, [False, "output"]), PromptLayerRefusedError),
        (answer(500, {"success": False, "message": "oops"}), PromptLayerServerError),
        (answer(500, b"<html>"), PromptLayerServerError),
        (answer(500, b'{"success": false, "outp'), PromptLayerServerError),
        (answer(500, b"[" * 100_000), PromptLayerServerError),
        (answer(502, {"success": False, "output": {}}), PromptLayerServerError),
        (answer(422, {"success": False, "output": {}}), PromptLayerRefusedError),
        (answer(401, {"error": "key"}), PromptLayerAuthError),
        (answer(403, b"<html>"), PromptLayerAuthError),
        (answer(404, {"success": False, "message": "none"}), PromptLayerNotFoundError),
        (answer(422, {"detail": [{"loc": ["a"], "msg": "b"}]}), PromptLayerRefusedError),
        (answer(429, {"success": False}), PromptLayerRateLimitError),
        (answer(503, b""), PromptLayerServerError),
        (answer(302, b"", location="https://elsewhere.example"), PromptLayerRefusedError),
        (answer(201, {"a": node()}), PromptLayerUnexpectedAnswerError),
        (answer(206, {"a": node()}), PromptLayerUnexpectedAnswerError),
    ],
    ids=lambda value: f"{value.status}-{value.body[:30]!r}" if isinstance(value, Response) else "",
)
@pytest.mark.parametrize("all_outputs", [True, False])
def test_trouble_in_looking(
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
        b"",
        b"<html>",
        b'{"a": {"status": "SUCC',
        b'"AAA"',
        b"null",
        b"[]",
        b"17",
        b'{"success": true}',
        b'{"a": null}',
        b'{"a": {"status": null}}',
        b'{"a": {"status": ["SUCCESS"]}}',
        b'{"a": {"value": 1}}',
        b'{"a": {"status": "SUCCESS"}, "b": 1}',
        b"\xff",
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body)[:40],
)
def test_what_is_no_map_of_nodes_is_unexpected(body: bytes) -> None:
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
    ],
)
def test_progress(nodes: dict[str, Any], progress: str) -> None:
    assert poll(answer(202, nodes)).progress == progress


def test_progress_stays_a_line_however_many_nodes_run() -> None:
    nodes = {f"node {index} {'x' * 60}": node("RUNNING") for index in range(500)}
    assert len(poll(answer(202, nodes)).progress) < 2000


def test_reprs_hold_no_values() -> None:
    results = poll(
        answer(200, {"a": node(value="private", error_message="secret", is_output_node=True)})
    )
    assert "private" not in repr(results)
    assert "secret" not in repr(results)


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
    assert call.request.path == "/workflows?page=1&per_page=1"
    assert call.request.method == "GET"
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
        (answer(404, {"message": "no"}), PromptLayerNotFoundError),
        (answer(404, b"<html>"), PromptLayerRefusedError),
        (answer(503, b""), PromptLayerServerError),
    ],
    ids=lambda value: f"{value.status}-{value.body!r}" if isinstance(value, Response) else "",
)
def test_a_count_that_is_not_given(response: Response, error: type[PromptLayerError]) -> None:
    with pytest.raises(PromptLayerError) as caught:
        workflow_count().read(response, NOW)
    assert type(caught.value) is error


# Large answers


@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize("last", ["SUCCESS", "RUNNING", "QUEUED"])
def test_the_short_question_goes_by_the_status(status: int, last: str) -> None:
    """At 200 a map may as well be the main output of a run that has ended: a worker finds out."""
    nodes = {"A": node(value=["some words"]), "B": node("FAILED"), "C": node(last)}
    asked_shortly = WorkflowRun(42).status_call().read(answer(status, nodes), NOW)
    whole = WorkflowRun(42).fetch_call().read(answer(status, nodes), NOW)
    assert whole.is_complete == (status == 200 and last == "SUCCESS")
    assert asked_shortly.is_complete == (status == 200)
    if not asked_shortly.is_complete:
        assert asked_shortly.progress == whole.progress


@pytest.mark.parametrize("output", [["x"] * 200_000, "x" * 900_000, {"a": ["x"] * 200_000}])
def test_the_main_output_may_be_large(output: Any) -> None:
    response = answer(200, output)
    assert poll(response, all_outputs=False).final_output == output


@pytest.mark.parametrize("status", [400, 500])
def test_an_ending_without_output_may_be_large(status: int) -> None:
    nodes = {"A": node("FAILED", error_message="no"), "B": node(value="x" * 900_000)}
    response = answer(status, {"success": False, "message": "ended", "output": nodes})
    assert poll(response).nodes["B"].value == "x" * 900_000


@pytest.mark.parametrize("said", ["message", "error", "detail"])
def test_a_large_error_is_quoted_in_brief(said: str) -> None:
    with pytest.raises(PromptLayerRefusedError, match=f"no such model, {'x' * 50}") as caught:
        poll(answer(422, {"more": ["x"] * 200_000, said: "no such model, " + "x" * 900_000}))
    assert len(str(caught.value)) < 1_000
