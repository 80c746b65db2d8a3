# SPDX-License-Identifier: Apache-2.0
"""A PromptLayer that runs workflows, each answer 150 ms late: over TLS, in its own process.

It answers what the provider asks, and what PromptLayer's own library asks: that subscribes to a
channel of Centrifugo before it starts a run, and is told there that the run has ended. For the
library a run ends at once. For polls, all runs go on until no other was started for two seconds, so
that a batch leaves its worker as it does for runs of minutes.

Run as ``python -m benchmarks.run_server``: prints its address in one line of JSON, and ends with
its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from aiohttp import WSMsgType, web

from airflow_provider_promptlayer.testing.certificates import Certificates
from benchmarks.child import server_process
from benchmarks.server import RESULTS_PATH, Address

LATENCY_SECONDS: Final = 0.15
WORKFLOW_ID: Final = 7

_END_SECONDS: Final = 2.0
"""How long after the last start the runs end."""

_COMMANDS: Final = ("connect", "subscribe", "unsubscribe")
_HOST: Final = "127.0.0.1"
_OUTPUT: Final = "The customer asks for her money back: it came late, she writes. " * 32
_NODE: Final = {
    "status": "SUCCESS",
    "value": _OUTPUT,
    "error_message": None,
    "raw_error_message": None,
    "is_output_node": True,
}
_ENDED: Final = {"Answer": _NODE}
_UNDER_WAY: Final = {"Answer": {**_NODE, "status": "RUNNING", "value": None}}


@contextlib.contextmanager
def running_workflows() -> Iterator[Address]:
    """Run the server in a process of its own."""
    with server_process(__name__) as line:
        yield Address(**json.loads(line))


class _Runs:
    def __init__(self) -> None:
        self._count = 0
        self._started_at = 0.0
        self._listeners: dict[str, web.WebSocketResponse] = {}  # channel → who subscribes to it

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(f"/workflows/{WORKFLOW_ID}/run", self.run),
            web.get(RESULTS_PATH, self.results),
            web.post("/ws-token-request-library", self.token),
            web.get("/connection/websocket", self.listen),
        ]

    async def run(self, request: web.Request) -> web.Response:
        body = await request.json()
        self._count, self._started_at = self._count + 1, time.monotonic()
        started = {"success": True, "workflow_version_execution_id": self._count}
        channel = f"workflows:{WORKFLOW_ID}:run:{body.get('channel_name_suffix')}"
        if (listener := self._listeners.get(channel)) is not None:
            ended = {"workflow_version_execution_id": self._count, "final_output": _ENDED}
            told = {"message_name": "SET_WORKFLOW_COMPLETE", "data": json.dumps(ended)}
            await listener.send_json({"push": {"channel": channel, "pub": {"data": told}}})
        return web.json_response(started, status=201)

    async def results(self, _: web.Request) -> web.Response:
        if time.monotonic() - self._started_at >= _END_SECONDS:
            return web.json_response(_ENDED)
        return web.json_response(_UNDER_WAY, status=202)

    async def token(self, _: web.Request) -> web.Response:
        return web.json_response({"token_details": {"token": "none"}}, status=201)

    async def listen(self, request: web.Request) -> web.WebSocketResponse:
        socket, channels = web.WebSocketResponse(), set[str]()
        await socket.prepare(request)
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            await asyncio.sleep(LATENCY_SECONDS)
            for line in message.data.splitlines():
                command = json.loads(line)
                kind = next(name for name in _COMMANDS if name in command)
                if kind == "subscribe":
                    channels.add(channel := command[kind]["channel"])
                    self._listeners[channel] = socket
                await socket.send_json({"id": command["id"], kind: {"client": "bench"}})
        for channel in channels:
            del self._listeners[channel]
        return socket


@web.middleware
async def _late(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> Any:
    await asyncio.sleep(LATENCY_SECONDS)
    return await handler(request)


async def _serve() -> None:
    logging.disable(logging.WARNING)  # websockets warns: no subprotocol
    certificates = Certificates("trusted")
    app = web.Application(middlewares=[_late])
    app.add_routes(_Runs().routes())
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, _HOST, 0, ssl_context=certificates.context)
        await site.start()
        address = Address(runner.addresses[0][1], str(certificates.ca_file))
        print(json.dumps(address.payload()), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    finally:
        await runner.cleanup()
        certificates.remove()


if __name__ == "__main__":
    asyncio.run(_serve())
