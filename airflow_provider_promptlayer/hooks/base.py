# SPDX-License-Identifier: Apache-2.0
"""What every method of the hook stands on: sending, starting and waiting.

All of it is there twice, blocking and as an ``a…`` coroutine. Both build the same request and
read the answer with the same function; only the transport differs. aiohttp and requests are
imported on first use, because DAG files import this module on every parse.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from airflow_provider_promptlayer.api.arguments import seconds
from airflow_provider_promptlayer.api.errors import (
    PromptLayerAnswerTooLargeError,
    PromptLayerAuthError,
    PromptLayerConfigurationError,
    PromptLayerError,
    PromptLayerNotFoundError,
    PromptLayerTransientError,
    PromptLayerUnexpectedAnswerError,
    PromptLayerUnreachableError,
)
from airflow_provider_promptlayer.api.http import Call, Origin, Request, Response
from airflow_provider_promptlayer.api.job import L, RemoteJob
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.workflows import workflow_count
from airflow_provider_promptlayer.hooks.connection import PromptLayerConnection
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import (
    Loop,
    adrive,
    ask_with_backoff,
    drive,
    poll_until_ended,
    retried,
)
from airflow_provider_promptlayer.polling.poller import PollDecision, Poller
from airflow_provider_promptlayer.polling.retries import RetryPolicy
from airflow_provider_promptlayer.polling.schedule import PollSchedule
from airflow_provider_promptlayer.transport.settings import Settings

if TYPE_CHECKING:
    from airflow_provider_promptlayer.transport.aio import AsyncTransport
    from airflow_provider_promptlayer.transport.blocking import BlockingTransport

T = TypeVar("T")

Send: TypeAlias = Callable[[Call[Any]], Awaitable[Any]]
"""Sends a call, and returns what its answer means."""

_aio: ModuleType | None = None
"""The asynchronous transport, once it is imported."""

_opening = threading.RLock()
"""Held while a hook makes its transport. One for all: that takes no time."""


class PromptLayerConnectionHook(PromptLayerConnection):
    """Send the requests of :mod:`..api` with the key of an Airflow connection.

    :param promptlayer_conn_id: id of an Airflow connection of type ``promptlayer``.
    """

    def __init__(self, promptlayer_conn_id: str = PromptLayerConnection.default_conn_name) -> None:
        super().__init__(promptlayer_conn_id)
        self._transport: BlockingTransport | None = None
        self.is_stopping = False

    def test_connection(self) -> tuple[bool, str]:
        """Make the cheapest authenticated call, and say who is wrong if it fails.

        :returns: whether it worked, and a line for people.
        """
        try:
            count = self.call(workflow_count())
        except PromptLayerUnreachableError as error:
            return False, f"The host {self.settings.base_url} is not reachable. {error}"
        except (PromptLayerNotFoundError, PromptLayerUnexpectedAnswerError) as error:
            return False, f"{self.settings.base_url} answers, but it is not PromptLayer. {error}"
        except PromptLayerError as error:
            return False, str(error)
        finally:
            self.close()
        found = (
            "" if count is None else f" The key sees {count} workflow{'' if count == 1 else 's'}."
        )
        return True, f"PromptLayer answers at {self.settings.base_url}.{found}"

    def warm_up(self) -> None:
        """Read the connection and import the transport, so that the next call is sent at once."""
        import_module("airflow_provider_promptlayer.transport.blocking")
        _ = self.settings

    def close(self) -> None:
        """Close the blocking connections. The hook can be used again."""
        if (transport := self._transport) is not None:
            transport.close()

    def async_transport(self) -> AbstractAsyncContextManager[AsyncTransport]:
        """Hold the event loop's connection pool open, so that the calls within share it."""
        return _Lent(self)

    def sender(self, poller: Poller) -> AbstractAsyncContextManager[Send]:
        """Hold the connection pool open for one wait, and return what sends its calls.

        :param poller: says until when the wait needs an answer, and is told of the throttle.
        """
        poller.throttle = self.throttle
        return _Sender(self, poller)

    # --- sending ------------------------------------------------------------------------------

    def call(self, call: Call[T]) -> T:
        """Send a request of :mod:`..api` and return what its answer means.

        If the key is refused, the connection is read again, as somebody may have changed it; and
        from time to time where none answers. Several threads may share the hook: each is told
        of the key that its own request had.
        """
        transport = self._blocking_transport()
        try:
            return self._call_once(call, transport)
        except (PromptLayerAuthError, PromptLayerUnreachableError) as error:
            if not self._has_changed(error, transport.settings):
                raise
        return self._call_once(call, self._blocking_transport())

    async def acall(
        self,
        call: Call[T],
        over: AsyncTransport | None = None,
        *,
        deadline: float = math.inf,
    ) -> T:
        """Do what :meth:`call` does, without blocking the event loop.

        Several coroutines may share the hook: each is told of the key that its own request had.

        :param over: what :meth:`async_transport` lends, where the caller holds it.
        :param deadline: when the caller stops waiting, in seconds since the epoch. The call takes
            no longer after it than the connection's ``timeout``, however many others queue.
        """
        if over is None:
            async with self.async_transport() as transport:
                return await self.acall(call, transport, deadline=deadline)
        try:
            return await self._acall_once(call, over, deadline)
        except (PromptLayerAuthError, PromptLayerUnreachableError) as error:
            if not await self._ahas_changed(error, over.settings):
                raise
        async with self.async_transport() as transport:
            return await self._acall_once(call, transport, deadline)

    def call_from_signal_handler(self, call: Call[T]) -> T:
        """Do what :meth:`call` does, on a connection of its own and with the key at hand.

        For a signal handler, which may have interrupted another call. It may also have interrupted
        Airflow while it asked its supervisor, so the Airflow connection must not be read there.
        Trouble that may pass is ridden out for a few seconds.

        :param call: one that may be sent again without harm.
        """
        from airflow_provider_promptlayer.transport.blocking import BlockingTransport

        settings = self._settings
        if settings is None:
            raise PromptLayerConfigurationError("The Airflow connection was not read so far.")

        def send(call: Call[T]) -> T:
            transport = BlockingTransport(settings)
            try:
                response = self._attributed(transport.send(call.request), settings)
                return call.read(response, time.time())
            finally:
                transport.close()

        answer: T = drive(retried(retries.SIGNAL_HANDLER, call), send)
        return answer

    def call_with_backoff(
        self, call: Call[T], *, about: str, policy: RetryPolicy, deadline: float = math.inf
    ) -> T:
        """Do what :meth:`call` does, riding out trouble as a wait does.

        :param about: what is asked about, for messages.
        :param policy: for how long PromptLayer may be out of reach.
        :param deadline: when to send no more, in seconds since the epoch.
        :raises PromptLayerOutageError: if PromptLayer was out of reach for longer.
        :raises PromptLayerWaitTimeoutError: if there was no answer before the deadline.
        """
        loop = ask_with_backoff(Poller.of_call(about, policy), call, deadline=deadline)
        answer: T = drive(loop, self.call, self._pause)
        return answer

    async def acall_with_backoff(
        self, call: Call[T], *, about: str, policy: RetryPolicy, deadline: float = math.inf
    ) -> T:
        """Do what :meth:`call_with_backoff` does, without blocking the event loop."""
        loop = ask_with_backoff(Poller.of_call(about, policy), call, deadline=deadline)
        answer: T = await adrive(loop, self.acall, self._log_decision)
        return answer

    # --- starting -----------------------------------------------------------------------------

    def start(self, call: Call[T]) -> T:
        """Do what :meth:`call` does for a request that starts a job.

        It is sent again, a few times and with growing pauses, only when it certainly started
        nothing, see :mod:`.api.submit`. Not after :meth:`stop_starting`.
        """

        def pause(decision: PollDecision) -> None:
            self._before_resend(decision)
            time.sleep(decision.sleep)

        started: T = drive(_submission(call), self.call, pause)
        return started

    async def astart(self, call: Call[T]) -> T:
        """Do what :meth:`start` does, without blocking the event loop."""
        started: T = await adrive(_submission(call), self.acall, self._before_resend)
        return started

    def stop_starting(self) -> None:
        """Let nothing more be started through this hook, whose task is being stopped.

        Airflow 2 interrupts such a task; Airflow 3 lets it go on until it is killed, seconds later.
        """
        self.is_stopping = True

    def _before_resend(self, decision: PollDecision) -> None:
        if self.is_stopping:
            raise self._stopping()
        self._log_decision(decision)

    def _refuse_if_stopping(self, call: Call[Any]) -> None:
        """Raise instead of sending a start for a task that is being stopped.

        Asked before each single send: a call may send a second time, with another key.
        """
        if call.starts and self.is_stopping:
            raise self._stopping()

    @staticmethod
    def _stopping() -> PromptLayerTransientError:
        return PromptLayerTransientError("The task is being stopped, so nothing more is started.")

    # --- waiting ------------------------------------------------------------------------------

    def _wait_for(
        self, job: RemoteJob[L], timeout: float, poke_interval: float | None, max_outage: float
    ) -> L:
        poller = self._new_poller(job, timeout, poke_interval, max_outage)
        return drive(poll_until_ended(poller, job.fetch_call()), self.call, self._pause)

    async def _await_for(
        self,
        job: RemoteJob[L],
        timeout: float,  # noqa: ASYNC109 - the twin of a blocking method
        poke_interval: float | None,
        max_outage: float,
    ) -> L:
        poller = self._new_poller(job, timeout, poke_interval, max_outage)
        async with self.sender(poller) as send:  # reads the connection, which the throttle needs
            return await adrive(
                poll_until_ended(poller, job.fetch_call()), send, self._log_decision
            )

    def _new_poller(
        self, job: RemoteJob[L], timeout: float, poke_interval: float | None, max_outage: float
    ) -> Poller:
        """Return the poller of a wait that begins now.

        :raises PromptLayerInvalidInputError: for a time that is negative or NaN; 0 is taken for
            ``max_outage`` alone, as a ``poke_interval`` of 0 would poll without a pause.
        """
        now = time.time()
        return Poller(
            job.name,
            PollSchedule(
                None if poke_interval is None else seconds("poke_interval", poke_interval)
            ),
            began_at=now,
            deadline=now + seconds("timeout", timeout),
            max_outage=seconds("max_outage", max_outage, zero=True),
            throttle=self.throttle,
        )

    def _pause(self, decision: PollDecision) -> None:
        self._log_decision(decision)
        time.sleep(decision.sleep)

    def _log_decision(self, decision: PollDecision) -> None:
        decision.log_to(self.log)

    # --- one request --------------------------------------------------------------------------

    def _blocking_transport(self) -> BlockingTransport:
        """Return the transport for the connection as it is known now."""
        from airflow_provider_promptlayer.transport.blocking import BlockingTransport

        settings = self.settings
        with _opening:
            transport = self._transport
            if transport is None or transport.settings != settings:
                if transport is not None:
                    transport.close()
                transport = self._transport = BlockingTransport(settings)
            return transport

    def _call_once(self, call: Call[T], over: BlockingTransport) -> T:
        self._refuse_if_stopping(call)
        try:
            response = self._attributed(over.send(call.request), over.settings)
        except (PromptLayerUnreachableError, PromptLayerAnswerTooLargeError) as error:
            raise call.unanswered(error) from None
        self._say_redacted(call.request, response)
        return call.read(response, time.time())

    async def _acall_once(self, call: Call[T], over: AsyncTransport, deadline: float) -> T:
        wanted_for = None if deadline == math.inf else max(0.0, deadline - time.time())
        self._refuse_if_stopping(call)
        try:
            response = await over.send(call.request, wanted_for=wanted_for)
            response = self._attributed(response, over.settings)
        except (PromptLayerUnreachableError, PromptLayerAnswerTooLargeError) as error:
            raise call.unanswered(error) from None
        self._say_redacted(call.request, response)
        if response.is_slow_to_parse:
            return await asyncio.to_thread(call.read, response, time.time())
        return call.read(response, time.time())

    def _attributed(self, response: Response, settings: Settings) -> Response:
        """Return an answer with who has sent it, which its errors name."""
        connection = f"Airflow connection {one_line(repr(self.promptlayer_conn_id), 80)}"
        return replace(response, origin=Origin(settings.base_url, connection))

    def _say_redacted(self, request: Request, response: Response) -> None:
        """Tell of outputs that are not as PromptLayer sent them.

        Not of refusals, nor of a run that goes on (202): nothing of these is handed on.
        """
        if response.redactions and response.is_success and response.status != 202:
            self.log.warning(
                "Replaced the API key or the proxy's credentials by *** in %d place(s) of the "
                "answer to the request to %s.",
                response.redactions,
                request.purpose,
            )


def _submission(call: Call[T]) -> Loop[T]:
    return retried(
        retries.SUBMITTING,
        call,
        says="{error}. Nothing was started; trying again in {sleep}.",
    )


class _Lent:
    """The pool of a hook's connection, lent. No generator, as thousands of waits hold one each."""

    __slots__ = ("_hook", "_shared")

    def __init__(self, hook: PromptLayerConnectionHook) -> None:
        self._hook = hook

    async def __aenter__(self) -> AsyncTransport:
        global _aio
        if _aio is None:  # aiohttp takes tenths of a second to import: not on the event loop
            _aio = await asyncio.to_thread(
                import_module, "airflow_provider_promptlayer.transport.aio"
            )
        self._shared = _aio.SharedTransport(await self._hook.aget_settings())
        transport: AsyncTransport = await self._shared.__aenter__()
        return transport

    async def __aexit__(self, *_: object) -> None:
        await self._shared.__aexit__()


class _Sender:
    """Sends the calls of one wait, over another pool once the connection has changed.

    An object with slots and no closure: there is one for each of thousands of waits.
    """

    __slots__ = ("_hook", "_lent", "_poller", "_transport")

    def __init__(self, hook: PromptLayerConnectionHook, poller: Poller) -> None:
        self._hook = hook
        self._poller = poller

    async def __aenter__(self) -> _Sender:
        lent = _Lent(self._hook)
        self._transport = await lent.__aenter__()
        self._lent = lent
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._lent.__aexit__()

    def __call__(self, call: Call[T]) -> Awaitable[T]:
        """Send a call, and return what its answer means."""
        used, now = self._transport.settings, self._hook.settings
        if used is now or used == now:
            return self._hook.acall(call, self._transport, deadline=self._poller.last_deadline)
        return self._send_over_another(call)

    async def _send_over_another(self, call: Call[T]) -> T:
        before = self._lent
        await self.__aenter__()
        await before.__aexit__()
        return await self._hook.acall(call, self._transport, deadline=self._poller.last_deadline)
