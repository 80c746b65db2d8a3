# SPDX-License-Identifier: Apache-2.0
"""Export 100,000 rows of a sheet to a file, at 50 ms a page: time, memory and CPU.

The hook requests the next page while it writes one. The plain loop is what people write by hand:
a GET, the same fields of each row as a line of JSON, and the next GET.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.child import in_child
from benchmarks.figures import Figure, Goal, Samples
from benchmarks.memory import peak_memory
from benchmarks.sheet_server import (
    LATENCY_SECONDS,
    PAGE_ROWS,
    ROWS,
    ROWS_PATH,
    SHEET,
    TABLE,
    hook,
    running_sheet,
)

_ROUNDS: Final = 2
_AGAINST: Final = "a plain loop of GET and write"
_METRICS: Final = ("price", "latency_ms", "input_tokens", "output_tokens", "request_ids")


def measure() -> list[Figure]:
    """Return the figures of this module."""
    found: dict[str, list[dict[str, float]]] = {"with_hook": [], "with_loop": []}
    for _ in range(_ROUNDS):
        with running_sheet() as url:
            for name, rounds in found.items():
                rounds.append(in_child(f"export.{name}", url=url))
    ours, theirs = (
        {key: Samples.of([one[key] for one in rounds]) for key in rounds[0]}
        for rounds in found.values()
    )
    title = f"{ROWS:,} rows of a sheet to JSONL"
    note = f"{PAGE_ROWS} rows a page, each {LATENCY_SECONDS * 1000:.0f} ms late"
    goals = {
        "time": ("s", Goal(0.75, "ratio"), note),
        "memory over idle": ("MB", Goal(30, "ours"), ""),
        "CPU per row": ("µs", Goal(1.3, "ratio"), ""),
    }
    return [
        Figure(f"{title}: {name}", unit, ours[name], _AGAINST, theirs[name], goal, note=said)
        for name, (unit, goal, said) in goals.items()
    ]


def with_hook(url: str) -> dict[str, float]:
    """Measure the hook; in a process of its own."""
    client = hook(url)
    client.warm_up()
    return _measured(lambda file: client.export_rows(TABLE, SHEET, f"file://{file}"))


def with_loop(url: str) -> dict[str, float]:
    """Measure the plain loop; in a process of its own."""
    import requests

    session = requests.Session()

    def export(path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            cursor = None
            while True:
                params: dict[str, Any] = {"limit": PAGE_ROWS}
                params |= {"cursor": cursor} if cursor else {"include_columns": "true"}
                answer = session.get(url + ROWS_PATH, params=params, timeout=60)
                answer.raise_for_status()
                page = answer.json()
                if not cursor:
                    columns = page["columns"]
                for row in page["data"]:
                    record = {"row_index": row["row_index"]}
                    for column in columns:
                        cell, title = row["cells"][column["id"]], column["title"]
                        value = cell["value"]
                        record[title] = value["value"] if isinstance(value, dict) else value
                        if column["type"] != "TEXT":
                            record[f"{title}_status"] = cell["status"]
                            record[f"{title}_error"] = cell["error"]
                            for name in _METRICS:
                                record[f"{title}_{name}"] = cell["request_metrics"][name]
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
                cursor = page["next_cursor"]
                if not cursor:
                    return

    return _measured(export)


def _measured(export: Callable[[Path], Any]) -> dict[str, float]:
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, peak_memory() as peak:
        file = Path(folder) / "rows.jsonl"
        start, cpu = time.perf_counter(), time.process_time()
        export(file)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        with file.open("rb") as lines:
            count = sum(1 for _ in lines)
    if count != ROWS:
        raise AssertionError(f"the file has {count} rows")
    return {"time": seconds, "memory over idle": peak() / 1e6, "CPU per row": 1e6 * cpu / ROWS}
