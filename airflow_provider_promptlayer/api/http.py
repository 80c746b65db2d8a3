# SPDX-License-Identifier: Apache-2.0
"""Requests and answers as plain values, and what an error answer means.

The status is read before the body: a gateway's HTML page with a 502 is a server error, not
bad JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, Protocol, TypeAlias, TypeVar

from airflow_provider_promptlayer.api.errors import (
    PromptLayerAnswerTooLargeError,
    PromptLayerAuthError,
    PromptLayerError,
    PromptLayerNotFoundError,
    PromptLayerRateLimitError,
    PromptLayerRefusedError,
    PromptLayerServerError,
    PromptLayerUnexpectedAnswerError,
    PromptLayerUnreachableError,
)
from airflow_provider_promptlayer.api.json_reader import loads
from airflow_provider_promptlayer.api.text import MESSAGE_LIMIT, excerpt, listed, one_line, shown
from airflow_provider_promptlayer.api.times import in_words, seconds_until

MAX_BODY_BYTES: Final = 128 * 1024 * 1024
"""The largest answer, in bytes after decompression, that a transport reads."""

LARGE: Final = 256 * 1024
"""Bytes of a body from which on it is too large to be parsed on an event loop."""

_FIELD_ERRORS_NAMED: Final = 5

_JSON_BEGINS: Final = ("{", "[", '"')

_LEVELS_READ_FAST: Final = 500
"""How deep a body may be nested for Python's own parser, however deep its caller is nested."""

T = TypeVar("T")
U = TypeVar("U")

Unanswered: TypeAlias = PromptLayerUnreachableError | PromptLayerAnswerTooLargeError
"""What a transport raises where it received no whole answer."""


class BodyStream(Protocol):
    """JSON that is too large to be held in memory."""

    @property
    def length(self) -> int:
        """How many bytes there are."""

    def chunks(self) -> Iterator[bytes]:
        """Return the bytes from the first one on, however often this is called."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, complete but for the host and the key.

    :param path: percent-encoded path and query below the base URL, starting with ``/``.
    :param purpose: what is being done, for messages: ``"start workflow 'Digest'"``.
    :param body: JSON as bytes or as a stream, or None.
    :param is_fresh: whether to ask PromptLayer not to answer from its cache.
    """

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    purpose: str
    body: bytes | BodyStream | None = field(default=None, repr=False)
    is_fresh: bool = False

    @property
    def body_length(self) -> int:
        """How many bytes the body has."""
        if self.body is None:
            return 0
        return len(self.body) if isinstance(self.body, bytes) else self.body.length

    @property
    def fields(self) -> dict[str, Any]:
        """The object in the body; empty without a body, and for a stream."""
        found: dict[str, Any] = loads(self.body if isinstance(self.body, bytes) else b"{}")
        return found


@dataclass(frozen=True, slots=True)
class Origin:
    """Who sent an answer, for messages.

    :param host: base URL of the host that was asked.
    :param connection: the Airflow connection that leads there.
    """

    host: str = "the host"
    connection: str = "the Airflow connection"

    @property
    def is_not_promptlayers(self) -> str:
        """The clause for an answer in no form that PromptLayer uses."""
        return f"the answer of {self.host} ({self.connection}) is not PromptLayer's"


UNNAMED: Final = Origin()
"""For an answer of which no message speaks."""


@dataclass(frozen=True, slots=True)
class Response:
    """One whole answer of any status.

    :param headers: names in lower case.
    :param body: the bytes after content decoding, without secrets.
    :param redactions: how many secrets were replaced in the body.
    :param request_id: by which PromptLayer finds the request in its own logs; None if the answer
        has no such header, and for 2xx.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    redactions: int = 0
    request_id: str | None = None
    origin: Origin = field(default=UNNAMED, repr=False)

    @property
    def shown_status(self) -> str:
        """The status for messages: ``"HTTP 500, request id 4f2a"``."""
        return f"HTTP {self.status}" + (
            f", request id {self.request_id}" if self.request_id else ""
        )

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def is_large(self) -> bool:
        """Whether the body is larger than :data:`LARGE`."""
        return len(self.body) > LARGE

    @property
    def is_slow_to_parse(self) -> bool:
        """Whether an event loop should not wait for the body to be parsed.

        That is so where it is large, or may be nested too deep for Python's own parser.
        """
        return self.is_large or self.body.count(b"[") + self.body.count(b"{") > _LEVELS_READ_FAST


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request together with what its answer means.

    :param request: what to send.
    :param read: takes the answer and the time in seconds since the epoch; returns the result, or
        raises a :class:`PromptLayerError`.
    :param unanswered: takes the error of a transport that got no whole answer; returns the error
        to raise for it.
    :param starts: whether it starts a job, which costs money: not sent for a task that is being
        stopped.
    """

    request: Request
    read: Callable[[Response, float], T]
    unanswered: Callable[[Unanswered], PromptLayerError] = lambda error: error
    starts: bool = False

    def then(self, make: Callable[[T], U]) -> Call[U]:
        """Return the same call with ``make`` applied to its result."""
        return Call(
            self.request,
            lambda response, now: make(self.read(response, now)),
            self.unanswered,
            self.starts,
        )


def decode_json(
    request: Request, response: Response, note: Callable[[str], None] | None = None
) -> Any:
    """Return the body as JSON, see :func:`.loads`.

    :param note: see :func:`.loads`.
    :raises PromptLayerUnexpectedAnswerError: if the body is no JSON.
    """
    try:
        return loads(response.body, note=note)
    except ValueError:
        raise unexpected(request, response, "is not JSON") from None


def json_or_none(response: Response) -> Any:
    """Return the body as JSON, or None where it is no JSON."""
    try:
        return loads(response.body)
    except ValueError:
        return None


def unexpected(
    request: Request, response: Response, problem: str
) -> PromptLayerUnexpectedAnswerError:
    """Return the error for an answer that is not as documented.

    Only JSON is quoted: anything else may be the page of another server.
    """
    quoted = excerpt(response.body)
    if quoted.startswith(_JSON_BEGINS):
        shows = f"it begins: {quoted}"
    else:
        shows = response.origin.is_not_promptlayers if quoted else "it is empty"
    return PromptLayerUnexpectedAnswerError(
        f"Could not {request.purpose}: the answer (HTTP {response.status}) of "
        f"{response.origin.host} {problem}; {shows}",
        status=response.status,
    )


def error_for(
    request: Request, response: Response, *, now: float, hints: Mapping[int, str] | None = None
) -> PromptLayerError:
    """Return the error for an answer other than 2xx.

    :param now: the time in seconds since the epoch, to read a ``Retry-After`` that is a date.
    :param hints: status → what to do about it, where a refusal (4xx) of this request means
        something else than it does in general, such as a 403 that is not about the key.
    """
    error = _error_for(request, response, now, hints or {})
    error.request_id = response.request_id
    return error


def _error_for(
    request: Request, response: Response, now: float, hints: Mapping[int, str]
) -> PromptLayerError:
    status, origin, http = response.status, response.origin, response.shown_status
    reason = error_text(response)
    says = f"; {origin.is_not_promptlayers}" if reason is None else _said(reason)
    wait = retry_after(response.headers, now=now)
    kind = PromptLayerRefusedError
    if status == 429:
        return PromptLayerRateLimitError(
            f"Could not {request.purpose}: too many requests ({http}){says}{_asked(wait)}",
            status=status,
            retry_after=wait,
        )
    if status == 408 or status >= 500:
        who = "PromptLayer" if reason is not None else "PromptLayer or a gateway before it"
        return PromptLayerServerError(
            f"Could not {request.purpose}: {who} has trouble ({http}){says}{_asked(wait)}",
            status=status,
            retry_after=wait,
        )
    what, advice = f"PromptLayer refused the request ({http}){says}", ""
    if 300 <= status < 400:
        what = f"{origin.host} answered with a redirect ({http}), which is not followed"
        advice = (
            " so that the key is not sent elsewhere. Put the final address into the host of "
            f"{origin.connection}."
        )
    elif reason is None:
        # Not a PromptLayerNotFoundError, for which a batch or a cleared task starts another run:
        # PromptLayer has not said that there is no such thing.
        kind = PromptLayerAuthError if status in (401, 403) else kind
        what = f"the request was refused ({http}){says}"
        advice = f". Check the host and the API key of {origin.connection}."
    elif hint := hints.get(status):
        kind = PromptLayerNotFoundError if status == 404 else kind
        advice = f". {hint}"
    elif status in (401, 403):
        kind = PromptLayerAuthError
        what = f"PromptLayer refused the API key ({http}){says}"
        advice = f". Put a valid key into the password of {origin.connection}."
    elif status == 404:
        kind = PromptLayerNotFoundError
        what = f"PromptLayer has no such thing ({http}){says}"
        advice = ". Check the name or id, and that the key belongs to the same workspace."
    refused = kind(f"Could not {request.purpose}: {what}{advice}", status=status)
    refused.is_foreign = reason is None and status >= 400
    return refused


def is_promptlayers(response: Response) -> bool:
    """Return whether an error answer is certainly PromptLayer's own, and not a gateway's.

    That is ``{"success": false, "message" or "error"}``, ``{"error"}`` or FastAPI's ``{"detail"}``.
    A bare ``{"message"}``, which old endpoints of PromptLayer send, is what the gateways of AWS and
    Kong say too.
    """
    payload = json_or_none(response)
    if not isinstance(payload, dict):
        return False
    message, error, detail = (payload.get(key) for key in ("message", "error", "detail"))
    return (
        (payload.get("success") is False and isinstance(message, str))
        or isinstance(error, str)
        or isinstance(detail, str | list)
    )


def error_text(response: Response) -> str | None:
    """Return what PromptLayer says in an error answer, as one line; None for another's answer.

    Knows ``{"message"}``, ``{"error"}`` and FastAPI's ``{"detail": [...]}``, where each entry
    is given with its field.
    """
    payload = json_or_none(response)
    if isinstance(payload, dict):
        for key in ("message", "error", "detail"):
            said = payload.get(key)
            if isinstance(said, str) and said.strip():
                return one_line(said)
            if key == "detail" and isinstance(said, list) and said:
                return _field_errors(said)
        if not payload.keys().isdisjoint(("success", "message", "error", "detail")):
            return excerpt(response.body)
    return None


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds that ``Retry-After`` asks for, or None where it says nothing usable.

    Both forms of RFC 9110 are read, seconds and an HTTP date; a date in the past means 0.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        until = seconds_until(value, now=now)
        return None if until is None else max(0.0, until)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _field_errors(details: list[Any]) -> str:
    return one_line(listed(map(_field_error, details), len(details), _FIELD_ERRORS_NAMED))


def _field_error(entry: Any) -> str:
    if not isinstance(entry, dict):
        return shown(entry)[:MESSAGE_LIMIT]
    location = entry.get("loc")
    path = ".".join(shown(part) for part in location) if isinstance(location, list) else ""
    message = shown(entry.get("msg", ""))[:MESSAGE_LIMIT]
    return f"{path}: {message}" if path else message


def _said(reason: str) -> str:
    return f": {reason.rstrip('.')}" if reason else ""


def _asked(seconds: float | None) -> str:
    return f"; it asks to wait for {in_words(seconds)}" if seconds else ""
