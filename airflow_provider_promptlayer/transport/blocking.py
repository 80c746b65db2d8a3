# SPDX-License-Identifier: Apache-2.0
"""The blocking transport, over requests.

``timeout`` bounds the whole exchange. requests bounds the connect and each read alone, so a server
that drips its answer byte by byte, or a name server that does not answer, would hold a worker for
ever. The exchange therefore runs in a thread of its own, whose connection is aborted at the
deadline.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.cookiejar import DefaultCookiePolicy
from queue import Empty, SimpleQueue
from typing import Any, Final

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from airflow_provider_promptlayer.api.http import UNNAMED, BodyStream, Origin, Request, Response
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.transport.head import StrictHTTPResponse
from airflow_provider_promptlayer.transport.redaction import (
    API_KEY_HEADER,
    CHUNK,
    Body,
    Redactor,
    headers_for,
    request_id_of,
    seconds_for,
    unreachable,
)
from airflow_provider_promptlayer.transport.settings import Settings
from airflow_provider_promptlayer.transport.tls import (
    Proxy,
    ca_bundle,
    proxy_for,
    ssl_context,
)
from airflow_provider_promptlayer.transport.urls import is_below

_ABORT_SECONDS: Final = 1.0
"""For a thread to notice that its connection was aborted. A DNS look-up has no connection yet."""


class AbortableConnection:
    """The newest connection of a session, which another thread can abort.

    ``is_ready`` is True once a connection could carry a request: after the TLS handshake and a
    proxy's consent.
    """

    def __init__(self) -> None:
        self.is_ready = False
        self._is_aborted = False
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None

    def opened(self, connection: socket.socket) -> None:
        """Note a new TCP connection.

        :raises ConnectionAbortedError: after :meth:`abort`.
        """
        with self._lock:
            self._check()
            self.close()
            # A second handle of the same connection: TLS takes the first one away.
            self._handle = connection.dup()

    def ready(self) -> None:
        """Note that a request may be sent from now on.

        :raises ConnectionAbortedError: after :meth:`abort`, whose caller was told that nothing had
            been sent: that has to stay true.
        """
        with self._lock:
            self._check()
            self.is_ready = True

    def abort(self) -> None:
        """End whatever is being read or written, in whichever thread, for good."""
        with self._lock:
            self._is_aborted = True
            if self._handle is not None:
                with suppress(OSError):  # the other side may have closed the connection first
                    self._handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the handle."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def _check(self) -> None:
        if self._is_aborted:
            raise ConnectionAbortedError("given up")

    __del__ = close


class _Adapter(HTTPAdapter):
    """Opens connections that an :class:`AbortableConnection` knows. Never sends anything twice.

    :param proxy: whose credentials go with the requests that it forwards.
    """

    def __init__(self, connection: AbortableConnection, proxy: Proxy | None) -> None:
        self._proxy = proxy
        self._pools = {
            "http": _abortable(HTTPConnectionPool, connection),
            "https": _abortable(HTTPSConnectionPool, connection),
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


def _abortable(
    pool: type[HTTPConnectionPool], abortable: AbortableConnection
) -> type[HTTPConnectionPool]:
    class Connection(pool.ConnectionCls):  # type: ignore[name-defined,misc]  # a class made here
        response_class = StrictHTTPResponse
        timeout: Any

        def _new_conn(self) -> socket.socket:
            whole = self.timeout
            # urllib3 tries one address of the host after the other: in time for the next one.
            self.timeout = whole / 3
            try:
                connection: socket.socket = super()._new_conn()
            finally:
                self.timeout = whole
            connection.settimeout(whole)
            try:
                abortable.opened(connection)
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
                abortable.ready()
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


class PromptLayerSession(requests.Session):
    """A session that sends the API key to PromptLayer alone.

    requests strips ``Authorization`` when a redirect leads to another host, but not
    ``X-API-KEY``; and headers of a session go to whatever URL it is used for.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._base_url = settings.base_url
        proxy = proxy_for(settings)
        self.redactor = Redactor(settings, proxy)
        self.trust_env = False  # .tls reads the environment's proxies and CA bundle
        ssl_context(settings)  # refuses a CA file that cannot be used, before anything is sent
        self.verify = ca_bundle(settings) or False
        self.proxies = {"http": proxy.url, "https": proxy.url} if proxy else {}
        self.auth = _KeyFor(settings)
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.connection = AbortableConnection()
        adapter = _Adapter(self.connection, proxy)
        for scheme in ("https://", "http://"):
            self.mount(scheme, adapter)

    def close(self) -> None:
        """Close the connections."""
        super().close()
        self.connection.close()

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        """Drop the key from a request that follows a redirect to elsewhere."""
        super().rebuild_auth(prepared_request, response)  # type: ignore[no-untyped-call]  # stubs
        # should_strip_auth() would take any path of the same host for the same place.
        if not is_below(prepared_request.url or "", self._base_url):
            prepared_request.headers.pop(API_KEY_HEADER, None)


class _KeyFor(requests.auth.AuthBase):
    """Adds the key to requests below the base URL, and to no others."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if is_below(request.url or "", self._settings.base_url):
            request.headers[API_KEY_HEADER] = self._settings.api_key
        return request


class _SessionWithoutRedirects(PromptLayerSession):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: else requests works out the target, and reads the whole body before."""


class BlockingTransport:
    """Sends requests over kept-alive connections; several threads may share it.

    Each request has a session, and with it a connection, to itself. So a thread that aborts an
    exchange, or waits for an answer, does not affect another thread's.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.RLock()  # a signal handler may interrupt the thread that holds it
        self._idle: list[PromptLayerSession] = []
        self._closings = 0

    def send(self, request: Request, origin: Origin = UNNAMED) -> Response:
        """Return the whole answer, whatever its status.

        :param origin: who answers, for messages.
        :raises PromptLayerUnreachableError: if there is no whole answer within the settings'
            ``timeout``.
        :raises PromptLayerAnswerTooLargeError: if the answer is too large.
        """
        with self._lock:
            closings = self._closings
            session = self._idle.pop() if self._idle else None
        if session is not None and request.method != "GET":
            # A kept connection may be dead, and hide whether the request arrived.
            session.close()
            session = None
        if session is None:
            session = _SessionWithoutRedirects(self.settings)
        try:
            response = self._exchange(session, request, origin)
        except BaseException:  # also what a signal handler raises while the exchange is under way
            session.connection.abort()
            session.close()
            raise
        with self._lock:
            if closings == self._closings:
                self._idle.append(session)
                return response
        session.close()
        return response

    def _exchange(self, session: PromptLayerSession, request: Request, origin: Origin) -> Response:
        """Send in a thread, and abort its connection when the time is up."""
        outcome: SimpleQueue[Response | BaseException] = SimpleQueue()

        def run() -> None:
            try:
                outcome.put(_send(session, self.settings, request, origin))
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                outcome.put(error)

        thread = threading.Thread(target=run, name="promptlayer-request", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no thread can be started, so nothing was sent
            reason = f"this machine has no thread for the request: {error}"
            raise unreachable(request, self.settings, reason, arrived=False) from None
        try:
            result = outcome.get(timeout=seconds_for(request, self.settings))
        except Empty:
            session.connection.abort()
            thread.join(_ABORT_SECONDS)
            arrived = session.connection.is_ready
            raise unreachable(request, self.settings, None, arrived=arrived) from None
        thread.join()
        if isinstance(result, BaseException):
            raise result
        return result

    def close(self) -> None:
        """Close the connections, those in use after their answers. More may be sent after that."""
        with self._lock:
            self._closings += 1
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()


def _send(
    session: PromptLayerSession, settings: Settings, request: Request, origin: Origin
) -> Response:
    try:
        with session.request(
            request.method,
            settings.base_url + request.path,
            data=_data(request.body),
            headers={
                **headers_for(request, settings),
                "Accept-Encoding": "gzip, deflate",  # what Body decompresses
            },
            timeout=seconds_for(request, settings),
            allow_redirects=False,
            stream=True,
        ) as answer:
            if answer.status_code < 200:  # 101: StrictHTTPResponse skips other interim answers
                raise OSError(f"an interim answer (HTTP {answer.status_code})")
            body = Body(request, session.redactor, answer.headers.get("Content-Encoding", ""))
            for chunk in answer.raw.stream(CHUNK, decode_content=False):
                body.add(chunk)
            return Response(
                status=answer.status_code,
                headers={name.lower(): value for name, value in answer.headers.items()},
                body=body.whole(),
                redactions=body.redactions,
                request_id=request_id_of(answer.status_code, answer.headers, session.redactor),
                origin=origin,
            )
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        # requests' own errors are OSErrors. A ValueError comes from IDNA, which refuses a host, or
        # from http.client, which cannot read the answer.
        is_late = isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError))
        reason = None if is_late else _reason(error, session)
        raise unreachable(request, settings, reason, arrived=session.connection.is_ready) from None


class _Streamed:
    """A body that requests sends as it comes: it has a length, and is iterated over."""

    def __init__(self, body: BodyStream) -> None:
        self._body = body

    def __len__(self) -> int:
        return self._body.length

    def __iter__(self) -> Iterator[bytes]:
        return self._body.chunks()


def _data(body: bytes | BodyStream | None) -> Any:
    return body if body is None or isinstance(body, bytes) else _Streamed(body)


def _reason(error: BaseException, session: PromptLayerSession) -> str:
    """Return the innermost cause in words, as the outer ones repeat it with memory addresses.

    Redacted: http.client quotes what it cannot read, and that may quote the request.
    """
    said = f"{type(error).__name__}: {error}"
    for cause in _causes(error):
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException):
            said = cause.strerror or str(cause) or type(cause).__name__
    return one_line(session.redactor.redact(said))


def _causes(error: BaseException) -> list[BaseException]:
    """Return ``error`` and what it wraps: requests and urllib3 put causes into args and reason."""
    found: list[BaseException] = []
    todo: list[Any] = [error]
    while todo:
        cause = todo.pop(0)
        if isinstance(cause, BaseException) and cause not in found:
            found.append(cause)
            todo += [getattr(cause, "reason", None), *cause.args, cause.__cause__]
    return found
