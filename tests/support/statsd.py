# SPDX-License-Identifier: Apache-2.0
"""Airflow's own StatsD logger, and a socket that gets what it sends."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import pytest
from airflow.providers.common.compat.sdk import Stats

from airflow_provider_promptlayer.hooks import metrics

_LINE = re.compile(r"airflow\.([\w.]+)((?:,\w+=\w+)*):(\d+)\|c")


class StatsD:
    """What has arrived: the name of a counter with its tags, as InfluxDB writes them → the sum."""

    def __init__(self, receiver: socket.socket) -> None:
        self._receiver = receiver
        self._sums: Counter[str] = Counter()
        self.datagrams = 0

    def sums(self, prefix: str = "") -> dict[str, int]:
        """Return the counters whose names begin in that way."""
        while True:
            try:
                line = self._receiver.recv(1000).decode()
            except BlockingIOError:  # on loopback, what was sent has arrived
                return {name: n for name, n in self._sums.items() if name.startswith(prefix)}
            found = _LINE.fullmatch(line)
            assert found, line
            self._sums[found[1] + found[2]] += int(found[3])
            self.datagrams += 1


@contextmanager
def receiving(monkeypatch: pytest.MonkeyPatch) -> Iterator[StatsD]:
    """Have Airflow send its metrics, with their tags, to a socket, and a triggerer at once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        options = {"host": "127.0.0.1", "port": str(receiver.getsockname()[1])}
        for name, value in {**options, "influxdb_enabled": "True", "prefix": "airflow"}.items():
            monkeypatch.setenv(f"AIRFLOW__METRICS__STATSD_{name.upper()}", value)
        for name in ("TIMER_UNIT_CONSISTENCY", "METRICS_USE_PATTERN_MATCH"):
            monkeypatch.setenv(f"AIRFLOW__METRICS__{name}", "True")  # else Airflow 2 warns
        try:
            module = import_module("airflow.sdk.observability.metrics.statsd_logger")
        except ImportError:  # before Airflow 3.2
            logger = import_module("airflow.metrics.statsd_logger").get_statsd_logger(None)
        else:
            logger = module.get_statsd_logger()
        monkeypatch.setattr(Stats, "incr", logger.incr)
        monkeypatch.setattr(metrics, "_FLUSH_SECONDS", 0.0)
        monkeypatch.setattr(metrics, "_sums", Counter())  # an earlier test may have left some
        yield StatsD(receiver)
        logger.statsd.close()
