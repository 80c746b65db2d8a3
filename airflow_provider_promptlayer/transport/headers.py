# SPDX-License-Identifier: Apache-2.0
"""What both transports send with a request, and what nobody may quote of it."""

from __future__ import annotations

from airflow_provider_promptlayer import __version__
from airflow_provider_promptlayer.api.http import Request
from airflow_provider_promptlayer.api.settings import Settings
from airflow_provider_promptlayer.transport.tls import Proxy

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
        which takes as long as a look at a run: made once, not for each answer.
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

    def blotted(self, text: str) -> str:
        """Return a text with the secrets blotted out."""
        for secret in self._texts:
            text = text.replace(secret, "***")
        return text
