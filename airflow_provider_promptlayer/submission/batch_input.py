# SPDX-License-Identifier: Apache-2.0
"""One input of a batch: its stage, and the note that a try leaves about it for the next one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SENT: Final = "sent"
REPORTED: Final = "reported"
Note = int | str | None
"""What a try leaves about an input: the id of its run; :data:`SENT` where its start was about to be
sent and no answer is known, :data:`REPORTED` where the log has said so; None otherwise."""


class Stage(StrEnum):
    """How far one input has come."""

    PENDING = "pending"
    """No start was sent, or none that could have arrived."""
    STARTING = "starting"
    """The start is being sent."""
    RUNNING = "running"
    """It has a run, which is not known to have ended."""
    ENDED = "ended"
    """Its run has ended; its results have not been read."""
    SUCCEEDED = "succeeded"
    """Its run has ended, and its results count as a success."""
    FAILED = "failed"
    """Its run has ended, and its results count as a failure; this try starts no other run."""
    REFUSED = "refused"
    """It certainly has no run, and this try starts none."""
    UNCERTAIN = "uncertain"
    """A start was sent, and it is unknown whether it arrived: it is never sent again."""


OVER: Final = (Stage.ENDED, Stage.SUCCEEDED, Stage.FAILED)
"""The stages of an input whose run has ended."""


class Starter(StrEnum):
    """Which try has started a run, and so whether another run may replace it if it has failed."""

    THIS_TRY = "this try"
    """It is not replaced."""
    EARLIER_TRY = "earlier try"
    """It is replaced if PromptLayer knows it."""
    BEFORE_CLEAR = "before clear"
    """It is replaced, also if PromptLayer does not know it any more."""


@dataclass(slots=True)
class Input:
    """One input, and what became of it.

    :param fingerprint: see :func:`.fingerprint`; empty for one that cannot be sent.
    :param problem: why it has no run, for people.
    :param retry_helps: whether a retry of the task may turn it into a success.
    :param is_reported: whether the log has said that its start is uncertain.
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
        """What later tries have to know of this input."""
        if self.stage in (Stage.STARTING, Stage.UNCERTAIN):
            return REPORTED if self.is_reported else SENT
        return self.run_id

    @classmethod
    def of_note(cls, index: int, fingerprint: str, note: Note, *, is_retry: bool) -> Input:
        """Return what a try makes of the note that an earlier try has left.

        :param is_retry: whether the task has not been cleared since. A clear means that a person
            has looked for a run only if the log had asked for that before.
        """
        each = cls(fingerprint)
        if isinstance(note, int):
            each.stage, each.run_id = Stage.RUNNING, note
            each.starter = Starter.EARLIER_TRY if is_retry else Starter.BEFORE_CLEAR
        elif note == SENT or (note == REPORTED and is_retry):
            each.stage, each.is_reported = Stage.UNCERTAIN, note == REPORTED
            each.problem = how_to_find(index, "an earlier try died while it sent the start.")
        return each


def how_to_find(index: int, problem: str) -> str:
    """Return a sentence that says how to find the run of an input whose start is uncertain."""
    return (
        "a run may be going on, which can be found in PromptLayer by its metadata "
        f"(airflow_run_id, airflow_task_id, airflow_batch_index={index}): {problem}"
    )
