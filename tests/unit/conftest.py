# SPDX-License-Identifier: Apache-2.0
"""Keep the unit tests away from the user's Airflow, and run them in several processes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

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

_started: list[str] = []
"""The tests of this process, in the order in which they were started."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return what `-n auto` means.

    Two processes for each processor, because tests spend half of their time waiting; none for a
    few chosen tests, which are done before the processes have imported Airflow.
    """
    return 0 if config.getoption("keyword") else 2 * (os.cpu_count() or 1)


def pytest_runtest_logstart(nodeid: str) -> None:
    """Remember which test is started."""
    _started.append(nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say with a failure in one of several processes how to run what that process had run."""
    report = yield
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if report.failed and worker:
        assert item.config.cache is not None
        order = item.config.cache.mkdir("order") / f"{worker}.txt"
        order.write_text("\n".join(_started))
        path = order.relative_to(item.config.rootpath)
        report.sections.append(("the same tests in the same order", f"python -m pytest @{path}"))
    return report


def pytest_unconfigure() -> None:
    """Remove Airflow's home."""
    shutil.rmtree(os.environ["AIRFLOW_HOME"], ignore_errors=True)


@pytest.fixture(autouse=True)
def no_scheduler_to_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Come back from a deferral at once: here is no scheduler that could be overtaken."""
    monkeypatch.setattr("airflow_provider_promptlayer.bases.deferral.SETTLE_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not pause for long after trouble: how long belongs to the tests of the pure decision."""
    from airflow_provider_promptlayer.polling.retries import RetryPolicy

    pause = RetryPolicy.pause

    def short_pause(policy: RetryPolicy, *args: Any, **kwargs: Any) -> float:
        return pause(replace(policy, longest_pause=0.005), *args, **kwargs)

    monkeypatch.setattr(RetryPolicy, "pause", short_pause)


@pytest.fixture(autouse=True)
def no_brake_from_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of this test may have the port of one that told its clients to wait for an hour."""
    throttles = "airflow_provider_promptlayer.hooks.connection._throttles"
    monkeypatch.setattr(throttles, WeakKeyDictionary())


@pytest.fixture
def leap(monkeypatch: pytest.MonkeyPatch) -> Leap:
    """Let the wall clock leap by so many seconds when called."""
    from support.clocks import leaping

    return leaping(monkeypatch)
