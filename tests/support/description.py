# SPDX-License-Identifier: Apache-2.0
"""PromptLayer's description of its evaluation endpoints, as shapes to hold JSON against.

A shape is a type, a set of words, a predicate, a list of one shape, a tuple of alternatives, None
for null, or an object: a dict of names (``name?`` may be missing) to shapes. An object takes no
other names, unless it has the name ``...``, as in ``additionalProperties``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def uuid(value: Any) -> bool:
    return isinstance(value, str) and UUID_TEXT.fullmatch(value) is not None


def number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def row(value: Any) -> bool:
    return conforms(value, int) and value >= 0


def counts(value: Any) -> bool:
    return isinstance(value, dict) and all(conforms(item, int) for item in value.values())


def conforms(value: Any, shape: Any) -> bool:
    return not problem(value, shape)


def problem(value: Any, shape: Any, where: str = "the body") -> str:
    """Return what is wrong with a value, or nothing."""
    match shape:
        case None:
            right = value is None
        case tuple():
            right = any(conforms(value, alternative) for alternative in shape)
        case list():
            if isinstance(value, list):
                found = (problem(v, shape[0], f"{where}[{i}]") for i, v in enumerate(value))
                return next(filter(None, found), "")
            right = False
        case dict():
            if isinstance(value, dict):
                return _problem_of_object(value, shape, where)
            right = False
        case set():
            right = isinstance(value, str) and value in shape
        case type():
            right = isinstance(value, shape) and (shape is bool or not isinstance(value, bool))
        case _:
            right = shape(value)
    return "" if right else f"{where} is {value!r}"


def _problem_of_object(value: dict[str, Any], shape: Mapping[str, Any], where: str) -> str:
    names = {name.rstrip("?"): inner for name, inner in shape.items() if name != "..."}
    for name in shape:
        if not name.endswith("?") and name != "..." and name not in value:
            return f"{where} has no {name}"
    for name, item in value.items():
        if name in names:
            if found := problem(item, names[name], f"{where}.{name}"):
                return found
        elif "..." not in shape:
            return f"{where} has the undeclared {name}"
    return ""


def cells_of_row(value: Any) -> bool:
    return isinstance(value, dict) and all(
        uuid(key) and conforms(cell, CELL_IN_ROW) for key, cell in value.items()
    )


CELL_STATUS = {"STALE", "QUEUED", "DISPATCHED", "RUNNING", "COMPLETED", "FAILED"}
VERDICT = ({"pass", "warn", "fail", "error", "skipped"}, None)
TEXT = (str, None)
OBJECT = {"...": True}
OBJECT_OR_NULL = (OBJECT, None)

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
CELL_IN_ROW = {
    "id?": uuid,
    "sheet_id?": uuid,
    "column_id?": uuid,
    "row_index?": int,
    "status?": {"completed", "stale", "running", "queued", "error", "cancelled"},
    "display_value?": TEXT,
    "error?": TEXT,
    "error_message?": TEXT,
    "...": True,
}
COLUMN = {
    "id?": uuid,
    "sheet_id?": uuid,
    "workspace_id?": int,
    "title?": str,
    "type?": str,
    "config?": OBJECT,
    "position_rank?": number,
    "is_output_column?": bool,
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
    ("GET", f"{_SHEET}/rows"): {
        200: {
            "data?": [{"row_index?": int, "cells?": cells_of_row, "...": True}],
            "next_cursor?": TEXT,
            "has_more?": bool,
            # Not of this endpoint: so the description has it for lists of versions.
            "pagination?": {
                "next_cursor": TEXT,
                "prev_cursor": TEXT,
                "has_more": bool,
                "limit": int,
            },
            "row_count?": int,
            "columns?": [COLUMN],
            "version?": int,
            "execution_metadata_aggregates?": {
                "by_column_id": OBJECT,
                "sheet": {"by_metric": OBJECT, "...": True},
                "...": True,
            },
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
