# SPDX-License-Identifier: Apache-2.0
"""What surrounds every endpoint: the key, the faults and the record of requests.

Each request is read, matched against the fault rules, answered by its endpoint (unless a fault
keeps a POST, PATCH or DELETE from taking effect), and recorded. Only then is the answer sent, so a
client that has its answer finds its request counted.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from ..faults.connections import Connections
from ..faults.delivery import complete_headers, deliver
from ..faults.model import Fault, Reply, needs_true_answer, status_of
from ..faults.script import Request, Rules
from ..json_text import JsonValue, dumps

KEY_HEADER = "x-api-key"
# Longer bodies are answered 413. PromptLayer takes files of up to 100 MB: 134 MB as base64.
_LONGEST_BODY = 140_000_000

logger = logging.getLogger("airflow_provider_promptlayer.testing")
"""Gets a line for each request, of level DEBUG: in pytest they would be in the way."""

Endpoint: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answer(status: int, value: JsonValue, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an answer with a JSON body; NaN is allowed, lone surrogates become escapes."""
    body = dumps(value).encode("ascii")
    return web.Response(status=status, body=body, headers=headers, content_type="application/json")


def get(path: str, endpoint: Endpoint) -> web.RouteDef:
    """Route GET, but not HEAD, which FastAPI answers with 405."""
    return web.get(path, endpoint, allow_head=False)


class RefusalError(Exception):
    """The request is answered with an error."""

    def __init__(self, response: web.Response) -> None:
        super().__init__(response)
        self.response = response


def refusal(status: int, message: str) -> RefusalError:
    """Refuse in PromptLayer's own form: ``{"success": false, "message": …}``."""
    return RefusalError(answer(status, {"success": False, "message": message}))


@dataclass(frozen=True)
class RecordedRequest:
    """One request as it arrived, and how it was answered.

    ``raw_path`` is percent-encoded and has no query. Header names are in lower case; ``X-API-KEY``
    is left out, and ``key_was_right`` says whether it was right. ``arrived_at`` is in seconds of
    the server's clock. ``status`` is what the client reads, 0 where a ``fault`` keeps it from
    reading one; the rest of a faulty answer may still get lost.
    """

    method: str
    raw_path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    key_was_right: bool
    status: int
    arrived_at: float
    fault: Fault | None = None


class RequestLog:
    """The latest requests, the number of all, and a way to wait for the next.

    Safe to use from any thread.
    """

    def __init__(self, max_records: int) -> None:
        self._changed = threading.Condition()
        self._changes = 0
        self._latest: deque[RecordedRequest] = deque(maxlen=max_records)
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, record: RecordedRequest) -> None:
        """Count a request and keep its record, in place of the oldest if there are too many."""
        with self._changed:
            self._latest.append(record)
            self._counts[record.method, record.raw_path] += 1
        fault = f" ({type(record.fault).__name__})" if record.fault else ""
        logger.debug(
            "%s %s %s%s", record.method, record.raw_path, record.status or "no answer", fault
        )
        self.announce_change()

    def latest(self) -> list[RecordedRequest]:
        """Return a copy of the records, oldest first."""
        with self._changed:
            return list(self._latest)

    def count(self, method: str | None, path_prefix: str) -> int:
        """Count all requests of a method (``None``: any) whose raw path starts with a prefix."""
        with self._changed:
            return sum(
                times
                for (its_method, its_path), times in self._counts.items()
                if method in (None, its_method) and its_path.startswith(path_prefix)
            )

    def announce_change(self) -> None:
        """Make every ``wait_for`` evaluate its predicate again."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> None:
        """Return once ``predicate()`` holds; evaluate it now and after every change.

        The predicate runs without the lock, so it may use the server in any way; a change while
        it runs makes it run again.
        """
        deadline = time.monotonic() + timeout
        while True:
            seen = self._changes
            if predicate():
                return
            # Checked in every round: a predicate that sends requests causes changes itself.
            if (remaining := deadline - time.monotonic()) <= 0:
                raise TimeoutError(f"the predicate did not hold within {timeout} s")
            with self._changed:
                if self._changes == seen:
                    self._changed.wait(remaining)


class Api:
    """PromptLayer's API over some routes, for holders of a key."""

    def __init__(
        self,
        api_key: str,
        routes: Iterable[web.RouteDef],
        *,
        clock: Callable[[], float],
        max_requests: int,
    ) -> None:
        self.rules = Rules()
        self.log = RequestLog(max_requests)
        self._keys = frozenset({api_key})
        self._routes = list(routes)
        self._clock = clock

    def rotate_key(self, new_key: str, *, keep_old: bool) -> None:
        """Accept a new key from now on, and the old ones too if ``keep_old``."""
        self._keys = frozenset({new_key}) | (self._keys if keep_old else frozenset())

    def application(self) -> web.Application:
        """Return a new application, which belongs to one event loop, with all the endpoints."""
        application = web.Application(client_max_size=_LONGEST_BODY)
        application.add_routes(self._routes)
        return application

    async def serve(
        self,
        request: web.Request,
        endpoint: Endpoint,
        connections: Connections,
        go_away: Callable[[], Awaitable[None]],
    ) -> web.StreamResponse:
        """Answer a request by the application's ``endpoint``, or let its client meet a fault."""
        try:
            # Without the right key the body is not read, however long it is.
            body = await request.read() if self._key_is_right(request) else b""
        except web.HTTPRequestEntityTooLarge:
            return refusal(413, f"The body is longer than {_LONGEST_BODY} bytes").response
        except (OSError, web.RequestPayloadError):
            return _Nothing()  # the client has left, or its body is not valid HTTP
        asked = Request(
            method=request.method,
            raw_path=request.raw_path.partition("?")[0],
            # As in FastAPI, the last of several values counts.
            query=dict(request.query.items()),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=body,
        )
        arrived_at = self._clock()
        fault, acted_on = self.rules.take(asked)
        # Checked again, as a fault function may have rotated the key.
        key_is_right = self._key_is_right(request)
        only_reads = request.method not in ("POST", "PATCH", "DELETE")
        if acted_on or only_reads or (fault and needs_true_answer(fault)):
            true = await self._true_answer(request, endpoint, key_is_right=key_is_right)
        else:
            true = refusal(503, "Service unavailable").response
        self.log.add(
            RecordedRequest(
                method=asked.method,
                raw_path=asked.raw_path,
                query=asked.query,
                headers={name: asked.headers[name] for name in asked.headers if name != KEY_HEADER},
                key_was_right=key_is_right,
                status=true.status if fault is None else status_of(fault, true.status),
                arrived_at=arrived_at,
                fault=fault,
            )
        )
        if fault is None:
            return true
        connection = connections.get(request.protocol)
        with contextlib.suppress(ConnectionResetError):
            if connection is not None:
                reply = await deliver(fault, _reply(true), connection, go_away)
                if reply is not None:
                    headers = complete_headers(reply)
                    return web.Response(status=reply.status, body=reply.content, headers=headers)
        return _Nothing()

    def _key_is_right(self, request: web.Request) -> bool:
        return request.headers.get(KEY_HEADER) in self._keys

    async def _true_answer(
        self, request: web.Request, endpoint: Endpoint, *, key_is_right: bool
    ) -> web.StreamResponse:
        """Answer as if there were no faults. The key comes first, on unknown paths too."""
        try:
            if not key_is_right:
                raise refusal(401, "Invalid API key")
            encoding = request.headers.get("Content-Encoding", "identity")
            if encoding.strip().lower() != "identity":
                # As in FastAPI, no body is decompressed.
                raise refusal(415, f"Content-Encoding {encoding!r} is not supported")
            return await endpoint(request)
        except RefusalError as refused:
            return refused.response
        except web.HTTPException as error:
            # aiohttp's router raises 404 and 405; the bodies are FastAPI's.
            allowed = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
            return answer(error.status, {"detail": error.reason}, allowed)


def _reply(response: web.StreamResponse) -> Reply:
    body = response.body if isinstance(response, web.Response) else None
    return Reply(response.status, body if isinstance(body, bytes) else b"", dict(response.headers))


class _Nothing(web.StreamResponse):
    """For a connection that a fault has used up: the HTTP server has nothing left to send."""

    async def prepare(self, _request: web.BaseRequest) -> AbstractStreamWriter | None:
        raise ConnectionResetError
