# SPDX-License-Identifier: Apache-2.0
"""The frame of the benchmarks; what they measure is for `make bench` to say."""

from __future__ import annotations

import json
import sys
from importlib import import_module

import pytest

from benchmarks import __main__ as frame
from benchmarks.figures import Figure, Goal, Samples
from benchmarks.report import table

OURS, THEIRS = Samples.of([1, 2, 9]), Samples.of([2, 8, 9])


def test_rounds_are_compared_one_by_one():
    ratio = Figure("f", ours=OURS, theirs=THEIRS).ratio
    assert ratio is not None
    assert (ratio.low, ratio.median, ratio.high) == (0.25, 0.5, 1.0)


@pytest.mark.parametrize(
    ("goal", "reached"),
    [
        (Goal(0.5, "ratio"), True),
        (Goal(0.49, "ratio"), False),
        (Goal(2, "ours"), True),
        (Goal(1.9, "ours"), False),
        (Goal(2, "ours", at_least=True), True),
        (Goal(2.1, "ours", at_least=True), False),
        (None, None),
    ],
)
def test_the_median_decides_whether_a_goal_is_reached(goal, reached):
    assert Figure("f", ours=OURS, theirs=THEIRS, goal=goal).is_reached is reached


def test_there_is_no_ratio_to_nothing():
    figure = Figure("f", ours=OURS, theirs=Samples.of([0, 0, 0]))
    assert figure.ratio is None
    assert "f" in table([figure])


def test_a_figure_may_be_measured_once():
    figure = Figure.once("starts", "", 2.0, "HttpSensor", 4.0, at_most=1, note="read so")
    assert figure.ratio == Samples.of([0.5])
    assert figure.is_reached is False
    assert "read so" in table([figure])


@pytest.mark.parametrize("name", [benchmark.name for benchmark in frame.BENCHMARKS])
def test_each_benchmark_has_its_module(name):
    assert callable(import_module(f"benchmarks.{name}").measure)


def test_what_cannot_be_measured_is_said_and_the_rest_is_there(monkeypatch, capsys, tmp_path):
    empty = frame.Benchmark("figures", "one without measure()")
    missing = frame.Benchmark("no_such_module", "one that is not there")
    whole = frame.Benchmark("whole", "one that works")
    monkeypatch.setitem(
        sys.modules, "benchmarks.whole", type("M", (), {"measure": lambda: [Figure("f")]})
    )
    monkeypatch.setattr(frame, "BENCHMARKS", (empty, missing, whole))
    path = tmp_path / "made" / "bench.json"
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--json", str(path)])

    assert frame.main() == 1

    assert "not measured: ModuleNotFoundError: No module named 'benchmarks.no_such_module'" in (
        capsys.readouterr().out
    )
    figures = json.loads(path.read_text())["figures"]
    assert [bool(figure["failure"]) for figure in figures] == [True, True, False]

    monkeypatch.setattr(frame, "BENCHMARKS", (whole,))
    assert frame.main() == 0
