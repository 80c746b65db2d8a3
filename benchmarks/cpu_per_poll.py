# SPDX-License-Identifier: Apache-2.0
"""CPU seconds of the polling process for each poll: of the trigger, and of other ways to poll.

All contenders send the same GET, with the same headers, to the same server over TLS, 100 of them
ten times a second each in one event loop; the bare socket sends one request after another. They
take turns in one process, round after round. The rounds count what the server has seen.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from importlib import import_module
from typing import Any, Final

from benchmarks.child import in_child
from benchmarks.figures import Figure, Goal, Samples
from benchmarks.server import API_KEY, MISSING_PATH, RESULTS_PATH, Address, Control

WAITS: Final = 100
INTERVAL: Final = 0.1
_ROUNDS = 7
_WARM_UP_SECONDS = 1.0
_ROUND_SECONDS = 2.5

_HEADERS = {
    "X-API-KEY": API_KEY,
    "Accept": "application/json",
    "User-Agent": "airflow-provider-promptlayer/bench",
}

Poller = Callable[[Address, int], Coroutine[Any, Any, None]]
"""Polls for the run of that number until it is cancelled."""


def measure(address: Address) -> list[Figure]:
    """Return the figures of this module."""
    found = in_child(
        "cpu_per_poll.rounds", address.environment(), address=address.payload(), count=_ROUNDS
    )
    samples = {name: Samples.of(values) for name, values in found["microseconds"].items()}
    failures: dict[str, str] = found["failures"]

    def figure(against: str, name: str, goal: Goal | None, note: str) -> Figure:
        title = f"CPU per poll, {WAITS} waits"
        if name in failures:
            return Figure(title, against=against, goal=goal, failure=failures[name])
        return Figure(
            title,
            "µs",
            samples["trigger"],
            against,
            samples[name],
            goal,
            note=note,
        )

    return [
        figure(
            "bare shared aiohttp loop, json.loads",
            "aiohttp",
            Goal(1.15, "ratio"),
            f"each wait polls every {INTERVAL:g} s",
        ),
        figure(
            "HttpSensorTrigger of the http provider",
            "http_provider",
            Goal(1 / 8, "ratio"),
            "polls on 404, so it gets the same body as a 404, which it does not read; "
            "its warning at each poll is switched off",
        ),
        figure(
            "HttpSensorTrigger, its warnings logged",
            "http_provider_logged",
            None,
            "as Airflow's default logging has it: a warning at each poll, here into a pipe",
        ),
        figure(
            "bare TLS socket, hand-written HTTP/1.1",
            "socket",
            Goal(3.3, "ratio"),
            "one asyncio stream, one request after another, json.loads",
        ),
    ]


def rounds(address: dict[str, Any], count: int) -> dict[str, Any]:
    """Let the contenders take turns; in a process of its own.

    :returns: ``microseconds`` (contender → one number a round) and ``failures`` (contender → why
        there are none).
    """
    # Else the figure would include the writing of what Airflow logs at each poll.
    logging.disable(logging.WARNING)
    return asyncio.run(_rounds(Address(**address), count))


async def _rounds(address: Address, count: int) -> dict[str, Any]:
    control = Control(address)
    contenders: dict[str, Callable[[], Awaitable[float]]] = {
        "trigger": lambda: _round(address, control, _poll_with_trigger, WAITS),
        "aiohttp": lambda: _round_of_aiohttp(address, control),
        "http_provider": lambda: _round(address, control, _poll_with_http_provider, WAITS),
        "http_provider_logged": lambda: _round_of_logged_http_provider(address, control),
        "socket": lambda: _round(address, control, _poll_with_socket, 1),
    }
    microseconds: dict[str, list[float]] = {name: [] for name in contenders}
    failures: dict[str, str] = {}
    for number in range(count + 1):
        for name, measured in contenders.items():
            if name in failures:
                continue
            try:
                found = await measured()
                if number > 0:  # the first one imports what it needs
                    microseconds[name].append(1e6 * found)
            except Exception as error:
                if name == "trigger":
                    raise
                failures[name] = f"{type(error).__name__}: {error}"
    return {
        "microseconds": {
            name: values for name, values in microseconds.items() if name not in failures
        },
        "failures": failures,
    }


async def _round(address: Address, control: Control, poller: Poller, waits: int) -> float:
    """Return the CPU seconds of this process for each poll that arrived, warmed up."""
    tasks = [asyncio.create_task(poller(address, number)) for number in range(1, waits + 1)]
    try:
        await asyncio.sleep(_WARM_UP_SECONDS)
        polls, cpu = control.count(), time.process_time()
        await asyncio.sleep(_ROUND_SECONDS)
        cpu, polls = time.process_time() - cpu, control.count() - polls
        for task in tasks:
            if task.done():
                task.result()
                raise RuntimeError("it stopped polling")
        return cpu / polls
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _round_of_aiohttp(address: Address, control: Control) -> float:
    import aiohttp

    connector = aiohttp.TCPConnector(ssl=address.trust())
    async with aiohttp.ClientSession(connector=connector) as session:

        async def poll(address: Address, number: int) -> None:
            url = address.url + _target(RESULTS_PATH, number)
            while True:
                async with session.get(url, headers=_HEADERS) as answer:
                    json.loads(await answer.read())
                await asyncio.sleep(INTERVAL)

        return await _round(address, control, poll, WAITS)


async def _round_of_logged_http_provider(address: Address, control: Control) -> float:
    logging.disable(logging.NOTSET)
    try:
        return await _round(address, control, _poll_with_http_provider, WAITS)
    finally:
        logging.disable(logging.WARNING)


async def _poll_with_trigger(_address: Address, number: int) -> None:
    from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerWorkflowTrigger

    trigger = PromptLayerWorkflowTrigger(
        workflow_version_execution_id=number, poke_interval=INTERVAL
    )
    async for event in trigger.run():
        raise RuntimeError(f"the trigger fired: {event}")


async def _poll_with_http_provider(_address: Address, number: int) -> None:
    # By name: the type checker runs without the http provider.
    trigger = import_module("airflow.providers.http.triggers.http").HttpSensorTrigger(
        endpoint=_target(MISSING_PATH, number), headers=_HEADERS, poke_interval=INTERVAL
    )
    async for event in trigger.run():
        raise RuntimeError(f"the trigger fired: {event}")


async def _poll_with_socket(address: Address, number: int) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", address.port, ssl=address.trust(), server_hostname="127.0.0.1"
    )
    headers = "".join(f"{name}: {value}\r\n" for name, value in _HEADERS.items())
    request = (
        f"GET {_target(RESULTS_PATH, number)} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n"
    ).encode()
    try:
        while True:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
            json.loads(await reader.readexactly(int(length)))
    finally:
        writer.close()


def _target(path: str, number: int) -> str:
    return f"{path}?workflow_version_execution_id={number}&return_all_outputs=false"
