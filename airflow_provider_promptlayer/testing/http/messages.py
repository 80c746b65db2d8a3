# SPDX-License-Identifier: Apache-2.0
"""A request as it arrived and an answer as it will be sent, without a server in between.

The rule here: these are values. What the API means by a request is worked out from ``Request``
alone and ends in ``Answer`` or in ``RefusalError``, which carries one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_promptlayer.testing.json_text import dumps
from airflow_provider_promptlayer.testing.workflows.model import JsonValue


@dataclass(frozen=True)
class Request:
    """An HTTP request. ``raw_path`` is percent-encoded; names of headers are in lower case."""

    method: str
    raw_path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer with a JSON body."""

    status: int
    json: JsonValue
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """The body as sent: NaN is let through, and lone surrogates survive as escapes."""
        return dumps(self.json).encode("ascii")


class RefusalError(Exception):
    """The request is answered with an error."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


def refusal(status: int, message: str) -> RefusalError:
    """Refuse in PromptLayer's own words: ``{"success": false, "message": …}``."""
    return RefusalError(Answer(status, {"success": False, "message": message}))
