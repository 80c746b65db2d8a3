# SPDX-License-Identifier: Apache-2.0
"""Results of 50 MB: how long they block an event loop, and how much memory they take.

A local PromptLayer answers over TLS, in a process of its own; each answer is read in a fresh
process, once as the trigger reads it and once as the async hook does, while a task that does
nothing but sleep for a moment measures for how long the loop was blocked. The trigger goes by the
answer's status. The hook parses it with :func:`json.loads`, in a thread, which holds the
interpreter's lock meanwhile. Then a bare :func:`json.loads` reads the same.
"""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, Final

from benchmarks.figures import Figure
from benchmarks.memory import peak_memory
from benchmarks.report import table

SIZE: Final = 50_000_000
"""Bytes of each answer, about."""

READERS: Final = ("hook", "trigger")
GOALS: Final[dict[str, dict[str, float]]] = {"trigger": {"block": 50, "memory": 3}, "hook": {}}

_HEARTBEAT_SECONDS: Final = 0.001
_IDLE_SECONDS: Final = 0.5
_RUN_ID: Final = 1

_PROSE: Final = 'The quick brown fox, so they say, "jumps" over the lazy dog.\n'


def _few_strings(sentence: str) -> bytes:
    text = sentence * (SIZE // 5 // len(json.dumps(sentence, ensure_ascii=False).encode()))
    return _nodes([text] * 5)


def _one_string_with_a_late_emoji() -> bytes:
    return _nodes(["x" * SIZE + "🍵"])


def _objects() -> bytes:
    row = {"id": 1234567, "text": "a word or two", "score": 0.123456789, "ok": True}
    return _nodes([[row] * (SIZE // len(json.dumps(row)))])


def _nested_objects() -> bytes:
    row = {"id": 1234567, "tags": ["one", "two"], "usage": {"in": 1234, "out": 567}}
    return _nodes([[row] * (SIZE // len(json.dumps(row)))])


def _numbers() -> bytes:
    return _nodes([[0.12345678901234567] * (SIZE // len("0.12345678901234567, "))])


def _deep() -> bytes:
    return _nodes([["x" * (SIZE // 2), json.loads("[" * 900 + "]" * 900), "y" * (SIZE // 2)]])


SHAPES: Final[dict[str, Callable[[], bytes]]] = {
    "few large strings": lambda: _few_strings(_PROSE),
    "few large strings with emoji": lambda: _few_strings(_PROSE.replace("fox", "🦊")),
    "one string, an emoji at its end": _one_string_with_a_late_emoji,
    "small objects": _objects,
    "small nested objects": _nested_objects,
    "numbers": _numbers,
    "nested 900 levels deep": _deep,
}


def _nodes(values: list[Any]) -> bytes:
    nodes = {
        f"Node {number}": {"status": "SUCCESS", "value": value, "is_output_node": True}
        for number, value in enumerate(values)
    }
    return json.dumps(nodes, ensure_ascii=False).encode()


def measure() -> list[Figure]:
    """Return three figures for each shape and reader, ours against those of a bare json.loads.

    How long the loop was blocked at most; the largest resident memory beyond what the process had
    before, the body included, divided by the body's size; and the time from the request to the
    results, against that of parsing a body that is there already.
    """
    figures = []
    context = multiprocessing.get_context("spawn")
    for shape in SHAPES:
        with context.Pool(1) as process:
            plain = process.apply(_parse, (shape,))
        with _server(context, shape) as connection:
            for reader in READERS:
                with context.Pool(1) as process:
                    ours = process.apply(_read, (connection, reader))
                figures += _figures(f"50 MB, {shape}, {reader}", ours, plain, GOALS[reader])
    return figures


def _figures(
    name: str, ours: dict[str, float], plain: dict[str, float], goals: dict[str, float]
) -> list[Figure]:
    against = "json.loads alone"
    return [
        Figure.once(
            f"{name}: longest block",
            "ms",
            ours["block"],
            against,
            plain["seconds"] * 1000,
            at_most=goals.get("block"),
            note=f"{ours['idle_block']:.0f} ms while the loop has nothing to do",
        ),
        Figure.once(
            f"{name}: memory over size",
            "",
            ours["memory"],
            against,
            plain["memory"],
            at_most=goals.get("memory"),
        ),
        Figure.once(
            f"{name}: time",
            "s",
            ours["seconds"],
            against,
            plain["seconds"],
            note="with TLS, HTTP and the server's own work in ours",
        ),
    ]


@contextmanager
def _server(context: Any, shape: str) -> Iterator[str]:
    ours, its = context.Pipe()
    process = context.Process(target=_serve, args=(its, shape))
    process.start()
    its.close()
    try:
        yield ours.recv()
    finally:
        ours.close()
        process.join()


def _serve(owner: Connection, shape: str) -> None:
    from airflow_provider_promptlayer.testing import LocalPromptLayer, Reply

    with LocalPromptLayer(tls="trusted") as server:
        server.script(Reply(200, SHAPES[shape]()), times=None)
        connection = json.loads(server.airflow_connection_json)
        connection["extra"] = {**connection.get("extra", {}), "timeout": 120}
        owner.send(json.dumps(connection))
        with suppress(EOFError):
            owner.recv()


def _read(connection: str, reader: str) -> dict[str, float]:
    os.environ["AIRFLOW_CONN_LARGE_RESULTS"] = connection
    return asyncio.run(_read_beside_a_heartbeat(reader))


async def _read_beside_a_heartbeat(reader: str) -> dict[str, float]:
    from airflow_provider_promptlayer.api.http import Call
    from airflow_provider_promptlayer.api.job import summarized
    from airflow_provider_promptlayer.api.workflows import WorkflowRun
    from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook

    hook = PromptLayerHook("large_results")
    run = WorkflowRun(_RUN_ID)
    call: Call[Any] = run.fetch_call() if reader == "hook" else summarized(run.status_call())
    async with hook.sender():
        with peak_memory() as peak:
            heartbeat = _Heartbeat()
            beating = asyncio.create_task(heartbeat.beat())
            await asyncio.sleep(_IDLE_SECONDS)
            idle = heartbeat.start_anew()
            start = time.perf_counter()
            results = await hook.acall(call)
            wall = time.perf_counter() - start
            if reader == "trigger":
                del results  # as it does; the hook's user may keep them
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            blocked = heartbeat.start_anew()
        beating.cancel()
    return {
        "block": 1000 * blocked,
        "idle_block": 1000 * idle,
        "memory": peak() / SIZE,
        "seconds": wall,
    }


class _Heartbeat:
    """The longest time that a sleep took more than it should."""

    def __init__(self) -> None:
        self._longest = 0.0

    async def beat(self) -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            late = time.perf_counter() - start - _HEARTBEAT_SECONDS
            self._longest = max(self._longest, late)

    def start_anew(self) -> float:
        longest, self._longest = self._longest, 0.0
        return longest


def _parse(shape: str) -> dict[str, float]:
    body = SHAPES[shape]()
    gc.collect()
    with peak_memory() as peak:
        start = time.perf_counter()
        json.loads(body)
        wall = time.perf_counter() - start
    return {"seconds": wall, "memory": 1 + peak() / len(body)}


if __name__ == "__main__":
    print(table(measure()))
