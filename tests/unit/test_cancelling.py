# SPDX-License-Identifier: Apache-2.0
"""A task that is ended cancels the job that it has started, where PromptLayer can, and no other.

test_on_kill.py has the triggerer's own loop around it.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers.base import BaseTrigger
from support.cancelling import Kill, everywhere, in_triggerer, in_worker, is_cancelled, resume
from support.clocks import leaping
from support.kinds import KINDS, at
from support.modes import FakeTaskInstance, Store, rebuilt
from support.needs import needs_on_kill
from support.starts import RUN_REPORT, RUN_SCORECARD, RUN_TABLE, RUN_WORKFLOW, Start, deferred

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.testing import LocalPromptLayer, Reply
from airflow_provider_promptlayer.triggers import on_kill
from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerWorkflowTrigger


def test_whether_triggers_have_on_kill() -> None:
    assert version_compat.TRIGGERS_HAVE_ON_KILL is hasattr(BaseTrigger, "on_kill")


REFUSED = Reply.of_json({"success": False, "message": "no"}, 400)


@pytest.mark.parametrize("start", [RUN_TABLE, RUN_SCORECARD], ids=["table", "scorecard"])
class TestItsOwn:
    """What the task has started."""

    @everywhere
    @pytest.mark.parametrize(
        ("answer", "times", "says"),
        [
            (None, None, "was cancelled"),
            (Reply(503), 2, "was cancelled"),
            (REFUSED, None, "goes on at PromptLayer"),
        ],
        ids=["", "after a blip", "not where it is refused"],
    )
    def test_is_cancelled(
        self,
        start: Start,
        answer: Reply | None,
        times: int | None,
        says: str,
        kill: Kill,
        server: LocalPromptLayer,
        log: Callable[[], str],
    ) -> None:
        operator = start.make("never")
        trigger = deferred(operator).trigger
        if answer:
            server.script(answer, times=times)
        kill(operator, trigger)
        assert says in log()
        assert is_cancelled(server) is (says == "was cancelled")

    @pytest.mark.parametrize("blips", [0, 1], ids=["in the start", "before it is sent again"])
    def test_while_it_starts(self, start: Start, blips: int, server: LocalPromptLayer) -> None:
        """Airflow 3 goes on with the task after ``on_kill``, for some seconds."""
        operator = start.make("never")
        killed: list[bool] = []

        def kill(_: Any) -> Reply | None:
            if killed:
                return None
            killed.append(True)
            operator.on_kill()
            return Reply(503, "{}", {"Retry-After": "0"}) if blips else None

        server.script(kill, method="POST")
        says = "HTTP 503" if blips else "cancelled"
        with pytest.raises(AirflowException, match=says):
            operator.execute({"ti": FakeTaskInstance(), "run_id": "r"})
        assert bool(start.started(server)) is not bool(blips)
        assert blips or is_cancelled(server)

    @needs_on_kill
    @pytest.mark.parametrize("lasts", [0, 3, math.inf])
    def test_before_another_try_starts_its_own(
        self,
        start: Start,
        lasts: float,
        server: LocalPromptLayer,
        monkeypatch: pytest.MonkeyPatch,
        log: Callable[[], str],
    ) -> None:
        """Where a clear drops the state of the task, or ``reattach`` is off."""
        trigger = deferred(start.make("never", reattach=False)).trigger
        leap, pauses = leaping(monkeypatch), list[float]()

        def cancelled_meanwhile(seconds: float) -> None:
            leap(seconds)
            pauses.append(seconds)
            if len(pauses) == lasts:
                asyncio.run(rebuilt(trigger).on_kill())

        if not lasts:
            asyncio.run(rebuilt(trigger).on_kill())
        monkeypatch.setattr(time, "sleep", cancelled_meanwhile)
        again = start.make("never", reattach=False)
        deferred(again, ti=FakeTaskInstance(try_number=2, max_tries=4))
        old, *new = [one.cancelled_at is not None for one in start.started(server).values()]
        assert sum(pauses) == (2 * lasts if lasts < math.inf else 60)
        assert ("may still be cancelling" in log()) is bool(lasts)
        if lasts < math.inf:  # else it may be somebody else's, and the try goes on all the same
            assert (old, new) == (True, [False])

    @needs_on_kill
    @pytest.mark.parametrize(
        ("state", "reattach", "goes_on"),
        [
            ("deferred", False, True),
            ("running", True, True),
            ("running", False, False),
            (None, True, True),
            ("gone", True, False),
            ("failed", True, False),
            ("success", True, False),
        ],
    )
    def test_in_a_triggerer_only_if_the_task_has_ended(
        self,
        start: Start,
        state: str | None,
        reattach: bool,
        goes_on: bool,
        server: LocalPromptLayer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It may also have been cleared, or another triggerer has taken its triggers over."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        trigger = rebuilt(deferred(start.make("never", reattach=reattach), Store()).trigger)
        trigger.task_instance = ti = FakeTaskInstance()
        states = {} if state == "gone" else {ti.run_id: {ti.task_id: state}}
        monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", lambda **_: states)
        monkeypatch.setattr(version_compat, "ON_KILL_IS_AMBIGUOUS", True)
        monkeypatch.setattr(on_kill, "_GATHER_SECONDS", 0.0)
        asyncio.run(trigger.on_kill())
        assert is_cancelled(server) is not goes_on

    def test_a_signal_handler_reads_no_connection(
        self, start: Start, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Airflow's own lock may be held by what the signal has interrupted."""
        operator = start.make("never")
        deferred(operator)
        monkeypatch.setattr(PromptLayerHook, "get_connection", lambda *_: pytest.fail("would hang"))
        operator.on_kill()
        assert is_cancelled(server)

    def test_is_left_alone_when_it_has_ended(self, start: Start, server: LocalPromptLayer) -> None:
        """Another job may be running on the same sheet by then."""
        operator = start.make("good", deferrable=False)
        operator.execute({"ti": FakeTaskInstance(), "run_id": "r"})
        before = server.count()
        operator.on_kill()
        assert server.count() == before

    def test_is_cancelled_by_a_retry_too_and_then_started_anew(
        self, start: Start, server: LocalPromptLayer
    ) -> None:
        store = Store()
        deferred(start.make("never"), store)
        second = start.make("never")
        deferred(second, store)
        second.on_kill()
        assert is_cancelled(server)
        deferred(start.make("never"), store)
        assert len(start.started(server)) == 2

    def test_may_be_retried_where_somebody_has_cancelled_it(
        self, start: Start, server: LocalPromptLayer
    ) -> None:
        def cancel() -> None:
            server.wait_for(lambda: server.count("GET") > 0, 60)
            hook = PromptLayerHook()
            if start is RUN_TABLE:
                hook.cancel_table_operation(*at("never").values(), *server.operations)
            else:
                hook.cancel_scorecard(*at("never").values())
            hook.close()

        somebody = threading.Thread(target=cancel)
        somebody.start()
        ending = start.run(None, "never", timeout=60)
        somebody.join()
        assert ending.kind == "failed", ending
        assert "cancelled" in ending.message


class TestOthers:
    """What the task has not started, or what cannot be cancelled alone."""

    @pytest.mark.parametrize("name", ["table operation", "scorecard calculation"])
    def test_a_sensor_cancels_nothing(
        self, name: str, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        kind = KINDS[name]
        ids = kind.start(server, "never")
        sensor, resumed = (kind.sensor(task_id="t", **ids) for _ in range(2))
        deferral = deferred(sensor)
        in_worker(sensor, deferral.trigger)
        in_triggerer(sensor, deferral.trigger)
        resume(resumed, deferral)
        in_worker(resumed, None)
        assert not is_cancelled(server)
        said = log()
        assert said.count("goes on at PromptLayer") == 2
        assert said.count("was going on when") == 1

    def test_a_calculation_of_others_goes_on(
        self, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        RUN_TABLE.kind.begin(server, "never")
        store = Store()
        for _ in range(2):  # the second is a retry
            operator, resumed = RUN_TABLE.make("never"), RUN_TABLE.make("never")
            deferral = deferred(operator, store)
            in_worker(operator, deferral.trigger)
            in_triggerer(operator, deferral.trigger)
            resume(resumed, deferral)
            in_worker(resumed, None)
        assert not is_cancelled(server)
        assert server.count("DELETE") == 0
        left = f"calculation of sheet {at('never')['sheet_id']} goes on at PromptLayer"
        assert log().count(left) == 4

    def test_a_calculation_that_a_newer_one_followed(
        self, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        operator = RUN_SCORECARD.make("never")
        trigger = deferred(operator).trigger
        RUN_SCORECARD.kind.begin(server, "never")
        in_worker(operator, trigger)
        in_triggerer(operator, trigger)
        assert all(one.cancelled_at is None for one in server.calculations.values())
        assert log().count("would be cancelled with it") == 2

    @pytest.mark.parametrize("start", [RUN_WORKFLOW, RUN_REPORT], ids=["workflow", "report"])
    def test_a_job_that_promptlayer_cannot_cancel_goes_on(
        self, start: Start, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        operator = start.make("never")
        trigger = deferred(operator).trigger
        (its_id,) = start.started(server)
        before = server.count()
        in_worker(operator, trigger)
        in_triggerer(operator, trigger)
        assert server.count() == before
        said = log()
        assert said.count(f" {its_id} goes on at PromptLayer, which cannot cancel it") == 1
        assert f" {its_id} was going on" in said
        assert said.count("PromptLayer cannot cancel it.") == 1

    def test_a_run_whose_trigger_has_no_state(self, log: Callable[[], str]) -> None:
        asyncio.run(PromptLayerWorkflowTrigger(workflow_version_execution_id=7).on_kill())
        assert "Workflow run 7 was going on" in log()
