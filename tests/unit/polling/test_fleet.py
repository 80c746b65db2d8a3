# SPDX-License-Identifier: Apache-2.0
"""Many waits and a server that limits its requests, on a simulated clock."""

from __future__ import annotations

import pytest

from benchmarks.fleet import NONE, OWN, Outcome, simulate

RUNS = 300


def simulated(brake: str, retry_after: float | None) -> Outcome:
    return simulate(RUNS, 4, brake=brake, limit=RUNS / 50, retry_after=retry_after)


@pytest.mark.parametrize("retry_after", [None, 1.0, 10.0])
def test_waits_share_the_limit_of_a_server(retry_after: float | None) -> None:
    """They ask for five times as much as it answers, and are refused a third of the time."""
    with_brake, without = simulated(OWN, retry_after), simulated(NONE, retry_after)
    assert with_brake.failed == 0
    assert len(with_brake.lateness) == RUNS
    assert with_brake.refused < 0.4
    assert with_brake.refused < 0.7 * without.refused
