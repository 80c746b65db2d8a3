# SPDX-License-Identifier: Apache-2.0
"""The head of an answer: both transports take the same ones.

http.client gives up on a 103 Early Hints and on the 101st header line, and guesses where aiohttp
refuses: at a header without a colon it drops all that follow, the length of the body among them.
A run whose answer one transport can read and the other cannot is known to one of them alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from http import HTTPStatus
from http.client import HTTPMessage, HTTPResponse
from io import BytesIO
from typing import Any, Final

MAX_LINES: Final = 1_000
"""The most header lines that an answer may have."""

MAX_VALUE: Final = 65_536
"""The most bytes that a header's name, or its value, may have."""

MAX_HEAD: Final = 1024 * 1024
"""The most bytes that all header lines together may have."""

_TOO_LARGE: Final = f"a header of more than {MAX_VALUE} bytes"
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_FRAMING: Final = ("connection", "content-length", "keep-alive", "transfer-encoding")
"""The headers that tell where the body ends, and whether the connection stays open."""


class UnreadableHeadError(OSError):
    """The head is not HTTP, or is too large."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the answer is no HTTP that can be read ({problem})")


def check_headers(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Refuse headers that are too large, or that parsers read in different ways.

    :raises UnreadableHeadError: naming the problem.
    """
    names = [_lowered(name) for name, _ in headers]
    values = [value for _, value in headers]
    joined = b"".join(values)
    if len(names) > MAX_LINES or sum(map(len, names)) + len(joined) > MAX_HEAD:
        raise UnreadableHeadError(f"more than {MAX_LINES} header lines or {MAX_HEAD} bytes")
    if len(joined) > MAX_VALUE and max(map(len, values)) > MAX_VALUE:
        raise UnreadableHeadError(_TOO_LARGE)
    if b"\0" in joined or b"\r" in joined:
        raise UnreadableHeadError("a NUL or a line break in a header")
    lengths = names.count(b"content-length")
    if lengths and not values[names.index(b"content-length")].isdigit():
        raise UnreadableHeadError("a Content-Length that is no number")
    if lengths + (b"transfer-encoding" in names) > 1:
        raise UnreadableHeadError("its length is given twice")


@lru_cache(64)
def _lowered(name: bytes) -> bytes:
    """Return a header's name in lower case.

    :raises UnreadableHeadError: if no header can be called so.
    """
    if len(name) > MAX_VALUE:
        raise UnreadableHeadError(_TOO_LARGE)
    if not _NAME.match(name):
        raise UnreadableHeadError("a header line without a name")
    return name.lower()


class StrictHTTPResponse(HTTPResponse):
    """An answer whose head is read by the rules of this module, for http.client."""

    fp: Any
    headers: HTTPMessage | None  # type: ignore[assignment]  # None until begin() has read them
    _read_status: Callable[[], tuple[str, int, str]]

    def begin(self) -> None:
        """Read the head of the answer, and skip those of interim answers before it."""
        if self.headers is not None:
            return
        while True:
            while self.fp.peek(1)[:1] in (b"\r", b"\n"):
                self.fp.read(1)
            version, status, reason = self._read_status()
            headers = self._read_headers()
            is_interim = 100 <= status < 200 and status != HTTPStatus.SWITCHING_PROTOCOLS
            if not is_interim:
                break
        if version not in ("HTTP/1.0", "HTTP/1.1"):
            raise UnreadableHeadError(f"the version {version!r}")
        check_headers(headers)
        message = HTTPMessage()
        for name, value in headers:
            message[name.decode()] = value.decode("latin-1")
        framing = "".join(f"{name}: {message[name]}\r\n" for name in _FRAMING if name in message)
        head = f"{version} {status} {reason.strip()}\r\n{framing}\r\n"
        # From these lines the base class works out where the body ends.
        answer, self.fp = self.fp, BytesIO(head.encode("latin-1"))
        try:
            super().begin()
        finally:
            self.fp = answer
        self.headers = self.msg = message

    def _read_headers(self) -> list[tuple[bytes, bytes]]:
        headers: list[tuple[bytes, bytes]] = []
        size = 0
        while True:
            line = self.fp.readline(2 * MAX_VALUE)
            size += len(line)
            if size > MAX_HEAD or len(headers) > MAX_LINES:
                raise UnreadableHeadError(f"more than {MAX_LINES} header lines or {MAX_HEAD} bytes")
            if not line.endswith(b"\n"):
                raise UnreadableHeadError("the header lines end too early")
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            if not line:
                return headers
            if line[:1] in (b" ", b"\t") and headers:  # continues the line before
                name, value = headers.pop()
                headers.append((name, value + b" " + line.strip(b" \t")))
                continue
            name, colon, value = line.lstrip(b" \t").partition(b":")
            headers.append((name if colon else b"", value.strip(b" \t")))
