# SPDX-License-Identifier: Apache-2.0
"""The figures as a table for people and as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.figures import Figure, Samples

_HEAD = ("figure", "ours", "against", "ratio", "spread of the ratio", "goal", "reached")


def table(figures: Sequence[Figure]) -> str:
    """Return a line for each figure, with its note below it."""
    rows = [_HEAD, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = []
    for row, figure in zip(rows, [None, *figures], strict=True):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
        if figure is None:
            lines.append("  ".join("-" * width for width in widths))
        elif figure.failure:
            lines.append(f"    not measured: {figure.failure}")
        elif figure.note:
            lines.append(f"    {figure.note}")
    return "\n".join(lines)


def machine_line(machine: Mapping[str, str]) -> str:
    """Return one line for people."""
    return ", ".join(
        f"{name} {value}" if name != "processor" else value for name, value in machine.items()
    )


def payload(machine: Mapping[str, str], figures: Sequence[Figure]) -> str:
    """Return the JSON."""
    whole: dict[str, Any] = {
        "machine": dict(machine),
        "figures": [figure.payload() for figure in figures],
    }
    return json.dumps(whole, indent=2) + "\n"


def _row(figure: Figure) -> tuple[str, ...]:
    ratio = figure.ratio
    against = figure.against
    if figure.theirs is not None:
        against = f"{_amount(figure.theirs, figure.unit)}: {against}"
    return (
        figure.name,
        "" if figure.ours is None else _amount(figure.ours, figure.unit),
        against,
        "" if ratio is None else f"{ratio.median:.2f} ×",
        _spread(ratio if ratio is not None else figure.ours),
        _goal(figure),
        {True: "yes", False: "NO", None: ""}[figure.is_reached],
    )


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return figure.wanted
    unit = "×" if figure.goal.of == "ratio" else figure.unit
    return f"{'≥' if figure.goal.at_least else '≤'} {_number(figure.goal.limit)} {unit}"


def _spread(samples: Samples | None) -> str:
    if samples is None or len(samples.values) == 1:
        return ""
    return f"{_number(samples.low)} to {_number(samples.high)}"


def _amount(samples: Samples, unit: str) -> str:
    return f"{_number(samples.median)} {unit}".rstrip()


def _number(value: float) -> str:
    """Return three significant digits, without an exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.01 else f"{value:.4f}"
