# SPDX-License-Identifier: Apache-2.0
"""How a batch is kept: as notes for later tries, and whole while the task is deferred.

The notes are a head, and a page for each hundred inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_promptlayer.api.arguments import execution_id
from airflow_provider_promptlayer.api.fields import FieldError, Fields
from airflow_provider_promptlayer.api.persisted import read_deferred, versioned
from airflow_provider_promptlayer.submission.batch import Batch, indexes_by
from airflow_provider_promptlayer.submission.batch_input import (
    REPORTED,
    SENT,
    Input,
    Note,
    Stage,
    Starter,
)


@dataclass(frozen=True)
class Head:
    """What concerns all inputs.

    :param clear_epochs: those of the tries whose pages count, see :func:`.clear_epoch`; the
        last is that of the try that wrote this.
    :param size: how many inputs the pages have at most.
    :param base_url: where that try has reattached to runs, and sent its starts.
    :param order: for each place of that try's list, the index of the input there.
    :param is_delivered: whether the results were pushed.
    """

    clear_epochs: list[str]
    size: int
    base_url: str
    order: list[int]
    is_delivered: bool = False

    def payload(self) -> dict[str, Any]:
        """Return the head as plain JSON."""
        return versioned(vars(self))

    @classmethod
    def read(cls, fields: Fields) -> Head:
        """Return the head that was kept.

        :raises ValueError: if it is invalid.
        """
        epochs, size, order = fields.get("clear_epochs"), fields.count("size"), fields.get("order")
        if not _are_texts(epochs) or not epochs:
            raise FieldError("has no clear_epochs")
        if not isinstance(order, list) or not _are_indexes(order, size):
            raise FieldError("has no order")
        return cls(epochs, size, fields.text("base_url"), order, fields.flag("is_delivered"))


@dataclass(frozen=True)
class Page:
    """The notes about some inputs.

    :param clear_epoch: of the try that wrote them.
    :param base_url: where the starts were sent: elsewhere, the ids are those of other runs.
    :param inputs: the fingerprint of each input, as it was when its start was sent.
    :param runs: the note about each input.
    """

    clear_epoch: str
    base_url: str
    inputs: Sequence[str]
    runs: Sequence[Note]

    def payload(self) -> dict[str, Any]:
        """Return the page as plain JSON."""
        return versioned(vars(self))

    @classmethod
    def read(cls, fields: Fields) -> Page:
        """Return the page that was kept.

        :raises ValueError: if it is invalid.
        """
        inputs, runs = fields.get("inputs"), fields.get("runs")
        if not isinstance(runs, list) or not _are_texts(inputs) or len(inputs) != len(runs):
            raise FieldError("does not have one run for each input")
        if not all(run in (None, SENT, REPORTED) or (type(run) is int and run > 0) for run in runs):
            raise FieldError("has an invalid run")
        return cls(fields.text("clear_epoch"), fields.text("base_url"), inputs, runs)


def batch_payload(batch: Batch) -> dict[str, Any]:
    """Return the whole state as plain JSON. Inputs that share a problem share its text."""
    inputs = batch.inputs
    problems = indexes_by(each.problem for each in inputs)
    return versioned(
        {
            "inputs": [each.fingerprint for each in inputs],
            "order": batch.order,
            "runs": [each.run_id for each in inputs],
            "stages": indexes_by(each.stage.value for each in inputs),
            "starters": indexes_by(each.starter.value for each in inputs),
            "problems": [[text, at] for text, at in problems.items() if text is not None],
            "retry_helps": [index for index, each in enumerate(inputs) if each.retry_helps],
            "reported": [index for index, each in enumerate(inputs) if each.is_reported],
        }
    )


def read_batch(kept: Any) -> Batch:
    """Return the batch whose state :func:`batch_payload` returned.

    :raises PromptLayerEventError: if this release cannot read it.
    """
    return read_deferred(
        kept,
        _read,
        name="What the task noted of its batch when it was deferred",
        missing="The task was resumed without its notes on the batch.",
    )


def _read(fields: Fields) -> Batch:
    try:
        inputs = [
            Input(str(text), run_id=None if run_id is None else execution_id(run_id))
            for text, run_id in zip(fields.get("inputs"), fields.get("runs"), strict=True)
        ]
        marks: dict[str, Iterable[tuple[Any, list[int]]]] = {
            "stage": [(Stage(name), at) for name, at in fields.get("stages").items()],
            "starter": [(Starter(name), at) for name, at in fields.get("starters").items()],
            "problem": [(str(text), at) for text, at in fields.get("problems")],
            "retry_helps": [(True, fields.get("retry_helps"))],
            "is_reported": [(True, fields.get("reported"))],
        }
        for name, groups in marks.items():
            for value, indexes in groups:
                for index in indexes:
                    setattr(inputs[index], name, value)
        order = fields.get("order")
        if not _are_indexes(order, len(inputs)):
            raise FieldError("has an order of other inputs")
        return Batch(inputs, order)
    except (AttributeError, KeyError, TypeError, IndexError):
        raise FieldError("does not have the fields of a batch") from None


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _are_indexes(order: Sequence[Any], size: int) -> bool:
    return all(index in range(size) for index in order) and len({*order}) == len(order)
