# SPDX-License-Identifier: Apache-2.0
"""The endpoints below ``/reports``.

In the description a *blueprint* is a pipeline that can be run; a run makes a *final report*, which
has a score.
"""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, StringConstraints

from ..http.app import answer, get, refusal
from ..http.validation import Body, Int64, Integer, read_body, read_path
from ..json_text import JsonValue
from .model import Report
from .runs import ReportRun, ReportRuns

_TIME = "2026-01-01T00:00:00Z"


class _Path(BaseModel):
    report_id: Integer


class _RunReport(Body):
    name: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    dataset_id: Int64 | None = None
    refresh_dataset: bool | None = None


class ReportEndpoints:
    """Runs of evaluation pipelines."""

    def __init__(self, runs: ReportRuns) -> None:
        self._runs = runs

    @property
    def routes(self) -> list[web.RouteDef]:
        """The endpoints."""
        report = "/reports/{report_id:[^/]+}"
        return [
            web.post(f"{report}/run", self.run),
            get(report, self.get_report),
            get(f"{report}/score", self.get_score),
        ]

    async def run(self, request: web.Request) -> web.Response:
        """Start a final report: 201; 403 if the report is not a pipeline."""
        number = read_path(request, _Path).report_id
        body = await read_body(request, _RunReport)
        blueprint = self._runs.blueprints.get(number)
        if blueprint is None:
            if number in self._runs.reports:
                raise refusal(403, "Can only run evaluation pipeline reports")
            raise refusal(404, "Report not found")
        if body.refresh_dataset and not blueprint.has_dynamic_dataset:
            raise refusal(403, "Dataset refresh is not allowed")
        run = self._runs.start(
            number,
            body.name,
            dataset_id=body.dataset_id,
            refresh_dataset=bool(body.refresh_dataset),
            was_posted=True,
        )
        return answer(201, {"success": True, "report_id": run.id})

    async def get_report(self, request: web.Request) -> web.Response:
        """Return the state of a report; a pipeline has no cells, and its status is completed."""
        number = read_path(request, _Path).report_id
        now = self._runs.now()
        run = self._runs.reports.get(number)
        blueprint = self._runs.blueprints.get(number)
        if run is not None:
            described = _description(number, run.name, run.report, run)
            status, counts = run.status(now), run.status_counts(now)
        elif blueprint is not None:
            described = _description(number, blueprint.name, blueprint, None)
            status = "COMPLETED"
            counts = dict.fromkeys(("COMPLETED", "FAILED", "QUEUED", "RUNNING"), 0)
        else:
            raise refusal(404, "Report not found")
        return answer(
            200,
            {
                "success": True,
                "message": "Report retrieved successfully",
                "report": described,
                "status": status,
                "stats": {"status_counts": counts},
                "report_columns": [],
            },
        )

    async def get_score(self, request: web.Request) -> web.Response:
        """Return the score of a final report; null until it has completed."""
        number = read_path(request, _Path).report_id
        if number in self._runs.blueprints:
            raise refusal(400, "Blueprint reports do not have scores")
        run = self._runs.reports.get(number)
        if run is None:
            raise refusal(404, "Report not found")
        report = run.report
        is_done = run.status(self._runs.now()) == "COMPLETED"
        return answer(
            200,
            {
                "success": True,
                "message": "Score retrieved successfully",
                "score": {
                    "overall_score": report.score if is_done else None,
                    "score_type": report.score_type if is_done else "none",
                    "has_custom_scoring": False,
                    "details": _details(report) if is_done else {"message": "No score"},
                },
            },
        )


def _description(number: int, name: str, report: Report, run: ReportRun | None) -> JsonValue:
    return {
        "id": number,
        "name": name,
        "is_blueprint": run is None,
        "deleted": False,
        "created_at": _TIME,
        "updated_at": _TIME,
        "score_calculation_error": report.score_calculation_error,
        "parent_report_id": run and run.parent_report_id,
        "dataset_id": run and run.dataset_id,
        "workspace_id": 1,
    }


def _details(report: Report) -> JsonValue:
    columns = [
        {"column_name": name, "score": score, "score_type": "boolean", "num_skipped": 0}
        for name, score in (report.column_scores or {}).items()
    ]
    if not columns:
        return {"message": "No score"}
    return columns[0] if len(columns) == 1 else {"columns": columns}
