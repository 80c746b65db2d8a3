# SPDX-License-Identifier: Apache-2.0
"""Done, look again in so many seconds, or give up."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_promptlayer.exceptions import (
    PromptLayerAnswerTooLargeError,
    PromptLayerAuthError,
    PromptLayerError,
    PromptLayerNotFoundError,
    PromptLayerOutageError,
    PromptLayerRateLimitError,
    PromptLayerServerError,
    PromptLayerUnexpectedAnswerError,
    PromptLayerUnreachableError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.polling.poller import PollDecision, Poller
from airflow_provider_promptlayer.polling.schedule import PollSchedule

START = 1_800_000_000.0


@dataclass(frozen=True)
class JobStatus:
    is_complete: bool
    progress: str


RUNNING = JobStatus(False, "0 of 2 nodes done")
DONE = JobStatus(True, "2 of 2 nodes done")


def wait_for(
    schedule: PollSchedule | None = None, *, deadline: float = 3600.0, **options: Any
) -> Poller:
    """Return a wait; ``deadline`` counts from its start."""
    return Poller(
        "workflow run 42",
        schedule or PollSchedule(10.0),
        began_at=START,
        deadline=START + deadline,
        **{"jitter": lambda: 1.0, **options},
    )


# Wait: from process to process


def moved(schedule: PollSchedule, count: int = 200) -> list[Poller]:
    return [
        Poller(f"workflow run {n}", schedule, began_at=START, deadline=START + 3600)
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("poke_interval", "earliest", "latest"),
    [(None, 10.0, 12.0), (1.0, 10.0, 11.0), (10.0, 10.0, 20.0), (15.0, 10.0, 20.0), (60.0, 10, 60)],
)
def test_waits_that_move_at_the_same_moment_spread_out(
    poke_interval: float | None, earliest: float, latest: float
) -> None:
    first = []
    for wait in moved(PollSchedule(poke_interval)):
        step = wait.on_status(RUNNING, now=START)
        first.append(wait.first_poll_after_defer(step, settle=10.0, now=START) - START)
    assert earliest <= min(first) < earliest + (latest - earliest) / 10
    assert latest - (latest - earliest) / 10 < max(first) <= latest


def test_a_wait_that_moves_in_trouble_keeps_its_distance() -> None:
    for wait in moved(PollSchedule(5.0)):
        step = wait.on_error(PromptLayerRateLimitError("HTTP 429", retry_after=45.0), now=START)
        assert 45.0 <= wait.first_poll_after_defer(step, settle=10.0, now=START) - START <= 55.0


def test_a_wait_that_moves_asks_no_sooner_than_it_was_told_to() -> None:
    for wait in moved(PollSchedule()):
        step = wait.on_error(PromptLayerRateLimitError("HTTP 429", retry_after=900.0), now=START)
        planned = wait.first_poll_after_defer(step, settle=10.0, now=START)
        assert wait.resume_delay(planned, now=START + 5.0) >= 895.0


@pytest.mark.parametrize(("deadline", "expected"), [(5.0, 10.0), (12.0, 12.0)])
def test_a_wait_that_moves_looks_by_its_deadline_but_not_before_it_may(
    deadline: float, expected: float
) -> None:
    wait = wait_for(PollSchedule(600.0), deadline=deadline)
    step = PollDecision(sleep=deadline)
    assert wait.first_poll_after_defer(step, settle=10.0, now=START) - START <= expected


def test_a_wait_that_is_taken_over_keeps_to_the_plan() -> None:
    for wait in moved(PollSchedule(10.0)):
        assert wait.resume_delay(START + 17.0, now=START + 5.0) == 12.0
        assert wait.resume_delay(START + 17.0, now=START + 18.0) == 0.0


def test_waits_that_come_back_together_spread_out() -> None:
    first = [
        wait.resume_delay(START + 17.0, now=START + 300.0) for wait in moved(PollSchedule(10.0))
    ]
    assert 0.0 <= min(first) < 1.0 < 9.0 < max(first) <= 10.0


def test_waits_that_begin_together_spread_out() -> None:
    first = [wait.resume_delay(None, now=START) for wait in moved(PollSchedule(10.0))]
    assert 0.0 <= min(first) < 0.2 < 1.8 < max(first) <= 2.0


@pytest.mark.parametrize(("interval", "latest"), [(10.0, 120.0), (90.0, 180.0)])
def test_a_clock_that_is_behind_does_not_put_the_first_poll_off(
    interval: float, latest: float
) -> None:
    wait = wait_for(PollSchedule(interval), deadline=600.0)
    an_hour_behind = START - 3600.0
    assert wait.resume_delay(START + 12.0, now=an_hour_behind) == latest
    with pytest.raises(PromptLayerWaitTimeoutError, match="did not end within 10 minutes"):
        wait.on_status(RUNNING, now=an_hour_behind + 600.0)


# Wait: looks


def test_an_ending_ends_the_wait() -> None:
    assert wait_for().on_status(DONE, now=START + 5).is_done


def test_an_ending_counts_even_after_the_deadline() -> None:
    assert wait_for(deadline=10.0).on_status(DONE, now=START + 99).is_done


@pytest.mark.parametrize(
    ("elapsed", "deadline", "sleep"),
    [
        (0.0, 3600.0, 10.0),
        (100.0, 3600.0, 10.0),
        (3595.0, 3600.0, 5.0),
        (3599.75, 3600.0, 0.25),
        (1e9, math.inf, 10.0),
    ],
)
def test_the_last_look_is_taken_at_the_deadline(
    elapsed: float, deadline: float, sleep: float
) -> None:
    step = wait_for(deadline=deadline).on_status(RUNNING, now=START + elapsed)
    assert not step.is_done
    assert step.sleep == sleep


@pytest.mark.parametrize("elapsed", [3600.0, 3600.5, 1e6])
def test_the_time_is_up(elapsed: float) -> None:
    with pytest.raises(PromptLayerWaitTimeoutError) as caught:
        wait_for().on_status(RUNNING, now=START + elapsed)
    text = str(caught.value)
    assert "Workflow run 42 did not end within 1 hour" in text
    assert "last seen: 0 of 2 nodes done" in text
    assert "goes on" in text


def test_a_wait_that_moved_ends_when_it_would_have_ended() -> None:
    first = wait_for().on_status(RUNNING, now=START + 3597)
    assert wait_for().on_status(RUNNING, now=START + 3597) == first
    with pytest.raises(PromptLayerWaitTimeoutError):
        wait_for().on_status(RUNNING, now=START + 3597 + first.sleep)


def test_a_clock_that_was_set_back_does_no_harm() -> None:
    step = wait_for(PollSchedule(10.0, True)).on_status(RUNNING, now=START - 1000)
    assert 0 < step.sleep < 60


def test_the_interval_grows_with_the_time_waited_and_not_with_the_looks() -> None:
    schedule = PollSchedule(10.0, True)
    first, second = wait_for(schedule), wait_for(schedule)
    for elapsed in range(0, 1000, 50):
        first.on_status(RUNNING, now=START + elapsed)
    late = first.on_status(RUNNING, now=START + 1000).sleep
    assert late == second.on_status(RUNNING, now=START + 1000).sleep
    assert late > wait_for(schedule).on_status(RUNNING, now=START).sleep


def test_notes_are_only_on_news() -> None:
    wait = wait_for()
    steps = [
        wait.on_status(status, now=START + index)
        for index, status in enumerate(
            [RUNNING, RUNNING, JobStatus(False, "1 of 2 nodes done"), RUNNING, DONE]
        )
    ]
    assert [step.note for step in steps] == [
        "Workflow run 42: 0 of 2 nodes done.",
        None,
        "Workflow run 42: 1 of 2 nodes done.",
        "Workflow run 42: 0 of 2 nodes done.",
        "Workflow run 42: 2 of 2 nodes done.",
    ]
    assert not any(step.is_trouble for step in steps)


# Wait: trouble

UNREACHABLE = PromptLayerUnreachableError("Could not look: reset.", arrived=True)


@pytest.mark.parametrize(
    "error",
    [
        PromptLayerAuthError("key", status=401),
        PromptLayerNotFoundError("none", status=404),
        PromptLayerAnswerTooLargeError("big"),
        PromptLayerWaitTimeoutError("late"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_cannot_get_better_ends_at_once(error: PromptLayerError) -> None:
    wait = wait_for()
    with pytest.raises(PromptLayerError) as caught:
        wait.on_error(error, now=START + 1)
    assert caught.value is error
    assert wait.on_status(RUNNING, now=START + 2).note == "Workflow run 42: 0 of 2 nodes done."


@pytest.mark.parametrize(
    "error",
    [
        UNREACHABLE,
        PromptLayerServerError("502", status=502),
        PromptLayerRateLimitError("429", status=429),
        PromptLayerUnexpectedAnswerError("html", status=200),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_blip_is_noted_once_and_ridden_out(error: PromptLayerError) -> None:
    wait = wait_for()
    first = wait.on_error(error, now=START + 10)
    assert not first.is_done
    assert first.is_trouble
    assert first.note == f"{str(error).rstrip('.')}. Still waiting for workflow run 42."
    assert wait.outage_since == START + 10
    second = wait.on_error(error, now=START + 20)
    assert second.note is None
    assert wait.outage_since == START + 10
    back = wait.on_status(RUNNING, now=START + 30)
    assert back.note == (
        "PromptLayer answers again after 20 seconds. Workflow run 42: 0 of 2 nodes done."
    )
    assert back.ends_outage
    assert not back.is_trouble
    assert wait.on_error(error, now=START + 40).note is not None


def test_trouble_backs_off_and_never_looks_more_often_than_asked() -> None:
    wait = wait_for(PollSchedule(3.0))
    sleeps = [wait.on_error(UNREACHABLE, now=START + index).sleep for index in range(12)]
    assert sleeps[0] == 3.0
    assert sleeps == sorted(sleeps)
    assert sleeps[-1] == 60.0


def test_after_a_blip_a_long_wait_looks_again_soon() -> None:
    wait = wait_for(PollSchedule(), deadline=math.inf)
    now = START + 3600
    assert wait.on_status(RUNNING, now=now).sleep >= 48.0
    sleeps = [wait.on_error(PromptLayerServerError("HTTP 502"), now=now).sleep for _ in range(7)]
    assert sleeps == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    asked = PromptLayerRateLimitError("HTTP 429", retry_after=0.0)
    assert wait.on_error(asked, now=now).sleep >= 1.6


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_the_backoff_is_jittered(jitter: float) -> None:
    wait = wait_for(PollSchedule(1.0), jitter=lambda: jitter)
    for index in range(10):
        step = wait.on_error(UNREACHABLE, now=START + index)
    assert step.sleep == 30.0 + 30.0 * jitter


def test_the_backoff_starts_anew_after_an_answer() -> None:
    wait = wait_for(PollSchedule(1.0))
    for index in range(10):
        wait.on_error(UNREACHABLE, now=START + index)
    wait.on_status(RUNNING, now=START + 20)
    assert wait.on_error(UNREACHABLE, now=START + 30).sleep == 2.0


@pytest.mark.parametrize(
    ("retry_after", "deadline", "max_outage", "sleep"),
    [
        pytest.param(0.0, 3600.0, 1800.0, 10.0, id="not-before-the-next-look"),
        pytest.param(5.0, 3600.0, 1800.0, 10.0, id="shorter-than-the-interval"),
        pytest.param(90.0, 3600.0, 1800.0, 90.0, id="as-asked"),
        pytest.param(90.0, 40.0, 1800.0, 40.0, id="capped-by-the-deadline"),
        pytest.param(5000.0, 3600.0, 1800.0, 1800.0, id="capped-by-the-outage"),
        pytest.param(1e300, math.inf, 1800.0, 1800.0, id="absurd"),
        pytest.param(1e300, 60.0, 1e9, 60.0, id="absurd-and-deadline"),
    ],
)
def test_retry_after(retry_after: float, deadline: float, max_outage: float, sleep: float) -> None:
    error = PromptLayerRateLimitError("429", status=429, retry_after=retry_after)
    step = wait_for(deadline=deadline, max_outage=max_outage).on_error(error, now=START)
    assert step.sleep == sleep


def test_an_outage_ends_the_wait() -> None:
    wait = wait_for(max_outage=600.0)
    wait.on_error(UNREACHABLE, now=START)
    wait.on_error(UNREACHABLE, now=START + 599)
    with pytest.raises(PromptLayerOutageError) as caught:
        wait.on_error(UNREACHABLE, now=START + 600)
    text = str(caught.value)
    assert "workflow run 42" in text
    assert "longer than max_outage (10 minutes)" in text
    assert "2027-01-15 08:00:00 UTC" in text
    assert "Could not look: reset." in text
    assert caught.value.retry_helps


def test_an_outage_counts_from_its_own_beginning() -> None:
    wait = wait_for(max_outage=600.0)
    wait.on_error(UNREACHABLE, now=START)
    wait.on_status(RUNNING, now=START + 500)
    assert not wait.on_error(UNREACHABLE, now=START + 700).is_done


def test_an_outage_goes_on_in_another_process() -> None:
    wait = wait_for(max_outage=600.0, outage_since=START)
    assert wait.on_error(UNREACHABLE, now=START + 599).sleep == 1.0
    with pytest.raises(PromptLayerOutageError):
        wait.on_error(UNREACHABLE, now=START + 600)


def test_no_outage_is_allowed() -> None:
    with pytest.raises(PromptLayerOutageError):
        wait_for(max_outage=0.0).on_error(UNREACHABLE, now=START)


def test_the_deadline_holds_in_an_outage() -> None:
    wait = wait_for(deadline=100.0)
    assert wait.on_error(UNREACHABLE, now=START + 95).sleep == 5.0
    with pytest.raises(PromptLayerWaitTimeoutError, match="last seen: Could not look: reset"):
        wait.on_error(UNREACHABLE, now=START + 100)


def test_the_pure_core_imports_neither_airflow_nor_an_http_library() -> None:
    code = (
        "import pkgutil, sys\n"
        "from importlib import import_module\n"
        "import airflow_provider_promptlayer.api as api\n"
        "for module in pkgutil.iter_modules(api.__path__, api.__name__ + '.'):\n"
        "    import_module(module.name)\n"
        "found = {'airflow', 'requests', 'aiohttp', 'asyncio', 'urllib3'} & set(sys.modules)\n"
        "sys.exit(f'imported: {found}' if found else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert done.returncode == 0


def test_a_clock_that_is_set_back_stretches_no_outage() -> None:
    wait = wait_for(max_outage=100.0, outage_since=START + 3600.0)
    wait.on_error(PromptLayerServerError("HTTP 502"), now=START)
    with pytest.raises(
        PromptLayerOutageError, match=r"longer than max_outage \(1 minute 40 seconds\)"
    ):
        wait.on_error(PromptLayerServerError("HTTP 502"), now=START + 100.0)
