# SPDX-License-Identifier: Apache-2.0
"""The endpoints below ``/api/public/v2/tables/{table_id}/sheets/{sheet_id}/scorecard``.

The rule here is that of ``workflow_endpoints.py``. The description leaves the shape of criterion
summaries and step results open; here both are objects by the id of the step. A summary has
``title``, ``verdict``, ``score`` and ``error_summary``; a step result has the fields that
PromptLayer's Python library reads: ``verdict``, ``score``, ``raw_value``, ``evidence`` and
``error_message``.
"""

from __future__ import annotations

from collections import Counter

from airflow_provider_promptlayer.testing.evaluation_runs import (
    UNFINISHED,
    Calculation,
    EvaluationRuns,
)
from airflow_provider_promptlayer.testing.evaluations import (
    CALCULATION_STATUSES,
    VERDICTS,
    Criterion,
    Scorecard,
    ScoredRow,
    Sheet,
    Table,
    derived_id,
)
from airflow_provider_promptlayer.testing.messages import Answer, Request, refusal
from airflow_provider_promptlayer.testing.routing import Route
from airflow_provider_promptlayer.testing.strict_body import (
    check_uuids,
    is_row,
    is_uuid,
    list_of,
    query_number,
    read_body,
)
from airflow_provider_promptlayer.testing.table_endpoints import SHEET_PATH, find_sheet
from airflow_provider_promptlayer.testing.workflows import JsonValue

_SELECTION = {"row_indices": list_of(is_row), "step_ids": list_of(is_uuid)}
_TIME = "2026-01-01T00:00:00Z"


class ScorecardEndpoints:
    """Scorecards, their calculations and the rows of these."""

    def __init__(self, runs: EvaluationRuns) -> None:
        self._runs = runs

    @property
    def routes(self) -> list[Route]:
        """The endpoints with their methods and paths."""
        scorecard = f"{SHEET_PATH}/scorecard"
        return [
            Route("GET", scorecard, self.get_scorecard),
            Route("POST", f"{scorecard}/recalculate", self.recalculate),
            Route("POST", f"{scorecard}/cancel", self.cancel),
            Route("GET", f"{scorecard}/calculations/{{calculation_id}}", self.get_calculation),
            Route("GET", f"{scorecard}/rows", self.list_rows),
            Route("GET", f"{scorecard}/rows/{{row_index}}", self.get_row),
        ]

    def get_scorecard(self, _request: Request, table_id: str, sheet_id: str) -> Answer:
        """Describe the scorecard with its latest calculation; null where there is none."""
        table, sheet = find_sheet(self._runs, table_id, sheet_id)
        calculations = self._runs.calculations_on(table, sheet)
        latest = calculations[-1] if calculations else None
        calculation = self._calculation(latest) if latest else None
        card = sheet.scorecard
        return Answer(
            200,
            {
                "success": True,
                "scorecard": card and self._scorecard(table, sheet, card, latest),
                "latest_calculation": calculation,
                "display_calculation": calculation,
                "criterion_summaries": calculation and calculation["criterion_summaries"],
                "drift_summary": calculation and calculation["drift_summary"],
                "progress": latest
                and {
                    "scored_rows": len(latest.rows(self._runs.now())),
                    "total_rows": len(latest.scorecard.rows),
                    "partial_score": None,
                },
            },
        )

    def recalculate(self, request: Request, table_id: str, sheet_id: str) -> Answer:
        """Start a calculation: 202. One that is under way is neither joined nor ended."""
        table, sheet = find_sheet(self._runs, table_id, sheet_id)
        fields = read_body(request, _SELECTION, nullable=(), required=False)
        card = _scorecard_of(sheet)
        step_ids = fields.get("step_ids")
        if step_ids is not None:
            step_ids = [step_id.lower() for step_id in step_ids]
        steps = {criterion.id for criterion in card.criteria}
        if not steps.issuperset(step_ids or ()):
            raise refusal(400, "Invalid request: step_ids has a step of another scorecard")
        if any(row >= sheet.row_count for row in fields.get("row_indices", ())):
            raise refusal(400, "Invalid request: row_indices has a row that does not exist")
        calculation = self._runs.start_calculation(
            table,
            sheet,
            card,
            row_indices=fields.get("row_indices"),
            step_ids=step_ids,
            was_posted=True,
        )
        status = calculation.status(self._runs.now())
        return Answer(
            202,
            {
                "success": True,
                "calculation_id": calculation.id,
                "status": status if status in CALCULATION_STATUSES else "queued",
                "version": calculation.revision,
            },
        )

    def cancel(self, request: Request, table_id: str, sheet_id: str) -> Answer:
        """Cancel whatever is queued or running on the sheet, of whatever rows and steps."""
        table, sheet = find_sheet(self._runs, table_id, sheet_id)
        read_body(request, _SELECTION, nullable=(), required=False)
        card = _scorecard_of(sheet)
        cancelled = self._runs.cancel_calculations(table, sheet)
        return Answer(
            200,
            {
                "success": True,
                "message": "Scorecard cancelled" if cancelled else "No active scorecard work",
                "scorecard": {"id": card.id},
                "cancelled_count": len(cancelled),
                "execution_ids": [derived_id("execution", each.id) for each in cancelled],
                "calculation_id": cancelled[-1].id if cancelled else None,
            },
        )

    def get_calculation(
        self, _request: Request, table_id: str, sheet_id: str, calculation_id: str
    ) -> Answer:
        """Give the state of a calculation; what it has found, once it has completed."""
        table, sheet = find_sheet(self._runs, table_id, sheet_id)
        calculation = self._calculation(self._find(table, sheet, calculation_id))
        return Answer(
            200,
            {
                "success": True,
                "calculation": calculation,
                "criterion_summaries": calculation["criterion_summaries"],
                "drift_summary": calculation["drift_summary"],
            },
        )

    def list_rows(self, request: Request, table_id: str, sheet_id: str) -> Answer:
        """List the rows of a calculation by page; counts are of all rows, whatever the filter."""
        table, sheet = find_sheet(self._runs, table_id, sheet_id)
        query = request.query
        cursor = query_number(query, "cursor", least=0)
        limit = query_number(query, "limit", least=1, most=100) or 50
        verdict = query.get("verdict")
        if verdict not in (None, *VERDICTS):
            raise refusal(400, "Invalid query parameter verdict")
        calculation = self._wanted(table, sheet, query.get("calculation_id"))
        rows = calculation.rows(self._runs.now()) if calculation else []
        found = [
            (number, row)
            for number, row in rows
            if (cursor is None or number > cursor) and verdict in (None, row.verdict)
        ]
        page = found[:limit]
        counts = Counter(row.verdict for _, row in rows if row.verdict is not None)
        return Answer(
            200,
            {
                "success": True,
                "calculation_id": calculation and calculation.id,
                "rows": [_row(number, row) for number, row in page],
                "next_cursor": page[-1][0] if len(found) > limit else None,
                "verdict_counts": dict(counts),
            },
        )

    def get_row(self, request: Request, table_id: str, sheet_id: str, row_index: str) -> Answer:
        """Give one row of a calculation with the results of its steps."""
        table, sheet = find_sheet(self._runs, table_id, sheet_id)
        number = query_number({"row_index": row_index}, "row_index", least=0)
        calculation = self._wanted(table, sheet, request.query.get("calculation_id"))
        rows = dict(calculation.rows(self._runs.now())) if calculation else {}
        if calculation is None or number not in rows:
            raise refusal(404, "Row result not found")
        row = rows[number]
        return Answer(
            200,
            {
                "success": True,
                "id": derived_id("row result", calculation.id, number),
                "calculation_id": calculation.id,
                "scorecard_id": calculation.scorecard.id,
                "sheet_id": sheet.id,
                **_row(number, row),
                "step_results": {
                    criterion.id: _step_result(criterion, row)
                    for criterion in _criteria(calculation)
                },
                "config_hash": None,
                "input_hash": None,
                "computed_at": None,
            },
        )

    def _wanted(self, table: Table, sheet: Sheet, calculation_id: str | None) -> Calculation | None:
        if calculation_id is not None:
            return self._find(table, sheet, calculation_id)
        calculations = self._runs.calculations_on(table, sheet)
        return calculations[-1] if calculations else None

    def _find(self, table: Table, sheet: Sheet, calculation_id: str) -> Calculation:
        check_uuids(calculation_id=calculation_id)
        found = self._runs.calculations.get(calculation_id.lower())
        if found is None or (found.table_id, found.sheet_id) != (table.id, sheet.id):
            raise refusal(404, "Calculation not found")
        return found

    def _calculation(self, calculation: Calculation) -> dict[str, JsonValue]:
        card = calculation.scorecard
        status = calculation.status(self._runs.now())
        is_done = status == "completed"
        return {
            "id": calculation.id,
            "scorecard_id": card.id,
            "workspace_id": 1,
            "sheet_id": calculation.sheet_id,
            "sheet_revision": str(calculation.revision),
            "status": status,
            "aggregate_score": card.score if is_done else None,
            "aggregate_verdict": card.verdict if is_done else None,
            "criterion_summaries": {
                criterion.id: {
                    "title": criterion.title,
                    "verdict": criterion.verdict,
                    "score": criterion.score,
                    "error_summary": criterion.error_summary,
                }
                for criterion in (_criteria(calculation) if is_done else ())
            },
            "drift_summary": card.drift_summary if is_done else None,
            "config_hash": None,
            "started_at": None if status == "queued" else _TIME,
            "completed_at": None if status in UNFINISHED else _TIME,
            "error_summary": None if status in UNFINISHED else card.error_summary,
        }

    def _scorecard(
        self, table: Table, sheet: Sheet, card: Scorecard, latest: Calculation | None
    ) -> JsonValue:
        status = latest.status(self._runs.now()) if latest else "ready"
        return {
            "id": card.id,
            "workspace_id": 1,
            "smart_table_id": table.id,
            "sheet_id": sheet.id,
            "name": card.name,
            "evaluated_column_ids": [column.id for column in sheet.columns],
            "aggregation": {
                "method": "weighted_average",
                "required_step_failure_behavior": "fail",
                "pass_threshold": 0.8,
                "warn_threshold": 0.6,
            },
            "display_config": None,
            "baseline_config": None,
            "status": status if status in (*UNFINISHED, "completed", "failed") else "ready",
            "stale_state": None,
            "latest_calculation_id": latest and latest.id,
            "config_hash": None,
            "steps": [
                {
                    "id": criterion.id,
                    "title": criterion.title,
                    "primitive_type": criterion.primitive_type,
                    "order_index": index,
                }
                for index, criterion in enumerate(card.criteria)
            ],
            "created_at": _TIME,
            "updated_at": _TIME,
        }


def _scorecard_of(sheet: Sheet) -> Scorecard:
    if sheet.scorecard is None:
        raise refusal(400, "Scorecard is not configured")
    return sheet.scorecard


def _criteria(calculation: Calculation) -> list[Criterion]:
    wanted = calculation.step_ids
    return [
        criterion
        for criterion in calculation.scorecard.criteria
        if wanted is None or criterion.id in wanted
    ]


def _row(number: int, row: ScoredRow) -> dict[str, JsonValue]:
    return {
        "row_index": number,
        "aggregate_score": row.score,
        "aggregate_verdict": row.verdict,
        "drift_summary": None,
        "stale_state": None,
        "error_summary": row.error_summary,
    }


def _step_result(criterion: Criterion, row: ScoredRow) -> JsonValue:
    reason = (row.reasons or {}).get(criterion.title)
    is_error = row.verdict == "error"
    return {
        "verdict": "pass" if reason is None else row.verdict,
        "score": None,
        "raw_value": None,
        "evidence": None if is_error else reason,
        "error_message": reason if is_error else None,
    }
