# SPDX-License-Identifier: Apache-2.0
"""The asynchronous transport, over aiohttp.

All waits of one event loop that use the same settings share one pool of connections:
:class:`SharedTransport` opens it for the first and closes it after the last. It does not linger
for another wait that may come: that would save one TLS handshake, the price of ten polls.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDictProxy
from yarl import URL

from airflow_provider_promptlayer.api.errors import PromptLayerUnreachableError
from airflow_provider_promptlayer.api.http import Request, Response
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.times import in_words
from airflow_provider_promptlayer.transport.head import (
    MAX_LINES,
    MAX_VALUE,
    UnreadableHeadError,
    check_headers,
)
from airflow_provider_promptlayer.transport.redaction import (
    Body,
    Secrets,
    UnreadableBodyError,
    headers_for,
)
from airflow_provider_promptlayer.transport.settings import Settings
from airflow_provider_promptlayer.transport.tls import explain_tls, proxy_for, ssl_context

FEW: Final = 20
"""Requests that may be under way from the beginning."""

MOST: Final = 100
"""Requests that may be under way when answers are slow; further ones queue."""

_PATIENCE: Final = 0.5
"""Seconds for which requests may go on queueing before more of them may be under way.

What comes at once when the loop was held up is seen to within that time.
"""


class ConcurrencyLimit:
    """Hands out turns, first come, first served: ``async with`` one.

    Thousands of polls that come at once, after the loop was held up, say, need no hundred
    connections: where answers come fast a few of them see to all, and each costs memory (asyncio
    gives a TLS connection 256 kB to read into) and a handshake. So there are more turns only when
    requests have queued for a while without a break, as they do where answers are slow.
    """

    def __init__(self, few: int = FEW, most: int = MOST) -> None:
        self._total = min(few, most)
        self._most = most
        self._free = asyncio.Semaphore(self._total)
        self._queueing = 0
        self._patience: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        if not self._free.locked():
            await self._free.acquire()  # at once
            return
        self._queueing += 1
        self._be_patient()
        try:
            await self._free.acquire()
        finally:
            self._queueing -= 1
            if self._patience is not None and not self._queueing:
                self._patience.cancel()
                self._patience = None

    async def __aexit__(self, *_: object) -> None:
        self._free.release()

    def _be_patient(self) -> None:
        if self._patience is None and self._total < self._most:
            self._patience = asyncio.get_running_loop().call_later(_PATIENCE, self._widen)

    def _widen(self) -> None:
        more = min(self._total, self._most - self._total)
        self._total += more
        for _ in range(more):
            self._free.release()
        self._patience = None
        if self._queueing > more:
            self._be_patient()


_ERRORS: Final = (aiohttp.ClientError, OSError, ValueError, UnreadableBodyError)
"""A time-out is an OSError, a host that IDNA refuses a ValueError."""

_NEVER_LEFT: Final = (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, ValueError)
"""Of these, the ones by which PromptLayer certainly has not seen the request."""


class AsyncTransport:
    """Sends requests over a pool of kept-alive connections, on one event loop.

    To make one blocks, for tens of milliseconds: certificates and environment are read.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._ssl = ssl_context(settings)
        self._proxy = proxy_for(settings)
        self._secrets = Secrets(settings, self._proxy)
        self._proxy_headers = self._proxy.headers if self._proxy else {}
        self._extra_headers = {
            "Accept-Encoding": "identity",
            # Cleartext goes through a proxy as it is; for TLS, aiohttp asks for a tunnel.
            **(self._proxy_headers if settings.base_url.startswith("http:") else {}),
        }
        self._turns = ConcurrencyLimit()
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request, *, wanted_for: float | None = None) -> Response:
        """Return the whole answer, whatever its status.

        :param wanted_for: seconds for which the caller goes on waiting. A GET then ends after
            these and the settings' ``timeout``, also where it has not had its turn.
        :raises PromptLayerUnreachableError: if there is none within the settings' ``timeout``,
            counted from when it is this request's turn: to queue here is no fault of PromptLayer.
        :raises PromptLayerAnswerTooLargeError: if it is too large.
        """
        if request.method != "GET":
            return await self._send_alone(request)
        if wanted_for is None:
            return await self._send_in_turn(request)
        try:
            async with asyncio.timeout(wanted_for + self.settings.timeout):
                return await self._send_in_turn(request)
        except TimeoutError as error:  # else _send_in_turn has turned it into another one
            raise self._unreachable(request, error, arrived=True) from None

    async def _send_in_turn(self, request: Request) -> Response:
        async with self._turns:
            if self._session is None:
                self._session = self._open()
            try:
                return await self._send(self._session, request)
            except _ERRORS as error:
                arrived = not isinstance(error, _NEVER_LEFT)
                raise self._unreachable(request, error, arrived=arrived) from None

    async def close(self) -> None:
        """Close the connections, for good."""
        if self._session is not None:
            await self._session.close()

    async def _send_alone(self, request: Request) -> Response:
        """Send over a connection of its own.

        A kept one may be dead, and then it is unknown whether the request arrived. Traced, which
        would make a poll a tenth dearer, because it matters here on which side of the sending a
        time-out fell.
        """
        sending = _Sending()
        async with self._open(_note_sending()) as session:
            try:
                return await self._send(session, request, sending)
            except _ERRORS as error:
                raise self._unreachable(request, error, arrived=sending.is_sent) from None

    def _open(self, *traces: aiohttp.TraceConfig) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            # Without a limit of its own, where to queue would count towards the time-out.
            connector=_Connector(ssl=self._ssl, limit=0),
            timeout=aiohttp.ClientTimeout(total=self.settings.timeout),
            trace_configs=list(traces),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # aiohttp does so on the event loop, however large it becomes
            max_line_size=MAX_VALUE,
            max_field_size=MAX_VALUE,
        )

    async def _send(
        self, session: aiohttp.ClientSession, request: Request, sending: _Sending | None = None
    ) -> Response:
        async with session.request(
            request.method,
            URL(self.settings.base_url + request.path, encoded=True),
            data=request.body,
            headers={**headers_for(request, self.settings), **self._extra_headers},
            proxy=self._proxy.url if self._proxy else None,
            proxy_headers=self._proxy_headers,
            allow_redirects=False,
            trace_request_ctx=sending,
        ) as answer:
            if answer.status < 200:
                raise aiohttp.ClientPayloadError(f"an interim answer (HTTP {answer.status})")
            # What aiohttp takes depends on its version.
            if answer.version not in ((1, 0), (1, 1)):
                raise UnreadableHeadError(f"the version {answer.version}")
            check_headers(answer.raw_headers)
            body = Body(request, self._secrets, answer.headers.get("Content-Encoding", ""))
            while chunk := await answer.content.readany():
                if body.is_packed:
                    await asyncio.to_thread(body.add, chunk)
                else:
                    body.add(chunk)
            return Response(
                status=answer.status,
                headers=_Headers(answer.headers),
                body=body.whole(),
                redactions=body.redactions,
            )

    def _unreachable(
        self, request: Request, error: Exception, *, arrived: bool
    ) -> PromptLayerUnreachableError:
        if isinstance(error, TimeoutError):
            reason = f"no whole answer within {in_words(self.settings.timeout)}"
        elif isinstance(error, aiohttp.ClientHttpProxyError):
            # Its own text quotes the proxy's URL, and with it the proxy's password.
            reason = f"the proxy answered HTTP {error.status}"
        elif _is_refused(error):
            reason = os.strerror(errno.ECONNREFUSED)  # as the other transport says it
        elif isinstance(error, aiohttp.ClientResponseError):
            said = one_line(self._secrets.redact(error.message))
            reason = f"the answer is no HTTP that can be read ({said})"
        else:
            # What another library says may quote the proxy's answer, and that the request.
            reason = one_line(self._secrets.redact(str(error))) or type(error).__name__
        return PromptLayerUnreachableError(
            f"Could not {request.purpose}: {explain_tls(reason)} ({self.settings.base_url}).",
            arrived=arrived,
        )


class _Protocol(ResponseHandler):
    """A connection that is not used again when bytes have arrived on it while it was idle.

    aiohttp would take them for the answer to the next request, which is another run's.
    """

    is_idle = False

    def is_connected(self) -> bool:
        """Return whether it can be used, which the pool asks before it takes an idle one."""
        if not super().is_connected():
            return False
        return not (self.is_idle and (self.should_close or _is_readable(self.transport)))

    def set_response_params(self, **params: Any) -> None:
        """Get ready for the next answer."""
        self.is_idle = False
        if "max_headers" in params:  # of aiohttp's releases, the newer ones have it
            params["max_headers"] = MAX_LINES
        super().set_response_params(**params)


def _is_readable(transport: Any) -> bool:
    """Whether bytes have arrived that the event loop has not come to read so far."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


class _Connector(aiohttp.TCPConnector):
    """Ends with all of its connections, also those that it no longer knows.

    A poll that is cancelled leaves a TLS connection that says goodbye, for up to 30 s where nobody
    answers. aiohttp does not wait for it, so it would be left open by a loop that ends then.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._factory = partial(_Protocol, loop=self._loop)  # type: ignore[assignment]  # invariant
        self._made: WeakSet[asyncio.Transport] = WeakSet()

    # aiohttp's own name for it: were there another one day, nothing but the goodbyes would be left.
    async def _wrap_create_connection(self, *args: Any, **kwargs: Any) -> Any:
        transport, protocol = await super()._wrap_create_connection(*args, **kwargs)
        with suppress(TypeError):  # uvloop's TLS takes no weak reference; its goodbyes are left
            self._made.add(transport)
        return transport, protocol

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        protocol.is_idle = True
        super()._release(key, protocol, should_close=should_close)

    async def close(self, *, abort_ssl: bool = True) -> None:  # noqa: ARG002 - all end so
        for transport in list(self._made):
            transport.abort()
        await super().close()


def _is_refused(error: Exception) -> bool:
    return (
        isinstance(error, aiohttp.ClientConnectorError)
        and not isinstance(error, aiohttp.ClientProxyConnectionError)
        and isinstance(error.os_error, ConnectionRefusedError)
    )


@dataclass(slots=True)
class _Sending:
    """Whether a request has left: before that, PromptLayer cannot have seen it."""

    is_sent: bool = False


def _note_sending() -> aiohttp.TraceConfig:
    async def note(_session: object, context: SimpleNamespace, _headers: object) -> None:
        context.trace_request_ctx.is_sent = True

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(note)
    return trace


class _Headers(Mapping[str, str]):
    """An answer's headers as :class:`Response` wants them, worked out only where they are read."""

    __slots__ = ("_headers",)

    def __init__(self, headers: CIMultiDictProxy[str]) -> None:
        self._headers = headers

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._headers.getall(name))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.lower() for name in self._headers))

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(slots=True)
class _Lease:
    users: int = 0
    transport: AsyncTransport | None = None
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def open(self, settings: Settings) -> AsyncTransport:
        # Each user that finds none opens one, the others wait for their turn: so none depends
        # on the first, who may be cancelled or fail.
        async with self.opening:
            if self.transport is None:
                self.transport = await asyncio.to_thread(AsyncTransport, settings)
            return self.transport


_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Settings, _Lease]] = WeakKeyDictionary()


class SharedTransport:
    """Lends the transport that this event loop keeps for ``settings``: ``async with`` it.

    No generator, as thousands of waits hold one each.
    """

    __slots__ = ("_lease", "_leases", "_settings")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __aenter__(self) -> AsyncTransport:
        self._leases = _pools.setdefault(asyncio.get_running_loop(), {})
        lease = self._leases.get(self._settings)
        if lease is None:
            lease = self._leases[self._settings] = _Lease()
        self._lease = lease
        lease.users += 1
        try:
            return lease.transport or await lease.open(self._settings)
        except BaseException:
            await self.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._lease.users -= 1
        if self._lease.users == 0:
            del self._leases[self._settings]
            if self._lease.transport is not None:
                await self._lease.transport.close()
