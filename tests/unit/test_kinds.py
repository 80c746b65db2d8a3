# SPDX-License-Identifier: Apache-2.0
"""Whatever is waited for, in every mode: how it ends, and what a wait does in trouble.

The whole table of faults is in tests/unit/faults, for workflow runs; here is one of each class.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from support.kinds import EVALUATIONS, KINDS, SECRET, TABLE, WORKFLOW_RUN, Kind, new_server, own_id
from support.modes import MODES, MODES_OF_ALL_KINDS, Ending

from airflow_provider_promptlayer.api.http import LARGE
from airflow_provider_promptlayer.testing import Close, LocalPromptLayer, Reply, Silence

TASK_MODES = ("poke", "reschedule", "deferred")
SHORT = 0.4
"""Seconds that a request may take where it is to take too long."""


@pytest.fixture(params=MODES_OF_ALL_KINDS)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPromptLayer]:
    with new_server() as server:
        connect(server, monkeypatch)
        yield server


def connect(
    server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch, timeout: float = 60.0
) -> None:
    connection = json.loads(server.airflow_connection_json)
    connection["extra"] = {"timeout": timeout}
    monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", json.dumps(connection))


def wait(mode: str, kind: Kind, external_id: Any, **arguments: Any) -> Ending:
    return MODES[mode](external_id, kind, **{"poke_interval": 0.05, **arguments})


def test_good(mode: str, kind: Kind, server: LocalPromptLayer) -> None:
    external_id = kind.start(server, "good")
    ending = wait(mode, kind, external_id)
    assert (ending.kind, ending.value) == ("success", own_id(external_id)), ending
    assert server.count("POST") == server.count("DELETE") == 0


def test_bad(mode: str, kind: Kind, server: LocalPromptLayer) -> None:
    ending = wait(mode, kind, kind.start(server, "bad"))
    assert ending.kind == "failed for good", ending
    for part in kind.bad_says:
        assert part in ending.message
    assert SECRET not in ending.message
    assert "\n" not in ending.message
    assert ".." not in ending.message
    assert server.count("POST") == server.count("DELETE") == 0


@pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
@pytest.mark.parametrize("task_mode", TASK_MODES)
def test_bad_softly(task_mode: str, option: str, kind: Kind, server: LocalPromptLayer) -> None:
    ending = wait(task_mode, kind, kind.start(server, "bad"), **{option: True})
    assert ending.kind == "skipped", ending
    assert kind.bad_says[0] in ending.message


def test_never(mode: str, kind: Kind, server: LocalPromptLayer) -> None:
    external_id = kind.start(server, "never")
    ending = wait(mode, kind, external_id, timeout=0.4)
    assert ending.kind == "timeout", ending
    assert f"{kind.name} {own_id(external_id)}"[1:] in ending.message
    assert server.count("POST") == server.count("DELETE") == 0


FAULTS = {
    "429": Reply(429, "{}", {"Retry-After": "0"}),
    "502": Reply(502, "<html>"),
    "junk": Reply(200, "<html>"),
    "half": Reply(200, '{"success": true'),
    "an object of something else": Reply(200, '{"success": true}'),
    "closed": Close(),
    "no answer": Silence(60),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("kind", EVALUATIONS.values(), ids=EVALUATIONS.keys())
def test_trouble_is_ridden_out(
    mode: str,
    kind: Kind,
    fault: Any,
    server: LocalPromptLayer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    external_id = kind.start(server, "good")
    if isinstance(fault, Silence):
        connect(server, monkeypatch, timeout=SHORT)
    # aiohttp sends a GET that got no answer a second time by itself: trouble must outlast that.
    script = server.script(fault, times=1 if isinstance(fault, Silence) else 3)
    ending = wait(mode, kind, external_id)
    assert (ending.kind, ending.value) == ("success", own_id(external_id)), ending
    assert script.used >= 1
    assert server.count("POST") == server.count("DELETE") == 0


class TestLargeAnswers:
    """The triggerer does not parse them: a worker finds out whether the job has ended, and how."""

    RUNNING: ClassVar[dict[str, tuple[int, dict[str, Any]]]] = {
        "workflow run": (202, {"A": {"status": "RUNNING"}}),
        "table operation": (
            200,
            {
                "operation": {
                    "operation_id": "o",
                    "status": "running",
                    "cell_count": 3,
                    "completed_count": 2,
                    "failed_count": 0,
                    "pending_count": 1,
                }
            },
        ),
        "scorecard calculation": (200, {"calculation": {"id": TABLE.id, "status": "running"}}),
        "report": (200, {"status": "RUNNING"}),
    }

    def large(self, kind: Kind) -> Reply:
        status, body = self.RUNNING[kind.name]
        return Reply(status, json.dumps(body) + " " * LARGE)

    def test_while_it_goes_on(self, mode: str, kind: Kind, server: LocalPromptLayer) -> None:
        external_id = kind.start(server, "good")
        server.script(self.large(kind), times=3)
        ending = wait(mode, kind, external_id)
        assert (ending.kind, ending.value) == ("success", own_id(external_id)), ending

    def test_end_with_the_time(self, mode: str, kind: Kind, server: LocalPromptLayer) -> None:
        external_id = kind.start(server, "never")
        server.script(self.large(kind), times=None)
        assert wait(mode, kind, external_id, timeout=0.4).kind == "timeout"

    def test_of_something_else_are_an_outage(
        self, mode: str, kind: Kind, server: LocalPromptLayer
    ) -> None:
        external_id = kind.start(server, "good")
        server.script(Reply(200, "<html>" + " " * LARGE), times=None)
        assert wait(mode, kind, external_id, max_outage=0.2).kind == "failed"

    def test_of_a_run_that_failed(self, mode: str, server: LocalPromptLayer) -> None:
        run_id = server.start_execution("bad")
        node = {"status": "FAILED", "error_message": "too hot" + " " * LARGE}
        ended = {"success": False, "message": "It ended.", "output": {"Answer": node}}
        for status in (400, 500):
            server.script(Reply.of_json(ended, status), times=None)
            ending = wait(mode, WORKFLOW_RUN, run_id)
            assert ending.kind == "failed for good", ending
            assert "too hot" in ending.message


@pytest.mark.parametrize("status", [400, 404, 422, 307])
@pytest.mark.parametrize("kind", EVALUATIONS.values(), ids=EVALUATIONS.keys())
def test_a_refusal_is_final_at_once(
    mode: str, kind: Kind, status: int, server: LocalPromptLayer
) -> None:
    external_id = kind.start(server, "good")
    server.script(Reply(status, "<html>"), times=None)
    ending = wait(mode, kind, external_id)
    assert ending.kind == "failed for good", ending
    assert f"HTTP {status}" in ending.message
    assert server.count() == 1


def test_an_outage_has_an_end(mode: str, kind: Kind, server: LocalPromptLayer) -> None:
    external_id = kind.start(server, "good")
    server.script(Reply(503), times=None)
    ending = wait(mode, kind, external_id, max_outage=0.2, timeout=60)
    assert ending.kind == "failed", ending
    assert "may well go on" in ending.message


@pytest.mark.parametrize("kind", EVALUATIONS.values(), ids=EVALUATIONS.keys())
def test_a_changed_key_is_picked_up(
    mode: str, kind: Kind, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    external_id = kind.start(server, "good")
    rotated: list[bool] = []

    def rotate(request: Any) -> Reply | None:
        if not rotated:
            rotated.append(True)
            server.rotate_key("pl_new_key")
            connect(server, monkeypatch)
        return None

    server.script(rotate, times=None)
    assert wait(mode, kind, external_id).kind == "success"


@pytest.mark.parametrize("kind", EVALUATIONS.values(), ids=EVALUATIONS.keys())
def test_what_is_not_there_is_an_error_at_once(
    mode: str, kind: Kind, server: LocalPromptLayer
) -> None:
    nobody = 4711 if kind.name == "report" else f"good:{TABLE.id}"
    ending = wait(mode, kind, nobody)
    assert ending.kind == "failed for good", ending
    assert "404" in ending.message


BAD_IDS = {
    "no UUID": ("scorecard calculation", {"calculation_id": "7"}, "calculation_id must be a UUID"),
    "table": ("scorecard calculation", {"table_id": "x"}, "table_id must be a UUID"),
    "sheet": ("table operation", {"sheet_id": None}, "sheet_id must be a UUID"),
    "no operation": ("table operation", {"operation_id": ""}, "operation_id must be an id"),
    "no number": ("report", {"report_id": "x"}, "report_id must be a positive integer"),
    "no score": ("report", {"min_score": 101}, "min_score must be a number from 0 to 100"),
    "no XCom": ("report", {"min_score": None}, "min_score must be a number, not None"),
    "no XCom either": ("scorecard calculation", {"min_score": None}, "a number, not None"),
    "None as text": ("scorecard calculation", {"min_score": "None"}, "must be a number from 0"),
    "negative score": ("scorecard calculation", {"min_score": -1}, "min_score must be a number"),
    "no verdict": (
        "scorecard calculation",
        {"fail_on_verdict": ["bad"]},
        "fail_on_verdict must be one of",
    ),
}


@pytest.mark.parametrize(("name", "changes", "says"), BAD_IDS.values(), ids=BAD_IDS.keys())
def test_bad_arguments_are_refused_before_anything_is_sent(
    mode: str, name: str, changes: dict[str, Any], says: str, server: LocalPromptLayer
) -> None:
    kind = KINDS[name]
    external_id = kind.start(server, "good")
    changed = Kind(
        **{
            **vars(kind),
            "ids": lambda external_id: {
                **kind.ids(external_id),
                **{key: value for key, value in changes.items() if key.endswith("_id")},
            },
        }
    )
    others = {key: value for key, value in changes.items() if not key.endswith("_id")}
    ending = wait(mode, changed, external_id, **others)
    assert ending.kind == "failed for good", ending
    assert says in ending.message
    assert server.count() == 0


def test_a_blueprint_is_no_report(mode: str, server: LocalPromptLayer) -> None:
    ending = wait(mode, KINDS["report"], 1)
    assert ending.kind == "failed for good", ending
    assert "is a blueprint" in ending.message


def test_cells_of_an_unknown_status_have_not_succeeded(mode: str, server: LocalPromptLayer) -> None:
    report_id = server.start_report(1, "r")
    counts = {"COMPLETED": 0, "FAILED": 0, "QUEUED": 0, "RUNNING": 0, "EXPLODED": 4}
    answer = {"report": {}, "status": "COMPLETED", "stats": {"status_counts": counts}}
    server.script(
        lambda request: None if request.raw_path.endswith("score") else Reply.of_json(answer),
        times=None,
    )
    ending = wait(mode, KINDS["report"], report_id)
    assert ending.kind == "failed for good", ending
    assert "no cell succeeded (0 of 4 cells done)" in ending.message


def test_the_score_is_part_of_the_wait(mode: str, server: LocalPromptLayer) -> None:
    """Trouble in fetching it is ridden out as all trouble is."""
    report_id = server.start_report(1, "r")
    script = server.script(Reply(503), times=3, path_prefix=f"/reports/{report_id}/score")
    ending = wait(mode, KINDS["report"], report_id, min_score=80)
    assert (ending.kind, ending.value) == ("success", report_id), ending
    assert script.used == 3
    assert wait(mode, KINDS["report"], report_id, min_score=90.5).kind == "failed for good"


def test_a_score_that_cannot_be_had_is_an_outage(mode: str, server: LocalPromptLayer) -> None:
    report_id = server.start_report(1, "r")
    server.script(Reply(503), times=None, path_prefix=f"/reports/{report_id}/score")
    ending = wait(mode, KINDS["report"], report_id, max_outage=0.2)
    assert ending.kind == "failed", ending
    assert f"the score of report {report_id}" in ending.message


def test_status_may_lag_behind_the_counts(mode: str, server: LocalPromptLayer) -> None:
    kind = KINDS["table operation"]
    external_id = kind.start(server, "good")
    operation = {
        "operation_id": own_id(external_id),
        "status": "running",
        "cell_count": 3,
        "completed_count": 3,
        "failed_count": 0,
        "pending_count": 0,
    }
    server.script(Reply.of_json({"success": True, "operation": operation}), times=None)
    assert wait(mode, kind, external_id).kind == "success"


def test_an_operation_that_broke_off_is_no_success(mode: str, server: LocalPromptLayer) -> None:
    kind = KINDS["table operation"]
    external_id = kind.start(server, "never")
    operation = {
        "operation_id": own_id(external_id),
        "status": "failed",
        "cell_count": 3,
        "completed_count": 1,
        "failed_count": 0,
        "pending_count": 0,
    }
    server.script(Reply.of_json({"success": True, "operation": operation}), times=None)
    ending = wait(mode, kind, external_id, fail_on="never")
    assert ending.kind == "failed for good", ending
    assert "PromptLayer calls it failed (1 of 3 cells done)" in ending.message


AS_IN_THE_LIBRARIES: dict[str, Any] = {
    "criterion_summaries": [
        {"criterion_id": "c1", "name": "Polite", "score": 0.9, "verdict": "pass"},
        {
            "criterion_id": "c2",
            "name": "Cites",
            "verdict": "error",
            "evaluator_result": {"error_message": "No key."},
        },
    ],
    "drift_summary": ["stale_row_count", 2],
    "error_summary": {"message": "1 of 3 rows could not be judged.", "rows": [2]},
}
"""What decides nothing, in the shapes of PromptLayer's own library, or of nobody's."""


@pytest.mark.parametrize(
    ("fate", "kind_of_ending"), [("good", "success"), ("bad", "failed for good")]
)
def test_what_decides_nothing_may_have_any_shape(
    mode: str, fate: Any, kind_of_ending: str, server: LocalPromptLayer
) -> None:
    kind = KINDS["scorecard calculation"]
    external_id = kind.start(server, fate)
    verdict = "pass" if fate == "good" else "fail"
    calculation = {
        "id": own_id(external_id),
        "status": "completed",
        "aggregate_score": 0.7,
        "aggregate_verdict": verdict,
        **AS_IN_THE_LIBRARIES,
    }
    answer = Reply.of_json({"success": True, "calculation": calculation})
    server.script(
        lambda request: answer if "/calculations/" in request.raw_path else None, times=None
    )
    ending = wait(mode, kind, external_id, max_outage=0.3)
    assert ending.kind == kind_of_ending, ending
    if fate == "bad":
        assert "PromptLayer says: 1 of 3 rows could not be judged." in ending.message
        assert "Failing criteria: 'Cites' (error): No key." in ending.message
    if mode in TASK_MODES:
        for name in ("criterion_summaries", "drift_summary"):
            assert ending.xcoms[f"promptlayer_{name}"] == AS_IN_THE_LIBRARIES[name]


@pytest.mark.parametrize("name", ["table operation", "scorecard calculation"])
def test_what_somebody_cancelled_is_no_success(
    mode: str, name: str, server: LocalPromptLayer
) -> None:
    kind = KINDS[name]
    external_id = kind.start(server, "never")
    cancel(server, kind, external_id)
    ending = wait(
        mode,
        kind,
        external_id,
        **({"fail_on": "never"} if name == "table operation" else {"fail_on_verdict": ()}),
    )
    assert ending.kind == "failed for good", ending
    assert "cancelled" in ending.message


def cancel(server: LocalPromptLayer, kind: Kind, external_id: Any) -> None:
    from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook

    ids = kind.ids(external_id)
    hook = PromptLayerHook()
    if "operation_id" in ids:
        assert hook.cancel_table_operation(**ids).cancelled_cell_count > 0
    else:
        assert hook.cancel_scorecard(ids["table_id"], ids["sheet_id"]).cancelled_count == 1
    hook.close()


def test_the_deadline_is_kept_in_trouble(mode: str, kind: Kind, server: LocalPromptLayer) -> None:
    external_id = kind.start(server, "never")
    server.script(Reply(503), times=None)
    started = time.monotonic()
    assert wait(mode, kind, external_id, timeout=0.5).kind == "timeout"
    assert time.monotonic() - started >= 0.45


def test_sensors_return_what_can_be_used_downstream(server: LocalPromptLayer) -> None:
    """The counts, the score, the summaries: also as XComs of their own."""
    from support.modes import run_task

    kind = KINDS["scorecard calculation"]
    external_id = kind.start(server, "bad")
    ending = run_task(lambda: kind.sensor(task_id="t", **kind.ids(external_id), fail_on_verdict=()))
    assert ending.kind == "success", ending
    assert ending.xcoms["promptlayer_score"] == ending.value["score"] == 0.4
    assert ending.xcoms["promptlayer_verdict"] == ending.value["verdict"] == "fail"
    assert ending.xcoms["promptlayer_drift_summary"] == {"delta": 0.1}
    titles = [one["title"] for one in ending.value["criterion_summaries"].values()]
    assert titles == ["Polite", "Cites a source"]
    assert WORKFLOW_RUN.name in KINDS


IMPOSSIBLE_TIMES = [
    *(("timeout", value) for value in (math.nan, 0, -1, timedelta(seconds=-1), True, "9")),
    *(("poke_interval", value) for value in (math.nan, 0, -0.5)),
    *(("max_outage", value) for value in (math.nan, -1, None)),
]


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE_TIMES)
@pytest.mark.parametrize("hook_mode", ["hook", "async hook"])
def test_the_hook_refuses_times_that_are_none(
    hook_mode: str, name: str, value: Any, kind: Kind, server: LocalPromptLayer
) -> None:
    ending = wait(hook_mode, kind, kind.start(server, "good"), **{"timeout": 5.0, name: value})
    assert ending.kind == "failed for good", ending
    assert f"{name} must be a number of seconds" in ending.message
    assert server.count("GET") == 0
