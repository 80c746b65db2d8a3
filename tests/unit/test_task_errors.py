# SPDX-License-Identifier: Apache-2.0
"""What callbacks and retry policies get of a task that did not succeed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
)
from support.kinds import EVALUATIONS, KINDS, WORKFLOW_RUN, Kind, new_server
from support.modes import (
    MODES,
    TASK_MODES,
    Ending,
    FakeTaskInstance,
    Store,
    run_task,
)
from unit.api.test_exceptions import CLASSES, make

from airflow_provider_promptlayer import exceptions
from airflow_provider_promptlayer.bases.task_errors import task_error
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowOperator
from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerWorkflowSensor
from airflow_provider_promptlayer.testing import Close, LocalPromptLayer, Reply
from airflow_provider_promptlayer.version_compat import RescheduleException

AIRFLOWS = (AirflowException, AirflowFailException, AirflowSensorTimeout, AirflowSkipException)


@pytest.mark.parametrize("airflows", AIRFLOWS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("ours", CLASSES, ids=lambda cls: cls.__name__)
def test_it_is_both_and_travels_between_processes(
    ours: type[exceptions.PromptLayerError], airflows: type[AirflowException]
) -> None:
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
    "PromptLayerOutageError",
    "PromptLayerRateLimitError",
    "PromptLayerServerError",
    "PromptLayerTransientError",
    "PromptLayerUnexpectedAnswerError",
    "PromptLayerUnknownConnectionError",
    "PromptLayerUnreachableError",
}


@pytest.mark.parametrize("option", [None, "soft_fail", "never_fail"])
@pytest.mark.parametrize("ours", CLASSES, ids=lambda cls: cls.__name__)
def test_which_of_airflows_classes_it_is(
    ours: type[exceptions.PromptLayerError], option: str | None
) -> None:
    class Sensor(PromptLayerWorkflowSensor):
        def get_job(self, context: Any) -> Any:
            raise make(ours)

    options: dict[str, Any] = {option: True} if option else {}
    task = Sensor(task_id="task", workflow_version_execution_id=1, **options)
    context: Any = {"ti": FakeTaskInstance()}
    with pytest.raises(ours) as raised:
        task.execute(context)
    if option:
        expected: type[Exception] = AirflowSkipException
    elif ours is exceptions.PromptLayerWaitTimeoutError:
        expected = AirflowSensorTimeout
    else:
        expected = AirflowException if ours.__name__ in RETRIED else AirflowFailException
    assert [cls for cls in AIRFLOWS if isinstance(raised.value, cls)] == [
        cls for cls in AIRFLOWS if cls in (AirflowException, expected)
    ]


def test_a_task_is_rescheduled_whatever_it_says_of_retries() -> None:
    class Sensor(PromptLayerWorkflowSensor):
        def poll(self, job: Any) -> Any:
            raise exceptions.PromptLayerServerError("HTTP 502", status=502)

        def may_retry(self, error: Exception) -> bool:
            return False

    task = Sensor(
        task_id="task", workflow_version_execution_id=1, deferrable=False, mode="reschedule"
    )
    context: Any = {"ti": FakeTaskInstance(), "task_state_store": Store()}
    with pytest.raises(RescheduleException):
        task.execute(context)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPromptLayer]:
    with new_server() as server:
        monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", server.airflow_connection_json)
        yield server


def wait(mode: str, kind: Kind, external_id: Any, **arguments: Any) -> Ending:
    return MODES[mode](external_id, kind, **{"poke_interval": 0.05, **arguments})


@pytest.fixture(params=["poke", "reschedule", "deferred"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


OPTIONS = [({}, None), ({"soft_fail": True}, AirflowSkipException)]


@pytest.mark.parametrize(("options", "skipped"), OPTIONS, ids=["", "soft_fail"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_a_bad_ending(
    mode: str, kind: Kind, options: dict[str, Any], skipped: Any, server: LocalPromptLayer
) -> None:
    error = wait(mode, kind, kind.start(server, "bad"), **options).error
    assert isinstance(error, skipped or AirflowFailException)
    if kind is WORKFLOW_RUN:
        assert isinstance(error, exceptions.PromptLayerRunFailedError)
        assert error.results.nodes["Answer"].error_message == "too hot"
    else:
        assert kind in EVALUATIONS.values()
        assert isinstance(error, exceptions.PromptLayerEvaluationFailedError)
        assert error.outcome is not None
    assert isinstance(error.__cause__, exceptions.PromptLayerError)
    assert not isinstance(error.__cause__, AirflowException)


REFUSALS = {
    404: exceptions.PromptLayerNotFoundError,
    401: exceptions.PromptLayerAuthError,
    422: exceptions.PromptLayerRefusedError,
}


@pytest.mark.parametrize("polls", [0, 1], ids=["at once", "in the triggerer"])
@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize("task_mode", TASK_MODES)
def test_a_refusal(task_mode: str, status: int, polls: int, server: LocalPromptLayer) -> None:
    """The triggerer says which one it met, so that it is the same as in a worker."""
    run_id = server.start_execution("never")
    body = '{"success": false, "message": "no"}'
    server.script(Reply(status, body), times=None, after=polls)
    error: Any = wait(task_mode, WORKFLOW_RUN, run_id).error
    assert type(error.__cause__) is REFUSALS[status]
    assert isinstance(error, REFUSALS[status])
    assert error.status == status


@pytest.mark.parametrize(("options", "skipped"), OPTIONS, ids=["", "soft_fail"])
def test_a_time_out(
    mode: str, options: dict[str, Any], skipped: Any, server: LocalPromptLayer
) -> None:
    run_id = server.start_execution("never")
    error = wait(mode, WORKFLOW_RUN, run_id, timeout=0.2, **options).error
    assert isinstance(error, exceptions.PromptLayerWaitTimeoutError)
    assert isinstance(error, skipped or AirflowSensorTimeout)


@pytest.mark.parametrize(("options", "skipped"), OPTIONS, ids=["", "soft_fail"])
def test_an_outage(
    mode: str, options: dict[str, Any], skipped: Any, server: LocalPromptLayer
) -> None:
    run_id = server.start_execution("never")
    server.script(Reply(502), times=None)
    error = wait(mode, WORKFLOW_RUN, run_id, max_outage=0.2, **options).error
    assert isinstance(error, exceptions.PromptLayerOutageError)
    assert isinstance(error, skipped or AirflowException)
    assert not isinstance(error, AirflowFailException)


def test_a_start_of_unknown_end(server: LocalPromptLayer) -> None:
    server.script(Close(), method="POST", times=1)
    ending = run_task(
        lambda: PromptLayerRunWorkflowOperator(task_id="task", workflow_id_or_name="good"),
        FakeTaskInstance(),
    )
    assert isinstance(ending.error, exceptions.PromptLayerStartUncertainError)
    assert isinstance(ending.error, AirflowFailException)


def test_a_deferral_that_airflow_has_ended(server: LocalPromptLayer) -> None:
    """A trigger that crashed or took too long: Airflow resumes the task to say so."""
    task = KINDS["workflow run"].sensor(task_id="task", workflow_version_execution_id=1)
    context: Any = {"ti": FakeTaskInstance()}
    for reason, ours in (
        ("Trigger timeout", exceptions.PromptLayerWaitTimeoutError),
        ("Trigger failure", exceptions.PromptLayerEventError),
    ):
        with pytest.raises(ours) as raised:
            task.resume_execution("__fail__", {"error": reason}, context)
        assert isinstance(raised.value, AirflowException)
