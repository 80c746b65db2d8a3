# SPDX-License-Identifier: Apache-2.0
"""The connections that a server has, as faults and benchmarks see them.

The rule here: only the server's event loop changes anything; counters may be read anywhere.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Hashable

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Connection:
    """One connection of a client, below HTTP."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._over = asyncio.Event()

    @property
    def unsent(self) -> int:
        """Bytes that were written and still wait for the client to read."""
        return self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Send bytes, or keep them until they can be sent.

        Raises:
            ConnectionResetError: the connection is over.

        """
        if self._over.is_set() or self._transport.is_closing():
            raise ConnectionResetError("the connection is over")
        self._transport.write(data)

    async def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            ConnectionResetError: the connection ended in the meantime.

        """
        try:
            await asyncio.wait_for(self._over.wait(), seconds)
        except TimeoutError:
            return
        raise ConnectionResetError("the connection is over")

    def close(self) -> None:
        """End the connection once all that was written is sent."""
        self._transport.close()

    def reset(self) -> None:
        """End the connection at once, with a RST."""
        connected: socket.socket | None = self._transport.get_extra_info("socket")
        if connected is not None and connected.fileno() >= 0:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def end_waiting(self) -> None:
        """Let whatever waits in ``pause`` give up."""
        self._over.set()


class Connections:
    """All connections of one server; the keys are the protocols that serve them."""

    def __init__(self) -> None:
        self._open: dict[Hashable, Connection] = {}
        self._made = 0

    def __len__(self) -> int:
        return len(self._open)

    def get(self, key: Hashable) -> Connection | None:
        """Give the connection of a protocol, or ``None`` if it is over."""
        return self._open.get(key)

    @property
    def made(self) -> int:
        """How many there ever were."""
        return self._made

    def add(self, key: Hashable, transport: asyncio.Transport) -> None:
        """Note a connection that was made."""
        self._made += 1
        self._open[key] = Connection(transport)

    def discard(self, key: Hashable) -> None:
        """Note that a connection is over."""
        connection = self._open.pop(key, None)
        if connection is not None:
            connection.end_waiting()

    def end_waiting(self) -> None:
        """Let every fault under way give up."""
        for connection in list(self._open.values()):
            connection.end_waiting()

    def reset(self) -> None:
        """Reset every connection."""
        for connection in list(self._open.values()):
            connection.reset()
