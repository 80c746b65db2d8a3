# SPDX-License-Identifier: Apache-2.0
"""What callbacks and retry policies get of a task that did not succeed."""

from __future__ import annotations

import copy
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
)
from support.kinds import WORKFLOW_RUN
from support.modes import MODES, TASK_MODES, FakeTaskInstance
from support.starts import RUN_WORKFLOW, Start, every_start
from unit.api.test_exceptions import CLASSES, make

from airflow_provider_promptlayer import exceptions
from airflow_provider_promptlayer.bases.task_errors import task_error
from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerWorkflowSensor
from airflow_provider_promptlayer.testing import Close, LocalPromptLayer, Reply

OUTCOME = exceptions.PromptLayerOutcomeError

AIRFLOWS = (AirflowException, AirflowFailException, AirflowSensorTimeout, AirflowSkipException)


@pytest.mark.parametrize("ours", CLASSES, ids=lambda cls: cls.__name__)
def test_it_is_both_and_travels_between_processes(ours: type[exceptions.PromptLayerError]) -> None:
    for airflows in AIRFLOWS:
        original = make(ours)
        error = task_error(airflows, original, "one line")
        for each in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert isinstance(each, ours)
            assert isinstance(each, airflows)
            assert str(each) == "one line"
            assert vars(each) == vars(original)
            assert type(each) is type(error)


RETRIED = {
    "PromptLayerAuthError",
    "PromptLayerEventError",
    "PromptLayerFileError",
    "PromptLayerOutageError",
    "PromptLayerRateLimitError",
    "PromptLayerServerError",
    "PromptLayerSheetChangedError",
    "PromptLayerTransientError",
    "PromptLayerUnexpectedAnswerError",
    "PromptLayerUnknownConnectionError",
    "PromptLayerUnreachableError",
}


@pytest.mark.parametrize("ours", CLASSES, ids=lambda cls: cls.__name__)
def test_which_of_airflows_classes_it_is(
    ours: type[exceptions.PromptLayerError], server: LocalPromptLayer
) -> None:
    class Sensor(PromptLayerWorkflowSensor):
        def raise_for_outcome(self, ending: Any) -> None:
            raise make(ours)

    run_id = server.start_execution("good")
    if ours is exceptions.PromptLayerWaitTimeoutError:
        expected: type[Exception] = AirflowSensorTimeout
    else:
        expected = AirflowException if ours.__name__ in RETRIED else AirflowFailException
    for option in (None, "soft_fail", "never_fail"):
        options: dict[str, Any] = {option: True} if option else {}
        task = Sensor(task_id="task", workflow_version_execution_id=run_id, **options)
        with pytest.raises(ours) as raised:
            task.execute({"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]
        its = AirflowSkipException if option else expected
        assert [cls for cls in AIRFLOWS if isinstance(raised.value, cls)] == [
            cls for cls in AIRFLOWS if cls in (AirflowException, its)
        ]


@every_start
def test_a_failure_that_is_not_of_the_job_starts_no_other(
    start: Start, server: LocalPromptLayer
) -> None:
    """A subclass in a DAG may raise any of the errors, with any outcome."""

    class Judging(start.operator):  # type: ignore[misc, name-defined]
        def raise_for_outcome(self, ending: Any) -> None:
            raise exceptions.PromptLayerOutcomeError("not good enough", outcome=None)

    ending = replace(start, operator=Judging).run()
    assert ending.kind == "failed for good"
    assert ending.message.startswith("not good enough. ")
    assert len(start.started(server)) == 1


def wait(mode: str, external_id: Any, **arguments: Any) -> Any:
    """Return the error with which a wait for a workflow run ends."""
    return MODES[mode](external_id, WORKFLOW_RUN, **{"poke_interval": 0.02, **arguments}).error


REFUSALS = {
    404: exceptions.PromptLayerNotFoundError,
    401: exceptions.PromptLayerAuthError,
    422: exceptions.PromptLayerRefusedError,
}


@pytest.mark.parametrize("polls", [0, 1], ids=["at once", "in the triggerer"])
@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize("mode", TASK_MODES)
def test_a_refusal(mode: str, status: int, polls: int, server: LocalPromptLayer) -> None:
    """The triggerer says which one it met, so that it is the same as in a worker."""
    run_id = server.start_execution("never")
    body, headers = '{"success": false, "message": "no"}', {"X-Request-Id": "4f2a-1"}
    server.script(Reply(status, body, headers), times=None, after=polls)
    error = wait(mode, run_id)
    assert REFUSALS[status] in type(error).__bases__
    assert (error.status, error.external_id) == (status, run_id)
    assert error.request_id == "4f2a-1"
    assert f"HTTP {status}, request id 4f2a-1" in str(error)


@pytest.mark.parametrize("soft_fail", [False, True])
@pytest.mark.parametrize("mode", ["poke", "reschedule", "deferred"])
def test_a_time_out_and_an_outage(mode: str, soft_fail: bool, server: LocalPromptLayer) -> None:
    run_id = server.start_execution("never")
    late = wait(mode, run_id, timeout=0.1, soft_fail=soft_fail)
    server.script(Reply(502), times=None)
    away = wait(mode, run_id, max_outage=0.1, soft_fail=soft_fail)
    assert not isinstance(away, AirflowFailException)
    assert (away.status, away.external_id) == (502, run_id)
    for error, ours, airflows in (
        (late, exceptions.PromptLayerWaitTimeoutError, AirflowSensorTimeout),
        (away, exceptions.PromptLayerOutageError, AirflowException),
    ):
        assert isinstance(error, ours)
        assert isinstance(error, AirflowSkipException if soft_fail else airflows)


def test_a_start_whose_answer_was_lost(server: LocalPromptLayer) -> None:
    server.script(Close(), method="POST", times=1)
    error = RUN_WORKFLOW.run().error
    assert isinstance(error, exceptions.PromptLayerStartUncertainError)
    assert isinstance(error, AirflowFailException)


@pytest.mark.parametrize("status", [500, 502])
def test_a_start_that_is_uncertain_has_the_id_of_its_request(
    status: int, server: LocalPromptLayer
) -> None:
    """By which PromptLayer's support finds out whether the run was started."""
    server.script(Reply(status, "oops", {"X-Request-Id": "4f2a-1"}), method="POST")
    error = RUN_WORKFLOW.run().error
    assert isinstance(error, exceptions.PromptLayerStartUncertainError)
    assert (error.status, error.request_id, error.external_id) == (status, "4f2a-1", None)


def test_the_page_on_exceptions_lists_each_class_and_whether_it_is_retried() -> None:
    page = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(PromptLayer\w+)` \| [^|]+ \| ([^|]+) \|", page, re.MULTILINE)
    listed = dict(rows)
    assert len(rows) == len(listed)
    assert {*listed, "PromptLayerError"} == {*exceptions.__all__}
    depends = {name for name, retried in rows if retried not in ("yes", "no")}
    assert all(issubclass(getattr(exceptions, name), OUTCOME) for name in depends)
    assert {name for name, retried in rows if retried == "yes"} == RETRIED
