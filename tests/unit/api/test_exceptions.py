# SPDX-License-Identifier: Apache-2.0
"""The tree of errors."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest

from airflow_provider_promptlayer import exceptions
from airflow_provider_promptlayer.api.imports import ImportStatus
from airflow_provider_promptlayer.api.scorecards import ScorecardCalculation, ScorecardRow
from airflow_provider_promptlayer.api.workflows import NodeResult, WorkflowResults

CLASSES: list[type[exceptions.PromptLayerError]] = [
    getattr(exceptions, name) for name in exceptions.__all__
]
RESULTS = WorkflowResults(42, True, {"n": NodeResult("FAILED", error_message="why")})
EXTRA: dict[str, dict[str, Any]] = {
    "PromptLayerUnreachableError": {"arrived": True},
    "PromptLayerRunFailedError": {"results": RESULTS},
    "PromptLayerEvaluationFailedError": {
        "outcome": ScorecardCalculation("c", "completed", criterion_summaries={"a": {}}),
        "score": 0.5,
        "rows": [ScorecardRow(3, None, "error", "why")],
    },
    "PromptLayerOutcomeError": {"outcome": RESULTS},
    "PromptLayerBatchFailedError": {"errors": [None, "why"]},
    "PromptLayerImportFailedError": {"outcome": ImportStatus("i", "failed")},
    "PromptLayerConfirmationNeededError": {"affected_cell_count": 5000},
}


def make(cls: type[exceptions.PromptLayerError]) -> exceptions.PromptLayerError:
    error = cls("one line", **EXTRA.get(cls.__name__, {}))
    error.status = 418
    if isinstance(error, exceptions.PromptLayerTransientError):
        error.retry_after = 2.5
    return error


def test_everything_that_is_defined_is_exported() -> None:
    defined = {name for name in vars(exceptions) if re.fullmatch(r"PromptLayer\w*Error", name)}
    assert set(exceptions.__all__) == defined


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_it_says_whether_trying_again_helps(cls: type[exceptions.PromptLayerError]) -> None:
    is_transient = issubclass(cls, exceptions.PromptLayerTransientError)
    is_refused = issubclass(cls, exceptions.PromptLayerRefusedError)
    assert cls.retry_helps in ({True} if is_transient else {False} if is_refused else {True, False})
    if cls is not exceptions.PromptLayerError:
        assert re.search(r"\bagain\b", vars(cls)["__doc__"], re.IGNORECASE)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_it_survives_the_way_between_processes(cls: type[exceptions.PromptLayerError]) -> None:
    error = make(cls)
    error.add_note("noted")
    pickled = (pickle.loads(pickle.dumps(error, protocol)) for protocol in range(6))
    for other in (*pickled, copy.copy(error)):
        assert type(other) is cls
        assert str(other) == "one line"
        assert vars(other) == vars(error)


def test_builtin_relatives() -> None:
    assert issubclass(exceptions.PromptLayerConfigurationError, ValueError)
    assert issubclass(exceptions.PromptLayerInvalidInputError, ValueError)
    assert issubclass(exceptions.PromptLayerWaitTimeoutError, TimeoutError)
