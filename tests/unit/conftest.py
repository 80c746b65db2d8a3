# SPDX-License-Identifier: Apache-2.0
"""Keep the unit tests away from the user's Airflow."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from support.clocks import Leap

# Before anything imports Airflow, which reads these once.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="promptlayer-unit-")
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "True"
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

# The same examples each time, however long a slow machine takes over one. To look for others:
# --hypothesis-profile=default --hypothesis-seed=random
settings.register_profile(
    "steady",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def no_scheduler_to_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Come back from a deferral at once: here is no scheduler that could be overtaken."""
    monkeypatch.setattr("airflow_provider_promptlayer.waiting.SETTLE_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def no_brake_from_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of this test may have the port of one that told its clients to wait for an hour."""
    monkeypatch.setattr("airflow_provider_promptlayer.hooks.base._throttles", {})


@pytest.fixture
def leap(monkeypatch: pytest.MonkeyPatch) -> Leap:
    """Let the wall clock leap by so many seconds when called."""
    from support.clocks import leaping

    return leaping(monkeypatch)
