# SPDX-License-Identifier: Apache-2.0
"""Import a CSV of 100 MB into a sheet: memory and time, against a plain POST.

Each contender sends the file to the same server, round after round, in a process of its own.
The hook checks each row first, looks the import up and sends the file from disk; the plain
POST is ``requests.post(json=…)``, with the file in memory, and checks nothing.
"""

from __future__ import annotations

import base64
import logging
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.child import in_child
from benchmarks.figures import Figure, Goal, Samples
from benchmarks.memory import peak_memory
from benchmarks.sheet_server import IMPORT_PATH, SHEET, TABLE, hook, running_sheet

MEGABYTES: Final = 100
_ROUNDS: Final = 3
_AGAINST: Final = "requests.post(json=…), the file in memory"


def measure() -> list[Figure]:
    """Return the figures of this module."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        file = Path(folder) / "cases.csv"
        _write_csv(file)
        found: dict[str, list[dict[str, float]]] = {"with_hook": [], "with_requests": []}
        for _ in range(_ROUNDS):
            with running_sheet() as url:
                for name, rounds in found.items():
                    rounds.append(in_child(f"load.{name}", url=url, file=str(file)))
    ours, theirs = (
        {key: Samples.of([one[key] for one in rounds]) for key in rounds[0]}
        for rounds in found.values()
    )
    title = f"{MEGABYTES} MB of CSV into a sheet"
    return [
        Figure(
            f"{title}: memory over idle",
            "MB",
            ours["memory"],
            _AGAINST,
            theirs["memory"],
            Goal(30, "ours"),
        ),
        Figure(
            f"{title}: throughput",
            "MB/s",
            ours["throughput"],
            _AGAINST,
            theirs["throughput"],
            Goal(0.9, "ratio", at_least=True),
            note="the server is on the loopback; with the check of each row in ours",
        ),
    ]


def with_hook(url: str, file: str) -> dict[str, float]:
    """Measure the hook; in a process of its own."""
    client = hook(url)
    table, sheet = TABLE, SHEET
    client.load_sheet(table, sheet_id=sheet, rows=[{"Question": "to warm up"}])
    return _measured(lambda: client.load_sheet(table, sheet_id=sheet, file=f"file://{file}"), file)


def with_requests(url: str, file: str) -> dict[str, float]:
    """Measure a plain POST; in a process of its own."""
    import requests

    session = requests.Session()

    def post(content: bytes, operation_id: str) -> None:
        body = {
            "operation_id": operation_id,
            "file_name": "cases.csv",
            "file_content_base64": base64.b64encode(content).decode(),
        }
        session.post(url + IMPORT_PATH, json=body, timeout=120).raise_for_status()

    post(b"Question\r\nto warm up\r\n", "1")
    return _measured(lambda: post(Path(file).read_bytes(), "2"), file)


def _measured(load: Any, file: str) -> dict[str, float]:
    logging.disable(logging.INFO)
    with peak_memory() as peak:
        start = time.perf_counter()
        load()
        seconds = time.perf_counter() - start
    return {"memory": peak() / 1e6, "throughput": Path(file).stat().st_size / 1e6 / seconds}


def _write_csv(file: Path) -> None:
    prose = 'The customer asks for her money back: ""it came late"", she writes.\n'
    with file.open("w", encoding="utf-8", newline="") as rows:
        rows.write("Question,Expected,Customer\r\n")
        for number in range(MEGABYTES * 1_000_000):
            rows.write(f'"{prose * 3}","{prose}",{number}\r\n')
            if rows.tell() > MEGABYTES * 1_000_000 - 1_000:  # PromptLayer takes 100 MB, no more
                break
