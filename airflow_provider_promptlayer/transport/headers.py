# SPDX-License-Identifier: Apache-2.0
"""What both transports send with a request, and what nobody may quote of it."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import unquote, urlsplit

from airflow_provider_promptlayer import __version__
from airflow_provider_promptlayer.api.http import Request
from airflow_provider_promptlayer.api.settings import Settings

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

    Looked for as they are sent: what a proxy gets is its credentials in base64. Not the proxy's
    password as it is, which is never sent so and may be a word of an output. Slashes also as some
    servers write them in JSON.

    :param proxy: what :func:`.proxy_for` says. Asking it goes through the whole environment,
        which takes as long as a look at a run: made once, not for each answer.
    """

    def __init__(self, settings: Settings, proxy: str | None) -> None:
        # A made-up key of a few letters, as local servers take, is part of innocent words.
        found = [settings.api_key] if len(settings.api_key) >= _SHORTEST_SECRET else []
        parts = urlsplit(proxy or "")
        if parts.password is not None:
            pair = f"{unquote(parts.username or '')}:{unquote(parts.password)}"
            # requests and aiohttp encode it as Latin-1; UTF-8 is for what that does not have.
            found += [
                b64encode(pair.encode(encoding, errors="replace")).decode()
                for encoding in ("latin-1", "utf-8")
            ]
        found += [secret.replace("/", "\\/") for secret in found]
        self._texts = tuple(dict.fromkeys(found))
        self.as_bytes = tuple(text.encode() for text in self._texts)

    def blotted(self, text: str) -> str:
        """Return a text with the secrets blotted out."""
        for secret in self._texts:
            text = text.replace(secret, "***")
        return text
