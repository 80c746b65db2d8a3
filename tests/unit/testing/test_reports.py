# SPDX-License-Identifier: Apache-2.0
"""Reports; and what tables, scorecards and reports have in common."""

from __future__ import annotations

from typing import Any

import pytest
from unit.testing.evaluations import (
    HERE,
    NOWHERE,
    PATH,
    REPORTS,
    TABLE,
    THERE,
    ask,
    assert_not_found,
    started,
)

from airflow_provider_promptlayer.api.http import Call, Response
from airflow_provider_promptlayer.api.reports import FinalReport, report_score, run_report
from airflow_provider_promptlayer.api.scorecards import SheetCalculation, recalculate_scorecard
from airflow_provider_promptlayer.api.tables import SheetOperation, recalculate_cells
from airflow_provider_promptlayer.exceptions import (
    PromptLayerAuthError,
    PromptLayerInvalidInputError,
    PromptLayerRefusedError,
    PromptLayerServerError,
    PromptLayerStartUncertainError,
)
from airflow_provider_promptlayer.testing import Reply, builtin_evaluations


@pytest.fixture
def client(serve):
    return serve(tables=[TABLE], reports=REPORTS)


class TestReports:
    def test_from_start_to_score(self, client, clock):
        run = ask(client, run_report(7, "Nightly", dataset_id=5, refresh_dataset=False))
        seen = []
        for _ in range(3):
            status = ask(client, FinalReport(run).fetch_call())
            score = ask(client, report_score(run))
            seen.append((status.progress, status.is_complete, score.overall_score))
            clock.now += 5
        assert seen == [
            ("0 of 10 cells done", False, None),
            ("5 of 10 cells done", False, None),
            ("10 of 10 cells done, 3 failed", True, 62.5),
        ]
        found = client.server.reports[run]
        assert (found.name, found.dataset_id, found.parent_report_id) == ("Nightly", 5, 7)
        assert found.was_posted

    def test_two_runs_are_two_reports(self, client):
        ids = {ask(client, run_report("7", "n")) for _ in range(2)}
        assert len(ids | {7, 8}) == 4

    def test_a_blueprint_has_no_result(self, client):
        with pytest.raises(PromptLayerInvalidInputError, match="Report 7 is a blueprint"):
            ask(client, FinalReport(7).fetch_call())
        with pytest.raises(PromptLayerRefusedError):
            ask(client, report_score(7))

    def test_a_final_report_cannot_be_run(self, client):
        with pytest.raises(PromptLayerRefusedError, match="Only an evaluation pipeline") as caught:
            ask(client, run_report(8, "n"))
        # A 403 that is not about the key.
        assert not isinstance(caught.value, PromptLayerAuthError)
        assert ask(client, FinalReport(8).fetch_call()).is_complete
        details = ask(client, report_score(8)).details
        assert (details["column_name"], details["score"]) == ("A", 90.0)

    def test_an_unknown_one_is_404(self, client):
        assert_not_found(
            client, run_report(99, "n"), FinalReport(99).fetch_call(), report_score(99)
        )

    def test_a_dataset_that_cannot_be_refreshed(self, client):
        with pytest.raises(PromptLayerRefusedError, match="may not allow it"):
            ask(client, run_report(7, "n", refresh_dataset=True))


STARTS: dict[str, Call[Any]] = {
    "operations": recalculate_cells(*HERE),
    "calculations": recalculate_scorecard(*HERE),
    "reports": run_report(7, "n"),
}


@pytest.mark.parametrize("kind", STARTS)
@pytest.mark.parametrize("acted_on", [False, True])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Reply.of_json({"success": False, "message": "busy"}, 503), PromptLayerServerError),
        (Reply(503, "<html>"), PromptLayerStartUncertainError),
    ],
    ids=["PromptLayer's own", "a gateway's"],
)
def test_a_start_that_meets_a_fault(client, kind, acted_on, fault, error):
    call, before = STARTS[kind], len(getattr(client.server, kind))
    client.server.script(fault, method="POST", acted_on=acted_on)
    reply = client.send("POST", call.request.path, call.request.body)
    with pytest.raises(error):
        call.read(Response(reply.status, reply.headers, reply.body), 0.0)
    assert len(getattr(client.server, kind)) - before == int(acted_on)


def test_requests_are_counted_and_faults_select_by_path(client):
    table = PATH.partition("/sheets")[0]
    client.server.script(Reply(500, ""), path_prefix=table, times=None)
    assert client.get(f"{PATH}/scorecard").status == 500
    assert client.get("/reports/8").status == 200
    assert client.server.count("GET", table) == 1


def test_starts_without_http(client, clock):
    server = client.server
    operation_id = server.start_operation(*THERE)  # asks for no confirmation
    calculation_id = server.start_calculation(*HERE)
    report_id = server.start_report(7, "theirs")
    clock.now += 60
    assert ask(client, SheetOperation(*THERE, operation_id).fetch_call()).is_complete
    assert ask(client, SheetCalculation(*HERE, calculation_id).fetch_call()).is_complete
    assert ask(client, FinalReport(report_id).fetch_call()).name == "theirs"
    assert not server.operations[operation_id].was_posted
    assert not server.calculations[calculation_id].was_posted
    assert not server.reports[report_id].was_posted
    assert server.count() == 3
    for start in (
        lambda: server.start_operation(*THERE),
        lambda: server.start_operation(NOWHERE, NOWHERE),
        lambda: server.start_calculation(*THERE),
        lambda: server.start_report(8, "n"),
    ):
        with pytest.raises(LookupError):
            start()


def test_the_built_in_ones_pass_and_fail(serve, clock):
    client = serve()
    (table,), (pipeline,) = builtin_evaluations()[:2]
    for sheet, passes in zip(table.sheets, (True, False, True), strict=True):
        where = table.id, sheet.id
        operation_id = started(client, *where)
        calculation_id = ask(client, recalculate_scorecard(*where))
        clock.now += 10
        cells = ask(client, SheetOperation(*where, operation_id).fetch_call())
        card = ask(client, SheetCalculation(*where, calculation_id).fetch_call())
        assert (cells.failed_count == 0) is (card.verdict == "pass") is passes
    assert pipeline.id is not None
    run = ask(client, run_report(pipeline.id, "n"))
    clock.now += 10
    assert ask(client, report_score(run)).overall_score == 87.5
