# SPDX-License-Identifier: Apache-2.0
"""Thousands of waits in one event loop: how late polls are, what they cost, what blocks the loop.

Each wait polls every 10 s. They begin as they do when a triggerer comes back after an hour: all
are overdue, and start one by one, with a turn of the event loop in between, as in Airflow's
``TriggerRunner.create_triggers``.
The server notes when each poll arrives. A poll is late by the time by which the gap since the one
before exceeds 10 s, which includes the time that an answer takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, Final

import psutil

from benchmarks.child import in_child
from benchmarks.figures import Figure, Goal, Samples
from benchmarks.server import Address, Control

if TYPE_CHECKING:
    from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerWorkflowTrigger

SIZES: Final = (1_000, 5_000, 10_000)
INTERVAL: Final = 10.0
_ROUNDS = 3
_COLLECTIONS = 7
_ROUND_SECONDS = 10.0
_SETTLED_AFTER = 12.0  # seconds, by when all have polled once
_TRACED_WAITS = 1_000
_HEARTBEAT = 0.005
_HOUR = 3600.0
_CONNECTION_BYTES = 256 * 1024
"""What asyncio gives each TLS connection to read into (``SSLProtocol.max_size``)."""


def measure(address: Address) -> list[Figure]:
    """Return the figures of this module: five for each size."""
    figures = []
    for size in SIZES:
        found = in_child(
            "many_waits.run",
            address.environment(),
            address=address.payload(),
            size=size,
            rounds=_ROUNDS,
        )
        figures += _figures(size, found)
    figures.append(_traced(address))
    return figures


def _figures(size: int, found: dict[str, Any]) -> list[Figure]:
    late, polls = found["late"], median(found["polls_per_second"])
    blocked, steady = found["blocked"], found["blocked_steady"]
    return [
        Figure(
            f"{size:,} waits: a poll is late, 99th percentile",
            "s",
            Samples.of(late["p99"]),
            goal=Goal(1.0, "ours"),
            note=f"half of them {late['p50']:.3f} s, the worst of {late['polls']:,} "
            f"{late['max']:.3f} s",
            details=late,
        ),
        Figure(
            f"{size:,} waits: share of one core",
            "%",
            Samples.of([100 * share for share in found["cpu_shares"]]),
            note=f"{polls:.0f} polls/s, {1e6 * median(found['cpu_shares']) / polls:.0f} µs each",
            details={"polls_per_second": found["polls_per_second"]},
        ),
        Figure(
            f"{size:,} waits: resident memory for each",
            "kB",
            Samples.of([found["bytes_per_wait"] / 1e3]),
            goal=Goal(5.5 if size == max(SIZES) else 10.0, "ours"),
            note=f"{found['connections'] * _CONNECTION_BYTES / size / 1e3:.1f} kB of that are the "
            f"buffers of {found['connections']} TLS connections, which all waits share",
            details={"connections": found["connections"]},
        ),
        Figure(
            f"{size:,} waits: longest time the loop was blocked",
            "ms",
            Samples.of([1e3 * blocked["seconds"]]),
            goal=Goal(50.0, "ours"),
            note=(
                f"CPU of ours in it {1e3 * blocked['cpu']:.0f} ms, garbage collection "
                f"{1e3 * blocked['gc']:.0f} ms of that, the rest of other processes; "
                f"{1e3 * steady['seconds']:.0f} ms once all are under way"
            ),
            details={name: found[name] for name in ("blocked", "blocked_steady", "longest_gc")},
        ),
        Figure(
            f"{size:,} waits: a full garbage collection, beyond that without a wait",
            "ms",
            Samples.of([1e3 * (found["collection_after"] - found["collection_before"])]),
            goal=Goal(150.0, "ours"),
            note=f"{found['objects_per_wait']:.1f} objects for each wait; Airflow's own take "
            f"{1e3 * found['collection_before']:.0f} ms",
            details={name: found[name] for name in ("collection_before", "collection_after")},
        ),
    ]


def _traced(address: Address) -> Figure:
    found = in_child(
        "many_waits.run",
        address.environment(),
        address=address.payload(),
        size=_TRACED_WAITS,
        rounds=1,
        traced=True,
    )
    return Figure(
        f"{_TRACED_WAITS:,} waits: memory for each as Python counts it",
        "kB",
        Samples.of([found["bytes_per_wait"] / 1e3]),
        goal=Goal(10.0, "ours"),
        note="tracemalloc, in a run of its own, without the connections' buffers",
    )


def run(address: dict[str, Any], size: int, rounds: int, traced: bool = False) -> dict[str, Any]:
    """Wait for ``size`` runs in this process, for so many polls of each; return the results."""
    logging.disable(logging.INFO)  # one line for each wait's first poll
    return asyncio.run(_run(Address(**address), size, rounds, traced))


async def _run(address: Address, size: int, rounds: int, traced: bool) -> dict[str, Any]:
    control = Control(address)
    async with _warm():
        control.forget()
        collection_before, objects = _full_collection(), len(gc.get_objects())
        if traced:
            tracemalloc.start()  # only now: it is to see the waits, not Airflow
        memory = _memory_used()
        with _Collections().watched() as collections:
            pulse = _Pulse(collections)
            beat = asyncio.create_task(pulse.beat())
            start = time.monotonic()
            tasks = await _start(size)
            created = time.monotonic()
            await asyncio.sleep(start + _SETTLED_AFTER - time.monotonic())
            at_start, pulse.longest = pulse.longest, _Stretch()
            usage = [await _use(control)]
            for number in range(1, rounds + 1):
                end = start + _SETTLED_AFTER + number * _ROUND_SECONDS
                await asyncio.sleep(end - time.monotonic())
                usage.append(await _use(control))
            steady = pulse.longest
            beat.cancel()
            used = _memory_used() - memory
            collection_after, objects = _full_collection(), len(gc.get_objects()) - objects
            connections = _connections()
            arrivals = control.arrivals()
            for task in tasks:
                if task.done():
                    task.result()
                    raise RuntimeError("a wait has ended")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "late": _lateness(arrivals, rounds),
        "cpu_shares": [(b.cpu - a.cpu) / (b.at - a.at) for a, b in pairwise(usage)],
        "polls_per_second": [(b.polls - a.polls) / (b.at - a.at) for a, b in pairwise(usage)],
        "bytes_per_wait": used / size,
        "connections": connections,
        "seconds_to_create": created - start,
        "blocked": max(at_start, steady, key=lambda stretch: stretch.seconds).payload(),
        "blocked_steady": steady.payload(),
        "longest_gc": collections.longest,
        "collection_before": collection_before,
        "collection_after": collection_after,
        "objects_per_wait": objects / size,
    }


@contextlib.asynccontextmanager
async def _warm() -> AsyncIterator[None]:
    """Have everything imported and the connection pool open, as in a triggerer that has waits."""
    from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook

    hook = PromptLayerHook()
    async with hook.sender():
        await hook.aget_workflow_results(1, return_all_outputs=False)
        task = asyncio.create_task(_wait_for(1, None))
        await asyncio.sleep(3.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        yield


async def _start(size: int) -> list[asyncio.Task[None]]:
    overdue = time.time() - _HOUR
    tasks = []
    for number in range(1, size + 1):
        # The two turns of the event loop that create_triggers takes for each.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(_wait_for(number, overdue)))
    return tasks


async def _wait_for(number: int, next_poll_at: float | None) -> None:
    trigger = _new_trigger(number, next_poll_at)
    async for event in trigger.run():
        raise RuntimeError(f"the trigger fired: {event}")


def _new_trigger(number: int, next_poll_at: float | None) -> PromptLayerWorkflowTrigger:
    # Not in the coroutine, which would keep the arguments; Airflow's does not.
    from airflow_provider_promptlayer.api.workflows import WorkflowRun
    from airflow_provider_promptlayer.polling.state import PollState
    from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerWorkflowTrigger

    now = time.time()
    state = PollState(
        WorkflowRun(number), next_poll_at or now, now + _HOUR, next_poll_at=next_poll_at
    )
    return PromptLayerWorkflowTrigger(state=state.payload(), poke_interval=INTERVAL)


def _lateness(arrivals: dict[str, list[float]], rounds: int) -> dict[str, Any]:
    """Return how late polls were, by round: the first, second … gap of each wait."""
    by_round: list[list[float]] = [[] for _ in range(rounds)]
    for times in arrivals.values():
        for late, (first, second) in zip(by_round, pairwise(times), strict=False):
            late.append(max(0.0, second - first - INTERVAL))
    every = [late for polls in by_round for late in polls]
    return {
        "p99": [quantiles(polls, n=100)[98] for polls in by_round if len(polls) > 1],
        "p50": median(every),
        "max": max(every),
        "polls": len(every),
    }


@dataclass(frozen=True)
class _Use:
    """What had been used by a point in time."""

    at: float
    cpu: float
    polls: int


async def _use(control: Control) -> _Use:
    polls = await asyncio.to_thread(control.count)
    return _Use(time.monotonic(), time.process_time(), polls)


@dataclass
class _Collections:
    """CPU seconds of the garbage collector's pauses."""

    total: float = 0.0
    longest: float = 0.0
    _since: float = 0.0

    @contextlib.contextmanager
    def watched(self) -> Iterator[_Collections]:
        gc.callbacks.append(self._note)
        try:
            yield self
        finally:
            gc.callbacks.remove(self._note)

    def _note(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._since = time.process_time()
        else:
            pause = time.process_time() - self._since
            self.total += pause
            self.longest = max(self.longest, pause)


@dataclass(frozen=True)
class _Stretch:
    """A time in which the loop was blocked, by the wall clock.

    :param cpu: CPU seconds of this process in it.
    :param gc: of these, the garbage collector's.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    gc: float = 0.0

    def payload(self) -> dict[str, float]:
        return {"seconds": self.seconds, "cpu": self.cpu, "gc": self.gc}


@dataclass
class _Pulse:
    """A task that is due every few milliseconds, and notes for how long it could not run."""

    collections: _Collections
    longest: _Stretch = field(default_factory=_Stretch)

    async def beat(self) -> None:
        while True:
            due = time.perf_counter() + _HEARTBEAT
            cpu, collected = time.process_time(), self.collections.total
            await asyncio.sleep(_HEARTBEAT)
            late = time.perf_counter() - due
            if late > self.longest.seconds:
                self.longest = _Stretch(
                    late, time.process_time() - cpu, self.collections.total - collected
                )


def _full_collection() -> float:
    """Return the CPU seconds of a full garbage collection, the median of some."""

    def once() -> float:
        start = time.process_time()
        gc.collect()
        return time.process_time() - start

    return median(once() for _ in range(_COLLECTIONS))


def _memory_used() -> int:
    if tracemalloc.is_tracing():
        gc.collect()
        # Connections are few, however many waits there are, and large.
        buffers = tracemalloc.Filter(inclusive=False, filename_pattern="*/asyncio/sslproto.py")
        snapshot = tracemalloc.take_snapshot().filter_traces([buffers])
        return sum(trace.size for trace in snapshot.traces)
    return int(psutil.Process().memory_info().rss)


def _connections() -> int:
    established = psutil.Process().net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED for one in established) - 1  # the control's
