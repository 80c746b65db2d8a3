# SPDX-License-Identifier: Apache-2.0
"""What a task remembers across tries: Airflow's task state store, from Airflow 3.3 on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.columns import PointedColumn
from airflow_provider_promptlayer.api.errors import (
    PromptLayerConfigurationError,
    PromptLayerStartUncertainError,
)
from airflow_provider_promptlayer.api.fields import Fields
from airflow_provider_promptlayer.api.persisted import UnreadableError, read_persisted, versioned
from airflow_provider_promptlayer.api.version_watch import VersionWatch
from airflow_provider_promptlayer.submission.batch import Batch, fingerprint
from airflow_provider_promptlayer.submission.batch_input import Input, Stage
from airflow_provider_promptlayer.submission.batch_persisted import Head, Page
from airflow_provider_promptlayer.submission.reattach import (
    KEY,
    SubmissionPhase,
    SubmissionRecord,
    question,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_QUESTION_KEY: Final = "promptlayer_question"
_OUTAGE_KEY: Final = "promptlayer_outage"
_SHEET_KEY: Final = "promptlayer_sheet"
_WATCH_KEY: Final = "promptlayer_watch"

_NOTHING: Final = object()


class TaskState:
    """The state of one task instance; mapped indexes have their own, tries share it.

    :param store: ``context["task_state_store"]``.
    :param clear_epoch: see :class:`.SubmissionRecord`.
    :param try_number: the running try.
    """

    def __init__(self, store: Any, clear_epoch: str, try_number: int = 1) -> None:
        self._store = store
        self.clear_epoch = clear_epoch
        self._try_number = try_number

    @classmethod
    def of(cls, context: Context) -> Self | None:
        """Return the state of the running task, or None where Airflow keeps none."""
        values: Any = context
        store, ti = values.get("task_state_store"), values["ti"]
        if store is None:
            return None
        return cls(store, version_compat.clear_epoch(ti), int(ti.try_number))

    def _kept(self, key: str) -> Any:
        """Return what is kept under a key, or None where nothing is.

        :raises UnreadableError: if Airflow knows where a state backend has put the value, and the
            value is not there, such as a file on another machine. Airflow returns None then, and
            the default for a key that it does not know.
        """
        found = self._store.get(key, _NOTHING)
        if found is None:
            raise UnreadableError(
                "is not where the state backend has put it",
                "Let [workers] state_store_backend lead to the same place on all workers.",
                is_elsewhere=True,
            )
        return None if found is _NOTHING else found

    def _ask_about(self, kept: Any) -> None:
        """Record that this try asks a person to check what an earlier try has left."""
        asked = {"clear_epoch": self.clear_epoch, "about": _digest(kept)}
        self._store.set(_QUESTION_KEY, versioned(asked))

    def _is_answered_about(self, kept: Any) -> bool:
        """Return whether a person was asked about this value, and has cleared the task since."""
        try:
            asked = read_persisted(
                self._store.get(_QUESTION_KEY),
                lambda fields: (fields.text("clear_epoch"), fields.text("about")),
            )
        except UnreadableError:
            return False  # asking once more does no harm
        return asked is not None and asked[0] != self.clear_epoch and asked[1] == _digest(kept)


def _digest(kept: Any) -> str:
    return fingerprint(json.dumps(kept, sort_keys=True, default=repr).encode())


class RunState(TaskState):
    """What a task remembers of its run: one record."""

    def read(self) -> SubmissionRecord | None:
        """Return what an earlier try has left, or None.

        :raises UnreadableError: if that cannot be read.
        """
        return read_persisted(self._kept(KEY), SubmissionRecord.read)

    def read_if_readable(self) -> SubmissionRecord | None:
        """Return the record of this try; None also if it cannot be read."""
        try:
            return self.read()
        except UnreadableError:
            return None

    def write(
        self,
        phase: SubmissionPhase,
        base_url: str,
        external_id: int | str | None = None,
        **details: Any,
    ) -> None:
        """Note how far the task has come; the arguments are those of :class:`SubmissionRecord`."""
        record = SubmissionRecord(
            phase, self.clear_epoch, self._try_number, base_url, external_id, **details
        )
        self.store(record)

    def store(self, record: SubmissionRecord) -> None:
        """Write a record, such as one of an earlier try."""
        self._store.set(KEY, record.payload())

    def forget(self) -> None:
        """Remove the record."""
        self._store.delete(KEY)

    def ask(self) -> None:
        """Record that this try asks a person to check what an earlier try has left."""
        self._ask_about(self._store.get(KEY))

    def is_answered(self) -> bool:
        """Return whether a person was asked about the record, and has cleared the task since."""
        return self._is_answered_about(self._store.get(KEY))


class BatchState(TaskState):
    """What a task remembers of a batch: a page of notes for each hundred inputs, and a head.

    With one record for all, a thousand starts would write a thousand lists of a thousand runs. A
    page is written before each start, and one write records both that start and the ids so far.
    """

    PAGE: ClassVar[int] = 100
    _HEAD: Final = "promptlayer_batch"

    def __init__(self, store: Any, clear_epoch: str, try_number: int = 1) -> None:
        super().__init__(store, clear_epoch, try_number)
        self.base_url = ""  # where the starts are sent
        self._dirty: set[int] = set()  # the first index of each page that is to be written
        self._head: Head | None = None  # as it was last read or written
        self.left_elsewhere: list[int] = []  # runs at another PromptLayer, of tries before a clear

    def open(self, fingerprints: Sequence[str], base_url: str) -> Batch:
        """Return the batch with which this try goes on from the notes of earlier tries.

        It reattaches to runs that were started. If a try died while it sent a start, that start is
        not sent again until a person who was told so has cleared the task.

        :param fingerprints: of the inputs as they are now.
        :param base_url: where the starts are sent.
        :raises PromptLayerStartUncertainError: if a part is unreadable, and no person was asked.
        :raises PromptLayerConfigurationError: if the connection of a retry leads to another
            PromptLayer than that of the runs.
        """
        self.base_url = base_url
        head = self._head = self._read_head()
        epochs, batch, places = [self.clear_epoch], Batch([]), list[int]()
        is_retry = head is not None and head.clear_epochs[-1] == self.clear_epoch
        if head is not None and (is_retry or not head.is_delivered):
            epochs = [epoch for epoch in head.clear_epochs if epoch != self.clear_epoch] + epochs
            batch = Batch(self._inputs(head, is_retry=is_retry))
            places = head.order if is_retry else places
        batch.arrange(fingerprints, places)
        self._update_head(batch, epochs)
        return batch

    def write(self, batch: Batch, *changed: int) -> None:
        """Note how far these inputs are, and what has become of the starts that were noted."""
        self._dirty.update(index // self.PAGE * self.PAGE for index in changed)
        self._update_head(batch)
        for first in sorted(self._dirty):
            inputs = batch.inputs[first : first + self.PAGE]
            texts, notes = [each.fingerprint for each in inputs], [each.note for each in inputs]
            page = Page(self.clear_epoch, self.base_url, texts, notes)
            self._store.set(self._key(first), page.payload())
            if all(each.stage is not Stage.STARTING for each in inputs):
                self._dirty.discard(first)

    def deliver(self, batch: Batch) -> None:
        """Note that the results were pushed: a clear after that starts every input again."""
        self._update_head(batch, is_delivered=True)

    def _update_head(
        self, batch: Batch, epochs: list[str] | None = None, *, is_delivered: bool = False
    ) -> None:
        """Write the head if it has changed.

        :param epochs: see :class:`.Head`; None to keep those that the head has.
        """
        if epochs is None:
            self._head = self._head or self._read_head()  # not read yet after a deferral
            epochs = self._head.clear_epochs if self._head else [self.clear_epoch]
        head = Head(epochs, len(batch.inputs), self.base_url, batch.order, is_delivered)
        if head != self._head:
            self._store.set(self._HEAD, head.payload())
            self._head = head

    def _read_head(self) -> Head | None:
        try:
            return read_persisted(self._kept(self._HEAD), Head.read)
        except UnreadableError as error:
            self._ask_unless_answered({self._HEAD: error})
            return None

    def _inputs(self, head: Head, *, is_retry: bool) -> list[Input]:
        """Return what this try makes of each input that an earlier one has seen.

        :param is_retry: whether the task has not been cleared since the head was written.
        """
        # A retry finds the runs where the first try since the clear has reattached to them.
        runs_are_at = head.base_url if is_retry else self.base_url
        inputs = [Input("") for _ in range(head.size)]
        unreadable: dict[str, UnreadableError] = {}
        for first in range(0, head.size, self.PAGE):
            key = self._key(first)
            try:
                page = read_persisted(self._kept(key), Page.read)
            except UnreadableError as error:
                unreadable[key] = error
                continue
            if page is not None and page.clear_epoch in head.clear_epochs:
                size = min(self.PAGE, head.size - first)
                found = self._inputs_of(page, first, runs_are_at)[:size]
                inputs[first : first + len(found)] = found
        if unreadable:
            self._ask_unless_answered(unreadable)
        return inputs

    def _inputs_of(self, page: Page, first: int, runs_are_at: str) -> list[Input]:
        is_retry = page.clear_epoch == self.clear_epoch
        is_elsewhere = not is_retry and page.base_url != runs_are_at
        if page.base_url != self.base_url and any(page.runs) and not is_elsewhere:
            raise PromptLayerConfigurationError(
                f"Runs of this batch were started at {page.base_url}, and the Airflow connection "
                f"leads to {self.base_url} now. {version_compat.way_back(is_noted=True)}"
            )
        inputs = []
        for index, (text, note) in enumerate(zip(page.inputs, page.runs, strict=True), first):
            if is_elsewhere and isinstance(note, int):
                self.left_elsewhere.append(note)
                inputs.append(Input(""))
            else:
                inputs.append(Input.of_note(index, text, note, is_retry=is_retry))
        return inputs

    def _ask_unless_answered(self, unreadable: Mapping[str, UnreadableError]) -> None:
        """Ask a person to check, unless one was asked before and has cleared the task since.

        :param unreadable: key → why its value cannot be read.
        :raises PromptLayerStartUncertainError: to ask.
        """
        kept = {key: self._store.get(key) for key in unreadable}
        is_in_backend = any(error.is_elsewhere for error in unreadable.values())
        if not is_in_backend and self._is_answered_about(kept):
            return
        self._ask_about(kept)
        keys, error = ", ".join(unreadable), next(iter(unreadable.values()))
        raise PromptLayerStartUncertainError(
            question(
                error.about(f"What an earlier try noted in the task's state ({keys})"),
                "look in PromptLayer for runs with the airflow_run_id and the airflow_task_id of "
                "this task in their metadata",
                keys=keys,
                is_in_backend=is_in_backend,
            )
        )

    def _key(self, first: int) -> str:
        return f"{self._HEAD}_{first}"


class OutageState(TaskState):
    """Since when PromptLayer is out of reach, for a sensor that is rescheduled between two polls.

    Each poll is another process then. Airflow deletes a task's XComs before each of them, so the
    task state is the only place, and before Airflow 3.3 there is none.
    """

    _is_noted = False

    def read(self, log: Any) -> float | None:
        """Return since when, in seconds since the epoch; None without an outage in this try.

        :param log: warns of a record that cannot be read, which counts as none.
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
            record = {"since": since, "try_number": self._try_number}
            self._store.set(_OUTAGE_KEY, versioned(record))
        elif self._is_noted:
            self._store.delete(_OUTAGE_KEY)
        self._is_noted = since is not None


class SheetState(TaskState):
    """The sheet whose titles a sensor has looked up that is rescheduled between two polls.

    Kept in the task state for the reason that :class:`OutageState` has.
    """

    def read(self, titles: Sequence[str]) -> tuple[str, str] | None:
        """Return the UUIDs of the table and the sheet, if this try has noted them.

        :param titles: those of the arguments.
        """
        try:
            noted = read_persisted(
                self._store.get(_SHEET_KEY),
                lambda fields: (
                    (fields.get("titles"), fields.count("try_number")),
                    (fields.text("table_id"), fields.text("sheet_id")),
                ),
            )
        except UnreadableError:
            return None  # looking the titles up once more does no harm
        return None if noted is None or noted[0] != (titles, self._try_number) else noted[1]

    def write(self, titles: Sequence[str], table_id: str, sheet_id: str) -> None:
        """Note a sheet that was found."""
        found = {"titles": titles, "table_id": table_id, "sheet_id": sheet_id}
        self._store.set(_SHEET_KEY, versioned({**found, "try_number": self._try_number}))


class WatchState(TaskState):
    """Which version a watch began with: all tries of a task wait for another one than that."""

    def read(self, watch: VersionWatch) -> tuple[VersionWatch, str] | None:
        """Return the watch with which the task began, and the base URL of its PromptLayer.

        :param watch: that of the arguments, with any version before.
        :returns: None if the task has noted none, or was cleared since.
        """
        try:
            noted = read_persisted(
                self._store.get(_WATCH_KEY),
                lambda fields: (
                    fields.text("clear_epoch"),
                    fields.mapping_or_none("watch") or {},
                    fields.text("base_url"),
                ),
            )
        except UnreadableError:
            return None
        if noted is None or noted[0] != self.clear_epoch:
            return None
        found = watch.since(noted[1].get("previous_version"))
        return (found, noted[2]) if asdict(found) == noted[1] else None

    def write(self, watch: VersionWatch, base_url: str) -> None:
        """Note the watch with which the task begins."""
        kept = {
            "clear_epoch": self.clear_epoch,
            "watch": asdict(watch),
            "base_url": base_url,
        }
        self._store.set(_WATCH_KEY, versioned(kept))


class ColumnsState(TaskState):
    """What a task remembers of the columns that it has pointed at other versions."""

    KEY: ClassVar[str] = "promptlayer_columns"

    def read(self) -> list[PointedColumn]:
        """Return the columns that are to be pointed back.

        :raises PromptLayerConfigurationError: if that cannot be read.
        """

        def read(fields: Fields) -> list[PointedColumn]:
            return [
                PointedColumn(
                    each.text("column_id"),
                    each.text_or_none("title") or "",
                    each.get("of"),
                    each.mapping_or_none("before") or {},
                    each.mapping_or_none("after") or {},
                )
                for each in fields.objects("columns")
            ]

        try:
            return read_persisted(self._kept(self.KEY), read) or []
        except UnreadableError as error:
            raise PromptLayerConfigurationError(
                error.about(f"What an earlier try noted about columns ({self.KEY})")
            ) from None

    def write(self, columns: Sequence[PointedColumn]) -> None:
        """Note the columns that are about to be pointed at other versions."""
        self._store.set(self.KEY, versioned({"columns": [asdict(each) for each in columns]}))

    def forget(self) -> None:
        """Note that the columns were pointed back."""
        self._store.delete(self.KEY)
