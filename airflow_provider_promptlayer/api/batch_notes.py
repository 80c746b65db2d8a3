# SPDX-License-Identifier: Apache-2.0
"""What a batch notes for later tries: a head, and a page for each hundred of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_promptlayer.api.fields import FieldError, Fields
from airflow_provider_promptlayer.api.persisted import versioned

_SENT: Final = "sent"
_REPORTED: Final = "reported"


@dataclass(frozen=True, slots=True)
class Note:
    """What an earlier try has left behind about one input.

    :param fingerprint: of the input, as it was when its start was sent.
    :param run_id: its run; None without one, and where it is not known.
    :param was_sent: whether its start was about to be sent, and nothing tells what came of it.
    :param was_reported: whether a person was told so.
    :param is_of_retry: whether the task has not been cleared since.
    """

    fingerprint: str
    run_id: int | None = None
    was_sent: bool = False
    was_reported: bool = False
    is_of_retry: bool = True


@dataclass(frozen=True, slots=True)
class Head:
    """What concerns all inputs.

    :param clear_epochs: those of the tries whose pages count, see :func:`.compat.clear_epoch`; the
        last is that of the try that wrote this.
    :param size: how many inputs the pages may have.
    :param base_url: where that try has gone back to runs, and sent its starts.
    :param order: which of the inputs stood at each place of the list that it had.
    :param is_delivered: whether the results were handed on.
    """

    clear_epochs: Sequence[str]
    size: int
    base_url: str
    order: Sequence[int]
    is_delivered: bool = False

    def payload(self) -> dict[str, Any]:
        """Return the head as plain JSON."""
        return versioned(
            {
                "clear_epochs": list(self.clear_epochs),
                "size": self.size,
                "base_url": self.base_url,
                "order": list(self.order),
                "is_delivered": self.is_delivered,
            }
        )

    @classmethod
    def read(cls, fields: Fields) -> Head:
        """Return the head that was kept.

        :raises ValueError: if it is none.
        """
        epochs = fields.get("clear_epochs")
        if (
            not isinstance(epochs, list)
            or not epochs
            or not all(isinstance(epoch, str) for epoch in epochs)
        ):
            raise FieldError("has no clear_epochs")
        size, order = fields.count("size"), fields.get("order")
        if (
            not isinstance(order, list)
            or not all(index in range(size) for index in order)
            or len({*order}) != len(order)
        ):
            raise FieldError("has no order")
        return cls(epochs, size, fields.text("base_url"), order, fields.flag("is_delivered"))


@dataclass(frozen=True, slots=True)
class Page:
    """The notes about some inputs.

    :param clear_epoch: of the try that wrote them.
    :param base_url: where the starts are sent: elsewhere, the ids are those of other runs.
    """

    clear_epoch: str
    base_url: str
    notes: Sequence[Note]

    def payload(self) -> dict[str, Any]:
        """Return the page as plain JSON."""
        return versioned(
            {
                "clear_epoch": self.clear_epoch,
                "base_url": self.base_url,
                "inputs": [note.fingerprint for note in self.notes],
                "runs": [_run(note) for note in self.notes],
            }
        )

    @classmethod
    def read(cls, fields: Fields) -> Page:
        """Return the page that was kept.

        :raises ValueError: if it is none.
        """
        inputs, runs = fields.get("inputs"), fields.get("runs")
        if not isinstance(inputs, list) or not isinstance(runs, list) or len(inputs) != len(runs):
            raise FieldError("has not one run for each input")
        notes = [_note(text, run) for text, run in zip(inputs, runs, strict=True)]
        return cls(fields.text("clear_epoch"), fields.text("base_url"), notes)


def _run(note: Note) -> int | str | None:
    if note.run_id is None and note.was_sent:
        return _REPORTED if note.was_reported else _SENT
    return note.run_id


def _note(fingerprint: Any, run: Any) -> Note:
    if not isinstance(fingerprint, str):
        raise FieldError("has an input that is no fingerprint")
    if run is None:
        return Note(fingerprint)
    if isinstance(run, int) and not isinstance(run, bool) and run > 0:
        return Note(fingerprint, run, was_sent=True)
    if run in (_SENT, _REPORTED):
        return Note(fingerprint, was_sent=True, was_reported=run == _REPORTED)
    raise FieldError("has a run that is none")
