# SPDX-License-Identifier: Apache-2.0
"""What tasks and triggers count through Airflow's metrics, each by the kind of job.

docs/monitoring.md describes the metrics. A worker hands each count to Airflow at once. A triggerer,
which may send hundreds of polls a second, adds them up and hands on the sums every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Final

from airflow_provider_promptlayer.api.errors import (
    PromptLayerError,
    PromptLayerOutageError,
    PromptLayerOutcomeError,
    PromptLayerWaitTimeoutError,
)

log = logging.getLogger(__name__)

POLLS: Final = "promptlayer.polls"
OUTAGES: Final = "promptlayer.outages"
WAITS: Final = "promptlayer.waits"
STARTS_UNCERTAIN: Final = "promptlayer.starts_uncertain"

SUCCESS: Final = "success"
OTHER_ERROR: Final = "error"
OUTCOMES: Final[Mapping[type[PromptLayerError], str]] = {
    PromptLayerOutcomeError: "failed",
    PromptLayerWaitTimeoutError: "timed_out",
    PromptLayerOutageError: "outage",
}
"""The error that ends a wait → the tag ``outcome``; any other is :data:`OTHER_ERROR`."""

_FLUSH_SECONDS: Final = 10.0
"""How long a triggerer adds up what it counts."""

_Metric = tuple[str, str, str | None]
"""A name, and the values of the tags ``kind`` and ``outcome``."""

_sums: Final[Counter[_Metric]] = Counter()
"""What a triggerer has counted and not handed on."""

_flushes_on: asyncio.AbstractEventLoop | None = None
"""The event loop that is going to hand the sums on."""


def count_poll(kind: str, *, begins_outage: bool) -> None:
    """Count a poll.

    :param begins_outage: whether it has failed, and the one before it had not.
    """
    _count((POLLS, kind, None))
    if begins_outage:
        count_outage(kind)


def count_outage(kind: str) -> None:
    """Count an outage that a wait has begun to ride out."""
    _count((OUTAGES, kind, None))


def count_wait(kind: str, error: PromptLayerError | None = None) -> None:
    """Count a wait that has ended.

    :param error: which has ended it; None for a success.
    """
    found = (outcome for cls, outcome in OUTCOMES.items() if isinstance(error, cls))
    _count((WAITS, kind, SUCCESS if error is None else next(found, OTHER_ERROR)))


def count_uncertain_starts(kind: str, number: int = 1) -> None:
    """Count starts of which it is unknown whether they have arrived."""
    _count((STARTS_UNCERTAIN, kind, None), number)


def _count(metric: _Metric, number: int = 1) -> None:
    global _flushes_on
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # a worker
        _hand_on({metric: number})
        return
    _sums[metric] += number
    if loop is not _flushes_on:
        _flushes_on = loop
        loop.call_later(_FLUSH_SECONDS, _flush, loop)


def _flush(loop: asyncio.AbstractEventLoop) -> None:
    global _flushes_on
    _flushes_on = None
    sums = dict(_sums)
    _sums.clear()
    # In a thread, as Airflow may have to look up the host of the metrics.
    loop.run_in_executor(None, _hand_on, sums)


def _hand_on(counts: Mapping[_Metric, int]) -> None:
    # Not at the top, as DAG files import this module on every parse.
    from airflow.providers.common.compat.sdk import Stats

    try:
        for (name, kind, outcome), number in counts.items():
            tags = {"kind": kind} if outcome is None else {"kind": kind, "outcome": outcome}
            Stats.incr(name, number, tags=tags)
    except Exception as error:  # noqa: BLE001  # such as that of a StatsD client of the user's own
        log.warning("Could not hand counts to Airflow's metrics: %r", error)
