# SPDX-License-Identifier: Apache-2.0
"""An aiohttp server in a thread with an event loop of its own.

An error at the start is raised in the thread that starts the server. A stop leaves no thread, task
or socket behind.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Coroutine
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from ..certificates import CertificateKind, Certificates
from ..faults.connections import Connections
from .app import Api

# Enough for thousands of pollers that connect at the same moment.
_BACKLOG = 4096
_TURNS_OF_AN_ACCEPT = 5
_SECONDS_FOR_OPEN_REQUESTS = 1.0
_SECONDS_FOR_A_CALL = 10.0

_log = logging.getLogger(__name__)


class HttpThread:
    """One server; started once and stopped once. Once started, ``port`` is not 0 any more."""

    def __init__(
        self,
        api: Api,
        host: str,
        port: int,
        connections: Connections,
        tls: CertificateKind | None,
    ) -> None:
        self.port = port
        self.certificates = None if tls is None else Certificates(tls)
        self._api = api
        self._host = host
        self._connections = connections
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="local-promptlayer", daemon=True)
        # Exactly one of these exists: the site while it listens, the socket while it is away.
        self._site: web.SockSite | None = None
        self._reserved: socket.socket | None = None
        self._listener: socket.socket | None = None  # the site's socket

    def start(self) -> None:
        """Return once it listens; raise ``OSError`` if the port is not available."""
        self._thread.start()
        try:
            self._call(self._start())
        except BaseException:
            self._end()
            raise

    def stop(self) -> None:
        """Close every connection and wait for the thread to end."""
        self._call(self._stop(), timeout=None)
        self._end()

    def go_away(self) -> None:
        """Reset every connection and refuse new ones. Does nothing if it is away."""
        self._call(self._go_away())

    def come_back(self) -> None:
        """Listen on the same port again. Does nothing if it is not away."""
        self._call(self._come_back())

    def drop_connections(self) -> None:
        """Reset every connection, and keep listening."""
        self._call(self._drop_connections())

    def _call(
        self, coroutine: Coroutine[Any, Any, None], timeout: float | None = _SECONDS_FOR_A_CALL
    ) -> None:
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("not from within a fault function: return GoAway() instead")
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    def _run(self) -> None:
        # The runner cancels what is left when the loop stops, and closes the loop.
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        if self.certificates is not None:
            self.certificates.remove()

    async def _start(self) -> None:
        self._reserved = _bound(self._host, self.port)
        self.port = self._reserved.getsockname()[1]
        serve = partial(self._api.serve, connections=self._connections, go_away=self._go_away)
        self._runner = _Runner(self._api.application(), serve, self._connections)
        await self._runner.setup()
        await self._come_back()

    async def _stop(self) -> None:
        self._connections.end_pauses()
        await self._stop_accepting()
        await self._runner.cleanup()
        # Closed connections are reported in the loop's next turn. Those that remain have data that
        # their client does not read.
        await asyncio.sleep(0)
        self._connections.reset()
        await asyncio.sleep(0)
        if self._reserved is not None:
            self._reserved.close()

    async def _go_away(self) -> None:
        # Connections on their way in while the server goes away are reset as well.
        self._connections.are_refused = True
        if self._site is not None:
            site, self._site = self._site, None
            await self._stop_accepting()
            await site.stop()
            # Bound but not listening: connections are refused, and no other process can bind it.
            self._reserved = _bound(self._host, self.port)
        self._connections.reset()

    async def _come_back(self) -> None:
        self._connections.are_refused = False
        if self._reserved is not None:
            tls = self.certificates.context if self.certificates else None
            site = web.SockSite(self._runner, self._reserved, ssl_context=tls, backlog=_BACKLOG)
            await site.start()
            self._site, self._listener, self._reserved = site, self._reserved, None

    async def _stop_accepting(self) -> None:
        """Stop accepting, and wait until connections accepted at the last moment are registered.

        asyncio loses, unclosed, the connections accepted in the turn before its server is closed.
        """
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener = None
            for _ in range(_TURNS_OF_AN_ACCEPT):
                await asyncio.sleep(0)

    async def _drop_connections(self) -> None:
        self._connections.reset()


class _Runner(web.AppRunner):
    """Puts ``Api.serve`` around an application, and registers its connections.

    A middleware would do the former, but aiohttp caches middlewares with their application for the
    life of the process: no server of a test session would ever be freed.
    """

    __slots__ = ("_connections", "_serve")

    def __init__(self, app: web.Application, serve: Any, connections: Connections) -> None:
        super().__init__(app, shutdown_timeout=_SECONDS_FOR_OPEN_REQUESTS)
        self._serve = serve
        self._connections = connections

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        serve = partial(self._serve, endpoint=server.request_handler)
        return _Server(serve, self._connections, request_factory=server.request_factory)


class _Server(web.Server):
    """Registers each connection."""

    def __init__(self, handler: Any, connections: Connections, *, request_factory: Any) -> None:
        # Bodies are not decompressed: FastAPI does not do so, and a small one may hold gigabytes.
        super().__init__(
            handler,
            request_factory=request_factory,
            access_log=None,
            logger=_log,
            auto_decompress=False,
        )
        self._registered = connections

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._registered.add(handler, transport)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        super().connection_lost(handler, exc)
        self._registered.discard(handler)


class _NotOfClients(logging.Filter):
    """Keeps tracebacks out of the log that clients cause by leaving or by sending invalid HTTP."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass the errors of the server itself, such as those of a fault function."""
        error = record.exc_info and record.exc_info[1]
        return not isinstance(error, HttpProcessingError | ConnectionError)


_log.addFilter(_NotOfClients())


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
