# SPDX-License-Identifier: Apache-2.0
"""Figures, each the median of several rounds with its spread.

A figure is compared with its counterpart round by round, so that a load that slowed a round down
slowed both.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Samples:
    """The rounds of one measurement."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Samples:
        """Return ``values`` as samples.

        :raises ValueError: if there are none.
        """
        if not values:
            raise ValueError("there was no round")
        return cls(tuple(float(value) for value in values))

    def __truediv__(self, other: Samples) -> Samples:
        return Samples.of([a / b for a, b in zip(self.values, other.values, strict=True)])

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The smallest."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest."""
        return max(self.values)

    def payload(self) -> dict[str, Any]:
        """Return this for JSON."""
        return {
            "median": self.median,
            "min": self.low,
            "max": self.high,
            "rounds": list(self.values),
        }


@dataclass(frozen=True)
class Goal:
    """A limit that the median is to stay within.

    :param of: ``"ratio"`` or ``"ours"``: which number it limits.
    :param at_least: the median is to reach the limit, rather than to stay below it.
    """

    limit: float
    of: Literal["ratio", "ours"]
    at_least: bool = False

    def is_reached(self, median: float) -> bool:
        """Whether a median keeps to the limit."""
        return median >= self.limit if self.at_least else median <= self.limit


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    :param name: what was measured.
    :param unit: of ``ours`` and ``theirs``.
    :param against: what it is compared with, or an empty string.
    :param reached: whether a goal was reached that is more than one limit; None where ``goal``
        says it all, or where there is none.
    :param wanted: that goal in words.
    :param note: how to read the number.
    :param failure: why there is no number.
    :param details: more numbers, for JSON alone.
    """

    name: str
    unit: str = ""
    ours: Samples | None = None
    against: str = ""
    theirs: Samples | None = None
    goal: Goal | None = None
    reached: bool | None = None
    wanted: str = ""
    note: str = ""
    failure: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def once(
        cls,
        name: str,
        unit: str,
        ours: float,
        against: str,
        theirs: float,
        *,
        at_most: float | None = None,
        note: str = "",
    ) -> Figure:
        """Return a figure that was measured once.

        :param at_most: the goal of ``ours``, if there is one.
        """
        goal = None if at_most is None else Goal(at_most, "ours")
        return cls(name, unit, Samples.of([ours]), against, Samples.of([theirs]), goal, note=note)

    @property
    def ratio(self) -> Samples | None:
        """``ours`` by ``theirs``, round by round; None where there is nothing to divide by."""
        if self.ours is None or self.theirs is None or self.theirs.low <= 0:
            return None
        return self.ours / self.theirs

    @property
    def is_reached(self) -> bool | None:
        """Whether the goal was reached, or None if there is none."""
        if self.goal is None or self.failure:
            return self.reached
        limited = self.ratio if self.goal.of == "ratio" else self.ours
        return None if limited is None else self.goal.is_reached(limited.median)

    def payload(self) -> dict[str, Any]:
        """Return this for JSON."""
        ratio = self.ratio
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": self.ours.payload() if self.ours else None,
            "against": self.against,
            "theirs": self.theirs.payload() if self.theirs else None,
            "ratio": ratio.payload() if ratio else None,
            "goal": asdict(self.goal) if self.goal else self.wanted or None,
            "reached": self.is_reached,
            "note": self.note,
            "failure": self.failure,
            "details": self.details,
        }
