# SPDX-License-Identifier: Apache-2.0
"""The blocking transport, over requests.

``timeout`` bounds the whole exchange. requests has limits for the connect and for each read
only, so a server that drips its answer byte by byte, or a name server that does not answer, would
hold a worker for ever. The exchange therefore runs in a thread of its own, whose connection is
cut at the deadline.
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from http.cookiejar import DefaultCookiePolicy
from queue import Empty, SimpleQueue
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from airflow_provider_promptlayer.api.errors import PromptLayerUnreachableError
from airflow_provider_promptlayer.api.http import Request, Response
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.times import in_words
from airflow_provider_promptlayer.transport.head import StrictHTTPResponse
from airflow_provider_promptlayer.transport.redaction import (
    API_KEY_HEADER,
    CHUNK,
    Body,
    Secrets,
    UnreadableBodyError,
    headers_for,
)
from airflow_provider_promptlayer.transport.settings import Settings
from airflow_provider_promptlayer.transport.tls import (
    Proxy,
    ca_bundle,
    check_ca_bundle,
    explain_tls,
    proxy_for,
)
from airflow_provider_promptlayer.transport.urls import is_below


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


_CUT_SECONDS = (
    1.0  # for a thread to notice that its connection was cut; a name server is no connection
)


class PromptLayerSession(requests.Session):
    """A session that sends the API key to PromptLayer alone.

    requests strips ``Authorization`` when a redirect leads to another host, but not
    ``X-API-KEY``; and headers of a session go to whatever URL it is used for.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._base_url = settings.base_url
        proxy = proxy_for(settings)
        self.secrets = Secrets(settings, proxy)
        self.trust_env = False  # proxies and CA bundle of the environment are read in .tls
        check_ca_bundle(settings)
        self.verify = ca_bundle(settings) or False
        self.proxies = {"http": proxy.url, "https": proxy.url} if proxy else {}
        self.auth = _KeyFor(settings)
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.line = Line()
        self.mount("https://", CuttableAdapter(self.line, proxy))
        self.mount("http://", CuttableAdapter(self.line, proxy))

    def close(self) -> None:
        """Close the connections."""
        super().close()
        self.line.close()

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        """Drop the key from a request that follows a redirect to elsewhere."""
        super().rebuild_auth(prepared_request, response)  # type: ignore[no-untyped-call]  # stubs
        # Not should_strip_auth(), for which all that is on one host is one place.
        if not is_below(prepared_request.url or "", self._base_url):
            prepared_request.headers.pop(API_KEY_HEADER, None)


class _LookSession(PromptLayerSession):
    """A session that follows no redirect."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: else requests works out the target, and reads the whole body before."""


class BlockingTransport:
    """Sends requests over kept-alive connections; several threads may share it.

    Each request has a session, and with it a connection, to itself: what cuts one exchange, or
    waits for its answer, has nothing to do with another thread's.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.RLock()  # a signal handler may interrupt who holds it
        self._idle: list[PromptLayerSession] = []
        self._closings = 0

    def send(self, request: Request) -> Response:
        """Return the whole answer, whatever its status.

        :raises PromptLayerUnreachableError: if there is none within the settings' ``timeout``.
        :raises PromptLayerAnswerTooLargeError: if it is too large.
        """
        with self._lock:
            closings = self._closings
            session = self._idle.pop() if self._idle else None
        if session is not None and request.method != "GET":
            # Never over a kept connection: it may be dead, and then it is unknown whether the
            # request arrived.
            session.close()
            session = None
        if session is None:
            session = _LookSession(self.settings)
        try:
            response = _Exchange(session, self.settings, request).result()
        except BaseException:  # also what a signal raises: the exchange may still be under way
            session.line.cut()
            session.close()
            raise
        with self._lock:
            if closings == self._closings:
                self._idle.append(session)
                return response
        session.close()
        return response

    def close(self) -> None:
        """Close the connections, those in use after their answers. It can be used again."""
        with self._lock:
            self._closings += 1
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()


class _Exchange:
    """One request and its answer, in a thread whose connection can be cut."""

    def __init__(self, session: PromptLayerSession, settings: Settings, request: Request) -> None:
        self._session = session
        self._settings = settings
        self._request = request
        self._outcome: SimpleQueue[Response | BaseException] = SimpleQueue()

    def result(self) -> Response:
        thread = threading.Thread(target=self._run, name="promptlayer-request", daemon=True)
        thread.start()
        try:
            outcome = self._outcome.get(timeout=self._settings.timeout)
        except Empty:
            self._session.line.cut()
            thread.join(_CUT_SECONDS)
            raise self._unreachable(
                f"no whole answer within {in_words(self._settings.timeout)}"
            ) from None
        thread.join()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _run(self) -> None:
        try:
            self._outcome.put(self._exchange())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self._outcome.put(error)

    def _exchange(self) -> Response:
        try:
            with self._session.request(
                self._request.method,
                self._settings.base_url + self._request.path,
                data=self._request.body,
                headers={
                    **headers_for(self._request, self._settings),
                    "Accept-Encoding": "gzip, deflate",  # what Body decompresses
                },
                timeout=self._settings.timeout,
                allow_redirects=False,
                stream=True,
            ) as answer:
                if answer.status_code < 200:  # 101: the other interim ones are passed over
                    raise self._unreachable(f"an interim answer (HTTP {answer.status_code})")
                body = Body(
                    self._request,
                    self._session.secrets,
                    answer.headers.get("Content-Encoding", ""),
                )
                for chunk in answer.raw.stream(CHUNK, decode_content=False):
                    body.add(chunk)
                return Response(
                    status=answer.status_code,
                    headers={name.lower(): value for name, value in answer.headers.items()},
                    body=body.whole(),
                    redactions=body.redactions,
                )
        except requests.Timeout:
            raise self._unreachable(
                f"no whole answer within {in_words(self._settings.timeout)}"
            ) from None
        except UnreadableBodyError as error:
            raise self._unreachable(str(error)) from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # requests' own errors are OSErrors; a host that IDNA refuses is a ValueError, and so is
            # what http.client makes of an answer that is no HTTP.
            raise self._unreachable(_reason(error, self._session.secrets)) from None

    def _unreachable(self, reason: str) -> PromptLayerUnreachableError:
        return PromptLayerUnreachableError(
            f"Could not {self._request.purpose}: {explain_tls(reason)} "
            f"({self._settings.base_url}).",
            arrived=self._session.line.is_made,
        )


class _KeyFor(requests.auth.AuthBase):
    """Adds the key to requests below the base URL, and to no others."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if is_below(request.url or "", self._settings.base_url):
            request.headers[API_KEY_HEADER] = self._settings.api_key
        return request


def _reason(error: BaseException, secrets: Secrets) -> str:
    """Return the innermost cause in words: the outer ones repeat it with memory addresses.

    Without secrets: http.client quotes what it cannot read, and that may be the request.
    """
    for cause in reversed(_causes(error)):
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException):
            said = cause.strerror or str(cause) or type(cause).__name__
            return one_line(secrets.redact(said))
    return one_line(secrets.redact(f"{type(error).__name__}: {error}"))


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
