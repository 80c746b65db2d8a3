# SPDX-License-Identifier: Apache-2.0
"""What a DAG file pays for importing this provider: CPU milliseconds in a fresh interpreter.

Airflow imports DAG files again and again, each time in a new process that has Airflow itself
already. CPU time and not wall time, which on a busy machine depends on the other processes.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module
from typing import Any, Final

from benchmarks.child import in_child
from benchmarks.figures import Figure, Goal, Samples

OURS: Final = (
    "airflow_provider_promptlayer.operators.promptlayer",
    "airflow_provider_promptlayer.sensors.promptlayer",
)
STANDARD_SENSOR: Final = "airflow.providers.standard.sensors.filesystem"

HEAVY: Final = (
    "aiohttp",
    "requests",
    "urllib3",
    "yarl",
    "cryptography",
    "airflow_provider_promptlayer.testing",
    "airflow_provider_promptlayer.transport.aio",
    "airflow_provider_promptlayer.transport.blocking",
    "airflow_provider_promptlayer.triggers",
)
"""Modules that no DAG file needs; those that Airflow itself has imported are not counted."""

_ROUNDS = 7
_AIRFLOW = "airflow.sdk:DAG"


def measure() -> list[Figure]:
    """Return the figures of this module."""
    alone, after_sensor = [], []
    in_child("imports.sample", steps=[[STANDARD_SENSOR], OURS])  # writes the bytecode
    for _ in range(_ROUNDS):
        alone.append(in_child("imports.sample", steps=[[_AIRFLOW], OURS]))
        after_sensor.append(in_child("imports.sample", steps=[[_AIRFLOW], [STANDARD_SENSOR], OURS]))
    return [
        _figure("DAG", alone, 1, "airflow.sdk's DAG itself", alone, 0, Goal(30, "ours")),
        _figure("DAG", alone, 1, "the standard FileSensor, at the same place", after_sensor, 1),
        _figure("DAG and FileSensor", after_sensor, 2, "airflow.sdk's DAG itself", after_sensor, 0),
    ]


def sample(steps: list[list[str]]) -> list[dict[str, Any]]:
    """Import one step after the other in this process; return what each cost and brought.

    :param steps: of each the names to import, ``MODULE`` or ``MODULE:ATTRIBUTE``.
    """
    found = []
    for names in steps:
        before, start = set(sys.modules), time.process_time()
        for name in names:
            module, _, attribute = name.partition(":")
            imported = import_module(module)
            if attribute:
                getattr(imported, attribute)
        cost = time.process_time() - start
        found.append({"milliseconds": 1e3 * cost, "modules": sorted(set(sys.modules) - before)})
    return found


def _figure(
    after: str,
    ours: list[list[dict[str, Any]]],
    our_step: int,
    against: str,
    theirs: list[list[dict[str, Any]]],
    their_step: int,
    goal: Goal | None = None,
) -> Figure:
    modules: list[str] = ours[0][our_step]["modules"]
    heavy = [name for name in modules if name in HEAVY]
    return Figure(
        f"import of operators and sensor, after {after}",
        "ms",
        Samples.of([one[our_step]["milliseconds"] for one in ours]),
        against,
        Samples.of([one[their_step]["milliseconds"] for one in theirs]),
        goal,
        note=f"{len(modules)} modules, heavy ones: {', '.join(heavy) or 'none'}",
        details={"modules": modules},
    )
