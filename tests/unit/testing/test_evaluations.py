# SPDX-License-Identifier: Apache-2.0
"""Tables, scorecards and reports: the core's calls against the local PromptLayer.

Every exchange is held against PromptLayer's description, the request and the answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from support.description import check_answer, check_request
from unit.testing.conftest import Client, Clock, Reply

from airflow_provider_promptlayer.api import cells, reports, scorecards, tables
from airflow_provider_promptlayer.api.http import Call, Response
from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.exceptions import (
    PromptLayerAuthError,
    PromptLayerEvaluationFailedError,
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
    PromptLayerRefusedError,
    PromptLayerServerError,
    PromptLayerStartUncertainError,
)
from airflow_provider_promptlayer.outcomes import evaluations
from airflow_provider_promptlayer.testing import (
    Column,
    Criterion,
    Report,
    Scorecard,
    ScoredRow,
    Sheet,
    Table,
    builtin_evaluations,
)
from airflow_provider_promptlayer.testing import Reply as FaultReply

T = TypeVar("T")
NOWHERE = "00000000-0000-4000-8000-000000000000"

TEXT = Column("Question", type="TEXT")
ANSWER = Column("Answer", cell_duration=1.0, failing_rows=[2])
CARD = Scorecard(
    "Quality",
    [
        Criterion("Polite", score=0.9),
        Criterion("Cites", verdict="fail", score=0.1, error_summary="links are dead"),
    ],
    [
        ScoredRow("pass", 1.0),
        ScoredRow("fail", 0.3, reasons={"Cites": "no link"}),
        ScoredRow("error", None, error_summary="the cell is empty"),
        ScoredRow("fail", 0.2),
    ],
    verdict="fail",
    score=0.4,
    drift_summary={"delta": -0.5},
    queue_duration=1.0,
    duration=2.0,
)
SHEET = Sheet("Answers", [TEXT, ANSWER], row_count=4, scorecard=CARD)
LARGE = Sheet("Large", [TEXT, Column("Answer")], row_count=10, confirm_above=5, status_lag=3.0)
TABLE = Table("T", [SHEET, LARGE])
HERE, THERE = (TABLE.id, SHEET.id), (TABLE.id, LARGE.id)


def ask(client: Client, call: Call[T]) -> T:
    request = call.request
    check_request(
        request.method, request.path, None if request.body is None else json.loads(request.body)
    )
    reply = client.send(request.method, request.path, request.body)
    check_answer(request.method, request.path, reply.status, reply.json)
    return call.read(Response(reply.status, reply.headers, reply.body), 0.0)


@pytest.fixture
def client(serve: Callable[..., Client]) -> Client:
    pipelines = [
        Report("Pipeline", id=7, cells=10, failed_cells=3, duration=10.0, score=62.5),
        Report("Old", id=8, is_blueprint=False, cells=4, score=90.0, column_scores={"A": 90.0}),
    ]
    return serve(tables=[TABLE], reports=pipelines)


def started(client: Client, *sheet: str, **arguments: Any) -> str:
    answer = ask(client, tables.recalculate_cells(*(sheet or HERE), **arguments))
    assert isinstance(answer, tables.QueuedOperation)
    return answer.operation_id


class TestOperations:
    def test_cells_are_calculated_one_after_the_other(self, client: Client, clock: Clock) -> None:
        operation_id = started(client)
        seen = []
        for _ in range(5):
            status = ask(client, tables.table_operation(*HERE, operation_id))
            seen.append((status.progress, status.is_complete, status.status))
            clock.now += 1.0
        assert seen == [
            ("0 of 4 cells done", False, "running"),
            ("1 of 4 cells done", False, "running"),
            ("2 of 4 cells done", False, "running"),
            ("3 of 4 cells done, 1 failed", False, "running"),
            ("4 of 4 cells done, 1 failed", True, "completed"),
        ]
        with pytest.raises(PromptLayerEvaluationFailedError, match="cells failed"):
            evaluations.raise_for_operation(status, "any_cell")
        evaluations.raise_for_operation(status, "all_cells")
        (operation,) = client.server.operations.values()
        assert (operation.was_posted, len(operation.cells)) == (True, 4)

    def test_there_is_nothing_to_do_while_and_after_it_is_done(
        self, client: Client, clock: Clock
    ) -> None:
        started(client)
        for seconds in (2.5, 60.0):
            clock.now += seconds
            assert ask(client, tables.recalculate_cells(*HERE)) == tables.NothingToDo()
        assert len(client.server.operations) == 1
        started(client, statuses=["COMPLETED"], row_ids=[0, 1])
        assert [len(each.cells) for each in client.server.operations.values()] == [4, 2]

    @pytest.mark.parametrize(
        ("arguments", "cells"),
        [
            ({"row_ids": [1, 3, 99]}, 2),
            ({"column_ids": [ANSWER.id.upper()]}, 4),
            ({"statuses": []}, 4),
            ({"statuses": ["STALE", "FAILED"]}, 4),
            ({"statuses": ["FAILED"]}, 0),
        ],
    )
    def test_a_selection(self, client: Client, arguments: dict[str, Any], cells: int) -> None:
        answer = ask(client, tables.recalculate_cells(*HERE, **arguments))
        assert getattr(answer, "cell_count", 0) == cells

    def test_what_is_under_way_is_listed(self, client: Client, clock: Clock) -> None:
        assert ask(client, cells.sheet_operations(*HERE)).active_operations == ()
        operation_id = started(client)
        clock.now += 1.5
        state = ask(client, cells.sheet_operations(*HERE))
        assert (state.total_cells, state.pending_count) == (8, 3)
        assert state.status_counts == {"COMPLETED": 5, "QUEUED": 2, "RUNNING": 1}
        assert [each.operation_id for each in state.active_operations] == [operation_id]
        clock.now += 60
        assert ask(client, cells.sheet_operations(*HERE)).active_operations == ()

    def test_a_large_one_is_confirmed_once(self, client: Client) -> None:
        needed = ask(client, tables.recalculate_cells(*THERE))
        assert isinstance(needed, tables.ConfirmationNeeded)
        assert needed.affected_cell_count == 10
        assert client.server.operations == {}
        token = needed.confirmation_token
        # It holds for what was asked for, and for nothing else.
        other = ask(
            client,
            tables.recalculate_cells(*THERE, row_ids=range(6), confirmation_token=token),
        )
        assert isinstance(other, tables.ConfirmationNeeded)
        assert other.affected_cell_count == 6
        again = ask(client, tables.recalculate_cells(*THERE, confirmation_token=token))
        assert isinstance(again, tables.ConfirmationNeeded)
        started(client, *THERE, confirmation_token=again.confirmation_token)
        assert len(client.server.operations) == 1

    def test_its_execution_ids_can_be_asked_for(self, client: Client) -> None:
        path = f"/api/public/v2/tables/{TABLE.id}/sheets/{SHEET.id}/operations"
        for row in range(2):
            body = json.dumps({"row_ids": [row], "statuses": []}).encode()
            created = client.send("POST", path, body).json
            (execution_id,) = created["execution_ids"]
            assert execution_id != created["operation_id"]
            asked = ask(client, tables.table_operation(*HERE, execution_id))
            assert asked.operation_id == created["operation_id"]
        # That of another sheet cannot.
        with pytest.raises(PromptLayerNotFoundError):
            ask(client, tables.table_operation(*THERE, execution_id))

    def test_a_small_one_needs_no_confirmation(self, client: Client) -> None:
        started(client, *THERE, row_ids=[0, 1, 2, 3, 4])

    def test_the_status_lags_behind_the_counts(self, client: Client, clock: Clock) -> None:
        operation_id = started(client, *THERE, row_ids=[0])
        status = ask(client, tables.table_operation(*THERE, operation_id))
        assert (status.status, status.is_complete) == ("running", True)
        clock.now += 3
        assert ask(client, tables.table_operation(*THERE, operation_id)).status == "completed"

    def test_a_cancelled_one_keeps_what_it_has(self, client: Client, clock: Clock) -> None:
        operation_id = started(client)
        clock.now += 1.5
        cancelled = ask(client, tables.cancel_table_operation(*HERE, operation_id))
        assert cancelled.cancelled_cell_count == 3
        clock.now += 60
        status = ask(client, tables.table_operation(*HERE, operation_id))
        assert (status.status, status.is_complete) == ("cancelled", True)
        assert status.progress == "1 of 4 cells done, cancelled"
        with pytest.raises(PromptLayerEvaluationFailedError, match="it was cancelled"):
            evaluations.raise_for_operation(status, "never")
        again = ask(client, tables.cancel_table_operation(*HERE, operation_id))
        assert again.cancelled_cell_count == 0
        answer = ask(client, tables.recalculate_cells(*HERE))
        assert getattr(answer, "cell_count", 0) == 3

    def test_cells_that_never_end(self, serve: Callable[..., Client], clock: Clock) -> None:
        sheet = Sheet("S", [Column("A", cell_duration=math.inf)], row_count=2)
        client = serve(tables=[Table("T", [sheet])])
        operation_id = started(client, Table("T").id, sheet.id)
        clock.now += 1e9
        status = ask(client, tables.table_operation(Table("T").id, sheet.id, operation_id))
        assert (status.pending_count, status.is_complete) == (2, False)

    def test_all_failed(self, serve: Callable[..., Client]) -> None:
        sheet = Sheet("S", [Column("A", failing_rows=[0, 1])], row_count=2)
        client = serve(tables=[Table("T", [sheet])])
        operation_id = started(client, Table("T").id, sheet.id)
        status = ask(client, tables.table_operation(Table("T").id, sheet.id, operation_id))
        assert status.status == "failed"
        with pytest.raises(PromptLayerEvaluationFailedError, match="no cell succeeded"):
            evaluations.raise_for_operation(status, "all_cells")

    def test_what_is_not_there(self, client: Client) -> None:
        calls: list[Call[Any]] = [
            tables.recalculate_cells(NOWHERE, SHEET.id),
            tables.recalculate_cells(TABLE.id, NOWHERE),
            tables.recalculate_cells(*HERE, column_ids=[NOWHERE]),
            tables.table_operation(*HERE, "nope/../?"),
            cells.sheet_operations(NOWHERE, NOWHERE),
            tables.cancel_table_operation(NOWHERE, NOWHERE, "x"),
        ]
        for call in calls:
            with pytest.raises(PromptLayerNotFoundError):
                ask(client, call)
        # That of another sheet neither.
        operation_id = started(client)
        with pytest.raises(PromptLayerNotFoundError):
            ask(client, tables.table_operation(*THERE, operation_id))

    def test_text_cannot_be_recalculated(self, client: Client) -> None:
        with pytest.raises(PromptLayerRefusedError, match="Text columns cannot be recalculated"):
            ask(client, tables.recalculate_cells(*HERE, column_ids=[TEXT.id]))

    @pytest.mark.parametrize(
        ("body", "named"),
        [
            (b"", "body is required"),
            (b"{", "not valid JSON"),
            (b"[]", "not a JSON object"),
            (b'{"colour": 1}', "unknown field 'colour'"),
            (b'{"operation": "delete"}', "invalid operation"),
            (b'{"operation": null}', "invalid operation"),
            (b'{"column_ids": ["x"]}', "invalid column_ids"),
            (b'{"column_ids": "x"}', "invalid column_ids"),
            (b'{"row_ids": [-1]}', "invalid row_ids"),
            (b'{"row_ids": [true]}', "invalid row_ids"),
            (b'{"statuses": ["stale"]}', "invalid statuses"),
            (b'{"confirmation_token": 1, "row_ids": [1.5]}', "row_ids, invalid confirmation_token"),
        ],
    )
    def test_a_wrong_body_is_400_and_starts_nothing(
        self, client: Client, body: bytes, named: str
    ) -> None:
        path = f"/api/public/v2/tables/{TABLE.id}/sheets/{SHEET.id}/operations"
        reply = client.send("POST", path, body)
        check_answer("POST", path, reply.status, reply.json)
        assert reply.status == 400
        assert named in reply.json["message"]
        assert client.server.operations == {}

    def test_nulls_are_as_good_as_nothing(self, client: Client) -> None:
        path = f"/api/public/v2/tables/{TABLE.id}/sheets/{SHEET.id}/operations"
        body = dict.fromkeys(("column_ids", "row_ids", "statuses", "confirmation_token"))
        assert client.send("POST", path, json.dumps(body).encode()).json["cell_count"] == 4

    def test_an_id_that_is_no_uuid_is_400(self, client: Client) -> None:
        for path in (
            f"/api/public/v2/tables/1/sheets/{SHEET.id}/operations",
            f"/api/public/v2/tables/{TABLE.id}/sheets/x/scorecard",
            f"/api/public/v2/tables/{TABLE.id}/sheets/{SHEET.id}/scorecard/calculations/x",
        ):
            assert client.get(path).status == 400

    def test_without_the_key(self, client: Client) -> None:
        calls: list[Call[Any]] = [
            tables.recalculate_cells(*HERE),
            scorecards.recalculate_scorecard(*HERE),
            reports.run_report(7, "n"),
        ]
        for call in calls:
            request = call.request
            reply = client.send(request.method, request.path, request.body, key="wrong")
            with pytest.raises(PromptLayerAuthError):
                call.read(Response(reply.status, reply.headers, reply.body), 0.0)
        assert client.server.operations == {}
        assert client.server.calculations == {}


class TestRows:
    PATH = f"/api/public/v2/tables/{TABLE.id}/sheets/{SHEET.id}/rows"
    LARGE_PATH = f"/api/public/v2/tables/{TABLE.id}/sheets/{LARGE.id}/rows"

    def get(self, client: Client, path: str) -> Any:
        reply = client.get(path)
        check_answer("GET", path, reply.status, reply.json)
        assert reply.status == 200, reply.json
        return reply.json

    def test_each_cell_has_its_status(self, client: Client, clock: Clock) -> None:
        started(client, row_ids=[0, 2, 3])
        clock.now += 2.5
        page = self.get(client, self.PATH)
        statuses = {row["row_index"]: row["cells"][ANSWER.id]["status"] for row in page["data"]}
        assert statuses == {0: "completed", 1: "stale", 2: "error", 3: "running"}
        assert {row["cells"][TEXT.id]["status"] for row in page["data"]} == {"completed"}
        types = {column["id"]: column["type"] for column in page["columns"]}
        assert types == {TEXT.id: "TEXT", ANSWER.id: "PROMPT_TEMPLATE"}
        assert page["next_cursor"] is None

    @pytest.mark.parametrize("order", ["asc", "desc"])
    def test_page_by_page(self, client: Client, order: str) -> None:
        found, cursor = [], ""
        for number in range(4):
            page = self.get(client, f"{self.LARGE_PATH}?limit=3&order={order}{cursor}")
            found += [row["row_index"] for row in page["data"]]
            assert ("columns" in page) is (number == 0)
            assert page["row_count"] == 10
            assert page["has_more"] is (page["next_cursor"] is not None) is (number < 3)
            paging = {"next_cursor": page["next_cursor"], "has_more": page["has_more"]}
            assert page["pagination"] == {**paging, "prev_cursor": None, "limit": 3}
            cursor = f"&cursor={page['next_cursor']}"
        assert found == (list(range(10)) if order == "asc" else list(range(9, -1, -1)))

    @pytest.mark.parametrize(
        ("query", "has", "has_not"),
        [
            ("", {"columns", "row_count"}, {"execution_metadata_aggregates"}),
            ("include_columns=false&include_row_count=false", set(), {"columns", "row_count"}),
            ("include_columns=False&include_row_count=off", set(), {"columns", "row_count"}),
            (
                "include_execution_metadata_aggregates=true",
                {"execution_metadata_aggregates"},
                set(),
            ),
            ("include_system_columns=True&include_row_count=1", {"columns", "row_count"}, set()),
        ],
    )
    def test_what_else_can_be_had(
        self, client: Client, query: str, has: set[str], has_not: set[str]
    ) -> None:
        page = self.get(client, f"{self.PATH}?{query}")
        assert has <= page.keys()
        assert not has_not & page.keys()

    @pytest.mark.parametrize(
        ("query", "named"),
        [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=ten", "limit"),
            ("order=up", "order"),
            ("cursor=", "cursor"),
            ("cursor=2", "cursor"),
            ("cursor=asc--1", "cursor"),
            ("cursor=asc-2&order=desc", "cursor"),
            ("cursor=%C3%BC", "cursor"),
            ("include_columns=none", "include_columns"),
            ("include_row_count=2", "include_row_count"),
            ("include_system_columns=", "include_system_columns"),
            ("include_execution_metadata_aggregates=+", "include_execution_metadata_aggregates"),
        ],
    )
    def test_a_wrong_query_is_400(self, client: Client, query: str, named: str) -> None:
        reply = client.get(f"{self.PATH}?{query}")
        check_answer("GET", self.PATH, reply.status, reply.json)
        assert (reply.status, reply.json["message"]) == (400, f"Invalid query parameter {named}")

    def test_what_is_not_there(self, client: Client) -> None:
        for wrong in (TABLE.id, SHEET.id):
            assert client.get(self.PATH.replace(wrong, NOWHERE)).status == 404
        assert client.get(self.PATH.replace(SHEET.id, "x")).status == 400
        assert client.send("GET", self.PATH, key="wrong").status == 401


def calculated(client: Client, **arguments: Any) -> str:
    return ask(client, scorecards.recalculate_scorecard(*HERE, **arguments)).calculation_id


class TestScorecards:
    def test_from_queued_to_its_verdict(self, client: Client, clock: Clock) -> None:
        calculation_id = calculated(client)
        seen = []
        for _ in range(4):
            status = ask(client, scorecards.scorecard_calculation(*HERE, calculation_id))
            seen.append((status.progress, status.is_complete))
            clock.now += 1.0
        assert seen == [
            ("queued", False),
            ("running", False),
            ("running", False),
            ("completed, verdict fail, score 0.4", True),
        ]
        assert status.drift_summary == {"delta": -0.5}
        assert [criterion.title for criterion in evaluations.criteria(status)] == [
            "Polite",
            "Cites",
        ]
        assert client.server.calculations[calculation_id].was_posted

    def test_a_failing_gate_names_criteria_and_rows(self, client: Client, clock: Clock) -> None:
        calculation_id = calculated(client)
        clock.now += 10
        status = ask(client, scorecards.scorecard_calculation(*HERE, calculation_id))
        found: list[scorecards.ScorecardRow] = []
        for verdict in evaluations.DEFAULT_FAIL_ON_VERDICT:
            cursor = None
            for _ in range(9):
                page = ask(
                    client,
                    scorecards.scorecard_rows(
                        *HERE,
                        calculation_id=calculation_id,
                        verdict=verdict,
                        cursor=cursor,
                        limit=1,
                    ),
                )
                found += page.rows
                cursor = page.next_cursor
                if cursor is None:
                    break
            assert page.verdict_counts == {"pass": 1, "fail": 2, "error": 1}
        assert sorted(row.row_index for row in found) == [1, 2, 3]
        worst = [
            ask(
                client,
                scorecards.scorecard_row(*HERE, row.row_index, calculation_id=calculation_id),
            )
            for row in evaluations.worst_rows(found, 3)
        ]
        card = ask(client, scorecards.scorecard(*HERE))
        with pytest.raises(PromptLayerEvaluationFailedError) as caught:
            evaluations.raise_for_scorecard(status, min_score=0.5, scorecard=card, rows=worst)
        assert str(caught.value) == (
            f"Scorecard calculation {calculation_id} does not pass: the verdict is 'fail', the "
            "score 0.4 is below min_score=0.5. Failing criteria: 'Cites' (fail, 0.1): links are "
            "dead. Worst rows: row 2 (error): the cell is empty; row 3 (fail, 0.2); "
            "row 1 (fail, 0.3): 'Cites': no link."
        )

    @pytest.mark.parametrize(
        ("verdict", "field"), [("fail", "evidence"), ("error", "error_message")]
    )
    def test_a_step_result_has_the_reason_where_it_belongs(
        self, serve: Callable[..., Client], verdict: str, field: str
    ) -> None:
        criteria = [Criterion("Polite"), Criterion("Cites")]
        row = ScoredRow(verdict, 0.0, reasons={"Cites": "no link"})
        sheet = Sheet("S", [ANSWER], scorecard=Scorecard("C", criteria, [row]))
        client = serve(tables=[Table("T", [sheet])])
        client.server.start_calculation(Table("T").id, sheet.id)
        path = f"/api/public/v2/tables/{Table('T').id}/sheets/{sheet.id}/scorecard/rows/0"
        nothing = dict.fromkeys(("score", "raw_value", "evidence", "error_message"))
        assert client.get(path).json["step_results"] == {
            criteria[0].id: {**nothing, "verdict": "pass"},
            criteria[1].id: {**nothing, "verdict": verdict, field: "no link"},
        }

    def test_some_rows_and_steps(self, client: Client, clock: Clock) -> None:
        calculation_id = calculated(client, row_indices=[0, 2], step_ids=[CARD.criteria[1].id])
        clock.now += 10
        status = ask(client, scorecards.scorecard_calculation(*HERE, calculation_id))
        assert list(status.criterion_summaries) == [CARD.criteria[1].id]
        page = ask(client, scorecards.scorecard_rows(*HERE))
        assert (page.calculation_id, page.next_cursor) == (calculation_id, None)
        assert [row.row_index for row in page.rows] == [0, 2]
        with pytest.raises(PromptLayerNotFoundError):
            ask(client, scorecards.scorecard_row(*HERE, 1))

    def test_a_step_may_be_named_in_upper_case(self, client: Client, clock: Clock) -> None:
        path = f"/api/public/v2/tables/{TABLE.id}/sheets/{SHEET.id}/scorecard/recalculate"
        body = json.dumps({"step_ids": [CARD.criteria[1].id.upper()]}).encode()
        calculation_id = client.send("POST", path, body).json["calculation_id"]
        clock.now += 10
        status = ask(client, scorecards.scorecard_calculation(*HERE, calculation_id))
        assert list(status.criterion_summaries) == [CARD.criteria[1].id]

    def test_the_scorecard_itself(self, client: Client, clock: Clock) -> None:
        card = ask(client, scorecards.scorecard(*HERE))
        assert card is not None
        assert (card.name, card.status, card.latest) == ("Quality", "ready", None)
        assert list(card.step_titles.values()) == ["Polite", "Cites"]
        calculation_id = calculated(client)
        clock.now += 10
        card = ask(client, scorecards.scorecard(*HERE))
        assert card is not None
        assert card.latest is not None
        assert card.latest.calculation_id == calculation_id
        assert (card.scored_rows, card.total_rows) == (4, 4)

    def test_cancel_ends_all_that_is_under_way(self, client: Client, clock: Clock) -> None:
        ids = [calculated(client), calculated(client)]
        assert len(set(ids)) == 2
        cancelled = ask(client, scorecards.cancel_scorecard(*HERE))
        assert (cancelled.cancelled_count, cancelled.calculation_id) == (2, ids[1])
        clock.now += 60
        for each in ids:
            status = ask(client, scorecards.scorecard_calculation(*HERE, each))
            assert status.status == "cancelled"
            with pytest.raises(PromptLayerEvaluationFailedError, match="'cancelled'"):
                evaluations.raise_for_scorecard(status, fail_on_verdict=())
        assert ask(client, scorecards.cancel_scorecard(*HERE)).calculation_id is None

    def test_a_sheet_without_one(self, client: Client) -> None:
        assert ask(client, scorecards.scorecard(*THERE)) is None
        with pytest.raises(PromptLayerRefusedError, match=r"not configured.*set one up"):
            ask(client, scorecards.recalculate_scorecard(*THERE))
        assert client.server.calculations == {}
        assert ask(client, scorecards.scorecard_rows(*THERE)).rows == ()

    def test_what_is_not_there(self, client: Client) -> None:
        calls: list[Call[Any]] = [
            scorecards.recalculate_scorecard(NOWHERE, NOWHERE),
            scorecards.scorecard_calculation(*HERE, NOWHERE),
            scorecards.scorecard(TABLE.id, NOWHERE),
            scorecards.scorecard_row(*HERE, 0),
            scorecards.scorecard_rows(*HERE, calculation_id=NOWHERE),
        ]
        for call in calls:
            with pytest.raises(PromptLayerNotFoundError):
                ask(client, call)
        for selection in ({"row_indices": [4]}, {"step_ids": [NOWHERE]}):
            with pytest.raises(PromptLayerRefusedError, match="row_indices and step_ids"):
                ask(client, scorecards.recalculate_scorecard(*HERE, **selection))

    def test_no_body_is_a_body(self, client: Client) -> None:
        path = f"/api/public/v2/tables/{TABLE.id}/sheets/{SHEET.id}/scorecard"
        assert client.send("POST", f"{path}/recalculate").status == 202
        assert client.send("POST", f"{path}/cancel").json["cancelled_count"] == 1

    @pytest.mark.parametrize("body", [b'{"row_indices": null}', b'{"step_ids": [1]}', b'{"x": 1}'])
    def test_a_wrong_body_is_400(self, client: Client, body: bytes) -> None:
        path = f"/api/public/v2/tables/{TABLE.id}/sheets/{SHEET.id}/scorecard/recalculate"
        assert client.send("POST", path, body).status == 400
        assert client.server.calculations == {}

    @pytest.mark.parametrize(
        "query", [{"limit": 0}, {"limit": 101}, {"cursor": -1}, {"verdict": "bad"}, {"limit": "x"}]
    )
    def test_a_wrong_query_is_400(self, client: Client, query: dict[str, Any]) -> None:
        path = f"/api/public/v2/tables/{TABLE.id}/sheets/{SHEET.id}/scorecard/rows"
        assert client.get(path, **query).status == 400


class TestReports:
    def test_from_start_to_score(self, client: Client, clock: Clock) -> None:
        run = ask(client, reports.run_report(7, "Nightly", dataset_id=5, refresh_dataset=False))
        seen = []
        for _ in range(3):
            status = ask(client, reports.report(run.report_id))
            score = ask(client, reports.report_score(run.report_id))
            seen.append((status.progress, status.is_complete, score.overall_score))
            clock.now += 5
        assert seen == [
            ("0 of 10 cells done", False, None),
            ("5 of 10 cells done", False, None),
            ("10 of 10 cells done, 3 failed", True, 62.5),
        ]
        evaluations.raise_for_report(status, score, min_score=62.5)
        with pytest.raises(PromptLayerEvaluationFailedError, match=r"62\.5 is below min_score=70"):
            evaluations.raise_for_report(status, score, min_score=70)
        report = client.server.reports[run.report_id]
        assert (report.name, report.dataset_id, report.parent_report_id) == ("Nightly", 5, 7)
        assert report.was_posted

    def test_two_runs_are_two_reports(self, client: Client) -> None:
        ids = {ask(client, reports.run_report("7", "n")).report_id for _ in range(2)}
        assert len(ids) == 2
        assert {7, 8}.isdisjoint(ids)

    def test_a_blueprint_has_no_result(self, client: Client) -> None:
        with pytest.raises(PromptLayerInvalidInputError, match="Report 7 is a blueprint"):
            ask(client, reports.report(7))
        with pytest.raises(PromptLayerRefusedError, match="give the id of a report that a run"):
            ask(client, reports.report_score(7))

    def test_a_final_report_cannot_be_run(self, client: Client) -> None:
        with pytest.raises(PromptLayerRefusedError, match="Only an evaluation pipeline") as caught:
            ask(client, reports.run_report(8, "n"))
        # A 403 that is not about the key.
        assert not isinstance(caught.value, PromptLayerAuthError)
        assert ask(client, reports.report(8)).is_complete
        assert evaluations.column_scores(ask(client, reports.report_score(8))) == {"A": 90.0}

    def test_what_is_not_there(self, client: Client) -> None:
        calls: list[Call[Any]] = [
            reports.run_report(99, "n"),
            reports.report(99),
            reports.report_score(99),
        ]
        for call in calls:
            with pytest.raises(PromptLayerNotFoundError):
                ask(client, call)

    def test_a_dataset_that_cannot_be_refreshed(self, client: Client) -> None:
        with pytest.raises(PromptLayerRefusedError, match="may not allow it"):
            ask(client, reports.run_report(7, "n", refresh_dataset=True))

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            ({}, "missing"),
            ({"name": ""}, "string_too_short"),
            ({"name": "x" * 256}, "string_too_long"),
            ({"name": None}, "string_type"),
            ({"name": "n", "dataset_id": "1"}, "int_type"),
            ({"name": "n", "refresh_dataset": "yes"}, "bool_type"),
        ],
    )
    def test_a_wrong_body_is_422(self, client: Client, body: dict[str, Any], kind: str) -> None:
        reply: Reply = client.send("POST", "/reports/7/run", json.dumps(body).encode())
        check_answer("POST", "/reports/7/run", reply.status, reply.json)
        assert [error["type"] for error in reply.json["detail"]] == [kind]
        assert set(client.server.reports) == {8}

    def test_an_id_that_is_no_number_is_422(self, client: Client) -> None:
        assert client.get("/reports/x").status == 422


class TestFaultsAndMore:
    def starts(self) -> list[tuple[Call[Any], Callable[[Client], int]]]:
        return [
            (tables.recalculate_cells(*HERE), lambda client: len(client.server.operations)),
            (
                scorecards.recalculate_scorecard(*HERE),
                lambda client: len(client.server.calculations),
            ),
            (reports.run_report(7, "n"), lambda client: len(client.server.reports) - 1),
        ]

    @pytest.mark.parametrize("number", range(3))
    @pytest.mark.parametrize("acted_on", [False, True])
    def test_a_start_that_meets_a_fault(self, client: Client, number: int, acted_on: bool) -> None:
        call, count = self.starts()[number]
        busy = FaultReply.of_json({"success": False, "message": "busy"}, 503)
        for fault, error in (
            (busy, PromptLayerServerError),
            (FaultReply(503, "<html>"), PromptLayerStartUncertainError),
        ):
            before = count(client)
            with client.server.script(fault, method="POST", acted_on=acted_on):
                reply = client.send("POST", call.request.path, call.request.body)
            with pytest.raises(error):
                call.read(Response(reply.status, reply.headers, reply.body), 0.0)
            # The second recalculation of the cells finds them queued.
            is_second_of_cells = number == 0 and error is PromptLayerStartUncertainError
            assert count(client) - before == int(acted_on and not is_second_of_cells)

    @pytest.mark.parametrize("acted_on", [False, True])
    def test_a_cancellation_that_meets_a_fault(self, client: Client, acted_on: bool) -> None:
        operation_id = started(client)
        call = tables.cancel_table_operation(*HERE, operation_id)
        client.server.script(FaultReply(502, ""), method="DELETE", acted_on=acted_on)
        client.send("DELETE", call.request.path)
        operation = client.server.operations[operation_id]
        assert (operation.cancelled_at is not None) is acted_on

    def test_requests_are_counted_and_faults_select_by_path(self, client: Client) -> None:
        path = f"/api/public/v2/tables/{TABLE.id}"
        client.server.script(FaultReply(500, ""), path_prefix=path, times=None)
        assert client.get(f"{path}/sheets/{SHEET.id}/scorecard").status == 500
        assert client.get("/reports/8").status == 200
        assert client.server.count("GET", path) == 1

    def test_what_something_else_has_started(self, client: Client, clock: Clock) -> None:
        server = client.server
        operation_id = server.start_operation(*THERE)  # asks for no confirmation
        calculation_id = server.start_calculation(*HERE)
        report_id = server.start_report(7, "theirs")
        clock.now += 60
        assert ask(client, tables.table_operation(*THERE, operation_id)).is_complete
        assert ask(client, scorecards.scorecard_calculation(*HERE, calculation_id)).is_complete
        assert ask(client, reports.report(report_id)).name == "theirs"
        assert not server.operations[operation_id].was_posted
        assert not server.calculations[calculation_id].was_posted
        assert not server.reports[report_id].was_posted
        assert server.count() == 3
        for nothing in (
            lambda: server.start_operation(*THERE),
            lambda: server.start_operation(NOWHERE, NOWHERE),
            lambda: server.start_calculation(*THERE),
            lambda: server.start_report(8, "n"),
        ):
            with pytest.raises(LookupError):
                nothing()

    def test_the_built_in_ones_pass_and_fail(
        self, serve: Callable[..., Client], clock: Clock
    ) -> None:
        client = serve()
        (table,), (pipeline,) = builtin_evaluations()
        good, bad = table.sheets
        for sheet, passes in ((good, True), (bad, False)):
            operation_id = started(client, table.id, sheet.id)
            calculation_id = ask(
                client, scorecards.recalculate_scorecard(table.id, sheet.id)
            ).calculation_id
            clock.now += 10
            cells = ask(client, tables.table_operation(table.id, sheet.id, operation_id))
            status = ask(
                client, scorecards.scorecard_calculation(table.id, sheet.id, calculation_id)
            )
            assert (cells.failed_count == 0) is passes
            assert (evaluations.scorecard_problems(status) == ()) is passes
        assert pipeline.id is not None
        run = ask(client, reports.run_report(pipeline.id, "n"))
        clock.now += 10
        assert ask(client, reports.report_score(run.report_id)).overall_score == 87.5

    def test_what_can_be_waited_for(self, client: Client, clock: Clock) -> None:
        server = client.server
        operation_id = server.start_operation(*HERE)
        calculation_id = server.start_calculation(*HERE)
        report_id = server.start_report(7, "n")
        jobs: list[tuple[RemoteJob[Any], object, str]] = [
            (tables.SheetOperation(*HERE, operation_id), operation_id, "Table operation "),
            (scorecards.SheetCalculation(*HERE, calculation_id), calculation_id, "Scorecard calc"),
            (reports.FinalReport(report_id), report_id, "Report "),
        ]
        for job, its_id, name in jobs:
            assert job.id == its_id
            assert str(job).startswith(name)
            assert str(job).endswith(str(its_id))
            assert not ask(client, job.status_call()).is_complete
        clock.now += 60
        assert all(ask(client, job.fetch_call()).is_complete for job, _, _ in jobs)
