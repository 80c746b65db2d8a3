# SPDX-License-Identifier: Apache-2.0
"""Connections for requests that another thread can cut, and that know whether they were made.

requests offers neither. Without the first, a thread would hang for as long as a server drips its
headers; without the second, nobody could tell a start that never left from one that was lost.
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from airflow_provider_promptlayer.transport.head import StrictHTTPResponse
from airflow_provider_promptlayer.transport.tls import Proxy


class Line:
    """What is known of the newest connection of a session.

    ``is_made`` is True once a connection was ready to carry a request: after the TLS handshake
    and a proxy's consent.
    """

    def __init__(self) -> None:
        self.is_made = False
        self._is_cut = False
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None

    def opened(self, connection: socket.socket) -> None:
        """Note a new TCP connection.

        :raises ConnectionAbortedError: if the line was cut before there was one.
        """
        with self._lock:
            self._check()
            self.close()
            # A second handle of the same connection: TLS takes the first one away.
            self._handle = connection.dup()

    def made(self) -> None:
        """Note that a request may be sent from now on.

        :raises ConnectionAbortedError: if the line was cut: whoever cut it was told that nothing
            had been sent, and that has to stay true.
        """
        with self._lock:
            self._check()
            self.is_made = True

    def cut(self) -> None:
        """End whatever is being read or written, in whichever thread, for good."""
        with self._lock:
            self._is_cut = True
            if self._handle is not None:
                with suppress(OSError):  # the other side may have been quicker
                    self._handle.shutdown(socket.SHUT_RDWR)

    def _check(self) -> None:
        if self._is_cut:
            raise ConnectionAbortedError("given up")

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Give the handle back."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None


class CuttableAdapter(HTTPAdapter):
    """Opens connections that report to a :class:`Line`. Never sends anything twice.

    :param proxy: whose credentials its requests carry, where they go through it.
    """

    def __init__(self, line: Line, proxy: Proxy | None) -> None:
        self._proxy = proxy
        self._pools = {
            "http": _reporting(HTTPConnectionPool, line),
            "https": _reporting(HTTPSConnectionPool, line),
        }
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pool manager, with connections of this module."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Make the manager for a proxy, with connections of this module."""
        manager: Any = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        """Return what the proxy is sent: a caller of ``get_conn()`` may have chosen another one."""
        if self._proxy is not None and proxy == self._proxy.url:
            return self._proxy.headers
        headers: dict[str, str] = super().proxy_headers(proxy)
        return headers


def _reporting(pool: type[HTTPConnectionPool], line: Line) -> type[HTTPConnectionPool]:
    class Connection(pool.ConnectionCls):  # type: ignore[name-defined,misc]  # a class made here
        response_class = StrictHTTPResponse

        def _new_conn(self) -> socket.socket:
            connection: socket.socket = super()._new_conn()
            try:
                line.opened(connection)
            except OSError:
                connection.close()
                raise
            return connection

        @property
        def is_connected(self) -> bool:
            # urllib3 looks at the socket alone: TLS may hold decrypted bytes that came unasked.
            held = self.sock.pending() if isinstance(self.sock, ssl.SSLSocket) else 0
            return bool(super().is_connected) and not held

        def connect(self) -> None:
            super().connect()
            try:
                line.made()
            except OSError:
                self.close()
                raise

    class Pool(pool):  # type: ignore[valid-type,misc]  # a class made here
        ConnectionCls = Connection

        def _validate_conn(self, connection: Any) -> None:
            # Without urllib3's warning about verify=False, which would come with each request:
            # the hook warns once.
            if connection.sock is None:
                connection.connect()

    return Pool
