# SPDX-License-Identifier: Apache-2.0
"""The faults that a request can meet, as values.

``LocalPromptLayer.script`` says which requests meet a fault; ``delivery`` makes it happen.

The *true answer* is what the server would have answered without the fault. A POST or DELETE that
is not acted on (see ``LocalPromptLayer.script``) has none; ``503 {"success": false, …}`` takes its
place.

Sizes are in bytes, times in seconds of real time. A fault that waits has a maximum, and ends at
once when the client leaves or the server stops.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Final, Self, TypeAlias

from ..json_text import JsonValue

LONGEST: Final = 60.0
"""How long a fault holds a request by default."""


@dataclass(frozen=True)
class Reply:
    """Another answer than the true one, sent completely; the connection stays open.

    :param status: any from 200 to 999.
    :param body: sent as it is; text as UTF-8, lone surrogates included. Empty for 204 and 304.
    :param headers: ``Content-Type: application/json`` is added if there is no type.
    :raises ValueError: the status cannot be sent.
    """

    status: int = 200
    body: bytes | str = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 999:
            raise ValueError(f"status is {self.status}, must be from 200 to 999")

    @classmethod
    def of_json(
        cls, value: JsonValue, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Self:
        """Answer with a JSON value. For JSON that Python cannot make (duplicate keys) pass text."""
        return cls(status, json.dumps(value), headers or {})

    @property
    def content(self) -> bytes:
        """The body as bytes."""
        if isinstance(self.body, bytes):
            return self.body
        return self.body.encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Slow:
    """A late answer: ``reply``, or the true one."""

    seconds: float
    reply: Reply | None = None


@dataclass(frozen=True)
class Silence:
    """No answer at all; after ``seconds`` the connection is closed."""

    seconds: float = LONGEST


@dataclass(frozen=True)
class Close:
    """The connection is closed (FIN) before the whole answer is sent.

    :param after_bytes: how much of the body is sent, after headers with the full
        ``Content-Length``; at least the last byte is missing. ``None`` sends nothing at all.
    :param reply: the answer that is cut short; ``None`` for the true answer.
    """

    after_bytes: int | None = None
    reply: Reply | None = None


@dataclass(frozen=True)
class Reset:
    """The connection is reset (RST) before the whole answer is sent; see ``Close``."""

    after_bytes: int | None = None
    reply: Reply | None = None


@dataclass(frozen=True)
class Drip:
    """An answer that is sent piece by piece.

    :param every: seconds before each piece.
    :param chunk: bytes in a piece.
    :param headers_too: send the status line and the headers in pieces too.
    :param seconds: after so long the connection is closed, even if the answer is incomplete.
    :param reply: the answer; ``None`` for the true one.
    """

    every: float
    chunk: int = 1
    _: KW_ONLY
    headers_too: bool = False
    seconds: float = LONGEST
    reply: Reply | None = None

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise ValueError(f"chunk is {self.chunk}, must be >= 1")


@dataclass(frozen=True)
class Huge:
    """A large body, generated while it is sent: the JSON text ``"xxx…"``.

    :param size: of the body after decoding.
    :param status: of the answer.
    :param announced: ``False`` sends it chunked, so that no ``Content-Length`` warns of the size.
    :param compressed: send gzip of a thousandth of the size (a decompression bomb), always chunked.
    """

    size: int
    status: int = 200
    _: KW_ONLY
    announced: bool = True
    compressed: bool = False


@dataclass(frozen=True)
class Raw:
    """These bytes in place of an HTTP answer, after which the connection is closed.

    For what is not valid HTTP: garbage, headers that are cut off or too long, two lengths.
    """

    data: bytes


@dataclass(frozen=True)
class GoAway:
    """On this request the whole server goes away: see ``LocalPromptLayer.go_away``."""


Fault: TypeAlias = Reply | Slow | Silence | Close | Reset | Drip | Huge | Raw | GoAway

FAULTS: Final = (Reply, Slow, Silence, Close, Reset, Drip, Huge, Raw, GoAway)


def needs_true_answer(fault: Fault) -> bool:
    """Return whether the fault only delays the true answer."""
    return isinstance(fault, Slow | Drip) and fault.reply is None


def status_of(fault: Fault, answer: int) -> int:
    """Return the status that the client reads, 0 for none; ``answer`` is the true one."""
    match fault:
        case Reply() | Huge():
            return fault.status
        case Slow() | Drip():
            return fault.reply.status if fault.reply else answer
        case Close() | Reset() if fault.after_bytes is not None:
            return fault.reply.status if fault.reply else answer
    return 0
