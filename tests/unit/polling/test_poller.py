# SPDX-License-Identifier: Apache-2.0
"""Done, poll again in so many seconds, or give up."""

from __future__ import annotations

import math
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
class Status:
    is_complete: bool
    progress: str


RUNNING = Status(False, "0 of 2 nodes done")
DONE = Status(True, "2 of 2 nodes done")
UNREACHABLE = PromptLayerUnreachableError("Could not poll: reset.", arrived=True)


def new_poller(
    schedule: PollSchedule | None = None, *, deadline: float = 3600.0, **options: Any
) -> Poller:
    """Return a poller; ``deadline`` counts from its start."""
    return Poller(
        "workflow run 42",
        schedule or PollSchedule(10.0),
        began_at=START,
        deadline=START + deadline,
        **{"jitter": lambda: 1.0, **options},
    )


def test_a_poll_is_put_off_for_max_outage_at_most() -> None:
    """However long another request was asked to wait."""
    poller = new_poller(max_outage=60.0)
    poller.throttle.hold_for(86_400.0, now=START)
    assert poller.delay_before_poll(now=START) == 60.0


# From process to process


def many(schedule: PollSchedule) -> list[Poller]:
    return [
        Poller(f"workflow run {n}", schedule, began_at=START, deadline=START + 3600)
        for n in range(200)
    ]


@pytest.mark.parametrize(
    ("poke_interval", "earliest", "latest"),
    [(None, 10.0, 12.0), (1.0, 10.0, 11.0), (10.0, 10.0, 20.0), (15.0, 10.0, 20.0), (60.0, 10, 60)],
)
def test_waits_that_defer_at_the_same_moment_spread_out(
    poke_interval: float | None, earliest: float, latest: float
) -> None:
    first = [
        poller.first_poll_after_defer(poller.on_status(RUNNING, now=START), settle=10.0, now=START)
        - START
        for poller in many(PollSchedule(poke_interval))
    ]
    assert earliest <= min(first) < earliest + (latest - earliest) / 10
    assert latest - (latest - earliest) / 10 < max(first) <= latest


def test_a_wait_that_defers_in_trouble_polls_no_sooner_than_it_was_told_to() -> None:
    for poller in many(PollSchedule(5.0)):
        step = poller.on_error(PromptLayerRateLimitError("HTTP 429", retry_after=45.0), now=START)
        planned = poller.first_poll_after_defer(step, settle=10.0, now=START)
        assert 45.0 <= planned - START <= 55.0
    for poller in many(PollSchedule()):
        step = poller.on_error(PromptLayerRateLimitError("HTTP 429", retry_after=900.0), now=START)
        planned = poller.first_poll_after_defer(step, settle=10.0, now=START)
        assert poller.resume_delay(planned, now=START + 5.0) >= 895.0


@pytest.mark.parametrize(("deadline", "expected"), [(5.0, 10.0), (12.0, 12.0)])
def test_a_wait_that_defers_polls_by_its_deadline_but_not_before_it_may(
    deadline: float, expected: float
) -> None:
    poller = new_poller(PollSchedule(600.0), deadline=deadline)
    step = PollDecision(sleep=deadline)
    assert poller.first_poll_after_defer(step, settle=10.0, now=START) - START <= expected


def test_a_wait_that_is_taken_over_keeps_to_the_plan() -> None:
    for poller in many(PollSchedule(10.0)):
        assert poller.resume_delay(START + 17.0, now=START + 5.0) == 12.0
        assert poller.resume_delay(START + 17.0, now=START + 18.0) == 0.0


@pytest.mark.parametrize(
    ("planned", "passed", "latest"),
    [(START + 17.0, 300.0, 10.0), (None, 0.0, 2.0)],
    ids=["waits that come back together", "waits that begin together"],
)
def test_waits_that_poll_first_together_spread_out(
    planned: float | None, passed: float, latest: float
) -> None:
    first = [
        poller.resume_delay(planned, now=START + passed) for poller in many(PollSchedule(10.0))
    ]
    assert 0.0 <= min(first) < latest / 10
    assert latest * 0.9 < max(first) <= latest


@pytest.mark.parametrize(("interval", "latest"), [(10.0, 120.0), (90.0, 180.0)])
def test_a_clock_that_is_behind_does_not_put_the_first_poll_off(
    interval: float, latest: float
) -> None:
    poller = new_poller(PollSchedule(interval), deadline=600.0)
    an_hour_behind = START - 3600.0
    assert poller.resume_delay(START + 12.0, now=an_hour_behind) == latest
    with pytest.raises(PromptLayerWaitTimeoutError, match="did not end within 10 minutes"):
        poller.on_status(RUNNING, now=an_hour_behind + 600.0)


# Answers


@pytest.mark.parametrize("elapsed", [5.0, 9_999.0])
def test_an_ending_counts_also_after_the_deadline(elapsed: float) -> None:
    assert new_poller().on_status(DONE, now=START + elapsed).is_done


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
def test_the_last_poll_is_at_the_deadline(elapsed: float, deadline: float, sleep: float) -> None:
    step = new_poller(deadline=deadline).on_status(RUNNING, now=START + elapsed)
    assert (step.is_done, step.sleep) == (False, sleep)


@pytest.mark.parametrize("elapsed", [3600.0, 3600.5, 1e6])
def test_the_time_is_up(elapsed: float) -> None:
    with pytest.raises(PromptLayerWaitTimeoutError) as caught:
        new_poller().on_status(RUNNING, now=START + elapsed)
    assert str(caught.value) == (
        "Workflow run 42 did not end within 1 hour (last seen: 0 of 2 nodes done). "
        "It goes on at PromptLayer."
    )


def test_a_clock_that_was_set_back_does_no_harm() -> None:
    step = new_poller(PollSchedule(10.0, True)).on_status(RUNNING, now=START - 1000)
    assert 0 < step.sleep < 60


def test_the_interval_grows_with_the_time_waited_and_not_with_the_polls() -> None:
    schedule = PollSchedule(10.0, True)
    first, second = new_poller(schedule), new_poller(schedule)
    for elapsed in range(0, 1000, 50):
        first.on_status(RUNNING, now=START + elapsed)
    late = first.on_status(RUNNING, now=START + 1000).sleep
    assert late == second.on_status(RUNNING, now=START + 1000).sleep
    assert late > new_poller(schedule).on_status(RUNNING, now=START).sleep


def test_only_news_is_noted() -> None:
    poller = new_poller()
    progress = ["0 of 2 nodes done", "0 of 2 nodes done", "1 of 2 nodes done", "0 of 2 nodes done"]
    steps = [poller.on_status(Status(False, line), now=START) for line in progress]
    assert [step.note for step in steps] == [
        "Workflow run 42: 0 of 2 nodes done.",
        None,
        "Workflow run 42: 1 of 2 nodes done.",
        "Workflow run 42: 0 of 2 nodes done.",
    ]
    assert not any(step.is_trouble for step in steps)


# Failed polls


@pytest.mark.parametrize(
    "error",
    [
        PromptLayerAuthError("key", status=401),
        PromptLayerNotFoundError("none", status=404),
        PromptLayerAnswerTooLargeError("big"),
        PromptLayerWaitTimeoutError("late"),
    ],
    ids=type,
)
def test_what_cannot_get_better_ends_at_once(error: PromptLayerError) -> None:
    with pytest.raises(PromptLayerError) as caught:
        new_poller().on_error(error, now=START + 1)
    assert caught.value is error


@pytest.mark.parametrize(
    "error",
    [
        UNREACHABLE,
        PromptLayerServerError("502", status=502),
        PromptLayerRateLimitError("429", status=429),
        PromptLayerUnexpectedAnswerError("html", status=200),
    ],
    ids=type,
)
def test_a_blip_is_noted_once_and_ridden_out(error: PromptLayerError) -> None:
    poller = new_poller()
    first = poller.on_error(error, now=START + 10)
    assert (first.is_done, first.is_trouble) == (False, True)
    assert first.note == f"{str(error).rstrip('.')}. Still waiting for workflow run 42."
    assert poller.on_error(error, now=START + 20).note is None
    assert poller.outage_since == START + 10
    back = poller.on_status(RUNNING, now=START + 30)
    assert back.note == (
        "PromptLayer answers again after 20 seconds. Workflow run 42: 0 of 2 nodes done."
    )
    assert (back.ends_outage, back.is_trouble) == (True, False)
    assert poller.on_error(error, now=START + 40).note is not None


def test_failed_polls_back_off_and_are_never_more_frequent_than_asked() -> None:
    poller = new_poller(PollSchedule(3.0))
    sleeps = [poller.on_error(UNREACHABLE, now=START).sleep for _ in range(12)]
    assert (sleeps[0], sleeps[-1], sleeps) == (3.0, 60.0, sorted(sleeps))
    poller.on_status(RUNNING, now=START + 20)  # the backoff starts anew after an answer
    assert poller.on_error(UNREACHABLE, now=START + 30).sleep == 3.0


def test_after_a_blip_a_long_wait_polls_again_soon() -> None:
    poller = new_poller(PollSchedule(), deadline=math.inf)
    now = START + 3600
    assert poller.on_status(RUNNING, now=now).sleep >= 48.0
    sleeps = [poller.on_error(UNREACHABLE, now=now).sleep for _ in range(7)]
    assert sleeps == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    asked = PromptLayerRateLimitError("HTTP 429", retry_after=0.0)
    assert poller.on_error(asked, now=now).sleep >= 1.6


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_the_backoff_is_jittered(jitter: float) -> None:
    poller = new_poller(PollSchedule(1.0), jitter=lambda: jitter)
    sleeps = [poller.on_error(UNREACHABLE, now=START).sleep for _ in range(10)]
    assert sleeps[-1] == 30.0 + 30.0 * jitter


@pytest.mark.parametrize(
    ("retry_after", "deadline", "max_outage", "sleep"),
    [
        pytest.param(0.0, 3600.0, 1800.0, 10.0, id="not-before-the-next-poll"),
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
    step = new_poller(deadline=deadline, max_outage=max_outage).on_error(error, now=START)
    assert step.sleep == sleep


def test_an_outage_ends_the_wait() -> None:
    poller = new_poller(max_outage=600.0)
    poller.on_error(UNREACHABLE, now=START)
    poller.on_error(UNREACHABLE, now=START + 599)
    with pytest.raises(PromptLayerOutageError) as caught:
        poller.on_error(UNREACHABLE, now=START + 600)
    assert str(caught.value) == (
        "No request about workflow run 42 has succeeded since 2027-01-15 08:00:00 UTC, "
        "longer than max_outage (10 minutes). The job may well go on. "
        "Last error: Could not poll: reset."
    )
    assert caught.value.retry_helps


def test_an_outage_counts_from_its_own_beginning() -> None:
    poller = new_poller(max_outage=600.0)
    poller.on_error(UNREACHABLE, now=START)
    poller.on_status(RUNNING, now=START + 500)
    assert not poller.on_error(UNREACHABLE, now=START + 700).is_done


@pytest.mark.parametrize(
    ("began_at", "max_outage"),
    [(START, 600.0), (START + 3600.0, 600.0), (None, 0.0)],
    ids=["in another process", "before the clock was set back", "none is allowed"],
)
def test_an_outage_that_is_too_long(began_at: float | None, max_outage: float) -> None:
    poller = new_poller(max_outage=max_outage, outage_since=began_at)
    if max_outage:
        poller.on_error(UNREACHABLE, now=START)
        assert poller.on_error(UNREACHABLE, now=START + 599).sleep == 1.0
    with pytest.raises(PromptLayerOutageError):
        poller.on_error(UNREACHABLE, now=START + max_outage)


def test_the_deadline_holds_in_an_outage() -> None:
    poller = new_poller(deadline=100.0)
    assert poller.on_error(UNREACHABLE, now=START + 95).sleep == 5.0
    with pytest.raises(PromptLayerWaitTimeoutError, match="last seen: Could not poll: reset"):
        poller.on_error(UNREACHABLE, now=START + 100)
