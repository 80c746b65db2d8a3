# SPDX-License-Identifier: Apache-2.0
"""Making a fault happen on a connection.

Nothing here blocks the event loop; the only place that waits is ``Connection.pause``. After bytes
written directly to the connection it is closed, because the HTTP server does not know of them.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import Final

from .connections import Connection
from .model import Close, Drip, Fault, GoAway, Huge, Raw, Reply, Reset, Silence, Slow

_PIECE: Final = 64 * 1024
_MOST_UNSENT: Final = 4 * _PIECE
_SECONDS_TO_DRAIN: Final = 0.002


async def deliver(
    fault: Fault, answer: Reply, connection: Connection, go_away: Callable[[], Awaitable[None]]
) -> Reply | None:
    """Let the client of a connection meet a fault; ``answer`` is the true one.

    :return: The answer that is still to be sent, or ``None`` if the connection is over.
    :raises ConnectionResetError: the client left, or the server stops.
    """
    match fault:
        case Reply():
            return fault
        case Slow():
            await connection.pause(fault.seconds)
            return fault.reply or answer
        case Silence():
            await connection.pause(fault.seconds)
            connection.close()
        case Close():
            connection.write(_beginning(fault.reply or answer, fault.after_bytes))
            connection.close()
        case Reset():
            connection.write(_beginning(fault.reply or answer, fault.after_bytes))
            connection.reset()
        case Drip():
            await _drip(fault, fault.reply or answer, connection)
            connection.close()
        case Huge():
            await _stream(fault, connection)
            connection.close()
        case Raw():
            connection.write(fault.data)
            connection.close()
        case GoAway():
            await go_away()
    return None


def complete_headers(reply: Reply) -> dict[str, str]:
    """Return the headers of a reply, with a content type if it has none."""
    names = {name.lower() for name in reply.headers}
    added = {} if "content-type" in names else {"Content-Type": "application/json"}
    return {**added, **reply.headers}


def _beginning(reply: Reply, after_bytes: int | None) -> bytes:
    if after_bytes is None:
        return b""
    body = reply.content
    return _head(reply, len(body)) + body[: max(0, min(after_bytes, len(body) - 1))]


def _head(reply: Reply, length: int | None, *more: str) -> bytes:
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [
        f"HTTP/1.1 {reply.status} {phrase}",
        *(f"{name}: {value}" for name, value in complete_headers(reply).items()),
        *more,
        "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}",
        "Connection: close",
        "\r\n",
    ]
    return "\r\n".join(lines).encode("latin-1")


async def _drip(fault: Drip, reply: Reply, connection: Connection) -> None:
    until = time.monotonic() + fault.seconds
    head, body = _head(reply, len(reply.content)), reply.content
    if not fault.headers_too:
        connection.write(head)
        head = b""
    rest = head + body
    for start in range(0, len(rest), fault.chunk):
        left = until - time.monotonic()
        await connection.pause(max(0.0, min(fault.every, left)))
        if left <= fault.every:
            return
        connection.write(rest[start : start + fault.chunk])


async def _stream(fault: Huge, connection: Connection) -> None:
    chunked = fault.compressed or not fault.announced
    reply = Reply(fault.status)
    encoding = ["Content-Encoding: gzip"] if fault.compressed else []
    connection.write(_head(reply, None if chunked else fault.size, *encoding))
    for piece in _compressed(fault.size) if fault.compressed else _pieces(fault.size):
        connection.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        # Gives the event loop at least one turn for the other requests.
        await connection.pause(0)
        while connection.unsent > _MOST_UNSENT:
            await connection.pause(_SECONDS_TO_DRAIN)
    if chunked:
        connection.write(b"0\r\n\r\n")


def _pieces(size: int) -> Iterator[bytes]:
    if size < 2:
        yield b"1" * size
        return
    yield b'"'
    filler = b"x" * _PIECE
    for start in range(0, size - 2, _PIECE):
        yield filler[: size - 2 - start]
    yield b'"'


def _compressed(size: int) -> Iterator[bytes]:
    gzip = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    for piece in _pieces(size):
        if packed := gzip.compress(piece):
            yield packed
    yield gzip.flush()
