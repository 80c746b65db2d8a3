# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks`: measure, print the table, write the JSON.

The exit code says whether everything was measured, never how fast it was: 0 if so, 1 if not.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from benchmarks.child import ROOT
from benchmarks.figures import Figure
from benchmarks.machine import machine
from benchmarks.report import machine_line, payload, table
from benchmarks.server import running_server


@dataclass(frozen=True)
class Benchmark:
    """One module's ``measure()``.

    :param name: that of the module, and of the benchmark for ``--only``.
    :param title: printed while it runs.
    :param needs_server: whether it is handed the address of the server that answers polls.
    """

    name: str
    title: str
    needs_server: bool = False

    def measure(self) -> list[Figure]:
        """Return the figures; if there are none, a figure that says why."""
        try:
            # Here, so that a module which cannot be imported does not keep the others from running.
            measure: Callable[..., list[Figure]] = import_module(f"benchmarks.{self.name}").measure
            if not self.needs_server:
                return measure()
            with running_server() as address:
                return measure(address)
        except Exception as error:  # noqa: BLE001 - the other benchmarks run all the same
            return [Figure(self.title, failure=f"{type(error).__name__}: {error}")]


BENCHMARKS = (
    Benchmark("cpu_per_poll", "CPU per poll", needs_server=True),
    Benchmark("many_waits", "thousands of waits in one loop", needs_server=True),
    Benchmark("watchers", "watchers of release labels", needs_server=True),
    Benchmark("noticing", "noticing the end of a run"),
    Benchmark("fleet", "many triggerers and a limit of requests"),
    Benchmark("imports", "imports of a DAG file"),
    Benchmark("large_results", "large results"),
    Benchmark("load", "100 MB into a sheet"),
    Benchmark("export", "100,000 rows out of a sheet"),
    Benchmark("live", "waits in a real Airflow"),
    Benchmark("short_runs", "short runs in a real Airflow"),
    Benchmark("batch", "a batch in a real Airflow"),
    Benchmark("moves", "from the move of a label to the DAG run"),
)


def main() -> int:
    """Return the exit code."""
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="NAME,…", help=f"some of them: {', '.join(names)}")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench.json", metavar="PATH")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else names
    if unknown := sorted(set(chosen) - set(names)):
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(names)}")

    found_on = machine()
    print(machine_line(found_on), flush=True)
    figures: list[Figure] = []
    for benchmark in BENCHMARKS:
        if benchmark.name not in chosen:
            continue
        print(f"measuring {benchmark.title} … ", end="", flush=True)
        start = time.monotonic()
        figures += benchmark.measure()
        print(f"{time.monotonic() - start:.0f} s", flush=True)
    print(f"\n{table(figures)}\n")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(payload(found_on, figures))
    print(f"The same, and every round, is in {options.json}")
    missing = sum(bool(figure.failure) for figure in figures)
    if missing:
        print(f"error: {missing} could not be measured, see above", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
