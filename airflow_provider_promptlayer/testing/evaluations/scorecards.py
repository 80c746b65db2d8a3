# SPDX-License-Identifier: Apache-2.0
"""The endpoints below ``/api/public/v2/tables/{table_id}/sheets/{sheet_id}/scorecard``.

The description does not define criterion summaries and step results; here both are objects by the
id of the step. A summary has ``title``, ``verdict``, ``score`` and ``error_summary``; a step
result has the fields that PromptLayer's Python library reads: ``verdict``, ``score``,
``raw_value``, ``evidence`` and ``error_message``.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from aiohttp import web
from pydantic import BaseModel, Field

from ..http.app import answer, get, refusal
from ..http.validation import (
    Integer,
    Row,
    TableBody,
    Uuid,
    read_table_body,
    read_table_query,
    read_uuid,
)
from ..json_text import JsonValue
from ..workflows.model import derived_id
from .model import CALCULATION_STATUSES, Criterion, Scorecard, ScoredRow
from .paging import SHEET_PATH, Endpoints, find_sheet
from .runs import UNFINISHED, Calculation
from .sheet import SheetState
from .workspace import Workspace

_TIME = "2026-01-01T00:00:00Z"
_PlainRow = Annotated[Integer, Field(ge=0)]


class _Selection(TableBody):
    # Absent they mean all; they may not be null.
    row_indices: list[Row] = Field(default_factory=list)
    step_ids: list[Uuid] = Field(default_factory=list)


class _ListRows(BaseModel):
    calculation_id: Uuid | None = None
    verdict: Literal["pass", "warn", "fail", "error", "skipped"] | None = None
    cursor: _PlainRow | None = None
    limit: Annotated[Integer, Field(ge=1, le=100)] = 50


class _GetRow(BaseModel):
    row_index: _PlainRow
    calculation_id: Uuid | None = None


class ScorecardEndpoints(Endpoints):
    """Scorecards, their calculations and the rows of these."""

    @property
    def routes(self) -> list[web.RouteDef]:
        """The endpoints."""
        scorecard = f"{SHEET_PATH}/scorecard"
        calculation = f"{scorecard}/calculations/{{calculation_id:[^/]+}}"
        return [
            get(scorecard, self.get_scorecard),
            web.post(f"{scorecard}/recalculate", self.recalculate),
            web.post(f"{scorecard}/cancel", self.cancel),
            get(calculation, self.get_calculation),
            get(f"{scorecard}/rows", self.list_rows),
            get(f"{scorecard}/rows/{{row_index:[^/]+}}", self.get_row),
        ]

    async def get_scorecard(self, request: web.Request) -> web.Response:
        """Describe the scorecard with its latest calculation; null if there is none."""
        sheet = find_sheet(self._workspace, request)
        latest, card = sheet.latest_calculation(), sheet.scorecard
        calculation = _calculation(latest, self._workspace) if latest else None
        return answer(
            200,
            {
                "success": True,
                "scorecard": card and _scorecard(sheet, card, latest),
                "latest_calculation": calculation,
                "display_calculation": calculation,
                "criterion_summaries": calculation and calculation["criterion_summaries"],
                "drift_summary": calculation and calculation["drift_summary"],
                "progress": latest
                and {
                    "scored_rows": len(latest.rows(sheet.now())),
                    "total_rows": len(latest.all_rows),
                    "partial_score": None,
                },
            },
        )

    async def recalculate(self, request: web.Request) -> web.Response:
        """Start a calculation: 202. It neither joins nor ends one that is under way."""
        sheet = find_sheet(self._workspace, request)
        body = await read_table_body(request, _Selection, required=False)
        card = _scorecard_of(sheet)
        if not {criterion.id for criterion in card.criteria}.issuperset(body.step_ids):
            raise refusal(400, "Invalid request: step_ids has a step of another scorecard")
        if any(row >= sheet.row_count for row in body.row_indices):
            raise refusal(400, "Invalid request: row_indices has a row that does not exist")
        given = body.model_dump(exclude_unset=True)
        calculation = sheet.start_calculation(**given, was_posted=True)
        status = calculation.status(sheet.now())
        return answer(
            202,
            {
                "success": True,
                "calculation_id": calculation.id,
                "status": status if status in CALCULATION_STATUSES else "queued",
                "version": calculation.revision,
            },
        )

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel every calculation of the sheet that is queued or running, whatever its rows."""
        sheet = find_sheet(self._workspace, request)
        await read_table_body(request, _Selection, required=False)
        card = _scorecard_of(sheet)
        cancelled = sheet.cancel_calculations()
        return answer(
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

    async def get_calculation(self, request: web.Request) -> web.Response:
        """Return the state of a calculation, and its results once it has completed."""
        sheet = find_sheet(self._workspace, request)
        found = _find_calculation(sheet, read_uuid(request, "calculation_id"))
        calculation = _calculation(found, self._workspace)
        return answer(
            200,
            {
                "success": True,
                "calculation": calculation,
                "criterion_summaries": calculation["criterion_summaries"],
                "drift_summary": calculation["drift_summary"],
            },
        )

    async def list_rows(self, request: web.Request) -> web.Response:
        """List the rows of a calculation by page; counts are of all rows, whatever the filter."""
        sheet = find_sheet(self._workspace, request)
        query = read_table_query(request, _ListRows)
        calculation = _wanted(sheet, query.calculation_id)
        rows = calculation.rows(sheet.now()) if calculation else []
        found = [
            (number, row)
            for number, row in rows
            if (query.cursor is None or number > query.cursor)
            and query.verdict in (None, row.verdict)
        ]
        page = found[: query.limit]
        counts = Counter(row.verdict for _, row in rows if row.verdict is not None)
        return answer(
            200,
            {
                "success": True,
                "calculation_id": calculation and calculation.id,
                "rows": [_row(number, row) for number, row in page],
                "next_cursor": page[-1][0] if len(found) > query.limit else None,
                "verdict_counts": dict(counts),
            },
        )

    async def get_row(self, request: web.Request) -> web.Response:
        """Return one row of a calculation with the results of its steps."""
        sheet = find_sheet(self._workspace, request)
        row_index = request.match_info["row_index"]
        query = read_table_query(request, _GetRow, row_index=row_index)
        calculation = _wanted(sheet, query.calculation_id)
        rows = dict(calculation.rows(sheet.now())) if calculation else {}
        if calculation is None or query.row_index not in rows:
            raise refusal(404, "Row result not found")
        row = rows[query.row_index]
        return answer(
            200,
            {
                "success": True,
                "id": derived_id("row result", calculation.id, query.row_index),
                "calculation_id": calculation.id,
                "scorecard_id": calculation.scorecard.id,
                "sheet_id": calculation.sheet_id,
                **_row(query.row_index, row),
                "step_results": {
                    criterion.id: _step_result(criterion, row)
                    for criterion in _criteria(calculation)
                },
                "config_hash": calculation.config_hash,
                **dict.fromkeys(("input_hash", "computed_at")),
            },
        )


def _scorecard_of(sheet: SheetState) -> Scorecard:
    if sheet.scorecard is None:
        raise refusal(400, "Scorecard is not configured")
    return sheet.scorecard


def _find_calculation(sheet: SheetState, calculation_id: str) -> Calculation:
    if calculation_id not in sheet.calculations:
        raise refusal(404, "Calculation not found")
    return sheet.calculations[calculation_id]


def _wanted(sheet: SheetState, calculation_id: str | None) -> Calculation | None:
    if calculation_id is None:
        return sheet.latest_calculation()
    return _find_calculation(sheet, calculation_id)


def _calculation(calculation: Calculation, workspace: Workspace) -> dict[str, JsonValue]:
    card = calculation.scorecard
    status = calculation.status(workspace.now())
    began_at = calculation.started_at + card.queue_duration
    ended_at = calculation.cancelled_at
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
                **(
                    {}
                    if criterion.verdict_counts is None
                    else {"verdict_counts": dict(criterion.verdict_counts)}
                ),
            }
            for criterion in (_criteria(calculation) if is_done else ())
        },
        "drift_summary": card.drift_summary if is_done else None,
        "config_hash": calculation.config_hash,
        "started_at": None if status == "queued" else workspace.timestamp(began_at),
        "completed_at": (
            None
            if status in UNFINISHED
            else workspace.timestamp(began_at + card.duration if ended_at is None else ended_at)
        ),
        "error_summary": None if status in UNFINISHED else card.error_summary,
    }


def _scorecard(sheet: SheetState, card: Scorecard, latest: Calculation | None) -> JsonValue:
    status = latest.status(sheet.now()) if latest else "ready"
    return {
        "id": card.id,
        "workspace_id": 1,
        "smart_table_id": sheet.table.id,
        "sheet_id": sheet.id,
        "name": card.name,
        "evaluated_column_ids": [column.id for column in sheet.columns],
        "aggregation": {
            "method": "weighted_average",
            "required_step_failure_behavior": "fail",
            "pass_threshold": 0.8,
            "warn_threshold": 0.6,
        },
        "status": status if status in (*UNFINISHED, "completed", "failed") else "ready",
        "stale_state": None,
        "latest_calculation_id": latest and latest.id,
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
