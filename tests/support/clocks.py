# SPDX-License-Identifier: Apache-2.0
"""Time that passes when a test says so, however fast or slow the machine is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from airflow_provider_promptlayer.testing import LocalPromptLayer


class Clock:
    """The time of a local PromptLayer in a live test, which can be set forward."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._skipped

    def skip(self, seconds: float) -> None:
        """Set it forward by so many seconds."""
        self._skipped += seconds


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


def passing_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the wall clock stand still but for :func:`time.sleep`, which returns at once."""
    now = [time.time()]

    def sleep(seconds: float) -> None:
        # A pause too short for the clock's resolution must pass, too.
        now[0] = max(now[0] + seconds, math.nextafter(now[0], math.inf))

    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)


def timed_by_polls(*args: Any, **kwargs: Any) -> LocalPromptLayer:
    """Return a PromptLayer at which a second passes with each poll, and none without.

    A run of ``duration=1`` still runs at the first poll after its start and has ended at the
    second, however slow the machine is.
    """
    server = LocalPromptLayer(*args, clock=lambda: float(server.count("GET")), **kwargs)
    return server
