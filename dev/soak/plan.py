# SPDX-License-Identifier: Apache-2.0
"""What is killed when: a plan that follows from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

T = TypeVar("T")

EVERY_SECONDS: Final = 15.0
AWAY: Final[Mapping[str, tuple[float, float]]] = {
    "worker": (1.0, 10.0),
    "task": (0.0, 0.0),
    "triggerer": (1.0, 10.0),
    "scheduler": (1.0, 10.0),
    "api-server": (1.0, 10.0),
    "redis": (1.0, 5.0),
    "postgres": (1.0, 5.0),
}
"""What is killed → for how many seconds it stays away, from and to."""


@dataclass(frozen=True)
class Kill:
    """One SIGKILL.

    :param at: seconds after the first round has begun.
    :param victim: a key of `AWAY`.
    :param which: of several, from 0 to below 1.
    :param away: seconds until it is started again.
    """

    at: float
    victim: str
    which: float
    away: float

    def choose(self, candidates: Sequence[T]) -> T:
        """Return the one that is killed."""
        return candidates[int(self.which * len(candidates))]


def plan(seed: int, every: float = EVERY_SECONDS) -> Iterator[Kill]:
    """Yield kills without end. Each victim comes equally often, in an order that varies.

    :param every: seconds from one to the next.
    """
    rng = random.Random(seed)  # noqa: S311 - to be repeated
    at = 0.0
    while True:
        for victim in rng.sample(list(AWAY), len(AWAY)):
            at += every
            yield Kill(at, victim, rng.random(), rng.uniform(*AWAY[victim]))
