# SPDX-License-Identifier: Apache-2.0
"""What both transports do with headers and bodies."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import unquote, urlsplit

from airflow_provider_promptlayer import __version__
from airflow_provider_promptlayer.api.http import MAX_BODY_BYTES, Request
from airflow_provider_promptlayer.api.settings import Settings
from airflow_provider_promptlayer.exceptions import PromptLayerAnswerTooLargeError
from airflow_provider_promptlayer.transport.tls import proxy_for

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


def without_secrets(text: str, settings: Settings) -> str:
    """Return a text with the API key and the proxy's credentials blotted out."""
    for secret in _secrets(settings):
        text = text.replace(secret, "***")
    return text


def body_without_secrets(body: bytes, settings: Settings) -> bytes:
    """Do the same for an answer's body, should a gateway or a proxy quote the request back."""
    for secret in _secrets(settings):
        if (found := secret.encode()) in body:
            body = body.replace(found, b"***")
    return body


def _secrets(settings: Settings) -> tuple[str, ...]:
    """Return the secrets as they are sent: what a proxy gets is its credentials in base64.

    Not the proxy's password as it is, which is never sent so and may be a word of an output.
    Slashes also as some servers write them in JSON.
    """
    # A made-up key of a few letters, as local servers take, is part of innocent words.
    found = [settings.api_key] if len(settings.api_key) >= _SHORTEST_SECRET else []
    proxy = urlsplit(proxy_for(settings) or "")
    if proxy.password is not None:
        pair = f"{unquote(proxy.username or '')}:{unquote(proxy.password)}"
        # requests and aiohttp encode it as Latin-1; UTF-8 is for what that does not have.
        found += [
            b64encode(pair.encode(encoding, errors="replace")).decode()
            for encoding in ("latin-1", "utf-8")
        ]
    return tuple(dict.fromkeys([*found, *(secret.replace("/", "\\/") for secret in found)]))


def too_large(request: Request) -> PromptLayerAnswerTooLargeError:
    """Return the error for an answer of more than :data:`MAX_BODY_BYTES`."""
    return PromptLayerAnswerTooLargeError(
        f"Could not {request.purpose}: the answer is larger than "
        f"{MAX_BODY_BYTES // 2**20} MiB, which is the most that is read."
    )
