# SPDX-License-Identifier: Apache-2.0
"""A PromptLayer that gives every poll the same answer: over TLS, kept alive, in its own process.

It does far less than :class:`LocalPromptLayer`, so that a thousand polls a second leave most of a
core to the code that is measured. All contenders get the same bytes, but for the status.

- ``/workflow-version-execution-results?…``: 202 with a run that goes on.
- ``/missing?…``: the same body with 404, for a contender that polls until a page exists.
- ``/workflows/…/labels``: ten release labels, which never move.
- ``/-/count``: how many polls there were. ``/-/arrivals``: when, for each run, in seconds of the
  monotonic clock, which all processes of a machine share. ``/-/forget``: begin anew.

Run as ``python -m benchmarks.server``: prints its address in one line of JSON, and ends with its
standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import ssl
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.child import server_process

API_KEY = "pl_bench_0123456789abcdef"
RESULTS_PATH = "/workflow-version-execution-results"
MISSING_PATH = "/missing"

LABELS = tuple(f"label-{number}" for number in range(10))
"""The release labels of each workflow."""

_HOST = "127.0.0.1"
_BACKLOG = 4096
_RUN = {
    name: {
        "status": status,
        "value": "A paragraph of text, as nodes have it. " * 3 if status == "SUCCESS" else None,
        "error_message": None,
        "raw_error_message": None,
        "is_output_node": name == "Summarize",
    }
    for name, status in (
        ("Fetch", "SUCCESS"),
        ("Extract", "SUCCESS"),
        ("Classify", "RUNNING"),
        ("Translate", "QUEUED"),
        ("Summarize", "QUEUED"),
    )
}

_RELEASE_LABELS = {
    "release_labels": [
        {"release_label": label, "release_label_id": number, "workflow_version_number": number}
        for number, label in enumerate(LABELS, start=1)
    ]
}


@dataclass(frozen=True)
class Address:
    """Where the server is, for the processes that send it requests."""

    port: int
    ca_file: str

    @property
    def url(self) -> str:
        """The base URL."""
        return f"https://{_HOST}:{self.port}"

    def trust(self) -> ssl.SSLContext:
        """Return a context that trusts the server."""
        return ssl.create_default_context(cafile=self.ca_file)

    def environment(self) -> dict[str, str]:
        """Return what the processes need in their environment to reach the server with Airflow."""
        ours = {
            "conn_type": "promptlayer",
            "host": self.url,
            "password": API_KEY,
            "extra": {"verify": self.ca_file},
        }
        theirs = {"conn_type": "http", "host": self.url}
        return {
            "AIRFLOW_CONN_PROMPTLAYER_DEFAULT": json.dumps(ours),
            "AIRFLOW_CONN_HTTP_DEFAULT": json.dumps(theirs),
            "SSL_CERT_FILE": self.ca_file,  # aiohttp's own context, which the http provider uses
        }

    def payload(self) -> dict[str, Any]:
        """Return this for a process that will make it anew."""
        return asdict(self)


class Control:
    """Asks the server what it has counted. Blocks for a millisecond."""

    def __init__(self, address: Address) -> None:
        self._connection = http.client.HTTPSConnection(
            _HOST, address.port, context=address.trust(), timeout=30
        )

    def count(self) -> int:
        """Return how many polls there were."""
        return int(self._ask("/-/count"))

    def arrivals(self) -> dict[str, list[float]]:
        """Return run id → the seconds of the monotonic clock at which it was polled."""
        found: dict[str, list[float]] = self._ask("/-/arrivals")
        return found

    def forget(self) -> None:
        """Begin anew."""
        self._ask("/-/forget")

    def _ask(self, path: str) -> Any:
        self._connection.request("GET", path)
        return json.loads(self._connection.getresponse().read())


@contextlib.contextmanager
def running_server() -> Iterator[Address]:
    """Run the server in a process of its own."""
    with server_process(__name__) as line:
        yield Address(**json.loads(line))


class _Log:
    def __init__(self) -> None:
        self.arrivals: dict[str, list[float]] = defaultdict(list)
        self.count = 0

    def forget(self) -> None:
        self.arrivals.clear()
        self.count = 0


class _Polls(asyncio.Protocol):
    """One connection. Knows as much of HTTP as the contenders send."""

    def __init__(self, log: _Log) -> None:
        self._log = log
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        heads = (self._unread + data).split(b"\r\n\r\n")
        self._unread = heads.pop()
        for head in heads:
            self._transport.write(self._answer(head.split(b" ", 2)[1].decode()))

    def _answer(self, target: str) -> bytes:
        path, _, query = target.partition("?")
        if path == "/-/count":
            return message(200, json.dumps(self._log.count).encode())
        if path == "/-/arrivals":
            return message(200, json.dumps(self._log.arrivals).encode())
        if path == "/-/forget":
            self._log.forget()
            return message(200, b"null")
        self._log.count += 1
        run_id = query.partition("workflow_version_execution_id=")[2].partition("&")[0]
        self._log.arrivals[run_id].append(time.monotonic())
        if path == RESULTS_PATH:
            return _POLLED
        return _LABELLED if path.endswith("/labels") else _MISSED


def message(status: int, body: bytes) -> bytes:
    """Return an answer of HTTP/1.1 with a body of JSON."""
    head = (
        f"HTTP/1.1 {status} {http.client.responses[status]}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


_POLLED = message(202, json.dumps(_RUN).encode())
_LABELLED = message(200, json.dumps(_RELEASE_LABELS).encode())
_MISSED = message(404, json.dumps(_RUN).encode())


async def _serve() -> None:
    from airflow_provider_promptlayer.testing.certificates import Certificates

    log = _Log()
    certificates = Certificates("trusted")
    try:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: _Polls(log), _HOST, 0, ssl=certificates.context, backlog=_BACKLOG
        )
        port = server.sockets[0].getsockname()[1]
        address = Address(port, str(certificates.ca_file))
        print(json.dumps(address.payload()), flush=True)
        await loop.run_in_executor(None, sys.stdin.read)
        server.close()
    finally:
        certificates.remove()


if __name__ == "__main__":
    asyncio.run(_serve())
