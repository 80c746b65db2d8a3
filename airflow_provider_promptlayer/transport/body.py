# SPDX-License-Identifier: Apache-2.0
"""The body of an answer, as it comes in."""

from __future__ import annotations

from io import BytesIO
from typing import Final

from airflow_provider_promptlayer.api.http import MAX_BODY_BYTES, Request
from airflow_provider_promptlayer.exceptions import PromptLayerAnswerTooLargeError
from airflow_provider_promptlayer.transport.headers import Secrets

CHUNK: Final = 64 * 1024
"""Bytes of a body to be taken at once."""


class Body:
    """Collects the chunks of one body, and blots the secrets out.

    A gateway or a proxy may quote the request back. Secrets are looked for chunk by chunk, as a
    large body would stop an event loop for too long, and also across the chunks' edges.
    """

    def __init__(self, request: Request, secrets: Secrets) -> None:
        self._request = request
        self._secrets = secrets.as_bytes
        self._longest = max(map(len, self._secrets), default=1)
        self._size = 0
        self._end = b""  # may be the beginning of a secret
        self._begin = BytesIO()  # which gives its bytes away without a copy

    def add(self, chunk: bytes) -> None:
        """Take the next chunk.

        :raises PromptLayerAnswerTooLargeError: if the whole is larger than
            :data:`.http.MAX_BODY_BYTES`.
        """
        self._size += len(chunk)
        if self._size > MAX_BODY_BYTES:
            raise PromptLayerAnswerTooLargeError(
                f"Could not {self._request.purpose}: the answer is larger than "
                f"{MAX_BODY_BYTES // 2**20} MiB, which is the most that is read."
            )
        known = self._end + chunk
        for secret in self._secrets:
            known = known.replace(secret, b"***")
        safe = max(0, len(known) - self._longest + 1)
        self._begin.write(known[:safe])
        self._end = known[safe:]

    def whole(self) -> bytes:
        """Return the body; nothing can be added then."""
        self._begin.write(self._end)
        return self._begin.getvalue()
