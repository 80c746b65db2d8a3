# SPDX-License-Identifier: Apache-2.0
"""From a method and a raw path to the endpoint that answers it.

The rule here: a path is split before it is decoded. A workflow may be called ``a/b?c#d%``; as one
percent-encoded segment it is one parameter, whatever it decodes to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote

from airflow_provider_promptlayer.testing.http.messages import Answer, RefusalError, Request

Endpoint: TypeAlias = Callable[..., Answer]
"""``(request, *path parameters as decoded text) -> Answer``; may raise ``RefusalError``."""


@dataclass(frozen=True)
class Route:
    """An endpoint; in its ``path``, a segment in braces is a parameter."""

    method: str
    path: str
    endpoint: Endpoint

    def parameters(self, raw_path: str) -> list[str] | None:
        """Give the decoded parameters, or ``None`` if the path is not of this form."""
        wanted, given = self.path.split("/"), raw_path.split("/")
        if len(wanted) != len(given):
            return None
        found = []
        for pattern, raw_segment in zip(wanted, given, strict=True):
            segment = unquote(raw_segment)
            if pattern.startswith("{") and segment:
                found.append(segment)
            elif pattern != segment:
                return None
        return found


def dispatch(routes: Sequence[Route], request: Request) -> Answer:
    """Answer by the endpoint the request means.

    Raises:
        RefusalError: 404 or 405 in FastAPI's words, or what the endpoint refuses with.

    """
    allowed = []
    for route in routes:
        parameters = route.parameters(request.raw_path)
        if parameters is None:
            continue
        if route.method == request.method:
            return route.endpoint(request, *parameters)
        allowed.append(route.method)
    if allowed:
        headers = {"Allow": ", ".join(allowed)}
        raise RefusalError(Answer(405, {"detail": "Method Not Allowed"}, headers))
    raise RefusalError(Answer(404, {"detail": "Not Found"}))
