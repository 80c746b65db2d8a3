# SPDX-License-Identifier: Apache-2.0
"""``cancel_on_kill`` and ``cancel_on_timeout``: whether a job goes on that its task has left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowSensorTimeout
from support.cancelling import Kill, everywhere, in_worker, is_cancelled, resume
from support.kinds import at
from support.modes import FakeTaskInstance, Store, run_task
from support.starts import RUN_REPORT, RUN_SCORECARD, RUN_TABLE, RUN_WORKFLOW, Start, deferred

from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError
from airflow_provider_promptlayer.testing import LocalPromptLayer, Reply

cancellable = pytest.mark.parametrize(
    "start", [RUN_TABLE, RUN_SCORECARD], ids=["table", "scorecard"]
)


@cancellable
class TestKilled:
    @everywhere
    def test_a_job_goes_on_if_the_task_says_so(
        self, start: Start, kill: Kill, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        operator = start.make("never", cancel_on_kill=False)
        kill(operator, deferred(operator).trigger)
        assert not is_cancelled(server)
        assert "goes on at PromptLayer" in log() or "as cancel_on_kill is False" in log()

    def test_also_when_a_later_worker_is_killed(
        self, start: Start, server: LocalPromptLayer
    ) -> None:
        task, resumed = (start.make("never", cancel_on_kill=False) for _ in range(2))
        resume(resumed, deferred(task))
        in_worker(resumed, None)
        assert not is_cancelled(server)

    def test_and_a_later_try_does_not_wait_for_a_cancellation(
        self, start: Start, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        how: dict[str, Any] = {"reattach": False, "cancel_on_kill": False}
        deferred(start.make("never", **how))
        deferred(start.make("never", **how), ti=FakeTaskInstance(try_number=2, max_tries=4))
        assert "may still be cancelling" not in log()


class Late:
    """A task whose time is up, in each way in which a task can learn that."""

    @staticmethod
    def in_worker(start: Start, store: Store | None, **arguments: Any) -> str:
        arguments = {"timeout": 0.1, "deferrable": False, **arguments}
        return Late._message(start.run(store, "never", **arguments))

    @staticmethod
    def in_triggerer(start: Start, store: Store | None, **arguments: Any) -> str:
        return Late._message(start.run(store, "never", timeout=0.1, **arguments))

    @staticmethod
    def without_a_triggerer(start: Start, store: Store | None, **arguments: Any) -> str:
        ti = FakeTaskInstance(max_tries=2)
        context: Any = {"ti": ti, "run_id": ti.run_id, "task_state_store": store}
        deferred(start.make("never", **arguments), store, ti)
        with pytest.raises(AirflowSensorTimeout) as timeout:
            start.make("never", **arguments).resume_execution(
                "__fail__", {"error": "Trigger timeout"}, context
            )
        return str(timeout.value)

    @staticmethod
    def _message(ending: Any) -> str:
        assert ending.kind == "timeout", ending
        return str(ending.message)


LATE = [Late.in_worker, Late.in_triggerer, Late.without_a_triggerer]
in_each_way = pytest.mark.parametrize("late", LATE, ids=[late.__name__ for late in LATE])


@cancellable
class TestLate:
    @in_each_way
    @pytest.mark.parametrize("cancels", [True, False])
    def test_a_job_is_cancelled_if_the_task_says_so(
        self,
        start: Start,
        cancels: bool,
        late: Callable[..., str],
        store: Store | None,
        server: LocalPromptLayer,
    ) -> None:
        message = late(start, store, **({"cancel_on_timeout": True} if cancels else {}))
        assert is_cancelled(server) is cancels
        assert ("was cancelled." in message) is cancels
        assert ("goes on at PromptLayer" in message) is not cancels

    def test_a_clear_starts_another(self, start: Start, server: LocalPromptLayer) -> None:
        store = Store()
        Late.in_worker(start, store, cancel_on_timeout=True)
        deferred(start.make("never"), store, FakeTaskInstance(try_number=2, max_tries=3))
        first, second = start.started(server).values()
        assert first.cancelled_at is not None
        assert second.cancelled_at is None

    @pytest.mark.parametrize(
        ("answer", "times", "says"),
        [
            (Reply(503), 2, "was cancelled."),
            (Reply(400, "{}"), None, "may go on at PromptLayer, as it could not be cancelled"),
        ],
        ids=["after a blip", "not where it is refused"],
    )
    def test_what_became_of_it_is_in_the_error(
        self,
        start: Start,
        answer: Reply,
        times: int | None,
        says: str,
        server: LocalPromptLayer,
    ) -> None:
        method = "DELETE" if start is RUN_TABLE else "POST"
        task = start.make("never", cancel_on_timeout=True)
        ti = FakeTaskInstance(max_tries=2)
        deferred(task, None, ti)
        server.script(answer, method=method, times=times)
        context: Any = {"ti": ti, "run_id": ti.run_id}
        with pytest.raises(AirflowSensorTimeout) as timeout:
            task.resume_execution("__fail__", {"error": "Trigger timeout"}, context)
        assert says in str(timeout.value)


def test_a_calculation_of_others_goes_on_when_the_time_is_up(server: LocalPromptLayer) -> None:
    RUN_TABLE.kind.begin(server, "never")
    assert "goes on at PromptLayer" in Late.in_worker(RUN_TABLE, None, cancel_on_timeout=True)
    assert not is_cancelled(server)
    assert server.count("DELETE") == 0


def test_a_calculation_that_a_newer_one_followed_goes_on(server: LocalPromptLayer) -> None:
    ti = FakeTaskInstance()
    task = RUN_SCORECARD.make("never", cancel_on_timeout=True)
    deferred(task, None, ti)
    server.start_calculation(*at("never").values())
    context: Any = {"ti": ti, "run_id": ti.run_id}
    with pytest.raises(AirflowSensorTimeout, match="a newer one would be cancelled with it"):
        task.resume_execution("__fail__", {"error": "Trigger timeout"}, context)
    assert all(one.cancelled_at is None for one in server.calculations.values())


def test_soft_fail_skips_all_the_same(server: LocalPromptLayer) -> None:
    how: dict[str, Any] = {"timeout": 0.1, "soft_fail": True, "cancel_on_timeout": True}
    ending = run_task(lambda: RUN_TABLE.make("never", **how))
    assert ending.kind == "skipped"
    assert is_cancelled(server)


@pytest.mark.parametrize("switch", ["cancel_on_kill", "cancel_on_timeout"])
@pytest.mark.parametrize("start", [RUN_WORKFLOW, RUN_REPORT], ids=["workflow", "report"])
def test_a_job_that_promptlayer_cannot_cancel_has_no_switches(start: Start, switch: str) -> None:
    with pytest.raises((TypeError, AirflowException), match="Invalid arguments"):
        start.make("good", **{switch: True})


def test_columns_are_not_pointed_back_under_an_operation_that_goes_on() -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="needs cancel_on_kill=True"):
        RUN_TABLE.make(column_versions={"A": {"version": 1}}, restore=True, cancel_on_kill=False)
