# SPDX-License-Identifier: Apache-2.0
"""Starting a run exactly once: when to send again, and what an earlier try left behind.

PromptLayer has no idempotency key and no list of runs, so a second POST is a second, billed run.
A start is sent again only when it certainly did not arrive, and a task that is tried again goes
back to the run that it had started, as far as Airflow remembers it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from airflow_provider_promptlayer.api.fields import FieldError, Fields
from airflow_provider_promptlayer.api.persisted import versioned
from airflow_provider_promptlayer.exceptions import (
    PromptLayerError,
    PromptLayerTransientError,
    PromptLayerUnreachableError,
)

MAX_SENDS: Final = 5
"""How often one call sends a start at most, the first time included."""

KEY: Final = "promptlayer_run"
"""Under which key of the task's state a :class:`Record` is kept."""

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
"""Seconds before the next send at most; a start that is to wait longer is left to a retry."""


def resend_after(
    error: PromptLayerError, sent: int, *, jitter: Callable[[], float] = random.random
) -> float | None:
    """Return the seconds after which to send a start again, or None if it must not be.

    It may be after a connection that was never made, and after the 429 and 503 that say so; for
    everything that leaves open whether a run was started, the caller has an error that is not
    transient. Never before the time that ``Retry-After`` asked for.

    :param sent: how often it was sent so far.
    """
    if not isinstance(error, PromptLayerTransientError) or sent >= MAX_SENDS:
        return None
    if isinstance(error, PromptLayerUnreachableError) and error.arrived:
        return None
    if error.retry_after is not None:
        return error.retry_after if error.retry_after <= _LONGEST_PAUSE else None
    return _FIRST_PAUSE * 2.0 ** (sent - 1) * (0.5 + 0.5 * jitter())


class Phase(StrEnum):
    """How far a task had come with its run."""

    STARTING = "starting"
    """The start was about to be sent. Written before, so that a crash cannot hide it."""
    STARTED = "started"
    """The run has an id."""
    DELIVERED = "delivered"
    """The outputs were handed on."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a task remembers of its run across tries.

    :param clear_epoch: tells a retry from a try after a clear, see :func:`.compat.clear_epoch`.
    :param try_number: the try that wrote this.
    :param base_url: where the start was sent: elsewhere the id is that of something else.
    :param subject_id: the id of what was started, or None if that is not known yet.
    :param is_own: False where something else had started it, so that it must not be cancelled.
    :param asked: tells what was asked for from something else, or None if that was not noted.
    :param subject: all ids of what was started, as those of the sheet may be others by now.
    """

    phase: Phase
    clear_epoch: str
    try_number: int
    base_url: str
    subject_id: int | str | None = None
    is_own: bool = True
    asked: str | None = None
    subject: Mapping[str, Any] | None = None

    def payload(self) -> dict[str, Any]:
        """Return the record as plain JSON."""
        return versioned(
            {
                "phase": self.phase.value,
                "clear_epoch": self.clear_epoch,
                "try_number": self.try_number,
                "base_url": self.base_url,
                "id": self.subject_id,
                "is_own": self.is_own,
                "asked": self.asked,
                "subject": None if self.subject is None else dict(self.subject),
            }
        )

    @classmethod
    def read(cls, fields: Fields) -> Record:
        """Return the record that was kept.

        :raises ValueError: if it is none.
        """
        phase, subject_id = Phase(fields.text("phase")), fields.get("id")
        if phase is Phase.STARTING:
            subject_id = None
        elif isinstance(subject_id, bool) or not isinstance(subject_id, int | str):
            raise FieldError("has no id")
        return cls(
            phase,
            fields.text("clear_epoch"),
            fields.count("try_number"),
            fields.text("base_url"),
            subject_id,
            fields.flag("is_own"),
            fields.text_or_none("asked"),
            fields.mapping_or_none("subject"),
        )


def question(what_is_there: str, how_to_look: str, *, is_in_backend: bool = False) -> str:
    """Return what a person is asked who alone can tell whether a run goes on.

    :param what_is_there: what an earlier try has left, in sentences.
    :param how_to_look: how to tell whether its start has arrived, without a full stop.
    :param is_in_backend: whether a state backend has more about it, which so has to be read.
    """
    return f"{what_is_there} So what that try started may be going on: {how_to_look}. Then " + (
        f"clear this task, which goes back to it; or delete {KEY} from the task's state and clear "
        "this task, to start another."
        if is_in_backend
        else "clear this task to start another."
    )


def without_end(record: Record) -> str:
    """Return what there is to say of a record without an id."""
    return (
        f"Try {record.try_number} of this task noted that it was about to send the start to "
        f"{record.base_url}, and not what came of it: it was killed, or Airflow could not be "
        f"reached. If PromptLayer has answered, the log of try {record.try_number} says what was "
        "started."
    )


class Plan(StrEnum):
    """What a try has to do about the run."""

    START = "start"
    ATTACH = "attach"
    """Go back to the run of the record where that is, unless it has failed."""
    ASK = "ask"
    """An earlier try noted no more than that it was about to send the start: a person has to look
    whether it arrived. A clear alone does not say that anybody has looked."""


def plan(
    record: Record | None, clear_epoch: str, base_url: str | None, asked: str | None = None
) -> Plan:
    """Return what to do, given what an earlier try has left behind.

    A task that is cleared after it has delivered is meant to run again; one that is cleared
    while its run goes on is meant to wait for it again, unless it asks for something else now.

    :param base_url: where a start would be sent now; not read for a record without an id.
    :param asked: what is asked for now, see :class:`Record`.
    """
    if record is None:
        return Plan.START
    if record.subject_id is None:
        return Plan.ASK
    if record.clear_epoch == clear_epoch:  # a retry
        return Plan.ATTACH
    if (
        record.base_url != base_url
        or record.phase is Phase.DELIVERED
        or (record.asked and asked and record.asked != asked)
    ):
        return Plan.START
    return Plan.ATTACH
