# SPDX-License-Identifier: Apache-2.0
"""The server's connections below HTTP: raw writes, resets, and counts of them.

Only the server's event loop changes a connection; any thread may read the counters. ``write`` and
``pause`` raise ``ConnectionResetError`` once the connection is over.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Hashable

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Connection:
    """One connection of a client."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._is_over = asyncio.Event()

    @property
    def unsent(self) -> int:
        """Bytes that were written and not yet taken by the client."""
        return self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Send bytes, or buffer them until they can be sent."""
        if self._is_over.is_set() or self._transport.is_closing():
            raise ConnectionResetError("the connection is over")
        self._transport.write(data)

    async def pause(self, seconds: float) -> None:
        """Sleep, but no longer than the connection lasts."""
        try:
            await asyncio.wait_for(self._is_over.wait(), seconds)
        except TimeoutError:
            return
        raise ConnectionResetError("the connection is over")

    def close(self) -> None:
        """Close the connection once everything written has been sent."""
        self._transport.close()

    def reset(self) -> None:
        """Close the connection at once, with a RST."""
        connected: socket.socket | None = self._transport.get_extra_info("socket")
        if connected is not None and connected.fileno() >= 0:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def end_pauses(self) -> None:
        """Make ``pause`` raise, now and later."""
        self._is_over.set()


class Connections:
    """All connections of one server, by the aiohttp protocol that serves each of them."""

    def __init__(self) -> None:
        self.made = 0
        """How many connections there have been."""
        self.are_refused = False
        """Whether a new connection is reset at once."""
        self._open: dict[Hashable, Connection] = {}

    def __len__(self) -> int:
        return len(self._open)

    def get(self, protocol: Hashable) -> Connection | None:
        """Return the connection that a protocol serves, or ``None`` if it is over."""
        return self._open.get(protocol)

    def add(self, protocol: Hashable, transport: asyncio.Transport) -> None:
        """Register a new connection."""
        self.made += 1
        self._open[protocol] = connection = Connection(transport)
        if self.are_refused:
            connection.reset()

    def discard(self, protocol: Hashable) -> None:
        """Unregister a connection that is over."""
        connection = self._open.pop(protocol, None)
        if connection is not None:
            connection.end_pauses()

    def end_pauses(self) -> None:
        """Abandon every fault under way."""
        for connection in list(self._open.values()):
            connection.end_pauses()

    def reset(self) -> None:
        """Reset every connection."""
        for connection in list(self._open.values()):
            connection.reset()
