# SPDX-License-Identifier: Apache-2.0
"""200 asset watchers on 20 workflows: polls and CPU, against 200 separate polls.

Both run in Airflow's own triggerer loop, in one process, and take turns, round after round. Ours
are ten watchers for each workflow, which share its poll; the others are the same watchers, with
Airflow's sharing switched off. No label moves, as is so nearly all the time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

from benchmarks.child import in_child
from benchmarks.figures import Figure, Goal, Samples
from benchmarks.server import LABELS, Address, Control

WORKFLOWS: Final = 20
INTERVAL: Final = 2.0
"""Seconds. With a shorter one, several separate polls would come at once, each for less CPU."""

_WATCHERS: Final = WORKFLOWS * len(LABELS)
_ROUNDS = 5
_WARM_UP_SECONDS = INTERVAL
_ROUND_SECONDS = 2 * INTERVAL
_GOAL: Final = Goal(1 / 8, "ratio")


def measure(address: Address) -> list[Figure]:
    """Return the figures of this module."""
    from airflow_provider_promptlayer.triggers.watching import POKE_INTERVAL

    found = in_child(
        "watchers.rounds", address.environment(), address=address.payload(), count=_ROUNDS
    )
    title, against = f"{_WATCHERS} watchers on {WORKFLOWS} workflows", f"{_WATCHERS} separate polls"
    by_default = INTERVAL / POKE_INTERVAL

    def figure(name: str, unit: str, key: str, factor: float, note: str) -> Figure:
        ours, theirs = (
            Samples.of([factor * one[key] for one in found[who]]) for who in ("shared", "separate")
        )
        return Figure(f"{title}: {name}", unit, ours, against, theirs, _GOAL, note=note)

    return [
        figure(
            "polls a minute",
            "",
            "polls",
            60 * by_default,
            f"counted at {INTERVAL:g} s, for the default interval of {POKE_INTERVAL:g} s",
        ),
        figure("CPU", "µs", "cpu", 1e6 * INTERVAL / _WATCHERS, "for each watcher and interval"),
    ]


def rounds(address: dict[str, Any], count: int) -> dict[str, list[dict[str, float]]]:
    """Let the contenders take turns; in a process of its own.

    :returns: contender → for each round, the ``polls`` and the ``cpu`` seconds per second.
    """
    logging.disable(logging.WARNING)
    return asyncio.run(_rounds(Control(Address(**address)), count))


async def _rounds(control: Control, count: int) -> dict[str, list[dict[str, float]]]:
    from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerVersionEventTrigger

    class Separate(PromptLayerVersionEventTrigger):
        def shared_stream_key(self) -> None:
            return None

    contenders = {"shared": PromptLayerVersionEventTrigger, "separate": Separate}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for number in range(count + 1):
        for name, kind in contenders.items():
            one = await _round(control, kind)
            if number > 0:  # the first one imports what it needs
                found[name].append(one)
    return found


async def _round(control: Control, kind: type[Any]) -> dict[str, float]:
    from airflow.jobs.triggerer_job_runner import TriggerRunner

    runner: Any = TriggerRunner()  # type: ignore[no-untyped-call]
    tasks = []
    for number in range(_WATCHERS):
        watcher = kind(
            workflow=number % WORKFLOWS + 1,
            release_label=LABELS[number // WORKFLOWS],
            poke_interval=INTERVAL,
        )
        # Spread, as they are after a while: the pauses between polls differ by up to a fifth.
        await asyncio.sleep(INTERVAL / _WATCHERS)
        runner.triggers[number] = {"name": str(number), "events": 0}
        tasks.append(asyncio.create_task(runner.run_trigger(number, watcher)))
    try:
        await asyncio.sleep(_WARM_UP_SECONDS)
        start, polls, cpu = time.monotonic(), control.count(), time.process_time()
        await asyncio.sleep(_ROUND_SECONDS)
        cpu, polls = time.process_time() - cpu, control.count() - polls
        seconds = time.monotonic() - start
        for task in tasks:
            if task.done():
                task.result()
                raise RuntimeError("a watcher has ended")
        if runner.events:
            raise RuntimeError("a watcher has reported a version")
        return {"polls": polls / seconds, "cpu": cpu / seconds}
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
