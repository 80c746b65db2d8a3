# SPDX-License-Identifier: Apache-2.0
"""The asynchronous transport, over aiohttp.

All waits of one event loop that use the same settings share one pool of connections:
:func:`shared_transport` opens it for the first and closes it after the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Final
from weakref import WeakKeyDictionary

import aiohttp
from yarl import URL

from airflow_provider_promptlayer.api.http import MAX_BODY_BYTES, Request, Response
from airflow_provider_promptlayer.api.settings import Settings
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.exceptions import PromptLayerUnreachableError
from airflow_provider_promptlayer.transport.headers import (
    body_without_secrets,
    headers_for,
    too_large,
    without_secrets,
)
from airflow_provider_promptlayer.transport.tls import proxy_for, ssl_context

MAX_CONNECTIONS: Final = 100
"""Connections that one pool keeps open at most; further requests queue."""

_CHUNK = 64 * 1024


class AsyncTransport:
    """Sends requests over a pool of kept-alive connections, on one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ssl = ssl_context(settings)
        self._proxy = proxy_for(settings)
        self._session = self._open()

    async def send(self, request: Request) -> Response:
        """Return the whole answer, whatever its status.

        :raises PromptLayerUnreachableError: if there is none within the settings' ``timeout``.
        :raises PromptLayerAnswerTooLargeError: if it is too large.
        """
        if request.method == "GET":
            return await self._send(self._session, request)
        # Never over a kept connection: it may be dead, and then nobody knows whether the request
        # arrived.
        async with self._open() as session:
            return await self._send(session, request)

    async def close(self) -> None:
        """Close the connections, for good."""
        await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._ssl, limit=MAX_CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout),
            trace_configs=[_sending()],
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def _send(self, session: aiohttp.ClientSession, request: Request) -> Response:
        sending = _Sending()
        try:
            async with session.request(
                request.method,
                URL(self._settings.base_url + request.path, encoded=True),
                data=request.body,
                headers=headers_for(request, self._settings),
                proxy=self._proxy,
                allow_redirects=False,
                trace_request_ctx=sending,
            ) as answer:
                return Response(
                    status=answer.status,
                    headers={
                        name.lower(): ", ".join(answer.headers.getall(name))
                        for name in answer.headers
                    },
                    body=body_without_secrets(await self._read(answer, request), self._settings),
                )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # A time-out is an OSError; a host that IDNA refuses is a ValueError.
            raise self._unreachable(request, error, arrived=sending.is_sent) from None

    async def _read(self, answer: aiohttp.ClientResponse, request: Request) -> bytes:
        body = bytearray()
        async for chunk in answer.content.iter_chunked(_CHUNK):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise too_large(request)
        return bytes(body)

    def _unreachable(
        self, request: Request, error: Exception, *, arrived: bool
    ) -> PromptLayerUnreachableError:
        if isinstance(error, TimeoutError):
            reason = f"no whole answer within {self._settings.timeout:g} s"
        elif isinstance(error, aiohttp.ClientResponseError):
            # Its own text quotes the proxy's URL, and with it the proxy's password.
            reason = f"the proxy answered HTTP {error.status}"
        else:
            # What another library says may quote the proxy's answer, and that the request.
            said = without_secrets(str(error), self._settings)
            reason = one_line(said) or type(error).__name__
        return PromptLayerUnreachableError(
            f"Could not {request.purpose}: {reason}.", arrived=arrived
        )


@dataclass(slots=True)
class _Sending:
    """Whether a request has left: before that, PromptLayer cannot have seen it."""

    is_sent: bool = False


def _sending() -> aiohttp.TraceConfig:
    async def note(_session: object, context: SimpleNamespace, _headers: object) -> None:
        context.trace_request_ctx.is_sent = True

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(note)
    return trace


@dataclass(slots=True)
class _Lease:
    transport: AsyncTransport
    users: int = 0


_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Settings, _Lease]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_transport(settings: Settings) -> AsyncIterator[AsyncTransport]:
    """Lend the transport that this event loop keeps for ``settings``."""
    leases = _pools.setdefault(asyncio.get_running_loop(), {})
    lease = leases.get(settings)
    if lease is None:
        lease = leases[settings] = _Lease(AsyncTransport(settings))
    lease.users += 1
    try:
        yield lease.transport
    finally:
        lease.users -= 1
        if lease.users == 0:
            del leases[settings]
            await lease.transport.close()
