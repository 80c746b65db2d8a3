# SPDX-License-Identifier: Apache-2.0
"""Serving a function from ``Request`` to ``Answer`` over HTTP, in a thread with its own loop.

The rule here: whatever goes wrong at the start is raised where it was started, and a stop leaves
no thread, task or socket behind.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from urllib.parse import parse_qsl

from aiohttp import web

from airflow_provider_promptlayer.testing.messages import Answer, Request

# Enough for thousands of pollers that connect at the same moment.
_BACKLOG = 4096
_SECONDS_FOR_OPEN_REQUESTS = 1.0


@dataclass(frozen=True)
class _Listening:
    loop: asyncio.AbstractEventLoop
    port: int


class HttpThread:
    """One server; started once and stopped once."""

    def __init__(self, answer: Callable[[Request], Answer], host: str, port: int) -> None:
        self._answer = answer
        self._host = host
        self._port = port
        self._listening: Future[_Listening] = Future()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="local-promptlayer", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
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
        runner = web.ServerRunner(
            web.Server(self._handle, access_log=None),
            shutdown_timeout=_SECONDS_FOR_OPEN_REQUESTS,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port, backlog=_BACKLOG).start()
            port = runner.addresses[0][1]
            self._listening.set_result(_Listening(asyncio.get_running_loop(), port))
            await self._stop.wait()
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        raw_path, _, query = request.raw_path.partition("?")
        answer = self._answer(
            Request(
                method=request.method,
                raw_path=raw_path,
                # As in FastAPI, the last of several values counts.
                query=dict(parse_qsl(query, keep_blank_values=True)),
                headers={name.lower(): value for name, value in request.headers.items()},
                # Not request.read(), which refuses more than a megabyte.
                body=await request.content.read(),
            )
        )
        return web.Response(
            status=answer.status,
            body=answer.body,
            content_type="application/json",
            headers=answer.headers,
        )
