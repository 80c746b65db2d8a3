# SPDX-License-Identifier: Apache-2.0
"""How a trigger gets its work done in ``on_kill``, and asks Airflow for a task's state.

Airflow gives ``on_kill`` much less than its 30 s. Until the trigger has ended, the triggerer
cancels it again every second, and each cancellation interrupts what the trigger is awaiting:
``on_kill``, or the log line that Airflow writes before it calls ``on_kill``, which is then never
called. And the first question that a triggerer asks Airflow takes many seconds, because the process
that answers imports Airflow's whole API first, and does nothing else meanwhile. (In Airflow 3.3.2,
``update_triggers``, ``run_trigger`` and ``client`` of ``jobs/triggerer_job_runner.py``.)

So the work runs in an asyncio task of its own, which no cancellation of the trigger reaches, and
the first question is asked when a wait begins.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final
from weakref import WeakKeyDictionary

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import adrive, retried

_ON_KILL_SECONDS: Final = 28.0
"""How long a trigger waits for its detached work: Airflow ends ``on_kill`` after 30 s."""

_GATHER_SECONDS: Final = 0.1
"""How long to gather the questions of triggers that are cancelled at the same time."""

_running: Final[set[asyncio.Task[None]]] = set()
"""The detached tasks: the event loop itself keeps no strong references to them."""


class DetachedWork:
    """Work that goes on when the trigger that waits for it is cancelled again, or has ended.

    It ends with the triggerer's event loop at the latest.

    :param work: must not raise.
    """

    __slots__ = ("_task", "_wait_until")

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.create_task(work)
        _running.add(self._task)
        self._task.add_done_callback(_running.discard)
        self._wait_until = asyncio.get_running_loop().time() + _ON_KILL_SECONDS

    async def join(self) -> None:
        """Wait for the work; a cancellation ends the wait and not the work."""
        await asyncio.shield(self._task)

    async def wait(self) -> None:
        """Wait for the work, however often cancelled, until Airflow is about to end ``on_kill``."""
        now = asyncio.get_running_loop().time
        while not self._task.done() and (left := self._wait_until - now()) > 0:
            with suppress(asyncio.CancelledError):
                await asyncio.wait({self._task}, timeout=left)


def is_user_action(cancel: BaseException | None) -> bool:
    """Return whether the triggerer has cancelled a wait because the task no longer waits there.

    The error's message says so, or that of the error's context: asgiref, by which Airflow reads a
    connection, raises a new error without the message, for which Airflow does not call ``on_kill``.
    """
    while isinstance(cancel, asyncio.CancelledError):
        if cancel.args[:1] == (version_compat.USER_ACTION,):
            return True
        cancel = cancel.__context__
    return False


async def state_of(ti: Any) -> str | None:
    """Return the state of a task instance; :data:`.GONE` if Airflow has no such instance.

    :param ti: the trigger's ``task_instance``.
    :raises Exception: Airflow's last error, or TimeoutError.
    """
    policy, now = retries.ASKING_AIRFLOW, asyncio.get_running_loop().time
    give_up_at = now() + policy.give_up_after
    state: str | None = await adrive(
        retried(policy, ti),
        lambda ti: asyncio.wait_for(_questions().ask(ti), give_up_at - now()),
    )
    return state


def warm_up(ti: Any) -> None:
    """Ask this process's first question to Airflow now, in the background."""
    questions = _questions()
    if not questions.are_warm:
        questions.are_warm = True
        DetachedWork(questions.warm_up(ti))


class _Questions:
    """Asks for the states of task instances, one question after the other.

    One question asks about all instances of a mapped task that wait for an answer, because each
    holds up the triggerer and occupies a thread of the pool that Airflow's own log lines need.
    """

    def __init__(self) -> None:
        self.are_warm = False
        self._waiting: list[tuple[Any, asyncio.Future[str | None]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def ask(self, ti: Any) -> str | None:
        """Return the state as of now or later, so do not join a question that is under way."""
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((ti, answer))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_all())
        return await answer

    async def warm_up(self, ti: Any) -> None:
        """Ask, and ignore the answer; if asking fails, the next wait to begin asks again."""
        try:
            await self.ask(ti)
        except Exception:  # noqa: BLE001  # the answer is not needed
            self.are_warm = False

    async def _ask_all(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(_GATHER_SECONDS)
                waiting, self._waiting = self._waiting, []
                by_task = defaultdict(list)
                for ti, answer in waiting:
                    by_task[ti.dag_id, ti.task_id].append((ti, answer))
                for asked in by_task.values():
                    await _ask_about(asked)
        finally:
            self._asking = None


async def _ask_about(asked: list[tuple[Any, asyncio.Future[str | None]]]) -> None:
    """Ask about instances of one task, and give each trigger that waits its answer."""
    try:
        states = await asyncio.to_thread(version_compat.states_of, [ti for ti, _ in asked])
    except Exception as error:  # noqa: BLE001  # the triggers that wait for the answer handle it
        for _, answer in asked:
            if not answer.done():
                answer.set_exception(error)
    else:
        for (_, answer), state in zip(asked, states, strict=True):
            if not answer.done():
                answer.set_result(state)


_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Questions] = WeakKeyDictionary()


def _questions() -> _Questions:
    return _of_loop.setdefault(asyncio.get_running_loop(), _Questions())
