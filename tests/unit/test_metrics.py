# SPDX-License-Identifier: Apache-2.0
"""What Airflow's StatsD logger sends of this provider's metrics."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Stats
from support.batches import run as run_batch
from support.kinds import KINDS, WORKFLOW_RUN, Kind, Serve, at, new_server
from support.modes import MODES, FakeTaskInstance, Store, run_task
from support.needs import needs_start_in_triggerer, needs_watchers
from support.promotions import PROMPT
from support.promotions import new_server as new_promotions
from support.starts import RUN_WORKFLOW, deferred
from support.triggerer import until
from support.watchers import Running, watcher

from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.hooks import metrics
from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerPromoteOperator,
    PromptLayerSnapshotSheetOperator,
)
from airflow_provider_promptlayer.testing import Close, LocalPromptLayer, Prompt, Reply
from airflow_provider_promptlayer.triggers.watching import COUNTED_AS

# Airflow needs it for StatsD, and does not install it by itself.
pytest.importorskip("statsd", reason="the package statsd is not installed here")

from support.statsd import StatsD, receiving

PAGE = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text(encoding="utf-8")
LOST = Close()


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[StatsD]:
    with receiving(monkeypatch) as found:
        yield found


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    return serve(new_server(by_polls=True))


@pytest.mark.parametrize("mode", ["poke", "reschedule", "deferred"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_wait_counts_once_and_so_does_each_poll(
    mode: str, kind: Kind, server: LocalPromptLayer, statsd: StatsD
) -> None:
    assert MODES[mode](kind.start(server, "good"), kind, poke_interval=0.02).kind == "success"
    called = _called(kind)
    assert statsd.sums("promptlayer.waits") == {
        f"promptlayer.waits,kind={called},outcome=success": 1
    }
    (polls,) = statsd.sums("promptlayer.polls").items()
    assert polls[0] == f"promptlayer.polls,kind={called}"
    # One finds the job running, one sees the end, and a worker fetches what a triggerer has seen.
    assert polls[1] == {"deferred": 3}.get(mode, 2)
    if kind is WORKFLOW_RUN:
        assert polls[1] == server.count("GET")
    assert len(statsd.sums()) == 2


def _called(kind: Kind) -> str:
    names = {"workflow run": "workflow", "table operation": "recalculation"}
    return names.get(kind.name, kind.name.split()[0])


@pytest.mark.parametrize(
    ("outcome", "arguments"),
    [
        ("failed", {}),
        ("failed", {"soft_fail": True}),
        ("timed_out", {"timeout": 0.1}),
        ("outage", {"max_outage": 0.1}),
        ("error", {}),
    ],
)
def test_outcome_of_a_wait(
    outcome: str,
    arguments: dict[str, Any],
    deferrable: bool,
    server: LocalPromptLayer,
    statsd: StatsD,
) -> None:
    run_id = server.start_execution("bad" if outcome == "failed" else "never")
    if outcome == "outage":
        server.script(Reply(503), after=1, times=None)
    elif outcome == "error":
        gone = Reply.of_json({"success": False, "message": "gone"}, 404)
        server.script(gone, after=1, times=None)
    mode = "deferred" if deferrable else "poke"
    ending = MODES[mode](run_id, poke_interval=0.02, **arguments)
    assert ending.kind != "success"
    assert statsd.sums("promptlayer.waits") == {
        f"promptlayer.waits,kind=workflow,outcome={outcome}": 1
    }
    if outcome == "error" and not deferrable:  # whose poll is left out
        assert statsd.sums("promptlayer.polls") == {"promptlayer.polls,kind=workflow": 1}
    assert statsd.sums("promptlayer.outages") == (
        {"promptlayer.outages,kind=workflow": 1} if outcome == "outage" else {}
    )


@pytest.mark.parametrize(("workflow", "kind"), [("good", "success"), ("bad", "failed for good")])
def test_counts_that_are_refused_change_no_outcome(
    workflow: str,
    kind: str,
    deferrable: bool,
    server: LocalPromptLayer,
    monkeypatch: pytest.MonkeyPatch,
    log: Callable[[], str],
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("no such client")

    monkeypatch.setattr(Stats, "incr", refuse)
    mode = "deferred" if deferrable else "poke"
    ending = MODES[mode](server.start_execution(workflow), poke_interval=0.02)
    assert ending.kind == kind
    assert "Could not hand counts to Airflow's metrics: ValueError('no such client')" in log()


def test_an_outage_that_ends_counts_too(
    deferrable: bool, server: LocalPromptLayer, statsd: StatsD
) -> None:
    server.script(Reply(503), after=1, times=3)
    mode = "deferred" if deferrable else "poke"
    assert MODES[mode](server.start_execution("good"), poke_interval=0.02).kind == "success"
    assert statsd.sums("promptlayer.outages") == {"promptlayer.outages,kind=workflow": 1}
    assert statsd.sums("promptlayer.polls") == {
        "promptlayer.polls,kind=workflow": server.count("GET")
    }


def test_an_outage_that_began_before_the_wait_counts_once(
    server: LocalPromptLayer, statsd: StatsD
) -> None:
    store = Store()
    deferred(RUN_WORKFLOW.make("never"), store)
    server.script(Reply(503), times=None)
    RUN_WORKFLOW.run(store, "never", number=2, deferrable=False, max_outage=0.05)
    assert statsd.sums("promptlayer.outages") == {"promptlayer.outages,kind=workflow": 1}


@needs_start_in_triggerer
def test_a_wait_in_the_triggerer_alone(server: LocalPromptLayer, statsd: StatsD) -> None:
    run_id = server.start_execution("good")
    assert MODES["in the trigger alone"](run_id, poke_interval=0.02).worker_visits == 0
    assert statsd.sums("promptlayer.waits") == {
        "promptlayer.waits,kind=workflow,outcome=success": 1
    }


def test_a_triggerer_sends_sums(
    server: LocalPromptLayer, statsd: StatsD, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_FLUSH_SECONDS", 0.05)

    async def scenario() -> None:
        for _ in range(100):
            metrics.count_poll("workflow", begins_outage=False)
        assert statsd.sums() == {}
        await until(lambda: bool(statsd.sums()))

    asyncio.run(scenario())
    assert statsd.sums() == {"promptlayer.polls,kind=workflow": 100}
    assert statsd.datagrams == 1


class TestUncertainStarts:
    def test_of_a_run_and_of_each_try_that_finds_it(
        self, server: LocalPromptLayer, statsd: StatsD
    ) -> None:
        store = Store()
        server.script(LOST, method="POST", acted_on=True)
        for number in (1, 2):
            assert RUN_WORKFLOW.run(store, number=number).kind == "failed for good"
            assert statsd.sums() == {"promptlayer.starts_uncertain,kind=workflow": number}

    def test_of_a_batch(self, server: LocalPromptLayer, statsd: StatsD) -> None:
        server.script(LOST, method="POST", acted_on=True, after=1, times=2)
        run_batch([{}] * 4, workflow="good", min_success_rate=0.5)
        assert statsd.sums("promptlayer.starts") == {"promptlayer.starts_uncertain,kind=batch": 2}
        assert statsd.sums("promptlayer.waits") == {
            "promptlayer.waits,kind=batch,outcome=success": 1
        }

    def test_of_a_version_of_a_sheet(self, server: LocalPromptLayer, statsd: StatsD) -> None:
        server.script(LOST, method="POST", times=None)
        run_task(
            lambda: PromptLayerSnapshotSheetOperator(task_id="task", name="v", **at("good")),
            FakeTaskInstance(),
        )
        assert statsd.sums() == {"promptlayer.starts_uncertain,kind=snapshot": 1}

    def test_of_a_promotion(self, serve: Serve, statsd: StatsD) -> None:
        serve(new_promotions()).script(LOST, method="PATCH", times=None)
        run_task(
            lambda: PromptLayerPromoteOperator(
                task_id="task", version=5, release_label="prod", **PROMPT
            )
        )
        assert statsd.sums() == {"promptlayer.starts_uncertain,kind=promotion": 1}


@needs_watchers
def test_polls_of_watchers(serve: Serve, statsd: StatsD) -> None:
    server = serve(LocalPromptLayer(prompts=[Prompt("Reply", latest_version=3)]))
    server.script(Reply(503), after=1, times=2)

    async def scenario() -> None:
        async with Running(server, watcher(prompt="Reply")):
            pass

    asyncio.run(scenario())
    assert statsd.sums("promptlayer.outages") == {"promptlayer.outages,kind=watcher": 1}
    assert statsd.sums("promptlayer.polls")["promptlayer.polls,kind=watcher"] >= 3


def test_the_page_names_every_metric_and_tag() -> None:
    """docs/monitoring.md."""
    rows = re.findall(r"^\| `(promptlayer\.\w+)` \| ([\w, `]+) \|", PAGE, re.MULTILINE)
    assert [name for name, _ in rows] == [
        metrics.POLLS,
        metrics.OUTAGES,
        metrics.WAITS,
        metrics.STARTS_UNCERTAIN,
    ]
    assert [tags for _, tags in rows] == ["`kind`", "`kind`", "`kind`, `outcome`", "`kind`"]

    def listed(tag: str) -> set[str]:
        (line,) = re.findall(rf"^`{tag}` is one of ([^.]+)\.", PAGE, re.MULTILINE)
        return set(re.findall(r"`(\w+)`", line))

    jobs = [cls for cls in _subclasses(RemoteJob) if hasattr(cls, "counted_as")]
    kinds = {str(cls.counted_as) for cls in jobs if cls.__module__.startswith("airflow_")}
    kinds |= {PromptLayerPromoteOperator.counted_as, PromptLayerSnapshotSheetOperator.counted_as}
    assert listed("kind") == kinds | {COUNTED_AS}
    outcomes = {metrics.SUCCESS, *metrics.OUTCOMES.values(), metrics.OTHER_ERROR}
    assert listed("outcome") == outcomes


def _subclasses(cls: type[Any]) -> Iterator[Any]:
    each: Any
    for each in cls.__subclasses__():
        yield each
        yield from _subclasses(each)
