# SPDX-License-Identifier: Apache-2.0
"""Time that passes when a test says so, however fast or slow the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import pytest

from airflow_provider_promptlayer.testing import LocalPromptLayer, Workflow

Leap: TypeAlias = Callable[[float], None]
"""Let the wall clock leap by so many seconds."""


def leaping(monkeypatch: pytest.MonkeyPatch) -> Leap:
    """Have :func:`time.time` go on as it does, and leap where it is told to.

    So a deadline is far away for the slowest machine until the test says that it has passed.
    """
    real, ahead = time.time, [0.0]

    def leap(seconds: float) -> None:
        ahead[0] += seconds

    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])
    return leap


@contextmanager
def timed_by_looks(workflows: Iterable[Workflow]) -> Iterator[LocalPromptLayer]:
    """Run a PromptLayer at which a second passes with each look, and none without.

    So a run of ``duration=1`` goes on at the first look after its start and has ended at the
    second, and nobody can be too late to see it go on.
    """

    def polls() -> float:
        return float(server.count("GET"))

    with LocalPromptLayer(workflows, clock=polls) as server:
        yield server
