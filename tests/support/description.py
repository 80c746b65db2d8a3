# SPDX-License-Identifier: Apache-2.0
"""PromptLayer's description of its evaluation endpoints, as shapes to hold JSON against."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from support import described_tables
from support.shapes import (
    OBJECT,
    OBJECT_OR_NULL,
    TEXT,
    counts,
    number,
    problem,
    row,
    uuid,
)

CELL_STATUS = {"STALE", "QUEUED", "DISPATCHED", "RUNNING", "COMPLETED", "FAILED"}
VERDICT = ({"pass", "warn", "fail", "error", "skipped"}, None)

ERROR = {"success?": bool, "message?": str, "error?": str, "...": True}
REFUSAL = {"success": bool, "message": str, "...": True}
INVALID = (
    {"detail?": [{"loc": [(str, int)], "msg": str, "type": str, "...": True}], "...": True},
    ERROR,
)

OPERATION = {
    "operation_id": str,
    "operation": {"recalculate"},
    "status": str,
    "status_counts": counts,
    "cell_count": int,
    "completed_count": int,
    "failed_count": int,
    "pending_count": int,
    "status_url": str,
}
CELL = {
    "id": str,
    "sheet_id": uuid,
    "execution_id?": (uuid, None),
    "column_id": uuid,
    "row_index": int,
    "status": CELL_STATUS,
    "display_value?": TEXT,
    "...": True,
}
NOOP = {
    "success": lambda value: value is True,
    "cell_count": lambda value: value == 0,
    "virtual_cell_count": int,
    "cells": [CELL],
}
QUEUED = {
    **NOOP,
    "operation": {"recalculate"},
    "operation_id": str,
    "execution_id": str,
    "execution_ids": [str],
    "cell_count": int,
    "version": int,
    "status_url": str,
}
CONFIRMATION = {
    "success": lambda value: value is False,
    "requires_confirmation": lambda value: value is True,
    "confirmation_token": str,
    "affected_cell_count": int,
    "message": str,
}
CALCULATION_STATUS = {"queued", "running", "completed", "failed", "cancelled"}
CALCULATION = {
    "id": uuid,
    "scorecard_id": uuid,
    "workspace_id": int,
    "sheet_id": uuid,
    "sheet_revision": str,
    "status": CALCULATION_STATUS,
    "aggregate_score?": (number, None),
    "aggregate_verdict?": VERDICT,
    "criterion_summaries": OBJECT,
    "drift_summary?": OBJECT_OR_NULL,
    "config_hash?": TEXT,
    "started_at?": TEXT,
    "completed_at?": TEXT,
    "error_summary?": TEXT,
    "...": True,
}
SCORECARD = {
    "id": uuid,
    "workspace_id": int,
    "smart_table_id": uuid,
    "sheet_id": uuid,
    "name": str,
    "evaluated_column_ids": [str],
    "aggregation": {
        "method": str,
        "required_step_failure_behavior": {"fail", "warn", "error"},
        "pass_threshold": number,
        "warn_threshold": number,
        "...": True,
    },
    "status": {"needs_setup", "ready", "queued", "running", "completed", "stale", "failed"},
    "stale_state": OBJECT_OR_NULL,
    "latest_calculation_id?": (uuid, None),
    "steps": [
        {
            "id?": (uuid, None),
            "title": str,
            "primitive_type": {"LLM_ASSERTION", "COMPARE", "CONTAINS", "REGEX", "ASSERT_VALID"},
            "order_index?": int,
            "...": True,
        }
    ],
    "created_at": str,
    "updated_at": str,
    "...": True,
}
ROW = {
    "row_index": row,
    "aggregate_score": (number, None),
    "aggregate_verdict": VERDICT,
    "drift_summary": OBJECT_OR_NULL,
    "stale_state": OBJECT_OR_NULL,
    "error_summary": TEXT,
    "...": True,
}
REPORT = {
    "success?": bool,
    "message?": str,
    "report?": {
        "id": int,
        "name": str,
        "is_blueprint?": (bool, None),
        "deleted": bool,
        "created_at": str,
        "updated_at": str,
        "score_calculation_error?": TEXT,
        "parent_report_id?": (int, None),
        "dataset_id?": (int, None),
        "workspace_id": int,
        "...": True,
    },
    "status?": {"RUNNING", "COMPLETED"},
    "stats?": {
        "status_counts": {"COMPLETED": int, "FAILED": int, "QUEUED": int, "RUNNING": int},
    },
    "report_columns?": [OBJECT],
    "...": True,
}
COLUMN_SCORE = {
    "column_name?": str,
    "score?": (number, None),
    "score_type?": TEXT,
    "num_skipped?": int,
}
SCORE = {
    "success": bool,
    "message": str,
    "score": {
        "overall_score": (number, None),
        "score_type": {"single_column", "multi_column", "custom", "none"},
        "has_custom_scoring": bool,
        "details": (COLUMN_SCORE, {"columns": [COLUMN_SCORE]}, {"message": str}),
    },
}

_SHEET = r"/api/public/v2/tables/[^/]+/sheets/[^/]+"

REQUESTS: dict[tuple[str, str], Any] = {
    **described_tables.REQUESTS,
    ("POST", f"{_SHEET}/operations"): {
        "operation?": {"recalculate"},
        "column_ids?": ([uuid], None),
        "row_ids?": ([row], None),
        "statuses?": ([CELL_STATUS], None),
        "confirmation_token?": TEXT,
    },
    ("POST", f"{_SHEET}/scorecard/(recalculate|cancel)"): {
        "row_indices?": [row],
        "step_ids?": [uuid],
    },
    ("POST", "/reports/[0-9]+/run"): {
        "name": lambda value: isinstance(value, str) and 1 <= len(value) <= 255,
        "dataset_id?": (int, None),
        "refresh_dataset?": (bool, None),
    },
}
"""Method and path → the body of a request that has one."""

ANSWERS: dict[tuple[str, str], Mapping[int, Any]] = {
    **described_tables.ANSWERS,
    ("POST", f"{_SHEET}/operations"): {200: (NOOP, CONFIRMATION), 202: QUEUED},
    ("GET", f"{_SHEET}/operations"): {
        200: {
            "success": bool,
            "sheet_id": uuid,
            "version": int,
            "total_cells": int,
            "status_counts": counts,
            "pending_count": int,
            "active_operations": [OPERATION],
        }
    },
    ("GET", f"{_SHEET}/operations/[^/]+"): {200: {"success": bool, "operation": OPERATION}},
    ("DELETE", f"{_SHEET}/operations/[^/]+"): {
        200: {
            "success": bool,
            "message": str,
            "operation_id": str,
            "execution_ids": [str],
            "cancelled_cell_count": int,
            "not_started_reset_count?": int,
            "running_invalidated_count?": int,
            "...": True,
        }
    },
    ("GET", f"{_SHEET}/scorecard"): {
        200: {
            "success": bool,
            "scorecard": (SCORECARD, None),
            "latest_calculation": (CALCULATION, None),
            "display_calculation?": (CALCULATION, None),
            "criterion_summaries?": OBJECT_OR_NULL,
            "drift_summary?": OBJECT_OR_NULL,
            "progress?": OBJECT_OR_NULL,
            "...": True,
        }
    },
    ("POST", f"{_SHEET}/scorecard/recalculate"): {
        202: {
            "success": bool,
            "calculation_id": uuid,
            "status": CALCULATION_STATUS,
            "version": int,
        }
    },
    ("POST", f"{_SHEET}/scorecard/cancel"): {
        200: {
            "success": bool,
            "message": str,
            "scorecard": {"id": uuid, "...": True},
            "cancelled_count": int,
            "execution_ids": [str],
            "calculation_id": (uuid, None),
            "...": True,
        }
    },
    ("GET", f"{_SHEET}/scorecard/calculations/[^/]+"): {
        200: {
            "success": bool,
            "calculation": CALCULATION,
            "criterion_summaries": OBJECT_OR_NULL,
            "drift_summary": OBJECT_OR_NULL,
            "...": True,
        }
    },
    ("GET", f"{_SHEET}/scorecard/rows"): {
        200: {
            "success": bool,
            "calculation_id": (uuid, None),
            "rows": [ROW],
            "next_cursor": (int, None),
            "verdict_counts": counts,
        }
    },
    ("GET", f"{_SHEET}/scorecard/rows/[^/]+"): {
        200: {
            **ROW,
            "success": bool,
            "id": uuid,
            "calculation_id": uuid,
            "scorecard_id": uuid,
            "sheet_id": uuid,
            "step_results": OBJECT,
            "config_hash": TEXT,
            "input_hash": TEXT,
            "computed_at": TEXT,
        }
    },
    ("POST", "/reports/[^/]+/run"): {
        201: {"success": bool, "report_id": int, "...": True},
        400: REFUSAL,
        403: REFUSAL,
        404: REFUSAL,
        422: INVALID,
    },
    ("GET", "/reports/[^/]+"): {200: REPORT, 404: ERROR, 422: INVALID},
    ("GET", "/reports/[^/]+/score"): {200: SCORE, 400: ERROR, 404: ERROR, 422: INVALID},
}
"""Method and path → the body of each answer, by status. Below `/api/public/v2` every endpoint has
400 and 404 as well."""


def _described(table: Mapping[tuple[str, str], Any], method: str, path: str) -> Any:
    for (of_method, pattern), found in table.items():
        if method == of_method and re.fullmatch(pattern, path.partition("?")[0]):
            return found
    return None


def check_request(method: str, path: str, body: Any) -> None:
    """Assert that a request is one that the description knows; ``body`` is None for none."""
    assert _described(ANSWERS, method, path), f"{method} {path} is not described"
    assert not problem(body, _described(REQUESTS, method, path))


def check_answer(method: str, path: str, status: int, body: Any) -> None:
    """Assert that an answer is one that the description knows."""
    answers = _described(ANSWERS, method, path)
    assert answers, f"{method} {path} is not described"
    if path.startswith("/api/public/v2/"):
        answers = {400: ERROR, 404: ERROR, **answers}
    assert status in answers, f"{method} {path} is not answered {status}"
    assert not problem(body, answers[status])
