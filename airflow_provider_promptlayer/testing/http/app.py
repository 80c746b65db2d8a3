# SPDX-License-Identifier: Apache-2.0
"""The whole API as one function from ``Request`` to ``Answer``.

The rule here: the key is looked at before anything else, on every path, known or not. Bodies are
taken as they are: one that says it is encoded is refused, as nothing here unpacks it.
"""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_promptlayer.testing.http.messages import (
    Answer,
    RefusalError,
    Request,
    refusal,
)
from airflow_provider_promptlayer.testing.http.routing import Route, dispatch

KEY_HEADER = "x-api-key"


class Api:
    """PromptLayer's API over some routes, for holders of a key. Safe to use from any thread."""

    def __init__(self, api_key: str, routes: Sequence[Route]) -> None:
        self._keys = frozenset({api_key})
        self._routes = routes

    def rotate_key(self, new_key: str, *, keep_old: bool) -> None:
        """Take a new key from now on, and no other unless ``keep_old``."""
        self._keys = frozenset({new_key}) | (self._keys if keep_old else frozenset())

    def key_is_right(self, request: Request) -> bool:
        """Tell whether the request may be answered at all."""
        return request.headers.get(KEY_HEADER) in self._keys

    def answer(self, request: Request) -> Answer:
        """Answer a request; errors are answers too, so nothing is raised."""
        try:
            if not self.key_is_right(request):
                raise refusal(401, "Invalid API key")
            encoding = request.headers.get("content-encoding", "identity")
            if encoding.strip().lower() != "identity":
                raise refusal(415, f"Content-Encoding {encoding!r} is not supported")
            return dispatch(self._routes, request)
        except RefusalError as refused:
            return refused.answer
