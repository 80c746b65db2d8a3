# SPDX-License-Identifier: Apache-2.0
"""The asynchronous transport, over aiohttp.

All waits of one event loop that use the same settings share one pool of connections:
:class:`SharedTransport` opens it for the first wait and closes it after the last. Keeping it open
for a wait that may come would save one TLS handshake, which costs as much as ten polls.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDictProxy
from yarl import URL

from airflow_provider_promptlayer.api.errors import PromptLayerUnreachableError
from airflow_provider_promptlayer.api.http import BodyStream, Request, Response
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.transport.head import (
    MAX_LINES,
    MAX_VALUE,
    UnreadableHeadError,
    check_headers,
)
from airflow_provider_promptlayer.transport.redaction import (
    Body,
    Redactor,
    headers_for,
    request_id_of,
    seconds_for,
    unreachable,
)
from airflow_provider_promptlayer.transport.settings import Settings
from airflow_provider_promptlayer.transport.tls import proxy_for, ssl_context

MAX_CONCURRENT_POLLS: Final = 20
"""GETs that may be under way on one pool; further ones queue, first come, first served.

Thousands of polls come at once after something has held the event loop up. A few connections serve
them soon enough, and each costs a handshake and memory: asyncio gives a TLS connection 256 kB to
read into.
"""

_ERRORS: Final = (aiohttp.ClientError, OSError, ValueError)
"""A time-out is an OSError, a host that IDNA refuses a ValueError."""

_NEVER_SENT: Final = (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, ValueError)
"""The errors after which PromptLayer has certainly not seen the request."""


class AsyncTransport:
    """Sends requests over a pool of kept-alive connections, on one event loop.

    The constructor blocks for tens of milliseconds: it reads certificates and the environment.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._ssl = ssl_context(settings)
        self._proxy = proxy_for(settings)
        self._redactor = Redactor(settings, self._proxy)
        self._proxy_headers = self._proxy.headers if self._proxy else {}
        self._extra_headers = {
            "Accept-Encoding": "identity",
            # A proxy gets a cleartext request itself; for TLS, aiohttp asks it for a tunnel.
            **(self._proxy_headers if settings.base_url.startswith("http:") else {}),
        }
        self._turns = asyncio.Semaphore(MAX_CONCURRENT_POLLS)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request, *, wanted_for: float | None = None) -> Response:
        """Return the whole answer, whatever its status.

        :param wanted_for: seconds for which the caller goes on waiting. A GET then ends after
            these and the settings' ``timeout``, even if it is still queueing.
        :raises PromptLayerUnreachableError: if there is no whole answer within the settings'
            ``timeout``. Queueing here does not count: that is not PromptLayer's fault.
        :raises PromptLayerAnswerTooLargeError: if the answer is too large.
        """
        if request.method != "GET":
            return await self._send_alone(request)
        ends_after = None if wanted_for is None else wanted_for + self.settings.timeout
        try:
            async with asyncio.timeout(ends_after), self._turns:
                if self._session is None:
                    self._session = self._open()
                return await self._send(self._session, request)
        except _ERRORS as error:
            raise self._unreachable(
                request, error, arrived=not isinstance(error, _NEVER_SENT)
            ) from None

    async def close(self) -> None:
        """Close the connections, for good."""
        if self._session is not None:
            await self._session.close()

    async def _send_alone(self, request: Request) -> Response:
        """Send over a new connection: a kept one may be dead, and hide whether the request arrived.

        Traced, to tell on which side of the sending a time-out fell. That would make a poll a tenth
        dearer, and a poll does not need it.
        """
        sent = asyncio.Event()

        async def note_sent(*_: object) -> None:
            sent.set()

        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(note_sent)
        try:
            timeout = seconds_for(request, self.settings)
            async with self._open(trace, timeout=timeout) as session:
                return await self._send(session, request)
        except _ERRORS as error:
            raise self._unreachable(request, error, arrived=sent.is_set()) from None

    def _open(
        self, *traces: aiohttp.TraceConfig, timeout: float | None = None
    ) -> aiohttp.ClientSession:
        # Without a limit of aiohttp's own, as queueing there would count towards the time-out.
        connector = aiohttp.TCPConnector(ssl=self._ssl, limit=0)
        connector._factory = partial(  # type: ignore[assignment]  # invariant
            _Connection, loop=asyncio.get_running_loop()
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=timeout or self.settings.timeout),
            trace_configs=list(traces),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # aiohttp does so on the event loop, however large it becomes
            max_line_size=MAX_VALUE,
            max_field_size=MAX_VALUE,
        )

    async def _send(self, session: aiohttp.ClientSession, request: Request) -> Response:
        async with session.request(
            request.method,
            URL(self.settings.base_url + request.path, encoded=True),
            data=_data(request.body),
            headers={**headers_for(request, self.settings), **self._extra_headers},
            proxy=self._proxy.url if self._proxy else None,
            proxy_headers=self._proxy_headers,
            allow_redirects=False,
        ) as answer:
            if answer.status < 200:
                raise aiohttp.ClientPayloadError(f"an interim answer (HTTP {answer.status})")
            if answer.version not in ((1, 0), (1, 1)):  # some releases of aiohttp take others
                raise UnreadableHeadError(f"the version {answer.version}")
            check_headers(answer.raw_headers)
            body = Body(request, self._redactor, answer.headers.get("Content-Encoding", ""))
            while chunk := await answer.content.readany():
                if body.is_compressed:
                    await asyncio.to_thread(body.add, chunk)
                else:
                    body.add(chunk)
            return Response(
                status=answer.status,
                headers=_Headers(answer.headers),
                body=body.whole(),
                redactions=body.redactions,
                request_id=request_id_of(answer.status, answer.headers, self._redactor),
            )

    def _unreachable(
        self, request: Request, error: Exception, *, arrived: bool
    ) -> PromptLayerUnreachableError:
        reason: str | None
        if isinstance(error, TimeoutError):
            reason = None
        elif isinstance(error, aiohttp.ClientHttpProxyError):
            # Its own text quotes the proxy's URL, and with it the proxy's password.
            reason = f"the proxy answered HTTP {error.status}"
        elif _is_refused(error):
            reason = os.strerror(errno.ECONNREFUSED)  # as the blocking transport says it
        elif isinstance(error, aiohttp.ClientResponseError):
            said = one_line(self._redactor.redact(error.message))
            reason = f"the answer is no HTTP that can be read ({said})"
        else:
            # Another library's text may quote the proxy's answer, which may quote the request.
            reason = one_line(self._redactor.redact(str(error))) or type(error).__name__
        return unreachable(request, self.settings, reason, arrived=arrived)


class _Connection(ResponseHandler):
    """A connection as aiohttp's pool keeps it, with three changes."""

    def is_connected(self) -> bool:
        """Return whether the pool may hand the connection, which is idle, to the next request.

        Not where bytes have arrived unasked: aiohttp would take them for the next answer, and so
        another run's results for those of this one.
        """
        return super().is_connected() and not (self.should_close or _is_readable(self.transport))

    def set_response_params(self, **params: Any) -> None:
        """Get ready for the next answer."""
        if "max_headers" in params:  # newer releases of aiohttp have this limit
            params["max_headers"] = MAX_LINES
        super().set_response_params(**params)

    def close(self) -> None:
        """Close the connection at once.

        A TLS connection would else wait for the peer to say that it closes too: for up to 30 s if
        the peer is silent. aiohttp forgets the connection meanwhile, so a loop that ends then would
        leave it open.
        """
        if self.transport is not None:
            self.transport.abort()
        super().close()


def _data(body: bytes | BodyStream | None) -> bytes | AsyncIterator[bytes] | None:
    return body if body is None or isinstance(body, bytes) else _read_off_the_loop(body)


async def _read_off_the_loop(body: BodyStream) -> AsyncIterator[bytes]:
    chunks = body.chunks()
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk


def _is_readable(transport: Any) -> bool:
    """Return whether bytes have arrived that the event loop has not read yet."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _is_refused(error: Exception) -> bool:
    return (
        isinstance(error, aiohttp.ClientConnectorError)
        and not isinstance(error, aiohttp.ClientProxyConnectionError)
        and isinstance(error.os_error, ConnectionRefusedError)
    )


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
        # A user that finds no transport opens it while the others wait for the lock. So none
        # depends on the first user, whose task may be cancelled or fail.
        async with self.opening:
            if self.transport is None:
                self.transport = await asyncio.to_thread(AsyncTransport, settings)
            return self.transport


_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Settings, _Lease]] = WeakKeyDictionary()


class SharedTransport:
    """Lends the transport that this event loop keeps for ``settings``: ``async with`` it.

    Not a generator, as thousands of waits hold one each.
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
