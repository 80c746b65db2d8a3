# SPDX-License-Identifier: Apache-2.0
"""The gate on a drop of the score: which earlier score counts, and when the gate stays open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from support.arguments import AT_RUN_TIME
from support.kinds import SCORECARD_CALCULATION, Serve, new_server, sheet
from support.modes import MODES, MODES_OF_ALL_KINDS, Ending, Store, run_task
from support.starts import RUN_SCORECARD, RUN_TABLE, Start

from airflow_provider_promptlayer.api.scorecards import ScorecardCalculation
from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError
from airflow_provider_promptlayer.outcomes.baseline import Baseline, DropGate
from airflow_provider_promptlayer.testing import (
    Close,
    LocalPromptLayer,
    Reply,
    Scorecard,
    Script,
    Table,
)

Log = Callable[[], str]
UUID = "00000000-0000-4000-8000-00000000000"
DROPPED = "the score 0.9 is 0.05 below the 0.95 of "
"""What the error says: a good calculation has the score 0.9."""


def version(number: int, name: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"id": f"{UUID}{number}", "sheet_id": UUID + "0", "version_number": number} | {
        "name": name,
        **fields,
    }


def calculation(score: float | None, **fields: Any) -> dict[str, Any]:
    return {"id": UUID + "9", "status": "completed", "aggregate_score": score, **fields}


def script(
    server: LocalPromptLayer,
    *,
    versions: Sequence[Mapping[str, Any]] = (),
    points: Sequence[Mapping[str, Any]] = (),
    scorecards: Sequence[Mapping[str, Any]] = (),
) -> Script:
    """Have a server answer what was before: versions, newest first; each scorecard once."""
    left = list(scorecards)
    page = {"next_cursor": None, "prev_cursor": None, "has_more": False, "limit": 100}

    def answer(request: Any) -> Reply | None:
        path = request.raw_path.partition("?")[0]
        if path.endswith("/versions"):
            return Reply.of_json({"success": True, "data": list(versions), "pagination": page})
        if path.endswith("/versions/score-history"):
            return Reply.of_json({"success": True, "score_history": {"points": list(points)}})
        if "/versions/" in path:
            (found,) = (one for one in versions if path.endswith(one["id"]))
            whole = {**found, "score": found.get("score_in_whole")}
            return Reply.of_json({"success": True, "version": whole})
        if path.endswith("/scorecard") and left:
            card = {"id": UUID + "8", "status": "completed", "name": "Quality", "steps": []}
            return Reply.of_json({"success": True, "scorecard": card, **left.pop(0)})
        return None

    return server.script(answer, method="GET", times=None)


def judge(store: Store | None = None, **arguments: Any) -> Ending:
    return RUN_SCORECARD.run(store, "good", **{"max_drop": 0.02, **arguments})


@pytest.mark.parametrize(
    ("past", "source"),
    [
        ({"versions": [version(2), version(1, score={"aggregate_score": 0.95})]}, "version 1"),
        ({"versions": [version(1, "a", score={"overall_score": 0.95})]}, "version 1 'a'"),
        (
            {"versions": [version(2, score=0.95), version(1, score={"aggregate_score": 0.1})]},
            "version 2",
        ),
        (
            {
                "versions": [version(2)],
                "points": [{"version_number": 2, "score": 0.95}, {"version_number": 1, "score": 0}],
            },
            "version 2",
        ),
        (
            {
                "versions": [version(1)],
                "points": [{"label": "?"}],
                "scorecards": [{"latest_calculation": calculation(0.95)}],
            },
            f"calculation {UUID}9",
        ),
        (
            {
                "scorecards": [
                    {
                        "latest_calculation": calculation(None, status="running"),
                        "display_calculation": calculation(0.95),
                    }
                ]
            },
            f"calculation {UUID}9",
        ),
    ],
    ids=[
        "a version with a score",
        "the score of the sheet",
        "the newest version",
        "the score history",
        "the calculation before",
        "the one that the dashboard shows",
    ],
)
def test_previous_score(serve: Serve, past: dict[str, Any], source: str, deferrable: bool) -> None:
    script(serve(new_server(by_polls=True)), **past)
    ending = judge(deferrable=deferrable)
    assert ending.worker_visits == 1 + deferrable
    assert ending.kind == "failed for good"
    assert f"{DROPPED}{source}, more than max_drop=0.02" in ending.message
    assert ending.xcoms["promptlayer_score"] == 0.9


@pytest.mark.parametrize("max_drop", ["0.03", 0.06])
def test_a_drop_that_is_allowed(server: LocalPromptLayer, max_drop: Any, log: Log) -> None:
    script(server, versions=[version(1, score=0.93)])  # 0.93 - 0.9 is a bit more than 0.03
    assert judge(max_drop=max_drop).kind == "success"
    said = f"The score 0.9 is 0.03 below the 0.93 of version 1; max_drop is {float(max_drop):g}."
    assert said in log()


def test_a_named_version(server: LocalPromptLayer) -> None:
    script(
        server,
        versions=[
            version(3, score=0.9),
            version(2, "best", score_in_whole={"aggregate_score": 0.95}),
            version(1, "best", score=0.1),
        ],
    )
    ending = judge(baseline="best")
    assert f"{DROPPED}version 2 'best'" in ending.message


@pytest.mark.parametrize(
    ("baseline", "says"),
    [
        (
            "worst",
            "named 'worst', and names are matched exactly. It has: 'best', 'empty'.",
        ),
        ("empty", "The version 1 'empty' of sheet "),
        ("", "baseline must be a text of 1 to 255 characters"),
    ],
)
def test_a_version_to_compare_with_that_is_not_there_starts_nothing(
    server: LocalPromptLayer, baseline: str, says: str
) -> None:
    script(server, versions=[version(2, "best", score=1), version(1, "empty")])
    store = Store()
    ending = judge(store, baseline=baseline)
    assert ending.kind == "failed for good"
    assert says in ending.message
    assert not server.calculations
    assert not store


def test_without_an_earlier_score_the_gate_is_open_and_says_so(
    server: LocalPromptLayer, log: Log
) -> None:
    script(server)
    assert judge().kind == "success"
    assert "There is no earlier score to compare with yet" in log()


def test_trouble_in_looking_for_the_earlier_score(server: LocalPromptLayer) -> None:
    server.script(Reply(503), Reply(502, "<html>"), Close(), Reply(200, "{}"), method="GET")
    script(server, versions=[version(1, score=0.95)])
    assert DROPPED in judge().message
    assert len(server.calculations) == 1


def test_an_outage_in_looking_for_the_earlier_score_starts_nothing(
    server: LocalPromptLayer,
) -> None:
    store = Store()
    with server.script(Reply(503), method="GET", times=None):
        ending = judge(store, max_outage=0.05)
    assert ending.kind == "failed"  # which Airflow retries
    assert "the earlier scores of sheet" in ending.message
    assert not server.calculations
    assert not store


@pytest.mark.parametrize("mode", MODES_OF_ALL_KINDS)
def test_every_way_of_waiting_compares(server: LocalPromptLayer, mode: str) -> None:
    script(
        server,
        versions=[
            # Saved while the calculation went on: the score may be its own.
            version(2, score=0.9, created_at="2099-01-01T00:00:00Z"),
            version(1, score=0.95, created_at="2025-01-01T00:00:00Z"),
        ],
    )
    job = SCORECARD_CALCULATION.start(server, "good")
    ending = MODES[mode](job, SCORECARD_CALCULATION, max_drop=0.02)
    assert ending.kind == "failed for good"
    assert f"{DROPPED}version 1" in ending.message


def test_a_sensor_does_not_compare_a_calculation_with_itself(
    server: LocalPromptLayer, log: Log
) -> None:
    script(server)
    job = SCORECARD_CALCULATION.start(server, "good")
    assert MODES["poke"](job, SCORECARD_CALCULATION, max_drop=0.02).kind == "success"
    assert "There is no earlier score" in log()


def test_a_sensor_does_not_compare_a_calculation_with_a_later_one(
    server: LocalPromptLayer, log: Log
) -> None:
    later = calculation(0.95, started_at="2099-01-01T00:00:00Z")
    script(server, scorecards=[{"latest_calculation": later}])
    job = SCORECARD_CALCULATION.start(server, "good")
    assert MODES["poke"](job, SCORECARD_CALCULATION, max_drop=0.02).kind == "success"
    assert "There is no earlier score" in log()


def test_a_later_try_compares_with_the_score_before_the_first(server: LocalPromptLayer) -> None:
    failed = {"latest_calculation": calculation(0.9)}
    store = Store()
    with script(server, scorecards=[{"latest_calculation": calculation(0.95)}, failed, failed]):
        for number in (1, 2, 3):  # cleared after each
            ending = judge(store, number=number, max_tries=1 + number)
            assert ending.kind == "failed for good"
            assert DROPPED in ending.message
            assert len(server.calculations) == number
    # A version is another score to compare with, and so is the score of another sheet.
    with script(server, versions=[version(1, "best", score=0.96)]):
        ending = judge(store, number=4, max_tries=6, baseline="best")
        assert "0.06 below the 0.96 of version 1 'best'" in ending.message
    script(server, versions=[version(1, "best", score=0.93)])
    ending = RUN_SCORECARD.run(store, "bad", number=5, max_tries=7, max_drop=0.02, baseline="best")
    assert "the score 0.4 is 0.53 below the 0.93 of version 1 'best'" in ending.message


def test_an_operator_that_is_executed_twice_looks_twice(server: LocalPromptLayer) -> None:
    script(server, scorecards=[{"latest_calculation": calculation(score)} for score in (0.95, 0.9)])
    task = RUN_SCORECARD.make("good", max_drop=0.02)
    kinds = [run_task(lambda: task).kind for _ in range(2)]
    assert kinds == ["failed for good", "success"]


def test_a_try_that_goes_back_to_a_calculation_compares_it(server: LocalPromptLayer) -> None:
    script(server, scorecards=[{"latest_calculation": calculation(0.95)}])
    store = Store()
    assert judge(store, wait_for_completion=True).kind == "failed for good"
    ending = judge(store, number=2)
    assert DROPPED in ending.message
    assert len(server.calculations) == 1


def test_a_calculation_without_a_score_does_not_pass(serve: Any) -> None:
    only = sheet("good", scorecard=Scorecard("Q", score=None))
    script(serve(LocalPromptLayer(tables=[Table("Table", [only])])))
    assert "has no score to compare" in judge().message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"max_drop": None}, "max_drop must be a number, not None"),
        ({"max_drop": -1}, "max_drop must be a number from 0"),
        ({"baseline": "best"}, "baseline needs max_drop"),
    ],
    ids=str,
)
def test_arguments_that_are_refused(
    server: LocalPromptLayer, arguments: dict[str, Any], says: str
) -> None:
    ending = RUN_SCORECARD.run(**arguments, **AT_RUN_TIME)
    assert ending.kind == "failed for good"
    assert says in ending.message
    assert not server.requests


@pytest.mark.parametrize(("start", "gate"), [(RUN_SCORECARD, "max_drop"), (RUN_TABLE, "max_price")])
def test_a_gate_needs_a_task_that_waits(start: Start, gate: str) -> None:
    arguments: dict[str, Any] = {gate: 1}
    with pytest.raises(PromptLayerInvalidInputError, match=f"{gate} is judged once the job has"):
        start.make("good", wait_for_completion=False, **arguments)


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        ("a", "b", "was not compared with the 0.95 of version 1, because the scorecard was "),
        ("a", "a", "max_drop is 0.02."),
        (None, "a", "PromptLayer does not say whether the scorecard was configured alike."),
        ("a", None, "PromptLayer does not say whether the scorecard was configured alike."),
    ],
)
def test_configurations_of_the_scorecard(ours: str | None, theirs: str | None, says: str) -> None:
    ending = ScorecardCalculation(UUID + "1", "completed", 0.9, config_hash=ours)
    found = DropGate(0.02).compare(ending, Baseline(0.95, "version 1", theirs))
    assert says in found.note
    assert bool(found.problem) is found.is_compared is (theirs != "b")


@pytest.mark.parametrize(("ours", "theirs"), [(0.5, 10**400), (10**400, 0.5), (10**400, 10**401)])
def test_scores_beyond_all_measure(ours: float, theirs: float) -> None:
    ending = ScorecardCalculation(UUID + "1", "completed", ours)
    found = DropGate(0.02).compare(ending, Baseline(theirs, "version 1"))
    assert bool(found.problem) is (theirs > ours)


def test_a_higher_score() -> None:
    ending = ScorecardCalculation(UUID + "1", "completed", 0.97)
    found = DropGate(0).compare(ending, Baseline(0.95, "version 1"))
    assert found.problem == ""
    assert found.note.startswith(
        "The score 0.97 is 0.02 above the 0.95 of version 1; max_drop is 0"
    )
    assert "is the same as the 0.97" in DropGate(0).compare(ending, Baseline(0.97, "v")).note
