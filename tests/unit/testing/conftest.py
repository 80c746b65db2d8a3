# SPDX-License-Identifier: Apache-2.0
"""A clock that only moves when told, and clients that send exactly what they are given."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
import requests

from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Workflow

HELLO = [Node("Hello", "hi", is_output_node=True)]
GREET = Workflow("Greet", HELLO)
RESULTS = "/workflow-version-execution-results"


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 loopback on this machine")


class Clock:
    """Seconds from an arbitrary origin."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"].startswith("application/json")
        return json.loads(self.body)


class Client:
    """http.client leaves paths alone, where other clients normalize them."""

    def __init__(self, server: LocalPromptLayer) -> None:
        self.server = server

    def send(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        key: str | None = "pl_local_key",
        content_type: str | None = "application/json",
    ) -> Reply:
        headers = {}
        if key is not None:
            headers["X-API-KEY"] = key
        if body is not None and content_type is not None:
            headers["Content-Type"] = content_type
        connection = http.client.HTTPConnection(urlsplit(self.server.url).netloc, timeout=60)
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            return Reply(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read(),
            )
        finally:
            connection.close()

    def get(self, path: str, **query: object) -> Reply:
        return self.send("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, body: Any) -> Reply:
        return self.send("POST", path, json.dumps(body).encode())

    def run(self, workflow: str = "Greet", body: Any = None) -> Reply:
        return self.post(f"/workflows/{quote(workflow, safe='')}/run", {} if body is None else body)

    def results(self, execution_id: int, return_all_outputs: bool = True) -> Reply:
        return self.get(
            RESULTS,
            workflow_version_execution_id=execution_id,
            return_all_outputs=str(return_all_outputs).lower(),
        )


def get(server: LocalPromptLayer, path: str = "/workflows", **options: Any) -> requests.Response:
    """Send a GET with requests."""
    headers = {"X-API-KEY": server.api_key}
    return requests.get(server.url + path, headers=headers, timeout=60, **options)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def serve(clock: Clock) -> Iterator[Callable[..., Client]]:
    """Start a server of the given workflows and give a client for it."""
    with ExitStack() as servers:

        def start(*workflows: Workflow, **options: Any) -> Client:
            server = LocalPromptLayer(workflows or None, clock=clock, **options)
            return Client(servers.enter_context(server))

        yield start
