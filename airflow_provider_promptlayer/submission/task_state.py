# SPDX-License-Identifier: Apache-2.0
"""What a task remembers of its run across tries: Airflow's task state store, from 3.3 on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.errors import PromptLayerStartUncertainError
from airflow_provider_promptlayer.api.persisted import UnreadableError, read_persisted, versioned
from airflow_provider_promptlayer.submission.batch import Batch, check_place, fingerprint
from airflow_provider_promptlayer.submission.batch_notes import Head, Note, Page
from airflow_provider_promptlayer.submission.reattach import KEY, SubmissionPhase, SubmissionRecord

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_QUESTION_KEY: Final = "promptlayer_question"
_OUTAGE_KEY: Final = "promptlayer_outage"

_NOTHING: Final = object()


def _kept(store: Any, key: str) -> Any:
    """Return what is kept under a key, or None where nothing is.

    :param store: ``context["task_state_store"]``.
    :raises UnreadableError: if Airflow has the place of a value in a state backend, and the value
        is not there, as in a directory of another machine. Airflow returns None for that, and the
        default for a key that it does not know.
    """
    found = store.get(key, _NOTHING)
    if found is None:
        raise UnreadableError(
            "is not where the state backend has put it",
            "Let [workers] state_store_backend lead to the same place on all workers.",
            is_elsewhere=True,
        )
    return None if found is _NOTHING else found


class RunState:
    """One record for each task instance; mapped indexes have their own, tries share it.

    :param store: ``context["task_state_store"]``.
    :param clear_epoch: see :class:`.SubmissionRecord`.
    :param try_number: the running try.
    """

    def __init__(self, store: Any, clear_epoch: str, try_number: int) -> None:
        self._store = store
        self.clear_epoch = clear_epoch
        self._try_number = try_number

    @classmethod
    def of(cls, context: Context) -> RunState | None:
        """Return the memory of the running task, or None where Airflow has none."""
        values: Any = context
        store, ti = values.get("task_state_store"), values["ti"]
        return (
            None
            if store is None
            else cls(store, version_compat.clear_epoch(ti), int(ti.try_number))
        )

    def read(self) -> SubmissionRecord | None:
        """Return what an earlier try left, or None.

        :raises UnreadableError: if that cannot be read.
        """
        return read_persisted(_kept(self._store, KEY), SubmissionRecord.read)

    def write(
        self,
        phase: SubmissionPhase,
        base_url: str,
        external_id: int | str | None = None,
        *,
        submitted_by_this_task: bool = True,
        input_fingerprint: str | None = None,
        job: Mapping[str, Any] | None = None,
    ) -> None:
        """Note how far the task has come."""
        try_number, epoch = self._try_number, self.clear_epoch
        self.put_back(
            SubmissionRecord(
                phase,
                epoch,
                try_number,
                base_url,
                external_id,
                submitted_by_this_task,
                input_fingerprint,
                job,
            )
        )

    def put_back(self, record: SubmissionRecord) -> None:
        """Note what was noted before."""
        self._store.set(KEY, record.payload())

    def forget(self) -> None:
        """Remove the note."""
        self._store.delete(KEY)

    def ask(self) -> None:
        """Note that this try asks a person to look at what an earlier one has left."""
        _Question(self._store, self.clear_epoch).ask(self._store.get(KEY))

    def is_answered(self) -> bool:
        """Return whether a person was asked about what is there, and has cleared the task since."""
        return _Question(self._store, self.clear_epoch).is_answered(self._store.get(KEY))


class _Question:
    """The note that a person is asked to look at what a try could not make out.

    :param store: see :class:`RunState`.
    :param clear_epoch: of the running try.
    """

    def __init__(self, store: Any, clear_epoch: str) -> None:
        self._store = store
        self._clear_epoch = clear_epoch

    def ask(self, about: Any) -> None:
        """Note that this try asks a person.

        :param about: what is there, as it was kept.
        """
        question = {"clear_epoch": self._clear_epoch, "about": _digest(about)}
        self._store.set(_QUESTION_KEY, versioned(question))

    def is_answered(self, about: Any) -> bool:
        """Return whether a person was asked about just this, and has cleared the task since."""
        try:
            asked = read_persisted(
                self._store.get(_QUESTION_KEY),
                lambda fields: (fields.text("clear_epoch"), fields.text("about")),
            )
        except UnreadableError:
            return False  # asking once more does no harm
        return asked is not None and asked[0] != self._clear_epoch and asked[1] == _digest(about)


def _digest(kept: Any) -> str:
    return fingerprint(json.dumps(kept, sort_keys=True, default=repr).encode())


class BatchState:
    """What a task remembers of a batch: a page of notes for each hundred inputs, and a head.

    With one record for all, a thousand starts would write a thousand lists of a thousand runs. A
    page is written before each start, and holds the ids so far as well: one write says both.

    :param store: ``context["task_state_store"]``.
    :param clear_epoch: see :class:`.SubmissionRecord`.
    """

    PAGE: Final = 100
    _HEAD: Final = "promptlayer_batch"

    def __init__(self, store: Any, clear_epoch: str) -> None:
        self._store = store
        self._clear_epoch = clear_epoch
        self._base_url = ""
        self._dirty: set[int] = set()
        self._head: Head | None = None  # as it was last read or written
        self.left_elsewhere: list[int] = []  # the runs that a clear has given up

    @classmethod
    def of(cls, context: Context) -> BatchState | None:
        """Return the memory of the running task, or None where Airflow has none."""
        values: Any = context
        store = values.get("task_state_store")
        return None if store is None else cls(store, version_compat.clear_epoch(values["ti"]))

    def open(self, fingerprints: Sequence[str], base_url: str) -> Batch:
        """Return what this try makes of what earlier ones have left; see :meth:`Batch.take_over`.

        :param base_url: where the starts are sent.
        :raises PromptLayerStartUncertainError: if a part is unreadable, and no person was asked.
        :raises PromptLayerConfigurationError: if a retry is led to another PromptLayer.
        """
        self._base_url = base_url
        head = self._head = self._read_head()
        epochs, notes = [self._clear_epoch], list[Note | None]()
        is_retry = head is not None and head.clear_epochs[-1] == self._clear_epoch
        if head is not None and (is_retry or not head.is_delivered):
            epochs = [epoch for epoch in head.clear_epochs if epoch != epochs[0]] + epochs
            notes = self._notes(head, is_retry=is_retry)
        places = head.order if head is not None and is_retry else ()
        batch = Batch.take_over(notes, fingerprints, places)
        self._update_head(batch, epochs)
        return batch

    def mark(self, *changed: int) -> None:
        """Let the next write take these inputs along."""
        self._dirty.update(index // self.PAGE * self.PAGE for index in changed)

    def write(self, batch: Batch, *changed: int) -> None:
        """Note where these inputs are, and those that were marked."""
        self.mark(*changed)
        self._update_head(batch)
        for first in sorted(self._dirty):
            notes = [each.note for each in batch.inputs[first : first + self.PAGE]]
            page = Page(self._clear_epoch, self._base_url, notes)
            self._store.set(self._key(first), page.payload())
            self._dirty.discard(first)

    def resume(self, base_url: str) -> None:
        """Go on after a deferral.

        :param base_url: where the starts are sent.
        """
        self._base_url = base_url

    def deliver(self, batch: Batch) -> None:
        """Note that the results were handed on: a task that is cleared now starts all anew."""
        self._update_head(batch, is_delivered=True)

    def _update_head(
        self, batch: Batch, epochs: Sequence[str] | None = None, *, is_delivered: bool = False
    ) -> None:
        """Write the head if it does not say so already.

        :param epochs: see :class:`.Head`; None for those that it has.
        """
        if self._head is None and epochs is None:  # as after a deferral
            self._head = self._read_head()
        if epochs is None:
            epochs = [self._clear_epoch] if self._head is None else self._head.clear_epochs
        head = Head(epochs, len(batch.inputs), self._base_url, batch.order, is_delivered)
        if head != self._head:
            self._store.set(self._HEAD, head.payload())
            self._head = head

    def _read_head(self) -> Head | None:
        try:
            return read_persisted(_kept(self._store, self._HEAD), Head.read)
        except UnreadableError as error:
            self._ask({self._HEAD: self._store.get(self._HEAD)}, [error])
            return None

    def _notes(self, head: Head, *, is_retry: bool) -> list[Note | None]:
        """Return what there is about each of the inputs.

        :param is_retry: whether the task has not been cleared since the head was written.
        """
        # A retry finds the runs where the first try since the clear has gone back to them.
        place = head.base_url if is_retry else self._base_url
        notes: list[Note | None] = []
        unreadable: dict[str, Any] = {}
        errors = []
        for first in range(0, head.size, self.PAGE):
            key, length = self._key(first), min(self.PAGE, head.size - first)
            found: list[Note | None] = []
            try:
                page = read_persisted(_kept(self._store, key), Page.read)
            except UnreadableError as error:
                unreadable[key] = self._store.get(key)
                errors.append(error)
            else:
                if page is not None and page.clear_epoch in head.clear_epochs:
                    found += self._notes_of(page, place)
            notes += (found + [None] * length)[:length]
        if unreadable:
            self._ask(unreadable, errors)
        return notes

    def _notes_of(self, page: Page, place: str) -> Sequence[Note | None]:
        """Return the notes of a page, without the runs that a clear has given up.

        :param place: where the runs are that it has not given up.
        """
        is_of_retry = page.clear_epoch == self._clear_epoch
        notes = [replace(note, is_of_retry=is_of_retry) for note in page.notes]
        if is_of_retry or page.base_url == place:
            if any(note.was_sent for note in notes):
                check_place(page.base_url, self._base_url, version_compat.way_back(is_noted=True))
            return notes
        self.left_elsewhere += [note.run_id for note in notes if note.run_id is not None]
        return [note if note.run_id is None else None for note in notes]

    def _ask(self, unreadable: Mapping[str, Any], errors: Sequence[UnreadableError]) -> None:
        """Return if a person was asked about all of it before, and has cleared the task since.

        :param unreadable: what was kept under which key.
        :param errors: why it cannot be read.
        :raises PromptLayerStartUncertainError: if not.
        """
        question = _Question(self._store, self._clear_epoch)
        is_in_backend = any(error.is_elsewhere for error in errors)
        if not is_in_backend and question.is_answered(unreadable):
            return
        question.ask(unreadable)
        keys = ", ".join(unreadable)
        raise PromptLayerStartUncertainError(
            f"What an earlier try noted in the task's state ({keys}) {errors[0].found}. "
            f"{errors[0].remedy} So runs may be going on: look in PromptLayer for runs with the "
            "airflow_run_id and the airflow_task_id of this task in their metadata. Then "
            + (
                f"clear this task, which goes back to them; or delete {keys} from the task's state "
                "and clear this task, to start others."
                if is_in_backend
                else "clear this task to start others."
            )
        )

    def _key(self, first: int) -> str:
        return f"{self._HEAD}_{first}"


class OutageState:
    """Since when PromptLayer is out of reach, for a sensor that is rescheduled between two polls.

    Each poll is another process then. Airflow deletes a task's XComs before each of them, so there
    is no other place, and before Airflow 3.3 none at all.
    """

    def __init__(self, store: Any, try_number: int) -> None:
        self._store = store
        self._try_number = try_number
        self._is_noted = False

    @classmethod
    def of(cls, context: Context) -> OutageState | None:
        """Return the state of the running task, or None where Airflow has none."""
        values: Any = context
        store = values.get("task_state_store")
        return None if store is None else cls(store, int(values["ti"].try_number))

    def read(self, log: Any) -> float | None:
        """Return since when, in seconds since the epoch; None without an outage in this try.

        :param log: is told of a record that cannot be read, which counts as none.
        """
        kept = self._store.get(_OUTAGE_KEY)
        self._is_noted = kept is not None
        try:
            noted = read_persisted(
                kept, lambda fields: (fields.number_or_none("since"), fields.count("try_number"))
            )
        except UnreadableError as error:
            log.warning(
                "The record of an outage of PromptLayer %s. max_outage counts from now on. %s",
                error.found,
                error.remedy,
            )
            return None
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
