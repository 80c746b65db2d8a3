# SPDX-License-Identifier: Apache-2.0
"""One way to write a URL.

requests resolves dot segments and rewrites escapes before it sends a path; aiohttp is told to send
a path as it is. So both get URLs in which there is nothing to rewrite, and two URLs that lead to
the same place are the same text.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlsplit

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PATH_CHARACTERS: Final = "/:@!$&'()*+,;=~%"
"""What a path may hold as it is, besides letters and digits (RFC 3986); ``%`` is an escape."""

_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})?")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]")


def normal_url(scheme: str, host: str, port: int | None, path: str) -> str:
    """Return a URL in its normal form (RFC 3986, section 6), without a slash at the end.

    :param host: a name or an IP address as :func:`urlsplit` returns it, in lower case.
    :param port: None for the scheme's own.
    :raises ValueError: if no request can carry the host or the path.
    """
    scheme = scheme.lower()
    name = f"[{host}]" if ":" in host else _ascii_name(host)
    suffix = "" if port in (None, _DEFAULT_PORTS[scheme]) else f":{port}"
    return f"{scheme}://{name}{suffix}{_normal_path(path)}"


def is_below(url: str, base_url: str) -> bool:
    """Return whether ``url`` leads to ``base_url`` or below it, however ``url`` is written.

    :param base_url: in its normal form.
    """
    try:
        parts = urlsplit(url)
        found = normal_url(parts.scheme, parts.hostname or "", parts.port, parts.path)
    except (KeyError, ValueError):  # another scheme, or no URL
        return False
    return f"{found}/".startswith(f"{base_url}/")


def _ascii_name(host: str) -> str:
    if "%" in host:
        raise ValueError("an escape in a host name")
    if host.isascii():
        return host
    import idna  # a dependency of requests; few hosts need it

    return idna.encode(host, uts46=True).decode()


def _normal_path(path: str) -> str:
    escaped = _ESCAPE.sub(_normal_escape, quote(path, safe=_PATH_CHARACTERS))
    kept: list[str] = []
    for segment in escaped.strip("/").split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    joined = "/".join(kept).strip("/")
    return f"/{joined}" if joined else ""


def _normal_escape(escape: re.Match[str]) -> str:
    if escape[1] is None:
        return "%25"
    character = chr(int(escape[1], 16))
    return character if _UNRESERVED.match(character) else escape[0].upper()
