# SPDX-License-Identifier: Apache-2.0
"""What every method of the hook stands on: a connection, sending, starting and waiting.

All of it is there twice, blocking and as an ``a…`` coroutine. Both build the same request and
read the answer with the same function; only the transport differs. aiohttp and requests are
imported on first use, because DAG files import this module on every parse.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary, ref

from airflow.providers.common.compat.sdk import (
    AirflowNotFoundException,
    BaseHook,
)

from airflow_provider_promptlayer.api.arguments import seconds
from airflow_provider_promptlayer.api.http import Call, Origin, Request, Response
from airflow_provider_promptlayer.api.pace import Pace
from airflow_provider_promptlayer.api.settings import Settings, read_connection
from airflow_provider_promptlayer.api.starting import resend_after
from airflow_provider_promptlayer.api.subjects import L, Subject
from airflow_provider_promptlayer.api.talks import R, Talk
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.throttle import CurrentThrottle, Throttle
from airflow_provider_promptlayer.api.waiting import DEFAULT_MAX_OUTAGE, Step, Wait
from airflow_provider_promptlayer.api.workflows import workflow_count
from airflow_provider_promptlayer.exceptions import (
    PromptLayerAnswerTooLargeError,
    PromptLayerAuthError,
    PromptLayerConfigurationError,
    PromptLayerError,
    PromptLayerNotFoundError,
    PromptLayerTransientError,
    PromptLayerUnexpectedAnswerError,
    PromptLayerUnknownConnectionError,
    PromptLayerUnreachableError,
    PromptLayerWaitTimeoutError,
)

if TYPE_CHECKING:
    import requests

    from airflow_provider_promptlayer.transport.aio import AsyncTransport
    from airflow_provider_promptlayer.transport.blocking import BlockingTransport

T = TypeVar("T")

_aio: ModuleType | None = None
"""The asynchronous transport, once it is imported."""

_known_settings: WeakKeyDictionary[Settings, ref[Settings]] = WeakKeyDictionary()
"""The settings that hooks of this process use, each once. No key outlives its last user."""

_throttles: WeakKeyDictionary[Settings, Throttle] = WeakKeyDictionary()
"""Connection → the brake of all waits in this process that use it."""

_opening = threading.RLock()
"""Held while a hook makes its transport. One for all: that takes no time."""

_reading = threading.RLock()
"""Held while a thread has Airflow read a connection: 3.0 and 3.1 mix up what two threads ask."""

_READ_AGAIN_SECONDS = 60.0
"""How often at most the connection is read again where PromptLayer is not reached through it."""

_APART_SECONDS = 3.0
"""For how long :meth:`PromptLayerConnectionHook.call_apart` rides out trouble.

Airflow 3 gives a task that is to stop five seconds.
"""

_APART_PAUSE = 0.3


class PromptLayerConnectionHook(BaseHook):
    """Send the requests of :mod:`..api` with the key of an Airflow connection.

    :param promptlayer_conn_id: id of an Airflow connection of type ``promptlayer``.
    """

    conn_name_attr = "promptlayer_conn_id"
    default_conn_name = "promptlayer_default"
    conn_type = "promptlayer"
    hook_name = "PromptLayer"

    def __init__(self, promptlayer_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.promptlayer_conn_id = promptlayer_conn_id
        self._settings: Settings | None = None
        self._transport: BlockingTransport | None = None
        self._read_at = 0.0  # by the monotonic clock
        self.is_stopping = False
        self.connection_was_there = False  # when another process began what goes on
        self._place: tuple[str, str] | None = None  # a base URL, and what is there
        self._way_back = ""

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields of the connection form (Airflow 2; 3 reads the provider info)."""
        from airflow_provider_promptlayer.hooks.connection_form import widgets

        return widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and hidden fields of the connection form."""
        from airflow_provider_promptlayer.hooks.connection_form import FIELD_BEHAVIOUR

        behaviour: Any = FIELD_BEHAVIOUR
        return {key.replace("-", "_"): value for key, value in behaviour.items()}

    def get_conn(self) -> requests.Session:
        """Return a session for calls that this hook has no method for.

        It adds the key to requests to PromptLayer and to no others, and has the connection's TLS
        and proxy settings. The caller closes it and gives a ``timeout`` to each call.
        """
        from airflow_provider_promptlayer.transport.blocking import PromptLayerSession

        return PromptLayerSession(self.settings)

    @property
    def settings(self) -> Settings:
        """The connection as read on first use; blocking."""
        return self._settings or self._read_first()

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

    def async_transport(self) -> AbstractAsyncContextManager[AsyncTransport]:
        """Hold the event loop's connection pool open, so that the calls within share it."""
        return _Lent(self)

    async def aget_settings(self) -> Settings:
        """Return :attr:`settings`, without blocking the event loop."""
        return self._settings or self._adopt(await self._aread_connection())

    def close(self) -> None:
        """Close the blocking connections. The hook can be used again."""
        if (transport := self._transport) is not None:
            transport.close()

    def call(self, call: Call[T]) -> T:
        """Send a request of :mod:`..api` and return what its answer means.

        If the key is refused, the connection is read again, as somebody may have changed it; and
        from time to time where nobody is reached. Several threads may share the hook: each is told
        of the key that its own request had.
        """
        transport = self._blocking_transport()
        try:
            return self._call_once(call, transport)
        except (PromptLayerAuthError, PromptLayerUnreachableError) as error:
            if self._settings == transport.settings and self._may_have_changed(error):
                try:
                    with _reading:
                        if self._settings == transport.settings:
                            self._is_news(self._read_connection())
                except Exception:
                    if isinstance(error, PromptLayerUnreachableError):
                        raise error from None
                    raise
            if self._settings == transport.settings:
                raise
            self._say_changed(error)
            return self._call_once(call, self._blocking_transport())

    def call_apart(self, call: Call[T]) -> T:
        """Do what :meth:`call` does, on a connection of its own and with the key at hand.

        For a signal handler, which may have interrupted another call. It may also have interrupted
        Airflow's own talk to its supervisor, so the Airflow connection must not be read there.
        Trouble that may pass is ridden out for a few seconds.

        :param call: one that may be sent again without harm.
        """
        from airflow_provider_promptlayer.transport.blocking import BlockingTransport

        if self._settings is None:
            raise PromptLayerConfigurationError("The Airflow connection was not read so far.")
        give_up_at = time.monotonic() + _APART_SECONDS
        while True:
            transport = BlockingTransport(self._settings)
            try:
                response = self._attributed(transport.send(call.request), self._settings)
                return call.read(response, time.time())
            except PromptLayerTransientError:
                if time.monotonic() + _APART_PAUSE >= give_up_at:
                    raise
                time.sleep(_APART_PAUSE)
            finally:
                transport.close()

    async def acall(
        self, call: Call[T], over: AsyncTransport | None = None, *, deadline: float | None = None
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
            if self._settings == over.settings and self._may_have_changed(error):
                try:
                    self._is_news(await self._aread_connection())
                except PromptLayerError:
                    if isinstance(error, PromptLayerUnreachableError):
                        raise error from None
                    raise
            if self._settings == over.settings:
                raise
            self._say_changed(error)
            async with self.async_transport() as transport:
                return await self._acall_once(call, transport, deadline)

    @property
    def stays_at(self) -> str | None:
        """The base URL of the only PromptLayer that may be asked, or None."""
        return None if self._place is None else self._place[0]

    def stay_at(self, base_url: str, *, about: str, way_back: str) -> None:
        """Ask no other PromptLayer from now on, where an id means something else.

        :param base_url: as in :class:`..api.settings.Settings`.
        :param about: what was started there, for messages.
        :param way_back: what to do where the connection leads elsewhere.
        :raises PromptLayerConfigurationError: if the connection leads elsewhere; also later.
        """
        self._place, self._way_back = (base_url, about), way_back
        if self._settings is not None:
            self._check_place(self._settings)

    def warm_up(self) -> None:
        """Read the connection and import the transport, so that the next call is sent at once."""
        import_module("airflow_provider_promptlayer.transport.blocking")
        _ = self.settings

    def start(self, call: Call[T]) -> T:
        """Do what :meth:`call` does for a request that starts something.

        It is sent again, a few times and with growing pauses, only when it certainly started
        nothing, see :mod:`..api.starts`. Not after :meth:`stop_starting`.
        """
        sent = 0
        while True:
            try:
                return self.call(call)
            except PromptLayerError as error:
                sent += 1
                time.sleep(self._until_resend(error, sent))

    def stop_starting(self) -> None:
        """Let nothing more be started through this hook, whose task is being stopped.

        Airflow 2 interrupts such a task; Airflow 3 lets it go on until it is killed, seconds later.
        """
        self.is_stopping = True

    async def astart(self, call: Call[T]) -> T:
        """Do what :meth:`start` does, without blocking the event loop."""
        sent = 0
        while True:
            try:
                return await self.acall(call)
            except PromptLayerError as error:
                sent += 1
                await asyncio.sleep(self._until_resend(error, sent))

    def ask(
        self,
        call: Call[T],
        *,
        about: str,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        deadline: float = math.inf,
    ) -> T:
        """Do what :meth:`call` does, riding out trouble as a wait does.

        :param about: what is asked about, for messages.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        :param deadline: when to send no more, in seconds since the epoch.
        :raises PromptLayerOutageError: if PromptLayer was out of reach for longer.
        :raises PromptLayerWaitTimeoutError: if there was no answer before the deadline.
        """
        wait = _patience(about, max_outage)
        while True:
            _check_time(about, deadline)
            try:
                answer = self.call(call)
            except PromptLayerTransientError as error:
                step = wait.after_error(error, now=time.time())
                self._log_step(step)
                time.sleep(_capped(step.sleep, deadline))
            else:
                self._log_step(wait.after_answer(now=time.time()))
                return answer

    async def aask(
        self,
        call: Call[T],
        *,
        about: str,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        deadline: float = math.inf,
    ) -> T:
        """Do what :meth:`ask` does, without blocking the event loop."""
        wait = _patience(about, max_outage)
        while True:
            _check_time(about, deadline)
            try:
                answer = await self.acall(call)
            except PromptLayerTransientError as error:
                step = wait.after_error(error, now=time.time())
                self._log_step(step)
                await asyncio.sleep(_capped(step.sleep, deadline))
            else:
                self._log_step(wait.after_answer(now=time.time()))
                return answer

    @staticmethod
    def converse(talk: Talk[R], send: Callable[[Call[Any]], Any]) -> R:
        """Send the calls of a talk, one after the other, and return what it comes to."""
        try:
            call = next(talk)
            while True:
                try:
                    answer = send(call)
                except PromptLayerError as error:
                    call = talk.throw(error)
                else:
                    call = talk.send(answer)
        except StopIteration as end:
            result: R = end.value
            return result

    @staticmethod
    async def aconverse(talk: Talk[R], send: Callable[[Call[Any]], Awaitable[Any]]) -> R:
        """Do what :meth:`converse` does, without blocking the event loop."""
        try:
            call = next(talk)
            while True:
                try:
                    answer = await send(call)
                except PromptLayerError as error:
                    call = talk.throw(error)
                else:
                    call = talk.send(answer)
        except StopIteration as end:
            result: R = end.value
            return result

    def _wait_for(
        self, subject: Subject[L], timeout: float, poke_interval: float | None, max_outage: float
    ) -> L:
        times = _times(timeout, poke_interval, max_outage)
        wait = self._new_wait(subject, *times)
        while True:
            time.sleep(wait.before_look(now=time.time()))
            try:
                look = self.call(subject.read())
                step = wait.after_look(look, now=time.time())
            except PromptLayerTransientError as error:
                step = wait.after_error(error, now=time.time())
            self._log_step(step)
            if step.is_done:
                return look
            time.sleep(step.sleep)

    async def _await_for(
        self,
        subject: Subject[L],
        timeout: float,  # noqa: ASYNC109 - the twin of a blocking method
        poke_interval: float | None,
        max_outage: float,
    ) -> L:
        times = _times(timeout, poke_interval, max_outage)
        async with self.async_transport():  # which has read the connection, for the throttle
            wait = self._new_wait(subject, *times)
            while True:
                if (hold := wait.before_look(now=time.time())) > 0:
                    await asyncio.sleep(hold)
                try:
                    look = await self.acall(subject.read(), deadline=wait.deadline)
                    step = wait.after_look(look, now=time.time())
                except PromptLayerTransientError as error:
                    step = wait.after_error(error, now=time.time())
                self._log_step(step)
                if step.is_done:
                    return look
                await asyncio.sleep(step.sleep)

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

    async def _acall_once(self, call: Call[T], over: AsyncTransport, deadline: float | None) -> T:
        wanted_for = None if deadline is None else max(0.0, deadline - time.time())
        self._refuse_if_stopping(call)
        try:
            response = await over.send(call.request, wanted_for=wanted_for)
            response = self._attributed(response, over.settings)
        except (PromptLayerUnreachableError, PromptLayerAnswerTooLargeError) as error:
            raise call.unanswered(error) from None
        self._say_redacted(call.request, response)
        if response.takes_long:
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

    def _refuse_if_stopping(self, call: Call[Any]) -> None:
        """Raise instead of sending a start for a task that is being stopped.

        Asked before each single send: a call may send a second time, with another key.
        """
        if call.starts and self.is_stopping:
            raise self._stopping()

    @staticmethod
    def _stopping() -> PromptLayerTransientError:
        return PromptLayerTransientError("The task is being stopped, so nothing more is started.")

    def _is_news(self, settings: Settings) -> bool:
        """Take the connection as it is now, and tell whether it has changed."""
        if settings == self._settings:
            return False
        if lost := self._lost(settings):
            self.log.warning("%s It goes on to be asked about where it was started.", lost)
            return False
        self._adopt(settings)
        return True

    def _check_place(self, settings: Settings) -> None:
        if lost := self._lost(settings):
            raise PromptLayerConfigurationError(f"{lost} {self._way_back}")

    def _lost(self, settings: Settings) -> str:
        """Return what to say of a connection that leads to another place than ``stays_at``."""
        if self._place is None or settings.base_url == self.stays_at:
            return ""
        base_url, about = self._place
        return (
            f"{about[:1].upper()}{about[1:]} was started at {base_url}, and the Airflow connection "
            f"{self.promptlayer_conn_id!r} leads to {settings.base_url} now."
        )

    def _may_have_changed(self, error: PromptLayerError) -> bool:
        """Return whether to read the connection again: at once for a key, else once a minute."""
        now = time.monotonic()
        if isinstance(error, PromptLayerUnreachableError):
            if now - self._read_at < _READ_AGAIN_SECONDS:
                return False
            self._read_at = now
        return True

    def _say_changed(self, error: PromptLayerError) -> None:
        self.log.warning(
            "%s; the connection %r has changed meanwhile, so it is tried again.",
            f"PromptLayer refused the API key (HTTP {error.status})"
            if isinstance(error, PromptLayerAuthError)
            else "PromptLayer was not reached",
            self.promptlayer_conn_id,
        )

    def _until_resend(self, error: PromptLayerError, sent: int) -> float:
        seconds = resend_after(error, sent)
        if seconds is None:
            raise error
        if self.is_stopping:
            raise self._stopping() from error
        problem = str(error).rstrip(".")
        self.log.warning("%s. Nothing was started; trying again in %.1f s.", problem, seconds)
        return seconds

    def _read_first(self) -> Settings:
        with _reading:  # another thread may have read it meanwhile
            return self._settings or self._adopt(self._read_connection())

    def _read_connection(self) -> Settings:
        with self._connection_errors():
            return read_connection(self.get_connection(self.promptlayer_conn_id))

    async def _aread_connection(self) -> Settings:
        from airflow.providers.common.compat.connection import get_async_connection

        with self._connection_errors():
            return read_connection(await get_async_connection(self.promptlayer_conn_id, type(self)))

    @contextmanager
    def _connection_errors(self) -> Iterator[None]:
        """Turn what Airflow raises for a connection into this provider's errors."""
        try:
            yield
        except PromptLayerError:
            raise
        except AirflowNotFoundException:
            unknown = self._unknown_connection()
            if self._settings is None and not self.connection_was_there:
                raise unknown from None
            # Airflow says the same where its server or a secrets backend could not be asked.
            raise PromptLayerTransientError(str(unknown)) from None
        except Exception as error:
            # Whatever Airflow raises that cannot ask, which in 3.0 is no AirflowException.
            raise self._unreadable_connection(error) from error

    def _unreadable_connection(self, error: Exception) -> PromptLayerTransientError:
        return PromptLayerTransientError(
            f"Could not read the Airflow connection {self.promptlayer_conn_id!r}: "
            f"{one_line(str(error))}"
        )

    def _unknown_connection(self) -> PromptLayerUnknownConnectionError:
        return PromptLayerUnknownConnectionError(
            f"There is no Airflow connection {self.promptlayer_conn_id!r}: add one of type "
            "'promptlayer' with the API key as its password, or correct promptlayer_conn_id. "
            "Airflow also says this of an AIRFLOW_CONN_… variable that it cannot parse."
        )

    def _adopt(self, settings: Settings) -> Settings:
        self._check_place(settings)
        self._read_at = time.monotonic()
        if settings.is_cleartext:
            self.log.warning(
                "Airflow connection %r sends the API key unencrypted to %s: use https.",
                self.promptlayer_conn_id,
                settings.base_url,
            )
        if settings.verify is False:
            self.log.warning(
                "Airflow connection %r does not verify TLS certificates: anybody on the way can "
                "read the API key.",
                self.promptlayer_conn_id,
            )
        # One object for all hooks: there is a hook for each of thousands of waits.
        found = _known_settings.setdefault(settings, ref(settings))()
        self._settings = settings if found is None else found
        return self._settings

    @property
    def throttle(self) -> Throttle:
        """What all waits of this process that use the same connection share."""
        return CurrentThrottle(lambda: _throttles.setdefault(self.settings, Throttle()))

    def _new_wait(
        self, subject: Subject[L], timeout: float, poke_interval: float | None, max_outage: float
    ) -> Wait:
        now = time.time()
        return Wait(
            subject.name,
            Pace(poke_interval),
            started_at=now,
            deadline=now + timeout,
            max_outage=max_outage,
            throttle=self.throttle,
        )

    def _log_step(self, step: Step) -> None:
        if step.note:
            (self.log.warning if step.is_trouble else self.log.info)("%s", step.note)


def _times(
    timeout: float, poke_interval: float | None, max_outage: float
) -> tuple[float, float | None, float]:
    """Return the times of a wait in seconds.

    :raises PromptLayerInvalidInputError: for a time that is negative or NaN; 0 is taken for
        ``max_outage`` alone, as a ``poke_interval`` of 0 would poll without a pause.
    """
    return (
        seconds("timeout", timeout),
        None if poke_interval is None else seconds("poke_interval", poke_interval),
        seconds("max_outage", max_outage, zero=True),
    )


def _patience(about: str, max_outage: float) -> Wait:
    return Wait(about, Pace(0.0), started_at=time.time(), deadline=None, max_outage=max_outage)


def _check_time(about: str, deadline: float) -> None:
    if time.time() >= deadline:
        raise PromptLayerWaitTimeoutError(
            f"The time is up, and PromptLayer has not told everything about {about}."
        )


def _capped(seconds: float, deadline: float) -> float:
    return max(0.0, min(seconds, deadline - time.time()))


class _Lent:
    """The pool of a hook's settings, lent. No generator, as thousands of waits hold one each."""

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
