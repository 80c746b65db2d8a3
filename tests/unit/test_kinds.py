# SPDX-License-Identifier: Apache-2.0
"""Every kind of job in every mode of waiting: how the wait ends, and what it rides out.

The loop and the transports are the same for all kinds: test_modes.py and faults/ try them with
workflow runs. Here is what can fail for one kind alone: its answers, its methods of the hook,
its trigger. At this server a second passes with each poll: a job that ends still runs at the first
poll and has ended at the second.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from support.arguments import AT_RUN_TIME
from support.kinds import (
    EVALUATIONS,
    KINDS,
    REPORT,
    SECRET,
    TABLE,
    WORKFLOW_RUN,
    Fate,
    Kind,
    Serve,
    new_server,
)
from support.modes import MODES, MODES_OF_ALL_KINDS, TASK_MODES, Ending

from airflow_provider_promptlayer.api.http import LARGE
from airflow_provider_promptlayer.exceptions import PromptLayerOutcomeError
from airflow_provider_promptlayer.testing import Close, LocalPromptLayer, Reply
from airflow_provider_promptlayer.testing.faults.model import Fault
from airflow_provider_promptlayer.triggers import promptlayer as triggers

every_mode_of_every_kind = pytest.mark.parametrize(
    ("mode", "kind"),
    [
        pytest.param(mode, kind, id=f"{name}-{mode}")
        for name, kind in KINDS.items()
        for mode in (MODES if kind is WORKFLOW_RUN else MODES_OF_ALL_KINDS)
    ],
)
one_of_each_mode = pytest.mark.parametrize("mode", ["hook", "deferred"])
"""The modes that share no code of a kind: a deferred task polls in a worker as well, and each
method of the hook and its asynchronous twin are made from one loop."""
on_a_loop = pytest.mark.parametrize("mode", ["async hook", "deferred"])
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
every_evaluation = pytest.mark.parametrize("kind", EVALUATIONS.values(), ids=EVALUATIONS)


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    return serve(new_server(by_polls=True))


def wait(mode: str, kind: Kind, job: Any, **arguments: Any) -> Ending:
    return MODES[mode](job, kind, **{"poke_interval": 0.02, **arguments})


@every_mode_of_every_kind
def test_good(mode: str, kind: Kind, server: LocalPromptLayer) -> None:
    ids = kind.start(server, "good")
    ending = wait(mode, kind, ids)
    assert (ending.kind, ending.value) == ("success", ids[kind.id_name]), ending
    assert server.count("POST") == server.count("DELETE") == 0
    visits = {"poke": 1, "reschedule": 2, "deferred": 2}
    assert ending.worker_visits == visits.get(mode, ending.worker_visits)


@every_mode_of_every_kind
def test_bad(mode: str, kind: Kind, server: LocalPromptLayer) -> None:
    ending = wait(mode, kind, kind.start(server, "bad"))
    assert ending.kind == "failed for good", ending
    for part in kind.bad_says:
        assert part in ending.message
    assert SECRET not in ending.message
    assert "\n" not in ending.message
    assert ".." not in ending.message
    assert server.count("POST") == server.count("DELETE") == 0
    if "hook" not in mode:
        error = ending.error
        assert isinstance(error, AirflowFailException)
        assert isinstance(error, PromptLayerOutcomeError)
        assert error.outcome is not None
        assert error.external_id is not None
        assert error.__cause__ is None  # the log would say all of it twice
        assert error.__suppress_context__


@one_of_each_mode
@every_evaluation
def test_never(mode: str, kind: Kind, server: LocalPromptLayer) -> None:
    ids = kind.start(server, "never")
    ending = wait(mode, kind, ids, timeout=0.2)
    assert ending.kind == "timeout", ending
    assert f"{kind.name} {ids[kind.id_name]}"[1:] in ending.message
    assert server.count("POST") == server.count("DELETE") == 0


TROUBLE: tuple[Fault, ...] = (
    Close(),
    Close(),  # as aiohttp sends a GET that got no answer a second time by itself
    Reply(429, "{}", {"Retry-After": "0"}),
    Reply(502, "<html>"),
    Reply(200, "<html>"),
    Reply(200, '{"success": true'),
    Reply(200, '{"success": true}'),  # which is an answer to something else
)


@every_mode_of_every_kind
def test_trouble_is_ridden_out(mode: str, kind: Kind, server: LocalPromptLayer) -> None:
    ids = kind.start(server, "good")
    script = server.script(*TROUBLE)
    ending = wait(mode, kind, ids)
    assert (ending.kind, ending.value) == ("success", ids[kind.id_name]), ending
    assert script.used == len(TROUBLE)
    assert server.count("POST") == server.count("DELETE") == 0


@one_of_each_mode
@every_evaluation
def test_an_outage_has_an_end(mode: str, kind: Kind, server: LocalPromptLayer) -> None:
    ids = kind.start(server, "good")
    server.script(Reply(503), times=None)
    ending = wait(mode, kind, ids, max_outage=0.1, timeout=60)
    assert ending.kind == "failed", ending
    assert "may well go on" in ending.message


@every_mode_of_every_kind
def test_what_is_not_there_is_an_error_at_once(
    mode: str, kind: Kind, server: LocalPromptLayer
) -> None:
    is_numbered = kind in (WORKFLOW_RUN, REPORT)
    other = {kind.id_name: 4711 if is_numbered else TABLE.id}
    ending = wait(mode, kind, {**kind.place("good"), **other})
    assert ending.kind == "failed for good", ending
    assert "404" in ending.message
    assert server.count() == 1


class TestLargeAnswers:
    """The triggerer does not parse them: a worker finds out whether the job has ended, and how."""

    RUNNING: ClassVar[dict[str, Reply]] = {
        "workflow run": Reply(202, '{"A": {"status": "RUNNING"}}' + " " * LARGE),
        "report": Reply(200, '{"status": "RUNNING"}' + " " * LARGE),
    }

    @on_a_loop
    @pytest.mark.parametrize("name", RUNNING)
    def test_while_it_goes_on(self, mode: str, name: str, server: LocalPromptLayer) -> None:
        kind = KINDS[name]
        ids = kind.start(server, "good")
        server.script(self.RUNNING[name], times=3)
        ending = wait(mode, kind, ids)
        assert (ending.kind, ending.value) == ("success", ids[kind.id_name]), ending
        server.script(self.RUNNING[name], times=None)
        assert wait(mode, kind, ids, timeout=0.2).kind == "timeout"

    @on_a_loop
    def test_of_something_else_are_an_outage(self, mode: str, server: LocalPromptLayer) -> None:
        run_id = server.start_execution("good")
        server.script(Reply(200, "<html>" + " " * LARGE), times=None)
        assert wait(mode, WORKFLOW_RUN, run_id, max_outage=0.1).kind == "failed"

    @on_a_loop
    @pytest.mark.parametrize("status", [400, 500])
    def test_of_a_run_that_failed(self, mode: str, status: int, server: LocalPromptLayer) -> None:
        run_id = server.start_execution("bad")
        node = {"status": "FAILED", "error_message": "too hot" + " " * LARGE}
        ended = {"success": False, "message": "It ended.", "output": {"Answer": node}}
        server.script(Reply(202), Reply.of_json(ended, status), Reply.of_json(ended, status))
        ending = wait(mode, WORKFLOW_RUN, run_id)
        assert ending.kind == "failed for good", ending
        assert "too hot" in ending.message


@one_of_each_mode
@pytest.mark.parametrize(
    ("name", "fate", "gate", "kind_of_ending"),
    [
        ("table operation", "bad", {"fail_on": "all_cells"}, "success"),
        ("scorecard calculation", "bad", {"fail_on_verdict": ()}, "success"),
        ("scorecard calculation", "good", {"min_score": 0.95}, "failed for good"),
        ("report", "bad", {"fail_on": "never"}, "success"),
        ("report", "good", {"min_score": 90}, "success"),
        ("report", "good", {"min_score": 90.5}, "failed for good"),
    ],
    ids=str,
)
def test_the_gate(
    mode: str,
    name: str,
    fate: Fate,
    gate: dict[str, Any],
    kind_of_ending: str,
    server: LocalPromptLayer,
) -> None:
    kind = KINDS[name]
    ending = wait(mode, kind, kind.start(server, fate), **gate)
    assert ending.kind == kind_of_ending, ending


@one_of_each_mode
def test_the_score_is_part_of_the_wait(mode: str, server: LocalPromptLayer) -> None:
    """Failed requests for it are ridden out, as failed polls are, until the outage is too long."""
    report_id = server.start_report(1, "r")
    scores = f"/reports/{report_id}/score"
    with server.script(Reply(503), times=3, path_prefix=scores) as script:
        assert wait(mode, KINDS["report"], report_id).kind == "success"
    assert script.used == 3
    server.script(Reply(503), times=None, path_prefix=scores)
    ending = wait(mode, KINDS["report"], report_id, max_outage=0.1)
    assert ending.kind == "failed", ending
    assert f"the score of report {report_id}" in ending.message


BAD_ARGUMENTS = (
    ("table operation", {"sheet_id": ""}, "sheet_id must be a UUID"),
    ("table operation", {"operation_id": ""}, "operation_id must be an id"),
    ("scorecard calculation", {"table_id": "x"}, "table_id must be a UUID"),
    ("scorecard calculation", {"calculation_id": "7"}, "calculation_id must be a UUID"),
    ("scorecard calculation", {"fail_on_verdict": ["bad"]}, "fail_on_verdict must be one of"),
    ("scorecard calculation", {"min_score": None}, "min_score must be a number, not None"),
    ("report", {"report_id": "x"}, "report_id must be a positive integer"),
    ("report", {"min_score": None}, "min_score must be a number, not None"),
    ("report", {"min_score": 101}, "min_score must be a number from 0 to 100"),
)


@one_of_each_mode
@pytest.mark.parametrize(("name", "changes", "says"), BAD_ARGUMENTS, ids=str)
def test_bad_arguments_are_refused_before_anything_is_sent(
    mode: str, name: str, changes: dict[str, Any], says: str, server: LocalPromptLayer
) -> None:
    kind = KINDS[name]
    ids = kind.start(server, "good")
    ending = wait(mode, kind, {**ids, **changes}, **(AT_RUN_TIME if mode in TASK_MODES else {}))
    assert ending.kind == "failed for good", ending
    assert says in ending.message
    assert server.count() == 0


def test_sensors_return_and_push_the_summaries(server: LocalPromptLayer) -> None:
    kind = KINDS["scorecard calculation"]
    ids = kind.start(server, "bad")
    pushed = wait("poke", kind, ids, fail_on_verdict=()).xcoms
    assert (pushed["promptlayer_score"], pushed["promptlayer_verdict"]) == (0.4, "fail")
    assert pushed["promptlayer_drift_summary"] == {"delta": 0.1}
    titles = [one["title"] for one in pushed["promptlayer_criterion_summaries"].values()]
    assert titles == ["Polite", "Cites a source"]


IMPOSSIBLE_TIMES = [
    *(("timeout", value) for value in (math.nan, 0, timedelta(seconds=-1), True, "9")),
    *(("poke_interval", value) for value in (math.nan, -0.5)),
    *(("max_outage", value) for value in (math.nan, -1, None)),
]


@every_kind
def test_the_hook_refuses_times_that_are_none(kind: Kind, server: LocalPromptLayer) -> None:
    ids = kind.start(server, "good")
    for name, value in IMPOSSIBLE_TIMES:
        ending = wait("hook", kind, ids, **{"timeout": 5.0, name: value})
        assert ending.kind == "failed for good", (name, value, ending)
        assert f"{name} must be a number of seconds" in ending.message
    assert server.count("GET") == 0


@every_kind
def test_the_trigger_takes_every_class_of_job_that_a_task_waits_for(
    kind: Kind, server: LocalPromptLayer
) -> None:
    job_kind = kind.sensor(task_id="task", **kind.start(server, "good")).kind
    assert getattr(triggers, job_kind.trigger).job_types == job_kind.job_types
