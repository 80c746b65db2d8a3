# SPDX-License-Identifier: Apache-2.0
"""What can be waited for: something that PromptLayer works on and that has an id.

A subject is all that the waiting machinery knows of a workflow run: how to ask about it, and what
to call it. It is plain data, so that another process can make it anew from its fields.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

from airflow_provider_promptlayer.api.http import Call


class Look(Protocol):
    """What a look has shown."""

    @property
    def is_complete(self) -> bool:
        """Whether the subject has ended, well or badly."""

    @property
    def progress(self) -> str:
        """How far it is, in a line for people."""


L = TypeVar("L", bound=Look)


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
