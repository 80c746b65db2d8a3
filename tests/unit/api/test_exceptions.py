# SPDX-License-Identifier: Apache-2.0
"""The tree of errors."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest

from airflow_provider_promptlayer import exceptions
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
def test_it_is_in_the_tree(cls: type[exceptions.PromptLayerError]) -> None:
    assert issubclass(cls, exceptions.PromptLayerError)
    assert isinstance(cls.retry_helps, bool)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize(
    "travel",
    [*(lambda e, p=p: pickle.loads(pickle.dumps(e, p)) for p in range(6)), copy.copy],
    ids=[*(f"pickle-{p}" for p in range(6)), "copy"],
)
def test_it_survives_the_way_between_processes(
    cls: type[exceptions.PromptLayerError], travel: Any
) -> None:
    error = make(cls)
    error.add_note("noted")
    other = travel(error)
    assert type(other) is cls
    assert str(other) == "one line"
    assert vars(other) == vars(error)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_its_docstring_says_whether_trying_again_helps(
    cls: type[exceptions.PromptLayerError],
) -> None:
    doc = vars(cls).get("__doc__") or ""
    if cls is exceptions.PromptLayerError:
        assert cls.retry_helps is False
        return  # the root says it of each class, in the docstring of the attribute
    assert re.search(r"\bagain\b", doc, re.IGNORECASE)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_what_is_transient_can_be_tried_again(cls: type[exceptions.PromptLayerError]) -> None:
    if issubclass(cls, exceptions.PromptLayerTransientError):
        assert cls.retry_helps
    if issubclass(cls, exceptions.PromptLayerRefusedError):
        assert not cls.retry_helps


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("PromptLayerConfigurationError", ValueError),
        ("PromptLayerInvalidInputError", ValueError),
        ("PromptLayerWaitTimeoutError", TimeoutError),
    ],
)
def test_builtin_relatives(name: str, builtin: type[Exception]) -> None:
    assert issubclass(getattr(exceptions, name), builtin)
