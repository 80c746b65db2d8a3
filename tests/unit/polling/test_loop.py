# SPDX-License-Identifier: Apache-2.0
"""The loops, driven in both ways with answers from a script."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_promptlayer.api.job import CallFlow, EachOf
from airflow_provider_promptlayer.exceptions import (
    PromptLayerConfigurationError,
    PromptLayerNotFoundError,
    PromptLayerOutageError,
    PromptLayerServerError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import (
    AT_ONCE,
    Loop,
    adrive,
    ask_with_backoff,
    drive,
    each_with_backoff,
    poll_until_ended,
    retried,
)
from airflow_provider_promptlayer.polling.poller import PollDecision, Poller
from airflow_provider_promptlayer.polling.retries import RetryPolicy
from airflow_provider_promptlayer.polling.schedule import PollSchedule

BLIP = PromptLayerServerError("HTTP 503")
CALL: Any = "the call"
NO_PAUSE = RetryPolicy(first_pause=0.0, give_up_after=60.0)


@dataclass(frozen=True)
class Status:
    is_complete: bool = False
    progress: str = "1 of 2 nodes done"


DONE = Status(is_complete=True, progress="2 of 2 nodes done")


class Script:
    """Answers calls one after the other, and notes what is decided in between."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.decisions: list[PollDecision] = []

    def send(self, call: Any) -> Any:
        assert call is CALL
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def asend(self, call: Any) -> Any:
        await asyncio.sleep(0)
        return self.send(call)


Drive = Callable[[Loop[Any], Script], Any]


@pytest.fixture(params=["blocking", "on an event loop"])
def run(request: pytest.FixtureRequest) -> Drive:
    if request.param == "blocking":
        return lambda loop, script: drive(loop, script.send, script.decisions.append)
    return lambda loop, script: asyncio.run(adrive(loop, script.asend, script.decisions.append))


def poller(**how: Any) -> Poller:
    return Poller(
        "workflow run 42", PollSchedule(0.0), began_at=time.time(), backoff=NO_PAUSE, **how
    )


def test_polls_until_the_job_has_ended(run: Drive) -> None:
    script = Script(Status(), BLIP, BLIP, DONE)
    assert run(poll_until_ended(poller(), CALL), script) is DONE
    *notes, last = (decision.note for decision in script.decisions)
    assert notes == [
        "Workflow run 42: 1 of 2 nodes done.",
        "HTTP 503. Still waiting for workflow run 42.",
        None,
    ]
    assert re.fullmatch(
        "PromptLayer answers again after .* seconds. Workflow run 42: 2 of 2 nodes done.",
        last or "",
    )
    assert [decision.is_done for decision in script.decisions] == [False, False, False, True]


@pytest.mark.parametrize(
    ("answers", "how", "error"),
    [
        ([PromptLayerNotFoundError("HTTP 404")], {}, PromptLayerNotFoundError),
        ([BLIP], {"max_outage": 0.0}, PromptLayerOutageError),
        ([Status()], {"deadline": 0.0}, PromptLayerWaitTimeoutError),
    ],
    ids=["refused", "outage", "time-out"],
)
def test_ends_with_the_error_that_ends_the_wait(
    answers: list[Any], how: dict[str, Any], error: type[Exception], run: Drive
) -> None:
    with pytest.raises(error):
        run(poll_until_ended(poller(**how), CALL), Script(*answers))


def test_a_poll_is_put_off_where_others_were_told_to_wait(run: Drive) -> None:
    held = poller(deadline=time.time() + 0.5)
    held.throttle.hold_for(3600.0, now=time.time())
    script = Script(DONE)
    run(poll_until_ended(held, CALL), script)
    assert [decision.is_hold for decision in script.decisions[:1]] == [True]
    assert script.decisions[0].sleep <= 0.5


def test_so_is_a_call_about_what_has_ended(run: Drive) -> None:
    held = poller(max_outage=0.01)
    held.throttle.hold_for(3600.0, now=time.time())
    script = Script("the answer")
    assert run(ask_with_backoff(held, CALL), script) == "the answer"
    assert [(decision.is_hold, decision.sleep) for decision in script.decisions[:1]] == [
        (True, 0.01)
    ]


def test_an_unusable_connection_may_be_corrected(run: Drive) -> None:
    """Where the wait could use it before: asks again a few times, and anew after each answer."""
    tries = int(retries.READING_CONNECTION.attempts)
    trouble = [PromptLayerConfigurationError("no key")] * (tries - 1)
    script = Script(*trouble, Status(), *trouble, DONE)
    assert run(poll_until_ended(poller(doubts_connection=True), CALL), script) is DONE
    for how, answers in (({"doubts_connection": True}, [*trouble, *trouble[:1]]), ({}, trouble)):
        with pytest.raises(PromptLayerConfigurationError):
            run(poll_until_ended(poller(**how), CALL), Script(*answers))


def test_asks_until_there_is_an_answer(run: Drive) -> None:
    script = Script(BLIP, "the answer")
    assert run(ask_with_backoff(poller(), CALL), script) == "the answer"
    assert [decision.ends_outage for decision in script.decisions] == [False, True]


def test_airflows_answer_ends_no_outage_of_promptlayer(run: Drive) -> None:
    asking = poller(outage_since=time.time())
    assert run(ask_with_backoff(asking, CALL, asks_airflow=True), Script(BLIP, "read")) == "read"
    assert asking.outage_since is not None


def test_asks_no_more_after_the_deadline(run: Drive) -> None:
    with pytest.raises(PromptLayerWaitTimeoutError, match="not answered about workflow"):
        run(ask_with_backoff(poller(), CALL, deadline=time.time() - 1.0), Script())


def test_tries_again_by_a_policy(run: Drive) -> None:
    script = Script(BLIP, BLIP, "started")
    says = "{error}: again in {sleep}, for {give_up_after}."
    assert run(retried(NO_PAUSE, CALL, says=says), script) == "started"
    assert [decision.note for decision in script.decisions] == [
        "HTTP 503: again in 0 seconds, for 1 minute."
    ] * 2


GONE = PromptLayerNotFoundError("HTTP 404")


def asked_together(asked: list[Any], calls: Any) -> CallFlow[None]:
    yield CALL
    asked.extend((yield calls))


@pytest.mark.parametrize("calls", [[CALL] * 3, EachOf([CALL] * 3)], ids=["all", "each"])
class TestCallsThatMayBeSentTogether:
    def test_trouble_with_one_of_them_is_ridden_out(self, calls: Any, run: Drive) -> None:
        asked: list[Any] = []
        script = Script("first", BLIP, BLIP, BLIP, "a", "b", "c")
        run(each_with_backoff(asked_together(asked, calls), about="it", policy=NO_PAUSE), script)
        assert sorted(asked) == ["a", "b", "c"]
        assert sum(decision.is_trouble for decision in script.decisions) == 3

    def test_they_are_answered_in_their_order(self, calls: Any, run: Drive) -> None:
        asked: list[Any] = []
        script = Script("first", "a", "b", "c")
        run(each_with_backoff(asked_together(asked, calls), about="it", policy=NO_PAUSE), script)
        assert asked == ["a", "b", "c"]


def test_an_error_of_one_of_them_leaves_each_other_answer(run: Drive) -> None:
    asked: list[Any] = []
    flow = asked_together(asked, EachOf([CALL] * 3))
    script = Script("first", "a", GONE, "c")
    run(each_with_backoff(flow, about="it", policy=NO_PAUSE), script)
    assert asked == ["a", GONE, "c"]


def test_an_error_of_one_of_them_ends_all(run: Drive) -> None:
    script = Script("first", "a", GONE, *["answer"] * 97)
    flow = asked_together([], [CALL] * 100)
    with pytest.raises(PromptLayerNotFoundError):
        run(each_with_backoff(flow, about="it", policy=NO_PAUSE), script)
    assert script.answers  # which calls that were not sent would have got


def test_they_meet_one_outage(run: Drive) -> None:
    """Those that are sent after it was too long for others are sent once."""
    sent: Counter[int] = Counter()

    class Away(Script):
        def send(self, call: Any) -> Any:
            if call is CALL:
                return None
            sent[call] += 1
            raise BLIP

    calls: Any = range(20)
    flow = asked_together([], EachOf(calls))
    policy = RetryPolicy(first_pause=0.0, give_up_after=0.05)
    run(each_with_backoff(flow, about="it", policy=policy), Away())
    assert [sent[call] for call in range(AT_ONCE, 20)] == [1] * (20 - AT_ONCE)


def test_the_last_error_is_raised(run: Drive) -> None:
    last = PromptLayerServerError("HTTP 500")
    with pytest.raises(PromptLayerServerError) as raised:
        run(retried(RetryPolicy(first_pause=0.0, attempts=2), CALL), Script(BLIP, last))
    assert raised.value is last
