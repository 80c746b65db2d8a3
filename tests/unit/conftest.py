# SPDX-License-Identifier: Apache-2.0
"""Keep the unit tests away from the user's Airflow, and run them in several processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from support.clocks import Leap
    from support.kinds import Serve
    from support.modes import Store

    from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
    from airflow_provider_promptlayer.testing import LocalPromptLayer

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
    """Poll at once after a deferral, as no scheduler has to notice the deferral first."""
    monkeypatch.setattr("airflow_provider_promptlayer.bases.deferral.SETTLE_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def deferral_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Defer after the first poll: else no short job of a test would meet a triggerer."""
    monkeypatch.setenv("AIRFLOW__PROMPTLAYER__DEFER_AFTER", "0")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pause briefly after failed requests; the tests of polling/ say how long it really takes."""
    from airflow_provider_promptlayer.polling.retries import RetryPolicy

    pause = RetryPolicy.pause

    def short_pause(policy: RetryPolicy, *args: Any, **kwargs: Any) -> float:
        return pause(replace(policy, longest_pause=0.005), *args, **kwargs)

    monkeypatch.setattr(RetryPolicy, "pause", short_pause)


@pytest.fixture(autouse=True)
def no_brake_from_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what servers of other tests, on the same port, have asked their clients to wait."""
    from airflow_provider_promptlayer.hooks import connection

    monkeypatch.setattr(connection, "_throttles", type(connection._throttles)())


@pytest.fixture
def leap(monkeypatch: pytest.MonkeyPatch) -> Leap:
    """Let the wall clock leap by so many seconds when called."""
    from support.clocks import leaping

    return leaping(monkeypatch)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a PromptLayer when called, and have the default connection lead to it."""
    with ExitStack() as stack:

        def serve(server: LocalPromptLayer) -> LocalPromptLayer:
            stack.enter_context(server)
            monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", server.airflow_connection_json)
            return server

        yield serve


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    """A PromptLayer with each kind of job and each way in which it can end."""
    from support.kinds import new_server

    return serve(new_server())


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Return what was logged so far; Airflow 3 logs to the standard output, Airflow 2 does not."""
    # Whose line for each request would be all that pytest captures of Airflow 3. First, as each
    # call also sets the level of what is captured at all.
    caplog.set_level("WARNING", "airflow_provider_promptlayer.testing")
    caplog.set_level("INFO")
    printed: list[str] = []

    def log() -> str:
        printed.append(capsys.readouterr().out)
        return caplog.text or "".join(printed)

    return log


@pytest.fixture(params=[False, True], ids=["poke", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    """Where a task waits: in the worker, or in the triggerer."""
    return bool(request.param)


@pytest.fixture(params=[True, False], ids=["store", "no store"])
def store(request: pytest.FixtureRequest) -> Store | None:
    """The task state store, which Airflow has from 3.3 on."""
    from support.modes import Store

    return Store() if request.param else None


@pytest.fixture(params=["blocking", "async"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Call a method of the hook by its name, or its twin, which all have but those that get."""
    from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook

    def ask(name: str, *args: Any, **kwargs: Any) -> Any:
        hook = PromptLayerHook()
        if request.param == "async" and not name.startswith("get_"):
            return asyncio.run(getattr(hook, f"a{name}")(*args, **kwargs))
        try:
            return getattr(hook, name)(*args, **kwargs)
        finally:
            hook.close()

    return ask


@pytest.fixture
def hook() -> Iterator[PromptLayerHook]:
    """The hook, for its methods without a twin."""
    from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook

    hook = PromptLayerHook()
    yield hook
    hook.close()


@pytest.fixture(params=["blocking", "async"])
def rows_of(request: pytest.FixtureRequest, hook: PromptLayerHook) -> Callable[..., list[Any]]:
    """Read all rows of a sheet by ``iter_rows``, or by its twin."""

    async def aread(*args: Any, **kwargs: Any) -> list[Any]:
        return [row async for row in hook.aiter_rows(*args, **kwargs)]

    def read(*args: Any, **kwargs: Any) -> list[Any]:
        if request.param == "async":
            return asyncio.run(aread(*args, **kwargs))
        return list(hook.iter_rows(*args, **kwargs))

    return read
