# SPDX-License-Identifier: Apache-2.0
"""Starting a run exactly once: the record that an earlier try has left, and what to do about it.

PromptLayer has an idempotency key for imports alone, see :mod:`..bases.importer`, and no list of
runs: so a second POST is a second, billed run.
A start is sent again only when it certainly did not arrive (:mod:`..api.submit` tells), and a task
that is tried again reattaches to the run that it had started, as far as Airflow remembers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from airflow_provider_promptlayer.api.fields import FieldError, Fields
from airflow_provider_promptlayer.api.persisted import versioned

KEY: Final = "promptlayer_run"
"""Under which key of the task's state a :class:`SubmissionRecord` is kept."""


class SubmissionPhase(StrEnum):
    """How far a task has come with its run."""

    INTENT = "intent"
    """The start is about to be sent. Recorded first, so that a crash cannot hide the start."""
    SUBMITTED = "submitted"
    """The run has an id."""
    DELIVERED = "delivered"
    """The outputs were pushed."""


@dataclass(frozen=True, slots=True)
class SubmissionRecord:
    """What a task remembers of its run across tries.

    :param clear_epoch: tells a retry from a try after a clear, see :func:`.clear_epoch`.
    :param try_number: the try that wrote this.
    :param base_url: where the start was sent: elsewhere the id is that of another job.
    :param external_id: the id of the job that was started, or None if that is not known yet.
    :param submitted_by_this_task: False if the job was started elsewhere, so that this task must
        not cancel it.
    :param input_fingerprint: of the job's input; None if that was not recorded.
    :param job: all ids of the job, as the task's arguments may name another sheet by now.
    :param notes: what else the start has found out, see :class:`.PromptLayerSubmitter`.
    """

    phase: SubmissionPhase
    clear_epoch: str
    try_number: int
    base_url: str
    external_id: int | str | None = None
    submitted_by_this_task: bool = True
    input_fingerprint: str | None = None
    job: Mapping[str, Any] | None = None
    notes: Mapping[str, Any] | None = None

    def payload(self) -> dict[str, Any]:
        """Return the record as plain JSON."""
        return versioned(
            {
                "phase": self.phase.value,
                "clear_epoch": self.clear_epoch,
                "try_number": self.try_number,
                "base_url": self.base_url,
                "external_id": self.external_id,
                "submitted_by_this_task": self.submitted_by_this_task,
                "input_fingerprint": self.input_fingerprint,
                "job": None if self.job is None else dict(self.job),
                "notes": None if self.notes is None else dict(self.notes),
            }
        )

    @classmethod
    def read(cls, fields: Fields) -> SubmissionRecord:
        """Return the record that was kept.

        :raises ValueError: if it is invalid.
        """
        phase, external_id = SubmissionPhase(fields.text("phase")), fields.get("external_id")
        if phase is SubmissionPhase.INTENT:
            external_id = None
        elif isinstance(external_id, bool) or not isinstance(external_id, int | str):
            raise FieldError("has no id")
        return cls(
            phase,
            fields.text("clear_epoch"),
            fields.count("try_number"),
            fields.text("base_url"),
            external_id,
            fields.flag("submitted_by_this_task"),
            fields.text_or_none("input_fingerprint"),
            fields.mapping_or_none("job"),
            fields.mapping_or_none("notes"),
        )


def question(
    what_is_there: str, how_to_look: str, *, keys: str = KEY, is_in_backend: bool = False
) -> str:
    """Return what to ask a person, who alone can tell whether a run goes on.

    :param what_is_there: sentences on the record that an earlier try has left.
    :param how_to_look: how to tell whether the start of that try has arrived, without a full stop.
    :param keys: the keys of the task's state that have the record.
    :param is_in_backend: whether the record's value is in a state backend that has to be read.
    """
    return f"{what_is_there} So what that try started may be going on: {how_to_look}. Then " + (
        f"clear this task, which goes back to it; or delete {keys} from the task's state and clear "
        "this task, to start another."
        if is_in_backend
        else "clear this task to start another."
    )


def start_without_id(record: SubmissionRecord) -> str:
    """Return the sentences on a record without an id."""
    return (
        f"Try {record.try_number} of this task noted that it was about to send the start to "
        f"{record.base_url}, but not the answer: it was killed, or Airflow could not be "
        f"reached. If PromptLayer has answered, the log of try {record.try_number} says what was "
        "started."
    )


class Plan(StrEnum):
    """What a try does about the run."""

    START = "start"
    REATTACH = "reattach"
    """Wait for the run of the record, where it was started, unless it has failed."""
    UNCERTAIN = "uncertain"
    """An earlier try recorded only that it was about to send the start: a person has to check
    whether the start arrived. A clear alone does not mean that a person has checked."""


def plan(
    record: SubmissionRecord | None,
    clear_epoch: str,
    base_url: str | None,
    input_fingerprint: str | None = None,
) -> Plan:
    """Return what to do, given the record that an earlier try has left.

    A task that is cleared after it has pushed its outputs is meant to run again; one that is
    cleared while its run goes on is meant to wait for that run, unless its input has changed.

    :param base_url: where a start would be sent now; not read for a record without an id.
    :param input_fingerprint: of the input now, see :class:`SubmissionRecord`.
    """
    if record is None:
        return Plan.START
    if record.external_id is None:  # INTENT
        return Plan.UNCERTAIN
    if record.clear_epoch == clear_epoch:  # a retry
        return Plan.REATTACH
    if (
        record.base_url != base_url
        or record.phase is SubmissionPhase.DELIVERED
        or (
            record.input_fingerprint
            and input_fingerprint
            and record.input_fingerprint != input_fingerprint
        )
    ):
        return Plan.START
    return Plan.REATTACH
