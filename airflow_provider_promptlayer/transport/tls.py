# SPDX-License-Identifier: Apache-2.0
"""Certificates and proxies, decided once for both transports.

requests and aiohttp read different environment variables and trust different stores. Left to
themselves, a company's CA would work in the worker and fail in the triggerer, or the reverse.
"""

from __future__ import annotations

import os
import ssl
from base64 import b64encode
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote, urlsplit

import requests

from airflow_provider_promptlayer.api.errors import PromptLayerConfigurationError
from airflow_provider_promptlayer.transport.settings import Settings, is_proxy
from airflow_provider_promptlayer.transport.urls import normal_url


def ca_bundle(settings: Settings) -> str | None:
    """Return the file or folder of trusted certificates, or None if none are checked.

    That is the connection's ``verify``, else what ``REQUESTS_CA_BUNDLE`` or ``CURL_CA_BUNDLE``
    name, else the bundle that requests ships.

    :raises PromptLayerConfigurationError: if there is no such file or folder.
    """
    if settings.verify is False:
        return None
    if settings.verify is True:
        named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        path = named or requests.utils.DEFAULT_CA_BUNDLE_PATH
    else:
        path = settings.verify
    if not os.path.exists(path):  # noqa: PTH110 - the libraries below take strings
        raise PromptLayerConfigurationError(f"There is no CA file {path!r} on this machine.")
    return path


def ssl_context(settings: Settings) -> ssl.SSLContext:
    """Return the TLS context for aiohttp. For requests, this checks the CA file.

    :raises PromptLayerConfigurationError: if the CA file does not exist or holds no certificate.
    """
    bundle = ca_bundle(settings)
    # The file's age is part of the key: a triggerer outlives the renewal of a company's CA.
    return _context(bundle, os.stat(bundle).st_mtime_ns if bundle else 0)  # noqa: PTH116


@lru_cache(maxsize=8)
def _context(bundle: str | None, _modified: int) -> ssl.SSLContext:
    # Reading a bundle takes tens of milliseconds: too long for each wait of a triggerer.
    if bundle is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        if os.path.isdir(bundle):  # noqa: PTH112 - see above
            return ssl.create_default_context(capath=bundle)
        return ssl.create_default_context(cafile=bundle)
    except (ssl.SSLError, OSError):
        raise PromptLayerConfigurationError(f"The CA file {bundle!r} cannot be read.") from None


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy and its credentials.

    Kept apart, as requests and aiohttp would read the credentials out of the URL in different ways,
    and quote that URL in errors.

    :param url: in its normal form, without credentials.
    :param credentials: user and password in base64, as HTTP Basic has it; empty for none.
    :param secret: the password as it is, or the user if there is no password.
    """

    url: str
    credentials: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The headers for the proxy, which no server behind it may get."""
        return {"Proxy-Authorization": f"Basic {self.credentials}"} if self.credentials else {}


def proxy_for(settings: Settings) -> Proxy | None:
    """Return the proxy: the connection's, else the environment's, else None.

    :raises PromptLayerConfigurationError: if the environment names one that cannot be used.
    """
    if settings.proxy is not None:
        return _proxy(settings.proxy)
    environment = requests.utils.get_environ_proxies(settings.base_url, no_proxy=None)
    proxy = requests.utils.select_proxy(settings.base_url, environment)
    if proxy is None:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not is_proxy(proxy):
        raise PromptLayerConfigurationError(
            "What the environment names as the proxy is not the URL of an HTTP proxy: "
            "put one into 'proxy' of the Airflow connection's extra."
        )
    return _proxy(proxy)


def _proxy(url: str) -> Proxy:
    parts = urlsplit(url)
    found = normal_url(parts.scheme, parts.hostname or "", parts.port, "")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not (user or password):
        return Proxy(found)
    pair = f"{user}:{password}"
    try:
        encoded = pair.encode("latin-1")  # as requests and aiohttp do
    except UnicodeEncodeError:
        encoded = pair.encode()
    return Proxy(found, b64encode(encoded).decode(), password or user)
