# SPDX-License-Identifier: Apache-2.0
"""What both transports send with a request, and what must not be quoted of it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Final

from airflow_provider_promptlayer import __version__
from airflow_provider_promptlayer.api.errors import PromptLayerAnswerTooLargeError
from airflow_provider_promptlayer.api.http import MAX_BODY_BYTES, Request
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.transport.settings import Settings
from airflow_provider_promptlayer.transport.tls import Proxy

CHUNK: Final = 64 * 1024
"""Bytes of a body to be taken at once."""

_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB: Final = zlib.MAX_WBITS
_RAW_DEFLATE: Final = -zlib.MAX_WBITS
_GZIP_BEGINS: Final = 0x1F


class UnreadableBodyError(Exception):
    """The body is compressed in a way that was not asked for, or cannot be decompressed."""


class Body:
    """Collects the chunks of one body, decompresses them and blots the secrets out.

    A gateway or a proxy may quote the request back. Secrets are looked for chunk by chunk, as a
    large body would stop an event loop for too long, and also across the chunks' edges.

    :param encoding: the answer's ``Content-Encoding``. A server may send gzip or deflate although
        identity was asked for.
    :raises UnreadableBodyError: if the encoding is another one.
    """

    def __init__(self, request: Request, secrets: Secrets, encoding: str = "") -> None:
        self._request = request
        self._secrets = secrets.as_bytes
        self._longest = max(map(len, self._secrets), default=1)
        self._size = 0
        self._end = b""  # may be the beginning of a secret
        self._begin = BytesIO()  # which gives its bytes away without a copy
        self._encoding = encoding.strip().lower()
        self._unpacker: zlib._Decompress | None = None
        self.redactions = 0
        """How many secrets were redacted."""
        if self._encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            named = one_line(secrets.redact(encoding), 40)
            raise UnreadableBodyError(
                f"the answer is encoded as {named!r}, which was not asked for"
            )

    @property
    def is_packed(self) -> bool:
        """Whether a small chunk may become a large one, which takes :meth:`add` time."""
        return self._encoding not in ("", "identity")

    def add(self, chunk: bytes) -> None:
        """Take the next chunk.

        :raises PromptLayerAnswerTooLargeError: if the whole is larger than
            :data:`.MAX_BODY_BYTES`.
        :raises UnreadableBodyError: if it cannot be decompressed.
        """
        if self.is_packed:
            for piece in self._unpacked(chunk):
                self._add(piece)
        else:
            self._add(chunk)

    def whole(self) -> bytes:
        """Return the body; nothing can be added then.

        :raises UnreadableBodyError: if a compressed body was cut.
        """
        if self._unpacker is not None and not self._unpacker.eof:
            raise UnreadableBodyError(f"the {self._encoding} data of the answer end too early")
        self._begin.write(self._end)
        return self._begin.getvalue()

    def _add(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > MAX_BODY_BYTES:
            raise PromptLayerAnswerTooLargeError(
                f"Could not {self._request.purpose}: the answer is larger than "
                f"{MAX_BODY_BYTES // 2**20} MiB, which is the most that is read."
            )
        known = self._end + chunk
        for secret in self._secrets:
            if secret in known:
                self.redactions += known.count(secret)
                known = known.replace(secret, b"***")
        safe = max(0, len(known) - self._longest + 1)
        self._begin.write(known[:safe])
        self._end = known[safe:]

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        """Decompress in steps: without a limit, 64 KiB could become 64 MiB in one."""
        while data:
            if self._unpacker is not None and self._unpacker.eof and data[0] != _GZIP_BEGINS:
                return  # some servers pad the data, which other clients overlook too
            if self._unpacker is None or self._unpacker.eof:  # gzip may come in several members
                self._unpacker = zlib.decompressobj(self._format(data))
            try:
                piece = self._unpacker.decompress(data, CHUNK)
                while piece:
                    yield piece
                    # What zlib still holds back comes without further input.
                    piece = self._unpacker.decompress(self._unpacker.unconsumed_tail, CHUNK)
            except zlib.error as error:
                raise UnreadableBodyError(
                    f"the {self._encoding} data of the answer cannot be decompressed ({error})"
                ) from None
            data = self._unpacker.unused_data

    def _format(self, data: bytes) -> int:
        if self._encoding != "deflate":
            return _GZIP
        # Some servers leave out the header that tells zlib's format from bare deflate.
        return _ZLIB if data[0] & 0x0F == zlib.DEFLATED else _RAW_DEFLATE


API_KEY_HEADER = "X-API-KEY"
_SHORTEST_SECRET = 12

USER_AGENT = f"airflow-provider-promptlayer/{__version__}"


def headers_for(request: Request, settings: Settings) -> dict[str, str]:
    """Return the headers of ``request``, the key among them."""
    headers = {
        API_KEY_HEADER: settings.api_key,
        "Accept": "application/json",
        "User-Agent": USER_AGENT,
    }
    if request.body is not None:
        headers["Content-Type"] = "application/json"
    return headers


class Secrets:
    """The API key and the proxy's credentials, which nothing that is kept or shown may quote.

    Looked for as they are sent, which is in base64 for a proxy, and the proxy's password also as it
    is. Slashes also as some servers write them in JSON.

    :param proxy: what :func:`.proxy_for` says. Asking it goes through the whole environment,
        which takes as long as a poll of a run: made once, not for each answer.
    """

    def __init__(self, settings: Settings, proxy: Proxy | None) -> None:
        # A made-up key of a few letters, as local servers take, is part of innocent words.
        plain = [settings.api_key, proxy.secret if proxy else ""]
        found = [text for text in plain if len(text) >= _SHORTEST_SECRET]
        if proxy and proxy.credentials:
            found.append(proxy.credentials)
        found += [secret.replace("/", "\\/") for secret in found]
        self._texts = tuple(dict.fromkeys(found))
        self.as_bytes = tuple(text.encode() for text in self._texts)

    def redact(self, text: str) -> str:
        """Return a text with the secrets redacted."""
        for secret in self._texts:
            text = text.replace(secret, "***")
        return text
