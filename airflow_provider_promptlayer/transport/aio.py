# SPDX-License-Identifier: Apache-2.0
"""The asynchronous transport, over aiohttp.

All waits of one event loop that use the same settings share one pool of connections:
:class:`SharedTransport` opens it for the first wait and closes it after the last. Keeping it open
for a wait that may come would save one TLS handshake, which costs as much as ten polls.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import select
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDictProxy
from yarl import URL

from airflow_provider_promptlayer.api.errors import PromptLayerUnreachableError
from airflow_provider_promptlayer.api.http import UNNAMED, BodyStream, Origin, Request, Response
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

    async def send(
        self, request: Request, origin: Origin = UNNAMED, *, wanted_until: float = math.inf
    ) -> Response:
        """Return the whole answer, whatever its status.

        :param origin: who answers, for messages.
        :param wanted_until: when the caller stops waiting, in seconds since the epoch. A GET ends
            the settings' ``timeout`` after that at the latest, even if it is still queueing.
        :raises PromptLayerUnreachableError: if there is no whole answer within the settings'
            ``timeout``. Queueing here does not count: that is not PromptLayer's fault.
        :raises PromptLayerAnswerTooLargeError: if the answer is too large.
        """
        if request.method != "GET":
            return await self._send_alone(request, origin)
        now, timeout, ends_at = asyncio.get_running_loop().time, self.settings.timeout, None
        if self._turns.locked():  # else it does not queue
            ends_at = now() + max(0.0, wanted_until - time.time()) + timeout
        try:
            async with asyncio.timeout_at(ends_at) as limit, self._turns:
                latest = now() + timeout
                limit.reschedule(latest if ends_at is None else min(ends_at, latest))
                if self._session is None:
                    self._session = self._open()
                return await self._send(self._session, request, origin)
        except _ERRORS as error:
            raise self._unreachable(
                request, error, arrived=not isinstance(error, _NEVER_SENT)
            ) from None

    async def close(self) -> None:
        """Close the connections, for good."""
        if self._session is not None:
            await self._session.close()

    async def _send_alone(self, request: Request, origin: Origin) -> Response:
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
            timeout = asyncio.timeout(seconds_for(request, self.settings))
            async with self._open(trace) as session, timeout:
                return await self._send(session, request, origin)
        except _ERRORS as error:
            raise self._unreachable(request, error, arrived=sent.is_set()) from None

    def _open(self, *traces: aiohttp.TraceConfig) -> aiohttp.ClientSession:
        # Without a limit of aiohttp's own, as queueing there would count towards the time-out.
        connector = aiohttp.TCPConnector(ssl=self._ssl, limit=0)
        connector._factory = partial(  # type: ignore[assignment]  # invariant
            _Connection, loop=asyncio.get_running_loop()
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(),  # none: asyncio's costs half as much
            trace_configs=list(traces),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # aiohttp does so on the event loop, however large it becomes
            max_line_size=MAX_VALUE,
            max_field_size=MAX_VALUE,
        )

    async def _send(
        self, session: aiohttp.ClientSession, request: Request, origin: Origin
    ) -> Response:
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
            while not answer.content.at_eof():
                chunk = await answer.content.readany()
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
                origin=origin,
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


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Settings, SharedTransport]]
_shared = WeakKeyDictionary()


class SharedTransport:
    """The transport that all users of one event loop share who have the same settings."""

    def __init__(self, settings: Settings, shared: dict[Settings, SharedTransport]) -> None:
        self._settings = settings
        self._shared = shared
        self._users = 0
        self._transport: AsyncTransport | None = None
        self._opening = asyncio.Lock()

    @classmethod
    def of(cls, settings: Settings) -> SharedTransport:
        """Return the running loop's one for ``settings``, to be entered at once."""
        shared = _shared.setdefault(asyncio.get_running_loop(), {})
        if settings not in shared:
            shared[settings] = cls(settings, shared)
        return shared[settings]

    async def __aenter__(self) -> AsyncTransport:
        self._users += 1
        try:
            return self._transport or await self._open()
        except BaseException:
            await self.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._users -= 1
        if self._users == 0:
            del self._shared[self._settings]
            if self._transport is not None:
                await self._transport.close()

    async def _open(self) -> AsyncTransport:
        # A user that finds no transport opens it while the others wait for the lock. So none
        # depends on the first user, whose task may be cancelled or fail.
        async with self._opening:
            if self._transport is None:
                self._transport = await asyncio.to_thread(AsyncTransport, self._settings)
            return self._transport
