# SPDX-License-Identifier: Apache-2.0
"""The one poll loop, and its drivers.

A loop is a generator (httpx writes its ``auth_flow`` in this way). It yields a :class:`.Call`, and
the driver sends back what the answer means, or throws the error in. Or it yields a
:class:`.PollDecision`, and goes on when the driver has logged the note and let the seconds pass. Or
it yields :class:`Together`: loops that may run at the same time.
The worker pauses by deferring, being rescheduled or sleeping, the triggerer by ``asyncio.sleep``.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

from airflow_provider_promptlayer.api.errors import PromptLayerError, PromptLayerWaitTimeoutError
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.job import CallFlow, EachOf, L, RemoteJob
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.times import in_words
from airflow_provider_promptlayer.polling.poller import PollDecision, Poller
from airflow_provider_promptlayer.polling.retries import RetryPolicy

R = TypeVar("R")

Loop: TypeAlias = Generator[Any, Any, R]
"""Yields calls and :class:`.PollDecision`; a :class:`.CallFlow` is one that never pauses."""

AT_ONCE: Final = 8
"""How many loops of one :class:`Together` run at a time."""


@dataclass(frozen=True, slots=True)
class Together:
    """Loops that may run at the same time.

    The driver sends back a list, in their order, of what each loop has returned. It throws the
    first error in as soon as a loop raises it; the other loops send no further call.

    :param keeps_errors: whether a :class:`.PromptLayerError` is in the list instead.
    """

    loops: Sequence[Loop[Any]]
    keeps_errors: bool


def poll_until_ended(poller: Poller, call: Call[L] | RemoteJob[L]) -> Loop[L]:
    """Poll until the job has ended; return its last status.

    :param call: fetches the status; or the job itself, if the driver makes the call.
    :raises PromptLayerError: what :meth:`.Poller.on_status` and :meth:`.Poller.on_error` raise.
    """
    while True:
        if (hold := poller.delay_before_poll(now=time.time())) > 0:
            yield PollDecision(sleep=hold, is_hold=True)
        try:
            status: L = yield call
        except PromptLayerError as error:
            decision = poller.on_error(error, now=time.time())
        else:
            decision = poller.on_status(status, now=time.time())
        yield decision
        if decision.is_done:
            return status


def ask_with_backoff(
    poller: Poller, call: Any, *, deadline: float = math.inf, asks_airflow: bool = False
) -> Loop[Any]:
    """Send a call until there is an answer, riding out trouble as a wait does; return the answer.

    :param deadline: when to stop sending, in seconds since the epoch.
    :param asks_airflow: whether Airflow answers the call, as for its connection: an answer then
        does not end an outage of PromptLayer.
    :raises PromptLayerError: what :meth:`.Poller.on_error` raises.
    :raises PromptLayerWaitTimeoutError: if there was no answer before the deadline.
    """
    while True:
        if time.time() >= deadline:
            raise PromptLayerWaitTimeoutError(
                f"The time is up, and PromptLayer has not answered about {poller.job}."
            )
        if (hold := poller.delay_before_poll(now=time.time())) > 0:
            yield PollDecision(sleep=min(hold, max(0.0, deadline - time.time())), is_hold=True)
        try:
            answer = yield call
        except PromptLayerError as error:
            decision = poller.on_error(error, now=time.time())
            sleep = max(0.0, min(decision.sleep, deadline - time.time()))
            yield PollDecision(sleep=sleep, note=decision.note, is_trouble=True)
        else:
            if not asks_airflow:
                yield poller.on_answer(now=time.time())
            return answer


def each_with_backoff(
    flow: CallFlow[R], *, about: str, policy: RetryPolicy, deadline: float = math.inf
) -> Loop[R]:
    """Send each call of a flow as :func:`ask_with_backoff` does; return what the flow returns.

    An outage that was too long for one call is not waited for again by those sent with it.

    :param about: the job or its part, for messages.
    """
    outage_since: float | None = None

    def ask(call: Call[Any]) -> Loop[Any]:
        nonlocal outage_since
        poller = Poller.of_call(about, policy)
        poller.outage_since = outage_since
        try:
            return (yield from ask_with_backoff(poller, call, deadline=deadline))
        finally:
            outage_since = poller.outage_since

    try:
        call = next(flow)
        while True:
            try:
                if isinstance(call, EachOf):
                    answer = yield Together([ask(each) for each in call.calls], keeps_errors=True)
                elif isinstance(call, list):
                    answer = yield Together([ask(each) for each in call], keeps_errors=False)
                else:
                    answer = yield from ask(call)
            except PromptLayerError as error:
                call = flow.throw(error)
            else:
                call = flow.send(answer)
    except StopIteration as end:
        result: R = end.value
        return result


def retried(policy: RetryPolicy, call: Any, *, says: str | None = None) -> Loop[Any]:
    """Send a call until it succeeds or a policy gives up; return the answer.

    :param says: the note of a pause, with the fields ``error``, ``sleep`` and ``give_up_after``.
    :raises Exception: the last error.
    """
    began, failures = time.monotonic(), 0
    while True:
        try:
            return (yield call)
        except Exception as error:
            failures += 1
            sleep = policy.next_pause(failures, error, elapsed=time.monotonic() - began)
            if sleep is None:
                raise
            note = says and says.format(
                error=one_line(str(error)).rstrip("."),
                sleep=in_words(sleep),
                give_up_after=in_words(policy.give_up_after),
            )
        yield PollDecision(sleep=sleep, note=note, is_trouble=True)


RunAll: TypeAlias = Callable[[Sequence[Callable[[], Any]]], list[Any]]
"""Calls functions, perhaps at the same time; returns their results in their order.

Raises the first error as soon as a function raises it, and calls no further function then."""


def _run_one_by_one(functions: Sequence[Callable[[], Any]]) -> list[Any]:
    return [function() for function in functions]


def drive(
    loop: Loop[R],
    send: Callable[[Any], Any],
    pause: Callable[[PollDecision], None] = lambda decision: time.sleep(decision.sleep),
    run_all: RunAll = _run_one_by_one,
) -> R:
    """Run a loop or a :class:`.CallFlow` to its end, and return its result.

    :param send: sends a call, and returns what its answer means.
    :param pause: acts on a decision. An error that it raises ends the loop.
    :param run_all: calls the functions that run the loops of a :class:`Together`; ``send`` and
        ``pause`` are called where it calls them.
    """
    try:
        step = next(loop)
        while True:
            if isinstance(step, PollDecision):
                pause(step)
                step = next(loop)
                continue
            try:
                if isinstance(step, Together):
                    answer = _drive_together(step, send, pause, run_all)
                else:
                    answer = send(step)
            except Exception as error:  # noqa: BLE001  # the loop decides which ones to ride out
                step = loop.throw(error)
            else:
                step = loop.send(answer)
    except StopIteration as end:
        result: R = end.value
        return result


def _drive_together(
    together: Together,
    send: Callable[[Any], Any],
    pause: Callable[[PollDecision], None],
    run_all: RunAll,
) -> list[Any]:
    is_over = False

    def send_if_wanted(call: Any) -> Any:
        if is_over:
            raise CancelledError
        return send(call)

    def run(part: Loop[Any]) -> Any:
        try:
            return drive(part, send_if_wanted, pause, run_all)
        except PromptLayerError as error:
            if together.keeps_errors:
                return error
            raise

    try:
        return run_all([partial(run, part) for part in together.loops])
    finally:
        is_over = True  # for the loops that still pause, after an error or an interruption


async def adrive(
    loop: Loop[R],
    send: Callable[[Any], Awaitable[Any]],
    before_sleep: Callable[[PollDecision], None] = lambda _decision: None,
    send_together: Callable[[Any], Awaitable[Any]] | None = None,
) -> R:
    """Do what :func:`drive` does, on an event loop.

    :param before_sleep: gets each decision before the sleep. Not a coroutine function: each of
        thousands of waits would hold a coroutine for as long as it sleeps.
    :param send_together: sends the calls of a :class:`Together`, where ``send`` sends one at a
        time; None if it sends any number.
    """
    try:
        step = next(loop)
        while True:
            if isinstance(step, PollDecision):
                before_sleep(step)
                if not step.is_done:
                    await asyncio.sleep(step.sleep)
                step = next(loop)
                continue
            try:
                if isinstance(step, Together):
                    answer = await _run_together(step, send_together or send, before_sleep)
                else:
                    answer = await send(step)
            except Exception as error:  # noqa: BLE001  # the loop decides which ones to ride out
                step = loop.throw(error)
            else:
                step = loop.send(answer)
    except StopIteration as end:
        result: R = end.value
        return result


async def _run_together(
    together: Together,
    send: Callable[[Any], Awaitable[Any]],
    before_sleep: Callable[[PollDecision], None],
) -> list[Any]:
    may_run = asyncio.Semaphore(AT_ONCE)

    async def run(part: Loop[Any]) -> Any:
        async with may_run:
            try:
                return await adrive(part, send, before_sleep)
            except PromptLayerError as error:
                if together.keeps_errors:
                    return error
                raise

    running = [asyncio.create_task(run(part)) for part in together.loops]
    try:
        return await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
