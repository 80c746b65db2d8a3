# SPDX-License-Identifier: Apache-2.0
"""What can be waited for: something that PromptLayer works on and that has an id.

A subject is all that the waiting machinery knows of a workflow run: how to ask about it, and what
to call it. It is plain data, so that another process can make it anew from its fields.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar, Generic, Protocol, TypeVar

from airflow_provider_promptlayer.api.http import Call, Response


class Look(Protocol):
    """What a look has shown."""

    @property
    def is_complete(self) -> bool:
        """Whether the subject has ended, well or badly."""

    @property
    def progress(self) -> str:
        """How far it is, in a line for people."""


L = TypeVar("L", bound=Look)


@dataclass(frozen=True, slots=True)
class Glance:
    """As much of a look as a wait needs."""

    is_complete: bool
    progress: str


def glances(call: Call[L]) -> Call[Glance]:
    """Return a call for one wait that keeps no more of an answer than the wait needs.

    Most looks are answered as the last one was: such an answer is recognised and not read again.
    """
    last: tuple[bytes, Glance] | None = None

    def read(response: Response, now: float) -> Glance:
        nonlocal last
        digest = blake2b(response.body, digest_size=16, usedforsecurity=False).digest()
        digest += response.status.to_bytes(2, "big")
        if last is not None and last[0] == digest:
            return last[1]
        look = call.read(response, now)
        last = (digest, Glance(look.is_complete, look.progress))
        return last[1]

    return Call(call.request, read, call.unanswered)


@dataclass(frozen=True)
class Subject(ABC, Generic[L]):
    """Something to wait for. Its fields are its ids, as numbers and text."""

    when_left: ClassVar[str] = "goes on at PromptLayer"
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
    def read(self) -> Call[L]:
        """Return the question that is answered with everything."""

    def peek(self) -> Call[L]:
        """Return the question with the smallest answer that tells whether it has ended."""
        return self.read()

    def __str__(self) -> str:
        return self.name[:1].upper() + self.name[1:]
