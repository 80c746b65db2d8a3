# SPDX-License-Identifier: Apache-2.0
"""What both transports send, read and say of a request, without the secrets that go with it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Final

from airflow_provider_promptlayer import __version__
from airflow_provider_promptlayer.api.errors import (
    PromptLayerAnswerTooLargeError,
    PromptLayerUnreachableError,
)
from airflow_provider_promptlayer.api.http import MAX_BODY_BYTES, Request
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.times import in_words
from airflow_provider_promptlayer.transport.settings import SHORTEST_SECRET, Settings
from airflow_provider_promptlayer.transport.tls import Proxy

API_KEY_HEADER: Final = "X-API-KEY"
USER_AGENT: Final = f"airflow-provider-promptlayer/{__version__}"

CHUNK: Final = 64 * 1024
"""Bytes of a body that are read or decompressed at once."""

SLOWEST_UPLOAD: Final = 250_000
"""Bytes a second: how slow an upload may be, as an office's connection is.

Small requests are hardly affected: 10 kB get 40 ms more than the connection's ``timeout``.
"""

_REQUEST_IDS: Final = ("x-request-id", "x-amzn-requestid", "cf-ray")
_REQUEST_ID: Final = re.compile(r"[\w.:=/+-]{1,128}\Z", re.ASCII)

_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB: Final = zlib.MAX_WBITS
_RAW_DEFLATE: Final = -zlib.MAX_WBITS
_GZIP_BEGINS: Final = 0x1F


def headers_for(request: Request, settings: Settings) -> dict[str, str]:
    """Return the headers of ``request``, the key among them."""
    headers = {
        API_KEY_HEADER: settings.api_key,
        "Accept": "application/json",
        "User-Agent": USER_AGENT,
    }
    if request.is_fresh:
        headers["Cache-Control"] = "no-cache"
    if request.body is not None:
        headers["Content-Type"] = "application/json"
        headers["Content-Length"] = str(request.body_length)  # a stream would else go in chunks
    return headers


def seconds_for(request: Request, settings: Settings) -> float:
    """Return how long the exchange of ``request`` may take; a large body gets more time."""
    return settings.timeout + request.body_length / SLOWEST_UPLOAD


def unreachable(
    request: Request, settings: Settings, reason: str | None, *, arrived: bool
) -> PromptLayerUnreachableError:
    """Return the error for a request without a whole answer.

    :param reason: without secrets; None for a time-out.
    :param arrived: whether the request may have reached PromptLayer.
    """
    if reason is None:
        reason = f"no whole answer within {in_words(seconds_for(request, settings))}"
    elif "WRONG_VERSION_NUMBER" in reason:  # as OpenSSL calls an answer without TLS
        reason += (
            ": the host does not answer with TLS there; https is used unless the connection's host "
            "begins with http://"
        )
    return PromptLayerUnreachableError(
        f"Could not {request.purpose}: {reason} ({settings.base_url}).", arrived=arrived
    )


class Redactor:
    """Replaces the API key and the proxy's credentials, which servers may quote back.

    Looks for them as they are sent, which is in base64 for a proxy, and for the proxy's password
    also as it is; each also with slashes as some servers write them in JSON.

    :param proxy: what :func:`.proxy_for` returns. That goes through the whole environment, which
        takes as long as a poll: so a redactor is made once, not for each answer.
    """

    def __init__(self, settings: Settings, proxy: Proxy | None) -> None:
        plain = [settings.api_key, proxy.secret if proxy else ""]
        found = [text for text in plain if len(text) >= SHORTEST_SECRET]
        if proxy and proxy.credentials:
            found.append(proxy.credentials)
        found += [secret.replace("/", "\\/") for secret in found]
        self._texts = tuple(dict.fromkeys(found))
        self.as_bytes = tuple(text.encode() for text in self._texts)
        self.longest = max(map(len, self.as_bytes), default=1)

    def redact(self, text: str) -> str:
        """Return a text without the secrets."""
        for secret in self._texts:
            text = text.replace(secret, "***")
        return text


def request_id_of(status: int, headers: Mapping[str, str], redactor: Redactor) -> str | None:
    """Return the id of a request in the headers of its answer; None for 2xx, which needs none.

    PromptLayer documents no such header; these are those of most services and gateways.
    """
    if 200 <= status < 300:
        return None
    for name in _REQUEST_IDS:
        found = redactor.redact(headers.get(name, "")).strip()
        if _REQUEST_ID.match(found):
            return found
    return None


class UnreadableBodyError(OSError):
    """The body is compressed in a way that was not asked for, or cannot be decompressed."""


class Body:
    """Collects the chunks of one body, decompressed and without secrets.

    Secrets are looked for chunk by chunk, as a large body would hold an event loop up for too long,
    and across the edges of chunks too.

    :param encoding: the answer's ``Content-Encoding``. A server may send gzip or deflate although
        identity was asked for.
    :raises UnreadableBodyError: if the encoding is another one.
    """

    def __init__(self, request: Request, redactor: Redactor, encoding: str = "") -> None:
        self._request = request
        self._secrets = redactor.as_bytes
        self._longest = redactor.longest
        self._size = 0
        self._redacted = BytesIO()  # which returns its bytes without a copy
        self._tail = b""  # may be the beginning of a secret
        self._encoding = encoding.strip().lower()
        self._decompressor: zlib._Decompress | None = None
        self.redactions = 0
        """How many secrets were redacted."""
        if self._encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            named = one_line(redactor.redact(encoding), 40)
            raise UnreadableBodyError(
                f"the answer is encoded as {named!r}, which was not asked for"
            )

    @property
    def is_compressed(self) -> bool:
        """Whether :meth:`add` may take long: a small chunk may become a large one."""
        return self._encoding not in ("", "identity")

    def add(self, chunk: bytes) -> None:
        """Take the next chunk.

        :raises PromptLayerAnswerTooLargeError: if the whole is larger than
            :data:`.MAX_BODY_BYTES`.
        :raises UnreadableBodyError: if it cannot be decompressed.
        """
        if not self.is_compressed:
            self._add(chunk)
            return
        for piece in self._decompressed(chunk):
            self._add(piece)

    def whole(self) -> bytes:
        """Return the body; nothing can be added after that.

        :raises UnreadableBodyError: if the compressed data are incomplete.
        """
        if self._decompressor is not None and not self._decompressor.eof:
            raise UnreadableBodyError(f"the {self._encoding} data of the answer end too early")
        self._redacted.write(self._tail)
        return self._redacted.getvalue()

    def _add(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > MAX_BODY_BYTES:
            raise PromptLayerAnswerTooLargeError(
                f"Could not {self._request.purpose}: the answer is larger than "
                f"{MAX_BODY_BYTES // 2**20} MiB, which is the most that is read."
            )
        known = self._tail + chunk
        for secret in self._secrets:
            if secret in known:
                self.redactions += known.count(secret)
                known = known.replace(secret, b"***")
        safe = max(0, len(known) - self._longest + 1)
        self._redacted.write(known[:safe])
        self._tail = known[safe:]

    def _decompressed(self, data: bytes) -> Iterator[bytes]:
        """Decompress in steps: without a limit, 64 KiB could become 64 MiB in one."""
        while data:
            if self._decompressor is not None and self._decompressor.eof:
                if data[0] != _GZIP_BEGINS:
                    return  # padding, which some servers add and other clients overlook too
                self._decompressor = None  # gzip may come in several members
            if self._decompressor is None:
                self._decompressor = zlib.decompressobj(self._format(data))
            try:
                piece = self._decompressor.decompress(data, CHUNK)
                while piece:
                    yield piece
                    # zlib holds more back than unconsumed_tail says: go on until nothing comes.
                    piece = self._decompressor.decompress(self._decompressor.unconsumed_tail, CHUNK)
            except zlib.error as error:
                raise UnreadableBodyError(
                    f"the {self._encoding} data of the answer cannot be decompressed ({error})"
                ) from None
            data = self._decompressor.unused_data

    def _format(self, data: bytes) -> int:
        if self._encoding != "deflate":
            return _GZIP
        # Some servers leave out the header by which zlib's format differs from bare deflate.
        return _ZLIB if data[0] & 0x0F == zlib.DEFLATED else _RAW_DEFLATE
