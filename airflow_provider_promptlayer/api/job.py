# SPDX-License-Identifier: Apache-2.0
"""Jobs at PromptLayer that a task waits for.

A :class:`RemoteJob` is all that the polling code knows of a workflow run or an evaluation: how to
poll it, fetch it and cancel it, and what messages call it. It is plain data, so that another
process can make it anew from its fields.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Generic,
    Protocol,
    Self,
    TypeAlias,
    TypeVar,
)

from airflow_provider_promptlayer.api.http import Call, Response
from airflow_provider_promptlayer.api.text import one_line

if TYPE_CHECKING:
    from airflow_provider_promptlayer.api.links import Page

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EachOf:
    """Calls that do not depend on each other, and of which each answer is of use by itself."""

    calls: Sequence[Call[Any]]


CallFlow: TypeAlias = Generator[Call[Any] | list[Call[Any]] | EachOf, Any, R]
"""A sequence of requests, each of which depends on the answer to the one before, as one value.

The generator yields calls; its driver sends the result of each into it, or throws the error in. So
the blocking and the asynchronous driver send the same requests in the same order. A flow that goes
through :func:`.each_with_backoff` may also yield a list of calls that do not depend on each other,
and gets their results in that order; the first error is thrown in, and the rest are not sent. Of
:class:`EachOf` it gets a :class:`.PromptLayerError` in place of the result of a call that failed.
"""


class JobStatus(Protocol):
    """What a poll has found."""

    @property
    def is_complete(self) -> bool:
        """Whether the job has ended, well or badly."""

    @property
    def progress(self) -> str:
        """How far the job is, in a line for people."""


L = TypeVar("L", bound=JobStatus)


@dataclass(frozen=True, slots=True)
class StatusSummary:
    """As much of a poll's answer as the poll loop needs."""

    is_complete: bool
    progress: str


_RUNNING: Final = StatusSummary(is_complete=False, progress="running")

_LEFT_TO_A_WORKER: Final = (200, 400, 500)
"""The statuses that may be the end of a job, whose large answer a worker has to read."""


def summarized(call: Call[L]) -> Call[StatusSummary]:
    """Return the call for the polls of one wait in the triggerer, which parses only small answers.

    Most polls are answered as the last one was: such an answer is recognised and not parsed again.
    Of a large answer only the status is read: 202 says that the job goes on. A status that may be
    the end counts as the end: a worker then fetches the whole answer, and waits on if it must.
    """
    return Call(call.request, _SummaryReader(call.read), call.unanswered)


def unless_large(call: Call[T]) -> Call[T | None]:
    """Return the same call, whose result is None where the answer is large."""

    def read(response: Response, now: float) -> T | None:
        return None if response.is_large else call.read(response, now)

    return Call(call.request, read, call.unanswered, call.starts)


class _SummaryReader:
    # An object with slots and no closure: there is one for each of thousands of waits.
    __slots__ = ("_digest", "_read", "_summary")

    def __init__(self, read: Callable[[Response, float], JobStatus]) -> None:
        self._read = read
        self._digest = b""
        self._summary: StatusSummary | None = None

    def __call__(self, response: Response, now: float) -> StatusSummary:
        if response.is_large:
            if response.status == 202:
                return _RUNNING
            if response.status in _LEFT_TO_A_WORKER:
                size = f"{len(response.body) / 1e6:.1f} MB"
                return StatusSummary(
                    is_complete=True, progress=f"answered with {size}, which a worker reads"
                )
        digest = blake2b(response.body, digest_size=16, usedforsecurity=False).digest()
        digest += response.status.to_bytes(2, "big")
        if self._summary is None or digest != self._digest:
            status = self._read(response, now)
            self._digest, self._summary = digest, _summary(status.is_complete, status.progress)
        return self._summary


@lru_cache(maxsize=1024)
def _summary(is_complete: bool, progress: str) -> StatusSummary:
    """Return a summary that all waits share whose jobs are as far."""
    return StatusSummary(is_complete, progress)


IdParsers: TypeAlias = dict[str, Callable[[str, Any], Any]]
"""Name of a field → its parser, from :mod:`.arguments`; in the order of the fields."""


class Identified:
    """A frozen dataclass whose ids are parsed where it is made, and nowhere else.

    So they may come as an argument, from an XCom, or from what an earlier try kept.

    :raises PromptLayerInvalidInputError: for an invalid id.
    """

    id_parsers: ClassVar[IdParsers] = {}

    def __post_init__(self) -> None:
        for name, parse in self.id_parsers.items():
            object.__setattr__(self, name, parse(name, getattr(self, name)))

    @classmethod
    def of(cls, *ids: Any) -> Self:
        """Return the one with these ids, whose types are only certain once they are parsed."""
        return cls(*ids)


@dataclass(frozen=True)
class RemoteJob(Identified, ABC, Generic[L]):
    """A job to wait for. Its fields are its ids, as numbers and text."""

    noun: ClassVar[str]
    """What messages call such a job, before its id."""

    counted_as: ClassVar[str]
    """What metrics call such jobs: the same in every release, as people's dashboards name it."""

    abandoned_phrase: ClassVar[str] = "goes on at PromptLayer"
    """What becomes of the job when no task waits for it any more."""

    pending_phrase: ClassVar[str] = "did not end"
    """What has not happened yet while the job goes on."""

    @property
    def id(self) -> int | str:
        """The id that tells the job from others of its kind: the last of its fields."""
        found: int | str = getattr(self, next(reversed(self.id_parsers)))
        return found

    @property
    def remote_ids(self) -> Sequence[int | str]:
        """The ids by which PromptLayer knows the job; empty for what it does not know as one."""
        return (self.id,)

    @property
    def name(self) -> str:
        """What messages call the job: ``"workflow run 123"``."""
        return f"{self.noun} {one_line(str(self.id), 80)}"

    @abstractmethod
    def fetch_call(self) -> Call[L]:
        """Return the call whose answer has the whole result of the job."""

    def status_call(self) -> Call[L]:
        """Return the call with the smallest answer that tells whether the job has ended."""
        return self.fetch_call()

    def cancel(self) -> Call[bool] | None:
        """Return the call that cancels the job, or None where PromptLayer has none.

        The result tells whether there was anything left to cancel.
        """
        return None

    def cancel_precondition(self) -> Call[bool] | None:
        """Return a call that must answer True before :meth:`cancel` may be sent.

        None if cancelling is always safe. False also means that the job has ended.
        """
        return None

    @property
    def page(self) -> Page | None:
        """The web page about the job; None where PromptLayer has none."""
        return None

    def __str__(self) -> str:
        return self.name[:1].upper() + self.name[1:]


def cancellation(job: RemoteJob[Any]) -> CallFlow[str]:
    """Cancel a job, unless that would cancel another one too.

    Returns a phrase for the log that goes on after the name of the job.
    """
    cancel, question = job.cancel(), job.cancel_precondition()
    if cancel is None:
        return job.abandoned_phrase
    if question is not None and not (yield question):
        return "was not cancelled: it has ended, or a newer one would be cancelled with it"
    return "was cancelled" if (yield cancel) else "had ended and was not cancelled"
