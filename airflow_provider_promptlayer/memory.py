# SPDX-License-Identifier: Apache-2.0
"""What a task remembers of its run across tries: Airflow's task state store, from 3.3 on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_promptlayer import compat
from airflow_provider_promptlayer.api.batches import Batch, Note, Stage, fingerprint
from airflow_provider_promptlayer.api.persisted import (
    UnreadableError,
    read_persisted,
    versioned,
)
from airflow_provider_promptlayer.api.starting import KEY, Phase, Record
from airflow_provider_promptlayer.api.text import one_line

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_QUESTION_KEY: Final = "promptlayer_question"
_OUTAGE_KEY: Final = "promptlayer_outage"

_PATIENCE: Final = 60.0
"""Seconds for which a note is written again. Airflow's own client tries for some ten seconds."""

_PAUSE: Final = 2.0


def write_patiently(write: Callable[[], None], log: Any, is_stopping: Callable[[], bool]) -> None:
    """Write a note without which a later try has to ask a person; again for a minute if it fails.

    :param write: may be called more than once.
    :param is_stopping: whether there is no time any more.
    :raises Exception: what the last attempt raised.
    """
    give_up_at = time.monotonic() + _PATIENCE
    is_first = True
    while True:
        try:
            write()
        except Exception as error:
            if is_stopping() or time.monotonic() + _PAUSE > give_up_at:
                raise
            if is_first:
                log.warning(
                    "Could not write the task's state (%s); trying again for %.0f s.",
                    one_line(str(error)),
                    _PATIENCE,
                )
            is_first = False
            time.sleep(_PAUSE)
        else:
            return


class RunMemory:
    """One record for each task instance; mapped indexes have their own, tries share it.

    :param store: ``context["task_state_store"]``.
    :param clear_epoch: see :class:`.api.starting.Record`.
    :param try_number: the running try.
    """

    def __init__(self, store: Any, clear_epoch: str, try_number: int) -> None:
        self._store = store
        self.clear_epoch = clear_epoch
        self._try_number = try_number

    @classmethod
    def of(cls, context: Context) -> RunMemory | None:
        """Return the memory of the running task, or None where Airflow has none."""
        values: Any = context
        store, ti = values.get("task_state_store"), values["ti"]
        return None if store is None else cls(store, compat.clear_epoch(ti), int(ti.try_number))

    def read(self) -> Record | None:
        """Return what an earlier try left, or None.

        :raises UnreadableError: if that cannot be read.
        """
        return read_persisted(self._store.get(KEY), Record.read)

    def write(
        self,
        phase: Phase,
        base_url: str,
        subject_id: int | str | None = None,
        *,
        is_own: bool = True,
        asked: str | None = None,
        subject: Mapping[str, Any] | None = None,
    ) -> None:
        """Note how far the task has come."""
        try_number, epoch = self._try_number, self.clear_epoch
        self.put_back(
            Record(phase, epoch, try_number, base_url, subject_id, is_own, asked, subject)
        )

    def put_back(self, record: Record) -> None:
        """Note what was noted before."""
        self._store.set(KEY, record.payload())

    def forget(self) -> None:
        """Remove the note."""
        self._store.delete(KEY)

    def ask(self) -> None:
        """Note that this try asks a person to look at what an earlier one has left."""
        question = {"clear_epoch": self.clear_epoch, "about": self._about}
        self._store.set(_QUESTION_KEY, versioned(question))

    def is_answered(self) -> bool:
        """Return whether a person was asked about what is there, and has cleared the task since."""
        try:
            question = read_persisted(
                self._store.get(_QUESTION_KEY),
                lambda fields: (fields.text("clear_epoch"), fields.text("about")),
            )
        except UnreadableError:
            return False  # asking once more does no harm
        return (
            question is not None and question[0] != self.clear_epoch and question[1] == self._about
        )

    @property
    def _about(self) -> str:
        kept = self._store.get(KEY)
        return fingerprint(json.dumps(kept, sort_keys=True, default=repr).encode())


class BatchMemory:
    """What a task remembers of a batch: a page of notes for each hundred inputs, and a head.

    With one record for all, a thousand starts would write a thousand lists of a thousand runs. A
    page is written before each start, and holds the ids so far as well: one write says both.

    :param store: ``context["task_state_store"]``.
    :param lifecycle: the task instance's ``max_tries``, see :class:`.api.starting.Record`.
    """

    PAGE: Final = 100
    _HEAD: Final = "promptlayer_batch"

    def __init__(self, store: Any, lifecycle: int) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._dirty: set[int] = set()

    @classmethod
    def of(cls, context: Context) -> BatchMemory | None:
        """Return the memory of the running task, or None where Airflow has none."""
        values: Any = context
        store = values.get("task_state_store")
        return None if store is None else cls(store, int(values["ti"].max_tries or 0))

    def open(self, fingerprints: Sequence[str]) -> Batch:
        """Return what this try makes of what earlier ones have left; see :meth:`Batch.take_over`.

        What was left before the task was cleared is written anew as this lifecycle's, and the head
        after it, so that a crash in between leaves pages that are read as what they are.
        """
        head = self._read(self._HEAD)
        lives: list[Any] = [self._lifecycle]
        if head and not head.get("is_delivered"):
            lives.append(head.get("lifecycle"))
        notes: list[Note | None] = []
        for first in range(0, len(fingerprints), self.PAGE):
            page = self._read(self._key(first))
            size = min(self.PAGE, len(fingerprints) - first)
            if page.get("lifecycle") in lives:
                is_of_retry = page.get("lifecycle") == self._lifecycle
                notes += _notes(page, size, is_of_retry=is_of_retry)
            else:
                notes += [None] * size
        batch = Batch.take_over(notes, fingerprints)
        if head.get("lifecycle") != self._lifecycle:
            self.write(batch, *(range(len(batch)) if head else ()))
            self._write_head(is_delivered=False)
        return batch

    def mark(self, *changed: int) -> None:
        """Let the next write take these inputs along."""
        self._dirty.update(index // self.PAGE * self.PAGE for index in changed)

    def write(self, batch: Batch, *changed: int) -> None:
        """Note where these inputs are, and those that were marked."""
        self.mark(*changed)
        for first in sorted(self._dirty):
            page = slice(first, first + self.PAGE)
            self._store.set(
                self._key(first),
                {
                    "lifecycle": self._lifecycle,
                    "inputs": [each.fingerprint for each in batch.inputs[page]],
                    "runs": [
                        "starting"
                        if each.stage in (Stage.STARTING, Stage.UNCERTAIN)
                        else each.run_id
                        for each in batch.inputs[page]
                    ],
                },
            )
            self._dirty.discard(first)

    def deliver(self) -> None:
        """Note that the results were handed on: a task that is cleared now starts all anew."""
        self._write_head(is_delivered=True)

    def _write_head(self, *, is_delivered: bool) -> None:
        self._store.set(self._HEAD, {"lifecycle": self._lifecycle, "is_delivered": is_delivered})

    def _read(self, key: str) -> dict[str, Any]:
        found = self._store.get(key)
        return found if isinstance(found, dict) else {}

    def _key(self, first: int) -> str:
        return f"{self._HEAD}_{first}"


def _notes(page: dict[str, Any], size: int, *, is_of_retry: bool) -> list[Note | None]:
    """Return the notes of a page; whatever is none is no note."""
    runs, inputs = page.get("runs"), page.get("inputs")
    if not isinstance(runs, list) or not isinstance(inputs, list):
        return [None] * size
    notes: list[Note | None] = [
        None if run is None else Note(str(text), run if isinstance(run, int) else None, is_of_retry)
        for run, text in zip(runs[:size], inputs[:size], strict=False)
    ]
    return notes + [None] * (size - len(notes))


class OutageMemory:
    """Since when PromptLayer is out of reach, for a sensor that is rescheduled between two looks.

    Each look is another process then. Airflow deletes a task's XComs before each of them, so there
    is no other place, and before Airflow 3.3 none at all.
    """

    def __init__(self, store: Any, try_number: int) -> None:
        self._store = store
        self._try_number = try_number
        self._is_noted = False

    @classmethod
    def of(cls, context: Context) -> OutageMemory | None:
        """Return the memory of the running task, or None where Airflow has none."""
        values: Any = context
        store = values.get("task_state_store")
        return None if store is None else cls(store, int(values["ti"].try_number))

    def read(self) -> float | None:
        """Return since when, in seconds since the epoch; None without an outage in this try.

        :raises UnreadableError: if what was noted cannot be read.
        """
        kept = self._store.get(_OUTAGE_KEY)
        self._is_noted = kept is not None
        noted = read_persisted(
            kept, lambda fields: (fields.number_or_none("since"), fields.count("try_number"))
        )
        return None if noted is None or noted[1] != self._try_number else noted[0]

    def write(self, since: float | None) -> None:
        """Note an outage, or its end."""
        if since is not None:
            self._store.set(
                _OUTAGE_KEY, versioned({"since": since, "try_number": self._try_number})
            )
            self._is_noted = True
        elif self._is_noted:
            self._store.delete(_OUTAGE_KEY)
            self._is_noted = False
