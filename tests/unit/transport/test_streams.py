# SPDX-License-Identifier: Apache-2.0
"""A body that is a stream is sent as it comes, with its length."""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Iterator
from typing import Any

from unit.transport.conftest import Exchange

from airflow_provider_promptlayer.api.http import Request


class Numbers:
    def __init__(self, each: int = 3_000) -> None:
        self._each = each
        self.length = 10 * each

    def chunks(self) -> Iterator[bytes]:
        for number in range(10):
            assert _get_running_loop() is None, "reading blocks the event loop"
            yield str(number).encode() * self._each


def test_both_transports_send_a_stream(driver: Any, serve: Any) -> None:
    server = serve(Exchange.answer)
    request = Request("POST", "/import", "import", Numbers())
    for response in driver.send(server, request, request):
        assert response.status == 200
    for received in server.requests:
        assert received.headers["content-length"] == "30000"
        assert "transfer-encoding" not in received.headers
        assert received.body == b"".join(Numbers().chunks())


def test_a_large_body_gets_more_time(driver: Any, serve: Any) -> None:
    """Ten seconds more, at the slowest rate of an upload."""
    request = Request("POST", "/import", "import", Numbers(250_000))
    (response,) = driver.send(serve(Exchange.answer), request, timeout=1e-4)
    assert response.status == 200
