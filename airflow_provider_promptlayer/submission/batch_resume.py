# SPDX-License-Identifier: Apache-2.0
"""The state of a batch, as a task keeps it while it is deferred."""

from __future__ import annotations

from typing import Any

from airflow_provider_promptlayer.api.arguments import execution_id
from airflow_provider_promptlayer.api.errors import PromptLayerEventError
from airflow_provider_promptlayer.api.fields import FieldError, Fields
from airflow_provider_promptlayer.api.persisted import UnreadableError, read_persisted, versioned
from airflow_provider_promptlayer.submission.batch import Batch
from airflow_provider_promptlayer.submission.batch_input import Input, Stage, Starter


def batch_payload(batch: Batch) -> dict[str, Any]:
    """Return the state as plain JSON. Inputs that share a problem share its text."""
    inputs = list(enumerate(batch.inputs))
    problems: dict[str, list[int]] = {}
    for index, each in inputs:
        if each.problem is not None:
            problems.setdefault(each.problem, []).append(index)
    stages = {stage: [i for i, each in inputs if each.stage is stage] for stage in Stage}
    starters = {who: [i for i, each in inputs if each.starter is who] for who in Starter}
    return versioned(
        {
            "inputs": [each.fingerprint for each in batch.inputs],
            "order": batch.order,
            "runs": [each.run_id for each in batch.inputs],
            "stages": {stage.value: indexes for stage, indexes in stages.items() if indexes},
            "starters": {who.value: indexes for who, indexes in starters.items() if indexes},
            "problems": [[problem, indexes] for problem, indexes in problems.items()],
            "retry_helps": [index for index, each in inputs if each.retry_helps],
            "reported": [index for index, each in inputs if each.is_reported],
        }
    )


def read_batch(kept: Any) -> Batch:
    """Return the state that :func:`batch_payload` has put down.

    :raises PromptLayerEventError: if it is none that this release can read.
    """
    try:
        batch = read_persisted(kept, _read)
    except UnreadableError as error:
        raise PromptLayerEventError(
            f"What the task noted of its batch when it was deferred {error.found}. "
            f"{error.remedy}".rstrip()
        ) from None
    if batch is None:
        raise PromptLayerEventError("The task was resumed without its notes on the batch.")
    return batch


def _read(fields: Fields) -> Batch:
    try:
        inputs = [
            Input(str(text), run_id=None if run_id is None else execution_id(run_id))
            for text, run_id in zip(fields.get("inputs"), fields.get("runs"), strict=True)
        ]
        for stage, indexes in fields.get("stages").items():
            for index in indexes:
                inputs[index].stage = Stage(stage)
        for starter, indexes in fields.get("starters").items():
            for index in indexes:
                inputs[index].starter = Starter(starter)
        for problem, indexes in fields.get("problems"):
            for index in indexes:
                inputs[index].problem = str(problem)
        for index in fields.get("retry_helps"):
            inputs[index].retry_helps = True
        for index in fields.get("reported"):
            inputs[index].is_reported = True
        order = fields.get("order")
        if len({*order}) != len(order) or not {*order} <= {*range(len(inputs))}:
            raise FieldError("has an order of other inputs")
        return Batch(inputs, order)
    except (AttributeError, KeyError, TypeError, IndexError):
        raise FieldError("has not the fields of a batch") from None
