# SPDX-License-Identifier: Apache-2.0
"""How the hook's methods send requests: each is written once, as a loop, and run by two drivers.

The blocking driver uses requests, that of the ``a…`` twins aiohttp. Both libraries are imported on
first use, because DAG files import this module on every parse.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

from airflow_provider_promptlayer.api.arguments import seconds
from airflow_provider_promptlayer.api.errors import (
    PromptLayerAnswerTooLargeError,
    PromptLayerAuthError,
    PromptLayerConfigurationError,
    PromptLayerError,
    PromptLayerNotFoundError,
    PromptLayerRefusedError,
    PromptLayerServerError,
    PromptLayerStartUncertainError,
    PromptLayerTransientError,
    PromptLayerUnexpectedAnswerError,
    PromptLayerUnreachableError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.api.http import Call, Origin, Response
from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.api.text import quoted
from airflow_provider_promptlayer.api.workflows import workflow_count
from airflow_provider_promptlayer.hooks.connection import PromptLayerConnection
from airflow_provider_promptlayer.hooks.sender import Sender
from airflow_provider_promptlayer.hooks.threads import run_together
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import (
    Loop,
    adrive,
    ask_with_backoff,
    drive,
    retried,
)
from airflow_provider_promptlayer.polling.poller import PollDecision, Poller
from airflow_provider_promptlayer.polling.retries import RetryPolicy
from airflow_provider_promptlayer.polling.schedule import PollSchedule
from airflow_provider_promptlayer.transport.settings import Settings

if TYPE_CHECKING:
    from airflow_provider_promptlayer.transport.blocking import BlockingTransport

T = TypeVar("T")

P = ParamSpec("P")
H = TypeVar("H", bound="PromptLayerConnectionHook")

_opening = threading.RLock()
"""Held while a hook makes its transport, which is quick: so one lock for all hooks will do."""


@dataclass(frozen=True, slots=True)
class Wait(Generic[T]):
    """A loop that polls, and the poller that has its deadline."""

    poller: Poller
    loop: Loop[T]


def twins(
    flow: Callable[Concatenate[H, P], Loop[T] | Wait[T]],
) -> tuple[Callable[Concatenate[H, P], T], Callable[Concatenate[H, P], Coroutine[Any, Any, T]]]:
    """Return two methods that run what ``flow`` returns: a blocking one, and its ``a…`` twin."""
    name = flow.__name__.removeprefix("_")
    # help() shows users the result of the methods, and not the loop that has it.
    flow.__annotations__["return"] = flow.__annotations__["return"].partition("[")[2][:-1]

    @wraps(flow)
    def method(hook: H, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return hook._run(flow(hook, *args, **kwargs))

    @wraps(flow)
    async def twin(hook: H, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await hook._arun(flow(hook, *args, **kwargs))

    for made, made_name in ((method, name), (twin, f"a{name}")):
        made.__name__ = made_name
        made.__qualname__ = flow.__qualname__.replace(flow.__name__, made_name)
    twin.__doc__ = f"Do what :meth:`{name}` does, without blocking the event loop."
    return method, twin


class PromptLayerConnectionHook(PromptLayerConnection):
    """Send the requests of :mod:`..api` with the key of an Airflow connection.

    :param promptlayer_conn_id: id of an Airflow connection of type ``promptlayer``.
    """

    def __init__(self, promptlayer_conn_id: str = PromptLayerConnection.default_conn_name) -> None:
        super().__init__(promptlayer_conn_id)
        self._transport: BlockingTransport | None = None
        self.is_stopping = False
        self._give_up_at = math.inf

    def test_connection(self) -> tuple[bool, str]:
        """Make the cheapest authenticated call, for the *Test* button of the connection form.

        :returns: whether it worked, and a line that says what is wrong if it did not.
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
        found = "" if count is None else f" The key sees {count} workflow{'s' * (count != 1)}."
        return True, f"PromptLayer answers at {self.settings.base_url}.{found}"

    def warm_up(self) -> None:
        """Read the connection and import the transport, so that the next call is sent at once."""
        import_module("airflow_provider_promptlayer.transport.blocking")
        _ = self.settings

    def close(self) -> None:
        """Close the blocking connections. The hook can be used again."""
        if (transport := self._transport) is not None:
            transport.close()

    def sender(self, poller: Poller | None = None) -> Sender:
        """Hold the event loop's pool of connections open for one wait, and send its calls over it.

        :param poller: has the deadline of the wait, and gets the throttle of the connection.
        """
        return Sender(self, poller)

    # --- sending ------------------------------------------------------------------------------

    def call(self, call: Call[T]) -> T:
        """Send a request of :mod:`..api` and return what its answer means.

        If the key is refused or no server is reached, the hook reads the connection again (if no
        server is reached, once a minute at most). If the connection has changed, the request is
        sent again. Several threads may share the hook.
        """
        transport = self._blocking_transport()
        try:
            return self._call_once(call, transport)
        except (PromptLayerAuthError, PromptLayerUnreachableError) as error:
            if not self._has_changed(error, transport.settings):
                raise
        return self._call_once(call, self._blocking_transport())

    async def acall(self, call: Call[T]) -> T:
        """Do what :meth:`call` does, without blocking the event loop."""
        async with self.sender() as send:
            return await send(call)

    def call_from_signal_handler(self, call: Call[T]) -> T:
        """Do what :meth:`call` does, over a new connection and with the key that is known.

        A signal handler may have interrupted another call, or a request of Airflow to its
        supervisor, so this does not read the Airflow connection. Retries for a few seconds.

        :param call: one that may be sent again without harm.
        """
        from airflow_provider_promptlayer.transport.blocking import BlockingTransport

        settings = self._settings
        if settings is None:
            raise PromptLayerConfigurationError("The Airflow connection has not been read yet.")

        def send(call: Call[T]) -> T:
            transport = BlockingTransport(settings)
            try:
                return self._read(call, transport.send(call.request, self._origin(settings)))
            finally:
                transport.close()

        answer: T = drive(retried(retries.SIGNAL_HANDLER, call), send)
        return answer

    def call_with_backoff(self, call: Call[T], *, about: str, policy: RetryPolicy) -> T:
        """Do what :meth:`call` does, and retry as a wait does.

        :param about: the job or its part, for messages.
        :param policy: for how long PromptLayer may be out of reach.
        :raises PromptLayerOutageError: if PromptLayer was out of reach for longer.
        """
        answer: T = self._run(ask_with_backoff(Poller.of_call(about, policy), call))
        return answer

    async def acall_with_backoff(self, call: Call[T], *, about: str, policy: RetryPolicy) -> T:
        """Do what :meth:`call_with_backoff` does, without blocking the event loop."""
        answer: T = await self._arun(ask_with_backoff(Poller.of_call(about, policy), call))
        return answer

    # --- running loops ------------------------------------------------------------------------

    def _run(self, flow: Loop[T] | Wait[T]) -> T:
        loop = flow.loop if isinstance(flow, Wait) else flow
        return drive(loop, self.call, self._pause, run_together)

    async def _arun(self, flow: Loop[T] | Wait[T]) -> T:
        if isinstance(flow, Wait):
            async with self.sender(flow.poller) as send:
                return await adrive(flow.loop, send, self._log_decision, self.acall)
        # Each call opens the pool, so that the loop also retries a connection that cannot be read.
        return await adrive(flow, self.acall, self._log_decision)

    def submit(self, call: Call[T], noun: str) -> T:
        """Send a request that starts a job; return the job's id.

        :param noun: what the log calls the job, before its id.
        :raises PromptLayerStartUncertainError: if a job may have been started with an unknown id.
        """
        return self._run(self._start(call, noun))

    def _start(self, call: Call[T], noun: str) -> Loop[T]:
        job_id = yield from self._submit(call)
        self.log.info("PromptLayer started %s %s.", noun, job_id)
        return job_id

    def _submit(self, call: Call[T], usual: RetryPolicy | None = None) -> Loop[T]:
        """Send a request that starts a job; return what its answer means.

        The request is sent again, as ``usual`` says or ``SUBMITTING``, only if it certainly started
        nothing, see :mod:`.api.submit`. Nothing is sent after :meth:`stop_starting`.
        """
        usual = usual or retries.SUBMITTING
        policy = replace(usual, retries=lambda error: not self.is_stopping and usual.retries(error))
        return retried(policy, call, says="{error}. Nothing was started; trying again in {sleep}.")

    def _sent_once(
        self,
        make: Callable[[], Call[T]],
        find: Callable[[], Loop[T | None]],
        check: Callable[[], Loop[T | None]] | None = None,
    ) -> Loop[T]:
        """Send a request that takes effect once; return what its answer means, or what is found.

        If the answer is lost, the request may have taken effect: that is looked for, patiently.

        :param find: returns what was brought about, or None if there is no sign of it.
        :param check: is run before each request; returns what makes it needless, or None.
        :raises PromptLayerStartUncertainError: if two answers were lost, and nothing is found.
        """
        losses = refusals = 0
        while True:
            if check is not None and (found := (yield from check())) is not None:
                return found
            try:
                result: T = yield make()
                return result
            except PromptLayerStartUncertainError as error:
                looks, policy = 0, retries.LOOKING_FOR_CREATED
                while pause := policy.next_pause(looks := looks + 1, elapsed=0.0):
                    yield PollDecision(sleep=pause, note=str(error), is_trouble=True)
                    if (found := (yield from find())) is not None:
                        return found
                if (losses := losses + 1) == 2:
                    raise
            except PromptLayerTransientError as error:
                refusals += 1
                sleep = retries.SUBMITTING.next_pause(refusals, error, elapsed=0.0)
                if sleep is None or self.is_stopping:
                    raise
                yield PollDecision(sleep=sleep, note=str(error), is_trouble=True)

    def _new_poller(
        self, job: RemoteJob[Any], timeout: float, poke_interval: float | None, max_outage: float
    ) -> Poller:
        """Return the poller of a wait that begins now.

        :raises PromptLayerInvalidInputError: for a time that is negative or NaN. Only
            ``max_outage`` may be 0: a ``poke_interval`` of 0 would poll without a pause.
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
            pending_phrase=job.pending_phrase,
            abandoned_phrase=job.abandoned_phrase,
            throttle=self.throttle,
        )

    @contextmanager
    def giving_up_at(self, deadline: float) -> Iterator[None]:
        """Retry no blocking call after a deadline, in seconds since the epoch.

        For what a task asks before it waits, so that its ``timeout`` holds while it asks, too.

        :raises PromptLayerWaitTimeoutError: in place of a retry after the deadline.
        """
        self._give_up_at = deadline
        try:
            yield
        finally:
            self._give_up_at = math.inf

    def _pause(self, decision: PollDecision) -> None:
        self._log_decision(decision)
        left = self._give_up_at - time.time()
        if decision.is_trouble and left <= 0:
            raise PromptLayerWaitTimeoutError(
                "The time is up before the wait could begin, as PromptLayer was out of reach."
            )
        time.sleep(min(decision.sleep, max(left, 0.0)))

    def _log_decision(self, decision: PollDecision) -> None:
        decision.log_to(self.log)

    def stop_starting(self) -> None:
        """Refuse to start further jobs, because the task of this hook is being stopped.

        Airflow 2 interrupts such a task; Airflow 3 lets it go on and kills it seconds later.
        """
        self.is_stopping = True

    def _refuse_if_stopping(self, call: Call[Any]) -> None:
        """Raise instead of sending a start for a task that is being stopped.

        Checked before each request, as a call may send a second one with another key.
        """
        if call.starts and self.is_stopping:
            raise PromptLayerTransientError(
                "The task is being stopped, so nothing more is started."
            )

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
            response = over.send(call.request, self._origin(over.settings))
        except (PromptLayerUnreachableError, PromptLayerAnswerTooLargeError) as error:
            raise call.unanswered(error) from None
        return self._read(call, response)

    def _origin(self, settings: Settings) -> Origin:
        return _origin(settings.base_url, self.promptlayer_conn_id)

    def _read(self, call: Call[T], response: Response) -> T:
        """Return what an answer means, and warn of redacted outputs.

        A refusal, or an answer about a run that goes on (202), has no outputs and needs no warning.
        """
        if response.redactions and response.is_success and response.status != 202:
            self.log.warning(
                "Replaced the API key or the proxy's credentials by *** in %d place(s) of the "
                "answer to the request to %s.",
                response.redactions,
                call.request.purpose,
            )
        try:
            result = call.read(response, time.time())
        except PromptLayerRefusedError as error:
            is_of_key = isinstance(error, PromptLayerAuthError)
            is_foreign = error.is_foreign and not is_of_key and call.request.method == "GET"
            if not (is_foreign and self.was_connected):
                raise
            # Something on the way, such as a gateway that restarts, and not a wrong host.
            blip = PromptLayerServerError(str(error), status=error.status)
            blip.request_id = error.request_id
            raise blip from None
        self.was_connected = True
        return result


@lru_cache
def _origin(base_url: str, conn_id: str) -> Origin:
    return Origin(base_url, f"Airflow connection {quoted(conn_id)}")
