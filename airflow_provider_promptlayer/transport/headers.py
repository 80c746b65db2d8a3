# SPDX-License-Identifier: Apache-2.0
"""What both transports do with headers and bodies."""

from __future__ import annotations

from airflow_provider_promptlayer import __version__
from airflow_provider_promptlayer.api.http import MAX_BODY_BYTES, Request
from airflow_provider_promptlayer.api.settings import Settings
from airflow_provider_promptlayer.exceptions import PromptLayerAnswerTooLargeError

API_KEY_HEADER = "X-API-KEY"
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


def without_key(body: bytes, settings: Settings) -> bytes:
    """Return an answer's body with the API key blotted out, should a gateway quote it back."""
    key = settings.api_key.encode()
    return body.replace(key, b"***") if key in body else body


def too_large(request: Request) -> PromptLayerAnswerTooLargeError:
    """Return the error for an answer of more than :data:`MAX_BODY_BYTES`."""
    return PromptLayerAnswerTooLargeError(
        f"Could not {request.purpose}: the answer is larger than "
        f"{MAX_BODY_BYTES // 2**20} MiB, which is the most that is read."
    )
