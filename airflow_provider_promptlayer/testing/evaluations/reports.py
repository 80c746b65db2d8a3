# SPDX-License-Identifier: Apache-2.0
"""The endpoints below ``/reports``.

The rule here is that of ``workflow_endpoints.py``. In the description a *blueprint* is what can be
run, and a final report, which a run makes, is what has a score.
"""

from __future__ import annotations

import re

from airflow_provider_promptlayer.testing.evaluations.model import Report
from airflow_provider_promptlayer.testing.evaluations.runs import EvaluationRuns, ReportRun
from airflow_provider_promptlayer.testing.http.body_fields import BodyFields, json_object
from airflow_provider_promptlayer.testing.http.messages import Answer, Request, refusal
from airflow_provider_promptlayer.testing.http.routing import Route
from airflow_provider_promptlayer.testing.http.validation import Errors
from airflow_provider_promptlayer.testing.workflows.model import JsonValue

_DIGITS = re.compile(r"-?[0-9]{1,18}")
_TIME = "2026-01-01T00:00:00Z"


class ReportEndpoints:
    """Runs of evaluation pipelines."""

    def __init__(self, runs: EvaluationRuns) -> None:
        self._runs = runs

    @property
    def routes(self) -> list[Route]:
        """The endpoints with their methods and paths."""
        return [
            Route("POST", "/reports/{report_id}/run", self.run),
            Route("GET", "/reports/{report_id}", self.get_report),
            Route("GET", "/reports/{report_id}/score", self.get_score),
        ]

    def run(self, request: Request, report_id: str) -> Answer:
        """Start a final report: 201; 403 for a report that is none of a pipeline."""
        number = _number(report_id)
        fields = BodyFields(json_object(request))
        name = fields.required_text("name", longest=255)
        dataset_id = fields.integer("dataset_id")
        refresh_dataset = fields.boolean_or_null("refresh_dataset")
        fields.errors.check()
        blueprint = self._runs.blueprints.get(number)
        if blueprint is None:
            if number in self._runs.reports:
                raise refusal(403, "Can only run evaluation pipeline reports")
            raise refusal(404, "Report not found")
        if refresh_dataset and not blueprint.has_dynamic_dataset:
            raise refusal(403, "Dataset refresh is not allowed")
        run = self._runs.start_report(
            number,
            name,
            dataset_id=dataset_id,
            refresh_dataset=bool(refresh_dataset),
            was_posted=True,
        )
        return Answer(201, {"success": True, "report_id": run.id})

    def get_report(self, _request: Request, report_id: str) -> Answer:
        """Give the state of a report; a pipeline has no cells and is called completed."""
        number = _number(report_id)
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
        return Answer(
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

    def get_score(self, _request: Request, report_id: str) -> Answer:
        """Give the score of a final report; null until it has completed."""
        number = _number(report_id)
        if number in self._runs.blueprints:
            raise refusal(400, "Blueprint reports do not have scores")
        run = self._runs.reports.get(number)
        if run is None:
            raise refusal(404, "Report not found")
        report = run.report
        is_done = run.status(self._runs.now()) == "COMPLETED"
        return Answer(
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


def _number(report_id: str) -> int:
    if not _DIGITS.fullmatch(report_id):
        errors = Errors("path")
        message = "Input should be a valid integer, unable to parse string as an integer"
        errors.add("int_parsing", message, "report_id")
        raise errors.refusal()
    return int(report_id)


def _description(number: int, name: str, report: Report, run: ReportRun | None) -> JsonValue:
    return {
        "id": number,
        "name": name,
        "comment": None,
        "is_blueprint": run is None,
        "deleted": False,
        "created_at": _TIME,
        "updated_at": _TIME,
        "score": None,
        "score_configuration": None,
        "score_matrix": None,
        "score_calculation_error": report.score_calculation_error,
        "parent_report_id": run and run.parent_report_id,
        "dataset_id": run and run.dataset_id,
        "user_id": None,
        "workspace_id": 1,
        "prompt_registry_id": None,
        "prompt_version_number": None,
    }


def _details(report: Report) -> JsonValue:
    columns = [
        {"column_name": name, "score": score, "score_type": "boolean", "num_skipped": 0}
        for name, score in (report.column_scores or {}).items()
    ]
    if not columns:
        return {"message": "No score"}
    return columns[0] if len(columns) == 1 else {"columns": columns}
