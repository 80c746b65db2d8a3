# SPDX-License-Identifier: Apache-2.0
"""One input of a batch: how far it is, and what an earlier try has left of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from airflow_provider_promptlayer.submission.batch_notes import Note


class Stage(StrEnum):
    """How far one input is."""

    PENDING = "pending"
    """No start was sent, or none that could have arrived."""
    STARTING = "starting"
    """The start is being sent."""
    RUNNING = "running"
    """It has a run, which is not known to have ended."""
    ENDED = "ended"
    """Its run has ended, well or badly."""
    SUCCEEDED = "succeeded"
    """Its run has ended, and is a success."""
    FAILED = "failed"
    """Its run has ended, and is none; no other one is started by this try."""
    REFUSED = "refused"
    """It certainly has no run, and will not get one from this try."""
    UNCERTAIN = "uncertain"
    """A start was sent, and it is unknown whether it arrived: it is never sent again."""


OVER: Final = (Stage.ENDED, Stage.SUCCEEDED, Stage.FAILED)
"""The stages of an input whose run has ended."""


class Starter(StrEnum):
    """Who has started a run."""

    THIS_TRY = "this try"
    EARLIER_TRY = "earlier try"
    """Its run is replaced if it has failed."""
    BEFORE_CLEAR = "before clear"
    """A try before the task was cleared: its run is replaced also where PromptLayer knows none."""


@dataclass(slots=True)
class Input:
    """One input, and what became of it.

    :param fingerprint: see :func:`.fingerprint`.
    :param problem: why it has no run, for people.
    :param retry_helps: whether a retry of the task may bring the success that it lacks.
    :param is_reported: whether a person was told that its start is uncertain.
    """

    fingerprint: str
    stage: Stage = Stage.PENDING
    run_id: int | None = None
    problem: str | None = None
    starter: Starter = Starter.THIS_TRY
    retry_helps: bool = False
    is_reported: bool = False

    @property
    def rank(self) -> int:
        """Which of equal inputs is kept first, where the list has fewer of them now."""
        return 0 if self.run_id is not None else 1 if self.stage is Stage.UNCERTAIN else 2

    @property
    def note(self) -> Note:
        """What later tries have to know of it."""
        return Note(
            self.fingerprint,
            self.run_id,
            was_sent=self.stage in (Stage.STARTING, Stage.UNCERTAIN),
            was_reported=self.is_reported,
        )

    @classmethod
    def of_note(cls, index: int, note: Note | None) -> Input:
        """Return what a try makes of what an earlier one has left.

        :param note: None where nothing was left.
        """
        if note is None:
            return cls("")
        each = cls(note.fingerprint)
        if note.run_id is not None:
            each.stage, each.run_id = Stage.RUNNING, note.run_id
            each.starter = Starter.EARLIER_TRY if note.is_of_retry else Starter.BEFORE_CLEAR
        elif note.was_sent and (note.is_of_retry or not note.was_reported):
            each.stage, each.is_reported = Stage.UNCERTAIN, note.was_reported
            each.problem = how_to_find(index, "an earlier try died while it sent the start.")
        return each


def how_to_find(index: int, problem: str) -> str:
    """Return where a run may be found whose start is uncertain."""
    return (
        "a run may be going on, which can be found in PromptLayer by its metadata "
        f"(airflow_run_id, airflow_task_id, airflow_batch_index={index}): {problem}"
    )
