# SPDX-License-Identifier: Apache-2.0
"""Which requests arrived, for tests and benchmarks to ask about.

The rule here: records are bounded, counters are exact, and a key is never kept.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_promptlayer.testing.faults.model import Fault


@dataclass(frozen=True)
class RecordedRequest:
    """One request as it arrived, and what became of it.

    ``raw_path`` is still percent-encoded and has no query. Names of headers are in lower case;
    ``X-API-KEY`` is left out, ``key_was_right`` says what matters of it. ``arrived_at`` is in
    seconds of the server's clock. ``status`` is what the client reads, 0 where a ``fault`` keeps
    it from reading one; the rest of a faulty answer may still get lost.
    """

    method: str
    raw_path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    key_was_right: bool
    status: int
    arrived_at: float
    fault: Fault | None = None


class RequestLog:
    """The latest ``max_records`` requests, and the number of all. Safe to use from any thread."""

    def __init__(self, max_records: int) -> None:
        self._lock = threading.Lock()
        self._latest: deque[RecordedRequest] = deque(maxlen=max_records)
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, record: RecordedRequest) -> None:
        """Count a request and keep its record, at the cost of the oldest one if need be."""
        with self._lock:
            self._latest.append(record)
            self._counts[record.method, record.raw_path] += 1

    def latest(self) -> list[RecordedRequest]:
        """Give a copy of the records kept, oldest first."""
        with self._lock:
            return list(self._latest)

    def count(self, method: str | None, path_prefix: str) -> int:
        """Count all requests of a method (``None``: any) whose raw path starts with a prefix."""
        with self._lock:
            return sum(
                times
                for (its_method, its_path), times in self._counts.items()
                if method in (None, its_method) and its_path.startswith(path_prefix)
            )
