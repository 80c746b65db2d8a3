# SPDX-License-Identifier: Apache-2.0
"""What the soak prints at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from dev.soak.accounting import Verdict
from dev.soak.faults import Faults

_LONGEST: Final = 400


def report(
    verdict: Verdict,
    seed: int,
    seconds: float,
    kills: Counter[str],
    restarts: Mapping[str, int],
    faults: Faults,
) -> str:
    """Return the figures, and a line for each case.

    :param seconds: for how long was killed.
    :param kills: victim → how often it was killed.
    :param restarts: component → how often it ended by itself.
    """
    met = faults.met.total()
    lines = [
        f"seed {seed}: {verdict.starts} billed starts and {kills.total()} kills "
        f"in {seconds / 60:.0f} minutes",
        f"killed: {_counts(kills)}",
        f"ended by themselves, and started again: {_counts(restarts)}",
        f"GETs: {faults.gets}, of which {met} met a fault: {_counts(faults.met)}",
        f"{len(verdict.doubled)} doubled, {len(verdict.lost)} lost, "
        f"{len(verdict.false_successes)} false successes, {len(verdict.stuck)} stuck",
        f"{verdict.succeeded} succeeded, {verdict.failed_as_their_jobs} failed as their runs did, "
        f"{verdict.replaced} runs that had failed were run again",
        f"{len(verdict.uncertain)} ask a person, {len(verdict.failed)} failed otherwise",
    ]
    for title, cases in (
        ("doubled", verdict.doubled),
        ("lost", verdict.lost),
        ("false success", verdict.false_successes),
        ("stuck", verdict.stuck),
        ("asks a person", verdict.uncertain),
        ("failed otherwise", verdict.failed),
    ):
        lines += _cases(title, cases)
    return "\n".join(lines)


def _cases(title: str, cases: Sequence[str]) -> list[str]:
    return [f"{title}: {case[:_LONGEST]}" for case in cases]


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counted.items())) or "none"
