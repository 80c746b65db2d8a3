# SPDX-License-Identifier: Apache-2.0
"""Both transports take the same heads of answers, and refuse the same ones.

Otherwise the triggerer would know of a started run that the worker has lost, or the reverse.
"""

from __future__ import annotations

from typing import Any

import pytest
from unit.transport.conftest import POLL, START, Exchange

from airflow_provider_promptlayer.exceptions import PromptLayerUnreachableError

LENGTH = b"Content-Length: 5"
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"5\r\nwhole\r\n0\r\n\r\n"


def answer(*headers: bytes, body: bytes = b"whole", status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([status, *headers, b"", body])


def interim(status: bytes, *headers: bytes) -> bytes:
    return answer(*headers, status=b"HTTP/1.1 " + status, body=b"")


def many(count: int, length: int = 1) -> list[bytes]:
    return [b"X-%d: %s" % (number, b"y" * length) for number in range(count)]


TAKEN = {
    "100": interim(b"100 Continue") + answer(LENGTH),
    "102": interim(b"102 Processing") + answer(LENGTH),
    "103": interim(b"103 Early Hints", b"Link: </a>") + answer(LENGTH),
    "103-twice": 2 * interim(b"103 Early Hints", LENGTH) + answer(LENGTH),
    "103-first": interim(b"103 Early Hints") + interim(b"100 Continue") + answer(LENGTH),
    "199": interim(b"199 Unheard of") + answer(LENGTH),
    "102-times-100": 100 * interim(b"102 Processing") + answer(LENGTH),
    "150-lines": answer(LENGTH, *many(150)),
    "900-lines": answer(*many(900), LENGTH),
    "long-line": answer(LENGTH, *many(1, 65_000)),
    "large-head": answer(*many(10, 60_000), LENGTH),
    "chunked": answer(CHUNKED, body=CHUNKS),
    "folded": answer(b"X: a", b" Content-Length: 7", LENGTH),
    "blank-first": answer(b" X: a", LENGTH),
    "latin-1": answer(b"X: \xe4", LENGTH),
    "control-character": answer(b"X: a\x01b", LENGTH),
    "line-feeds-alone": answer(LENGTH).replace(b"\r", b""),
    "blank-line-before": b"\r\n" + answer(LENGTH),
    "no-reason": answer(LENGTH, status=b"HTTP/1.1 200"),
    "version-1.0": answer(status=b"HTTP/1.0 200 OK"),
}

REFUSED = {
    "101": interim(b"101 Switching Protocols") + answer(LENGTH),
    "2000-lines": answer(LENGTH, *many(2_000)),
    "too-long-line": answer(LENGTH, *many(1, 70_000)),
    "too-large-head": answer(LENGTH, *many(50, 60_000)),
    "length-and-chunked": answer(LENGTH, CHUNKED, body=CHUNKS),
    "chunked-and-length": answer(CHUNKED, LENGTH, body=CHUNKS),
    "length-twice": answer(LENGTH, LENGTH),
    "two-lengths": answer(LENGTH, b"Content-Length: 4"),
    "lengths-in-one": answer(b"Content-Length: 5, 5"),
    "negative-length": answer(b"Content-Length: -5"),
    "signed-length": answer(b"Content-Length: +5"),
    "length-of-word": answer(b"Content-Length: five"),
    "no-length": answer(b"Content-Length: "),
    "no-colon": answer(b"what is this", LENGTH),
    "one-word": answer(b"what", LENGTH),
    "no-colon-at-the-end": answer(LENGTH, b"what is this"),
    "no-name": answer(b": x", LENGTH),
    "blanks-alone-first": answer(b" what is this", LENGTH),
    "blank-before-colon": answer(b"Content-Length : 5"),
    "name-with-blank": answer(b"X Y: z", LENGTH),
    "name-with-umlaut": answer(b"X\xe4: y", LENGTH),
    "name-with-nul": answer(b"X\0: y", LENGTH),
    "nul": answer(b"X: a\0b", LENGTH),
    "carriage-return": answer(b"X: a\rb", LENGTH),
    "version-1.2": answer(LENGTH, status=b"HTTP/1.2 200 OK"),
    "version-2.0": answer(LENGTH, status=b"HTTP/2.0 200 OK"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_head_that_is_taken(driver: Any, serve: Any, name: str) -> None:
    (response,) = driver.send(serve(lambda exchange: exchange.write(TAKEN[name])), START)
    assert (response.status, response.body) == (200, b"whole")


@pytest.mark.parametrize("name", REFUSED)
def test_a_head_that_is_refused(driver: Any, serve: Any, name: str) -> None:
    with pytest.raises(PromptLayerUnreachableError) as caught:
        driver.send(serve(lambda exchange: exchange.write(REFUSED[name])), START)
    assert caught.value.arrived is True  # a start that may have started something
    assert len(str(caught.value)) < 300


def test_a_head_without_an_end_is_refused_at_the_limit(driver: Any, serve: Any) -> None:
    def flood(exchange: Exchange) -> None:
        exchange.write(b"HTTP/1.1 200 OK\r\n")
        while not exchange.stopping.is_set():
            exchange.write(b"X: y\r\n" * 1_000)

    with pytest.raises(PromptLayerUnreachableError, match="no HTTP that can be read"):
        driver.send(serve(flood), START)


def test_all_headers_are_returned(driver: Any, serve: Any) -> None:
    sent = answer(b"Retry-After: 7", *many(150), b"X-Fold: a", b"\tb", b"X-Fold: c", LENGTH)
    (response,) = driver.send(serve(lambda exchange: exchange.write(sent)), START)
    assert response.headers["retry-after"] == "7"
    assert response.headers["x-149"] == "y"
    assert response.headers["x-fold"].split() == ["a", "b,", "c"]


def test_interim_answers_do_not_spoil_a_kept_connection(driver: Any, serve: Any) -> None:
    def handle(exchange: Exchange) -> bool:
        exchange.write(interim(b"103 Early Hints", b"Link: </a>") + answer(LENGTH))
        return True

    server = serve(handle)
    assert [response.body for response in driver.send(server, POLL, POLL)] == [b"whole"] * 2
    assert server.connections == 1
