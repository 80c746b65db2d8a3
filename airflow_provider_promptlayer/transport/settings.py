# SPDX-License-Identifier: Apache-2.0
"""An Airflow connection of type ``promptlayer``, read into settings.

The only place that knows what the fields of a connection mean.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard
from urllib.parse import urlsplit

from airflow_provider_promptlayer.api.errors import PromptLayerConfigurationError
from airflow_provider_promptlayer.api.links import (
    TEMPLATES,
    Dashboard,
    dashboard_of,
    is_web_url,
    template_problem,
)
from airflow_provider_promptlayer.transport.urls import normal_url

DEFAULT_BASE_URL: Final = "https://api.promptlayer.com"
SHORTEST_SECRET: Final = 12
"""The fewest characters of a secret: a shorter key, as local servers take, may be part of words."""

DEFAULT_TIMEOUT: Final = 30.0
"""Seconds that a single request may take, where the connection does not say."""

MAX_TIMEOUT: Final = 24 * 3600.0
"""The longest ``timeout`` in seconds: operating systems do not take any number."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_TRUE = {"true", "1", "yes", "on"}
_FALSE = {"false", "0", "no", "off"}


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Settings:
    """Where and how to reach PromptLayer.

    :param base_url: scheme, host, port and path prefix in their normal form (see :mod:`.urls`).
        Connections with equal base URLs lead to the same PromptLayer.
    :param api_key: sent as ``X-API-KEY``; never part of a repr.
    :param timeout: seconds that a single request may take, from the connect to the last byte.
    :param verify: True (check TLS certificates), False, or the path of a CA file.
    :param proxy: URL of an HTTP proxy, or None for what the environment says.
    :param dashboard: where PromptLayer's web pages are.
    """

    base_url: str
    api_key: str = field(repr=False)
    timeout: float = DEFAULT_TIMEOUT
    verify: bool | str = True
    proxy: str | None = field(default=None, repr=False)
    dashboard: Dashboard = field(default_factory=Dashboard)

    @property
    def is_cleartext(self) -> bool:
        """Whether the key would cross a network unencrypted (``http`` to a remote host)."""
        parts = urlsplit(self.base_url)
        return parts.scheme == "http" and not _is_loopback(parts.hostname or "")


def read_connection(connection: Any) -> Settings:
    """Return the settings that an Airflow connection describes.

    Password: the API key. Host, port, schema: see :func:`_base_url`. Extra: a JSON object with
    ``timeout`` (seconds), ``verify`` (true, false or the path of a CA file), ``proxy``,
    ``dashboard_url`` and the :data:`.TEMPLATES` of web pages.

    :param connection: of the class that Airflow 2 or 3 has for it.
    :raises PromptLayerConfigurationError: naming the connection and the field to correct.
    """
    where = f"Airflow connection {connection.conn_id!r}"
    api_key = str(connection.password or "").strip()
    if not api_key:
        raise PromptLayerConfigurationError(
            f"{where} has no API key: put it into the connection's password."
        )
    if not (api_key.isascii() and api_key.isprintable()):
        raise PromptLayerConfigurationError(
            f"The API key in {where} holds characters that no HTTP header can carry: "
            "paste it again into the connection's password."
        )
    extra = _extra(connection.extra, where)
    base_url = _base_url(connection, where)
    return Settings(
        base_url=base_url,
        api_key=api_key,
        timeout=_timeout(extra.get("timeout", DEFAULT_TIMEOUT), where),
        verify=_verify(extra.get("verify", True), where),
        proxy=_proxy(extra.get("proxy"), where),
        dashboard=_dashboard(extra, base_url, api_key, where),
    )


def _extra(text: Any, where: str) -> dict[str, Any]:
    """Return the fields that are not empty.

    From the text, as Airflow's ``extra_dejson`` makes a synchronous call, which would block a
    triggerer.
    """
    try:
        extra = json.loads(text or "{}")
    except (ValueError, TypeError, RecursionError):
        extra = None
    if not isinstance(extra, dict):
        raise PromptLayerConfigurationError(f"The extra of {where} is not a JSON object.")
    return {name: value for name, value in extra.items() if value not in (None, "")}


def _base_url(connection: Any, where: str) -> str:
    """Join host, port and schema; the host may be bare, or have a scheme, a prefix or a port.

    ``http`` is used only if the host or the schema says so.
    """
    host = str(connection.host or "").strip() or DEFAULT_BASE_URL
    if not _SCHEME.match(host):
        scheme = str(connection.schema or "").strip().lower()
        authority, slash, rest = host.partition("/")
        if authority.count(":") > 1 and not authority.startswith("["):
            authority = f"[{authority}]"  # a bare IPv6 address
        host = f"{scheme if scheme in ('http', 'https') else 'https'}://{authority}{slash}{rest}"
    try:
        parts = urlsplit(host)
        port = int(connection.port) if parts.port is None and connection.port else parts.port
    except ValueError:
        raise PromptLayerConfigurationError(f"The host of {where} is not a URL.") from None
    if port is not None and not 0 < port < 65536:
        raise PromptLayerConfigurationError(f"The port of {where} must be from 1 to 65535.")
    if parts.scheme.lower() not in ("http", "https") or not _is_name(parts.hostname):
        raise PromptLayerConfigurationError(
            f"The host of {where} must be a host name or an http(s) URL, "
            f"such as {DEFAULT_BASE_URL}."
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise PromptLayerConfigurationError(
            f"The host of {where} must hold no user, query or fragment; "
            "the API key belongs into the password."
        )
    try:
        return normal_url(parts.scheme, parts.hostname, port, parts.path)
    except ValueError:
        raise PromptLayerConfigurationError(f"The host of {where} is not a URL.") from None


def _timeout(value: Any, where: str) -> float:
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 < seconds <= MAX_TIMEOUT:  # NaN is refused too
        raise PromptLayerConfigurationError(
            f"'timeout' in the extra of {where} must be a number of seconds above 0, "
            f"and at most {MAX_TIMEOUT:.0f}."
        )
    return seconds


def _verify(value: Any, where: str) -> bool | str:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE or not word:
            return True
        return False if word in _FALSE else value.strip()
    raise PromptLayerConfigurationError(
        f"'verify' in the extra of {where} must be true, false or the path of a CA file."
    )


def _proxy(value: Any, where: str) -> str | None:
    if value is None:
        return None
    value = value.strip() if isinstance(value, str) else value
    if not is_proxy(value):
        raise PromptLayerConfigurationError(
            f"'proxy' in the extra of {where} must be the URL of an HTTP proxy, "
            "such as http://proxy.example.com:3128."
        )
    return str(value)


def _dashboard(extra: dict[str, Any], base_url: str, api_key: str, where: str) -> Dashboard:
    given = {name: extra[name] for name in ("dashboard_url", *TEMPLATES) if name in extra}
    given |= {name: value.strip() for name, value in given.items() if isinstance(value, str)}
    for name, value in given.items():
        kind = TEMPLATES.get(name)
        must = (
            template_problem(kind, value)
            if kind is not None
            else None
            if is_web_url(value) and not {*value} & {*"?#"}
            else "the URL of PromptLayer's web interface, such as https://dashboard.promptlayer.com"
        )
        if must is None and len(api_key) >= SHORTEST_SECRET and api_key in value:
            must = "a URL without the API key"
        if must is not None:
            raise PromptLayerConfigurationError(f"{name!r} in the extra of {where} must be {must}.")
    url = given.pop("dashboard_url", None)
    return Dashboard(dashboard_of(base_url) if url is None else url.rstrip("/"), **given)


def is_proxy(value: Any) -> bool:
    """Return whether a value is the URL of an HTTP proxy that both transports can use.

    The error of one that cannot use it may quote the URL, and with it the proxy's password.
    """
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
        if not _is_name(parts.hostname):
            return False
        parts.hostname.encode("idna")
        normal_url(parts.scheme, parts.hostname, parts.port, "")
        return parts.port is None or parts.port > 0
    except (KeyError, ValueError):  # another scheme, or a host that cannot be
        return False


def _is_name(host: str | None) -> TypeGuard[str]:
    return bool(host) and str(host).isprintable() and not any(map(str.isspace, str(host)))


def _is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
