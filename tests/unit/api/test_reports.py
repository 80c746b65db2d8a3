# SPDX-License-Identifier: Apache-2.0
"""Reports: the bytes of a request, and what each answer means."""

from __future__ import annotations

from typing import Any

import pytest
from unit.api.answers import NOW, answer, body_of, check_start_rules

from airflow_provider_promptlayer.api.reports import (
    FinalReport,
    Report,
    ReportScore,
    report_score,
    run_report,
)
from airflow_provider_promptlayer.exceptions import (
    PromptLayerAuthError,
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
    PromptLayerRefusedError,
    PromptLayerStartUncertainError,
    PromptLayerUnexpectedAnswerError,
)

POLL = FinalReport(5).fetch_call()


def poll(status: Any = "RUNNING", **counts: Any) -> Report:
    body = {
        "success": True,
        "report": {"id": 5, "name": "N", "is_blueprint": None},
        "status": status,
        "stats": {"status_counts": counts},
    }
    return POLL.read(answer(200, body), NOW)


def test_a_start() -> None:
    call = run_report(" 5 ", "Nightly")
    assert (call.request.method, call.request.path) == ("POST", "/reports/5/run")
    assert body_of(call) == {"name": "Nightly"}
    call = run_report(5, "x" * 255, dataset_id="7", refresh_dataset=False)
    assert body_of(call) == {"name": "x" * 255, "dataset_id": 7, "refresh_dataset": False}
    for report_id in (9, "9"):
        body = {"success": True, "report_id": report_id}
        assert call.read(answer(201, body), NOW) == 9


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"report_id": 0}, "report_id must be a positive integer"),
        ({"report_id": "nightly"}, "report_id must be a positive integer, not 'nightly'"),
        ({"name": ""}, "name must be a text of 1 to 255 characters, not ''"),
        ({"name": " "}, "name must be a text"),
        ({"name": "x" * 256}, "name must be a text"),
        ({"name": None}, "name must be a text of 1 to 255 characters, not None"),
        ({"dataset_id": "x"}, "dataset_id must be a positive integer"),
        ({"refresh_dataset": "yes"}, "refresh_dataset must be True or False, not 'yes'"),
    ],
)
def test_arguments_that_cannot_be_sent(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match=named):
        run_report(**{"report_id": 5, "name": "n", **arguments})


def test_what_leaves_open_whether_it_was_started() -> None:
    check_start_rules(run_report(5, "Nightly"), "report_id", {"report_id": 9})
    with pytest.raises(PromptLayerStartUncertainError, match="named 'Nightly'"):
        run_report(5, "Nightly").read(answer(500), NOW)
    for bad in (0, -1, "x", "", None, True, 2**63, 10**4000):
        with pytest.raises(PromptLayerStartUncertainError, match=r"has no report_id.*may have"):
            run_report(5, "n").read(answer(201, {"report_id": bad}), NOW)


def test_a_403_is_not_about_the_key() -> None:
    with pytest.raises(PromptLayerRefusedError, match="Only an evaluation pipeline") as caught:
        run_report(5, "n").read(answer(403, {"success": False, "message": "m"}), NOW)
    assert not isinstance(caught.value, PromptLayerAuthError)
    for body in ({"message": "m"}, {}, b"<html>"):
        with pytest.raises(PromptLayerAuthError):
            run_report(5, "n").read(answer(401, body), NOW)
    with pytest.raises(PromptLayerNotFoundError, match="report_id and dataset_id"):
        run_report(5, "n").read(answer(404, {"message": "m"}), NOW)


def test_a_401_may_be_about_the_data_and_not_the_key() -> None:
    said = "No requests found for the given criteria."
    with pytest.raises(PromptLayerRefusedError) as caught:
        run_report(5, "n").read(answer(401, {"success": False, "message": said}), NOW)
    assert not isinstance(caught.value, PromptLayerAuthError)
    assert "key" not in str(caught.value)
    assert "no requests for it (HTTP 401): No requests found for the given criteria. Check" in str(
        caught.value
    )


def test_a_refusal_may_repeat_the_pipeline() -> None:
    """Else a pipeline that is not there would be a run that may have been started."""
    for report_id in (5, "5"):
        with pytest.raises(PromptLayerNotFoundError, match="Check report_id"):
            run_report(5, "n").read(answer(404, {"message": "m", "report_id": report_id}), NOW)


def test_a_poll() -> None:
    assert FinalReport.of("5").fetch_call().request.path == "/reports/5"
    running = poll(COMPLETED=35, FAILED=2, QUEUED=80, RUNNING=3)
    assert running.progress == "37 of 120 cells done, 2 failed"
    assert (running.completed_count, running.failed_count, running.pending_count) == (35, 2, 83)
    assert running.name == "N"


@pytest.mark.parametrize(
    ("status", "counts", "is_complete"),
    [
        ("RUNNING", {}, False),
        ("RUNNING", {"COMPLETED": 3}, False),
        ("COMPLETED", {"COMPLETED": 3, "QUEUED": 0, "RUNNING": None}, True),
        # Called a success too early otherwise.
        ("COMPLETED", {"COMPLETED": 3, "QUEUED": 1}, False),
        ("COMPLETED", {"RUNNING": 1}, False),
        ("COMPLETED", {"COMPLETED": 3, "EXPLODED": 1}, True),
        ("EXPLODED", {"RUNNING": 1}, True),
    ],
)
def test_when_it_has_ended(status: str, counts: dict[str, Any], is_complete: bool) -> None:
    assert poll(status, **counts).is_complete is is_complete


@pytest.mark.parametrize(
    "stats",
    [
        *(None, {}, {"status_counts": None}, {"status_counts": {}}),
        *({"status_counts": {"COMPLETED": 3, "FAILED": count}} for count in ("4", 4.0, True)),
    ],
)
def test_completed_without_counts_is_not_understood(stats: Any) -> None:
    """Else no cell would have failed."""
    body = {"report": {}, "status": "COMPLETED", "stats": stats}
    with pytest.raises(PromptLayerUnexpectedAnswerError):
        POLL.read(answer(200, body), NOW)
    assert (
        not FinalReport(5)
        .fetch_call()
        .read(answer(200, {**body, "status": "RUNNING"}), NOW)
        .is_complete
    )


def test_what_the_description_does_not_require() -> None:
    found = POLL.read(answer(200, {"status": "RUNNING"}), NOW)
    assert found == Report(5, "RUNNING")
    assert found.progress == "running"
    with pytest.raises(PromptLayerUnexpectedAnswerError, match="has no status"):
        POLL.read(answer(200, {"success": True}), NOW)


@pytest.mark.parametrize("value", [["a"], {"a": 1}, "a", 5, True])
def test_what_decides_nothing_is_taken_as_it_comes(value: Any) -> None:
    body = {"status": "RUNNING", "stats": value, "report": {"name": value}}
    body["report"] |= {"score_calculation_error": value}
    found = POLL.read(answer(200, body), NOW)
    assert (found.is_complete, found.score_calculation_error) == (False, value)
    score = {"overall_score": 87.5, "score_type": value, "details": value}
    scored = report_score(5).read(answer(200, {"score": score}), NOW)
    assert (scored.overall_score, scored.details) == (87.5, value)


def test_a_blueprint_never_ends() -> None:
    body = {"status": "COMPLETED", "report": {"is_blueprint": True}}
    with pytest.raises(PromptLayerInvalidInputError, match="Report 5 is a blueprint") as caught:
        POLL.read(answer(200, body), NOW)
    assert not caught.value.retry_helps
    with pytest.raises(PromptLayerRefusedError, match="A blueprint has no score"):
        report_score(5).read(answer(400, {"message": "no"}), NOW)


def test_a_score() -> None:
    call = report_score(5)
    assert (call.request.method, call.request.path) == ("GET", "/reports/5/score")
    score = {
        "overall_score": 87.5,
        "score_type": "custom",
        "has_custom_scoring": True,
        "details": {"matrix": []},
    }
    found = call.read(answer(200, {"score": score}), NOW)
    assert found == ReportScore(87.5, "custom", True, {"matrix": []})
    for nothing in (None, float("nan")):
        assert call.read(answer(200, {"score": {"overall_score": nothing}}), NOW) == ReportScore(
            None, "none", False
        )
    bad: dict[str, Any]
    for bad in ({}, {"score": None}, {"score": {"overall_score": "87"}}, {"score": []}):
        with pytest.raises(PromptLayerUnexpectedAnswerError):
            call.read(answer(200, bad), NOW)
