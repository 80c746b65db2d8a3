# SPDX-License-Identifier: Apache-2.0
"""Make figures of the numbers and dictionaries that some benchmarks return."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.figures import Figure, Goal, Samples


def read(found: Any) -> list[Figure]:
    """Return the figures that ``found`` describes.

    :param found: what a ``measure()`` returned: figures, or mappings with ``name``, ``ours``,
        ``against`` (numbers), ``goal`` and ``note``; or such mappings by name, of large results.
    :raises TypeError: if it is anything else.
    """
    if isinstance(found, Mapping):
        found = [
            {"name": f"50 MB, {name}", "against_name": "json.loads alone", **values}
            for name, values in found.items()
        ]
    return [value if isinstance(value, Figure) else _figure(value) for value in found]


def _figure(value: Any) -> Figure:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r} is not a figure")
    wanted = str(value.get("goal") or "")
    limit = _number_or_none(wanted)
    return Figure(
        str(value["name"]),
        str(value.get("unit") or ""),
        _samples(value.get("ours")),
        str(value.get("against_name") or "HttpSensor"),
        _samples(value.get("against")),
        None if limit is None else Goal(limit, "ours"),
        wanted=wanted,
        note=str(value.get("note") or ""),
        failure=str(value.get("failure") or ""),
    )


def _samples(value: Any) -> Samples | None:
    """Return the numbers that are there, or None."""
    values = list(value) if isinstance(value, Sequence) else [value]
    numbers = [float(one) for one in values if isinstance(one, (int, float))]
    return Samples.of(numbers) if numbers and all(map(math.isfinite, numbers)) else None


def _number_or_none(text: str) -> float | None:
    try:
        return float(text.removeprefix("≤"))
    except ValueError:
        return None
