# SPDX-License-Identifier: Apache-2.0
"""The body of an answer, as it comes in."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Final

from airflow_provider_promptlayer.api.http import MAX_BODY_BYTES, Request
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.exceptions import PromptLayerAnswerTooLargeError
from airflow_provider_promptlayer.transport.headers import Secrets

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
        """How many secrets were blotted out."""
        if self._encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            named = one_line(secrets.blotted(encoding), 40)
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
            :data:`.http.MAX_BODY_BYTES`.
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
