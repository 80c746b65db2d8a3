# SPDX-License-Identifier: Apache-2.0
"""Serving a function from ``Request`` to ``Reply`` over HTTP, in a thread with its own loop.

The rule here: whatever goes wrong at the start is raised where it was started, and a stop leaves
no thread, task or socket behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError

from airflow_provider_promptlayer.testing.faults.delivery import complete_headers, deliver
from airflow_provider_promptlayer.testing.faults.model import Fault, Reply
from airflow_provider_promptlayer.testing.http.connections import Connections
from airflow_provider_promptlayer.testing.http.messages import Request

# Enough for thousands of pollers that connect at the same moment.
_BACKLOG = 4096
_TURNS_OF_AN_ACCEPT = 5
_SECONDS_FOR_OPEN_REQUESTS = 1.0
_SECONDS_FOR_A_CALL = 10.0
# Longer bodies are answered 413. PromptLayer takes files of up to 100 MB: 134 MB as base64.
_LONGEST_BODY = 140_000_000

_log = logging.getLogger(__name__)


_TOO_LONG = {"success": False, "message": f"The body is longer than {_LONGEST_BODY} bytes"}


@dataclass(frozen=True)
class Outcome:
    """The true answer to a request, and what the client meets instead, if anything."""

    answer: Reply
    fault: Fault | None = None


@dataclass(frozen=True)
class _Listening:
    loop: asyncio.AbstractEventLoop
    port: int


class HttpThread:
    """One server; started once and stopped once.

    Args:
        answer: called in the server's thread for each request.
        reads_body_of: asked before with the same request, still without its body; if it says no,
            the body is left unread, whatever its size, and ``answer`` gets none.
        host: the address to listen on.
        port: 0 for any free one.
        connections: counts them.
        tls: for HTTPS.

    """

    def __init__(
        self,
        answer: Callable[[Request], Outcome],
        reads_body_of: Callable[[Request], bool],
        host: str,
        port: int,
        connections: Connections,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._answer = answer
        self._reads_body_of = reads_body_of
        self._host = host
        self._port = port
        self._connections = connections
        self._tls = tls
        self._listening: Future[_Listening] = Future()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="local-promptlayer", daemon=True)
        # Of these two one is there: the site while it listens, the socket while it is away.
        self._site: web.SockSite | None = None
        self._reserved: socket.socket | None = None
        self._listener: socket.socket | None = None  # the site's

    @property
    def port(self) -> int:
        """The port it listens on, or comes back to."""
        return self._listening.result().port

    def start(self) -> None:
        """Return once it listens.

        Raises:
            OSError: the port cannot be had.

        """
        self._thread.start()
        if error := self._listening.exception():
            self._thread.join()
            raise error

    def stop(self) -> None:
        """Close every connection and wait for the thread to end."""
        self._listening.result().loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def go_away(self) -> None:
        """Reset every connection, and refuse new ones. Harmless if it is away."""
        self._call(self._go_away())

    def come_back(self) -> None:
        """Listen on the same port again. Harmless if it is not away."""
        self._call(self._come_back())

    def drop_connections(self) -> None:
        """Reset every connection, and go on listening."""
        self._call(self._drop_connections())

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("not from within a fault function: return GoAway() instead")
        loop = self._listening.result().loop
        asyncio.run_coroutine_threadsafe(coroutine, loop).result(_SECONDS_FOR_A_CALL)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            # Once it listens nobody waits any more: let the thread's own hook report it.
            if self._listening.done():
                raise
            self._listening.set_exception(error)

    async def _serve(self) -> None:
        # A bare Server, not an Application: paths are routed here before they are decoded.
        self._runner = web.ServerRunner(
            _Server(self._handle, self._connections), shutdown_timeout=_SECONDS_FOR_OPEN_REQUESTS
        )
        await self._runner.setup()
        try:
            self._reserved = _bound(self._host, self._port)
            port = self._reserved.getsockname()[1]
            await self._come_back()
            self._listening.set_result(_Listening(asyncio.get_running_loop(), port))
            await self._stop.wait()
        finally:
            self._connections.end_waiting()
            await self._accept_no_more()
            await self._runner.cleanup()
            # What is closed by now reports so in the loop's next turn. What is left then has
            # something to send that its client does not read.
            await asyncio.sleep(0)
            self._connections.reset()
            await asyncio.sleep(0)
            if self._reserved is not None:
                self._reserved.close()

    async def _go_away(self) -> None:
        if self._site is not None:
            site, self._site = self._site, None
            await self._accept_no_more()
            await site.stop()
            # Bound without listening: connections are refused, and nobody else gets the port.
            self._reserved = _bound(self._host, self.port)
        self._connections.reset()

    async def _come_back(self) -> None:
        if self._reserved is not None:
            site = web.SockSite(
                self._runner, self._reserved, ssl_context=self._tls, backlog=_BACKLOG
            )
            await site.start()
            self._site, self._listener, self._reserved = site, self._reserved, None

    async def _accept_no_more(self) -> None:
        """Let what was accepted at the last moment become known.

        asyncio loses, unclosed, what it has accepted in the turn before its server is closed.
        """
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener = None
            for _ in range(_TURNS_OF_AN_ACCEPT):
                await asyncio.sleep(0)

    async def _drop_connections(self) -> None:
        self._connections.reset()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._site is None:
            # A connection that was on its way in while the server went away.
            self._connections.reset()
            return _Nothing()
        raw_path, _, query = request.raw_path.partition("?")
        asked = Request(
            method=request.method,
            raw_path=raw_path,
            # As in FastAPI, the last of several values counts.
            query=dict(parse_qsl(query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in request.headers.items()},
        )
        if self._reads_body_of(asked):
            try:
                body = await _body(request.content)
            except (OSError, web.RequestPayloadError):
                return _Nothing()  # the client has left, or what it sends is no HTTP
            if body is None:
                return _response(Reply.of_json(_TOO_LONG, 413))
            asked = replace(asked, body=body)
        outcome = self._answer(asked)
        if outcome.fault is None:
            return _response(outcome.answer)
        connection = self._connections.get(request.protocol)
        if connection is None:
            return _Nothing()
        with contextlib.suppress(ConnectionResetError):
            reply = await deliver(outcome.fault, outcome.answer, connection, self._go_away)
            if reply is not None:
                return _response(reply)
        return _Nothing()


class _Server(web.Server):
    """Tells ``Connections`` of each connection."""

    def __init__(self, handler: Callable[..., Any], connections: Connections) -> None:
        # Bodies are not unpacked: FastAPI does not, and a small one may unpack to gigabytes.
        super().__init__(handler, access_log=None, logger=_log, auto_decompress=False)
        self._known = connections

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._known.add(handler, transport)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        super().connection_lost(handler, exc)
        self._known.discard(handler)


class _NotOfClients(logging.Filter):
    """Keeps the tracebacks of what clients do, which leave or send what is no HTTP, off the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let through what went wrong in the server itself, as in a fault function."""
        error = record.exc_info and record.exc_info[1]
        return not isinstance(error, HttpProcessingError | ConnectionError)


_log.addFilter(_NotOfClients())


class _Nothing(web.StreamResponse):
    """For a connection that a fault has used up: the HTTP server has nothing left to send."""

    async def prepare(self, _request: web.BaseRequest) -> AbstractStreamWriter | None:
        raise ConnectionResetError


async def _body(content: StreamReader) -> bytes | None:
    """Give the whole body, or ``None`` if it is too long."""
    body = bytearray()
    async for piece in content.iter_any():
        body += piece
        if len(body) > _LONGEST_BODY:
            return None
    return bytes(body)


def _response(reply: Reply) -> web.Response:
    return web.Response(status=reply.status, body=reply.content, headers=complete_headers(reply))


def _bound(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise type(error)(f"cannot listen on {host}, port {port}: {reason}") from error
    return bound
