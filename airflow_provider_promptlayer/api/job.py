# SPDX-License-Identifier: Apache-2.0
"""What can be waited for: something that PromptLayer works on and that has an id.

A subject is all that the waiting machinery knows of a workflow run: how to ask about it, and what
to call it. It is plain data, so that another process can make it anew from its fields.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar, Generic, Protocol, TypeVar

from airflow_provider_promptlayer.api.http import Call, Response


class JobStatus(Protocol):
    """What a look has shown."""

    @property
    def is_complete(self) -> bool:
        """Whether the subject has ended, well or badly."""

    @property
    def progress(self) -> str:
        """How far it is, in a line for people."""


L = TypeVar("L", bound=JobStatus)


@dataclass(frozen=True, slots=True)
class StatusSummary:
    """As much of a look as a wait needs."""

    is_complete: bool
    progress: str


def summarized(call: Call[L]) -> Call[StatusSummary]:
    """Return a call for one wait that keeps no more of an answer than the wait needs.

    Most looks are answered as the last one was: such an answer is recognised and not read again.
    """
    return Call(call.request, _SummaryReader(call.read), call.unanswered)


class _SummaryReader:
    # An object with slots and no closure: there is one for each of thousands of waits.
    __slots__ = ("_digest", "_read", "_summary")

    def __init__(self, read: Callable[[Response, float], JobStatus]) -> None:
        self._read = read
        self._digest = b""
        self._summary: StatusSummary | None = None

    def __call__(self, response: Response, now: float) -> StatusSummary:
        digest = blake2b(response.body, digest_size=16, usedforsecurity=False).digest()
        digest += response.status.to_bytes(2, "big")
        if self._summary is None or digest != self._digest:
            status = self._read(response, now)
            self._digest, self._summary = digest, StatusSummary(status.is_complete, status.progress)
        return self._summary


@dataclass(frozen=True)
class RemoteJob(ABC, Generic[L]):
    """Something to wait for. Its fields are its ids, as numbers and text."""

    abandoned_phrase: ClassVar[str] = "goes on at PromptLayer"
    """What becomes of it when nobody waits any more."""

    @property
    @abstractmethod
    def id(self) -> int | str:
        """What tells it from others of its kind."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it: ``"workflow run 123"``."""

    @abstractmethod
    def fetch_call(self) -> Call[L]:
        """Return the question that is answered with everything."""

    def status_call(self) -> Call[L]:
        """Return the question with the smallest answer that tells whether it has ended."""
        return self.fetch_call()

    def cancel(self) -> Call[bool] | None:
        """Return the request that ends it, or None where PromptLayer has none.

        The result tells whether there was anything left to end.
        """
        return None

    def cancel_precondition(self) -> Call[bool] | None:
        """Return the question whether :meth:`cancel` ends nothing but this; None if it never does.

        A no also means that it has ended.
        """
        return None

    def __str__(self) -> str:
        return self.name[:1].upper() + self.name[1:]
