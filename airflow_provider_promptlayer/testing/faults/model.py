# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with one request: the words in which a test asks for it.

The rule here: a fault is a value that says what the client will meet, and nothing else.
``LocalPromptLayer.script`` says which requests meet it; ``fault_delivery`` makes it happen.

``true answer`` below means what the server would have answered without the fault. It is there
for every request but a POST that is not acted on (see ``LocalPromptLayer.script``); such a one has
the stand-in ``503 {"success": false, …}`` in its place.

Sizes are in bytes, times in seconds of real time. Whatever waits, waits no longer than its own
maximum, and ends at once when the client leaves or the server stops.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Final, Self, TypeAlias

from airflow_provider_promptlayer.testing.workflows.model import JsonValue

LONGEST: Final = 60.0
"""How long a fault holds a request if it is not told otherwise."""


@dataclass(frozen=True)
class Reply:
    """Another answer than the true one, sent in good order. The connection is kept alive.

    Args:
        status: any from 200 to 999.
        body: sent as it is; text as UTF-8, lone surrogates included. Empty for 204 and 304.
        headers: ``Content-Type: application/json`` is added where there is none.

    Raises:
        ValueError: the status cannot be sent.

    """

    status: int = 200
    body: bytes | str = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is not an answer, such as a 100."""
        if not 200 <= self.status <= 999:
            raise ValueError(f"status is {self.status}, must be from 200 to 999")

    @classmethod
    def of_json(
        cls, value: JsonValue, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Self:
        """Answer with a value; for JSON that Python cannot make (keys twice) give the text."""
        return cls(status, json.dumps(value), headers or {})

    @property
    def content(self) -> bytes:
        """The body as bytes."""
        if isinstance(self.body, bytes):
            return self.body
        return self.body.encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Slow:
    """A late answer: the true one, or ``reply``."""

    seconds: float
    reply: Reply | None = None


@dataclass(frozen=True)
class Silence:
    """No answer at all; after ``seconds`` the connection ends without one."""

    seconds: float = LONGEST


@dataclass(frozen=True)
class Close:
    """The connection ends in good order (FIN), in mid answer.

    Args:
        after_bytes: ``None`` before the first byte of the answer. Otherwise the headers arrive,
            whose ``Content-Length`` is right, and so many bytes of the body, always fewer than it
            has.
        reply: what is broken off; ``None`` for the true answer.

    """

    after_bytes: int | None = None
    reply: Reply | None = None


@dataclass(frozen=True)
class Reset:
    """The connection is reset (RST), in mid answer. Arguments are those of ``Close``."""

    after_bytes: int | None = None
    reply: Reply | None = None


@dataclass(frozen=True)
class Drip:
    """An answer that comes in piece by piece.

    Args:
        every: seconds before each piece.
        chunk: bytes in a piece.
        headers_too: drip the status line and the headers as well as the body.
        seconds: the connection ends after so long, with or without the whole answer.
        reply: what drips; ``None`` for the true answer.

    """

    every: float
    chunk: int = 1
    _: KW_ONLY
    headers_too: bool = False
    seconds: float = LONGEST
    reply: Reply | None = None

    def __post_init__(self) -> None:
        """Refuse a drip that would never end."""
        if self.chunk < 1:
            raise ValueError(f"chunk is {self.chunk}, must be >= 1")


@dataclass(frozen=True)
class Huge:
    """A large body, made while it is sent: the JSON text ``"xxx…"``.

    Args:
        size: of the body after decoding.
        status: of the answer.
        announced: ``False`` sends it in chunks, so that no ``Content-Length`` warns of it.
        compressed: as gzip, which makes a thousandth of it (a decompression bomb); never announced.

    """

    size: int
    status: int = 200
    _: KW_ONLY
    announced: bool = True
    compressed: bool = False


@dataclass(frozen=True)
class Raw:
    """These bytes instead of an HTTP answer, then the end of the connection.

    For everything that is no HTTP at all: garbage, headers cut off or too long, two lengths.
    """

    data: bytes


@dataclass(frozen=True)
class GoAway:
    """With this request the whole server goes away: see ``LocalPromptLayer.go_away``."""


Fault: TypeAlias = Reply | Slow | Silence | Close | Reset | Drip | Huge | Raw | GoAway

FAULTS: Final = (Reply, Slow, Silence, Close, Reset, Drip, Huge, Raw, GoAway)


def needs_true_answer(fault: Fault) -> bool:
    """Tell whether a fault only delays the true answer, so that there has to be one."""
    return isinstance(fault, Slow | Drip) and fault.reply is None


def status_of(fault: Fault, answer: int) -> int:
    """Give the status that the client reads, where ``answer`` is the true one; 0 for none."""
    match fault:
        case Reply() | Huge():
            return fault.status
        case Slow() | Drip():
            return fault.reply.status if fault.reply else answer
        case Close() | Reset() if fault.after_bytes is not None:
            return fault.reply.status if fault.reply else answer
    return 0
