# SPDX-License-Identifier: Apache-2.0
"""PromptLayer's description of tables, prompt templates and workflows, for ``description``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from support.shapes import OBJECT, TEXT, conforms, counts, number, uuid


def cells_of_row(value: Any) -> bool:
    return isinstance(value, dict) and all(
        uuid(key) and conforms(cell, CELL_IN_ROW) for key, cell in value.items()
    )


CELL_IN_ROW = {
    "id?": uuid,
    "sheet_id?": uuid,
    "column_id?": uuid,
    "row_index?": int,
    "status?": {"completed", "stale", "running", "queued", "error", "cancelled"},
    "display_value?": TEXT,
    "error?": TEXT,
    "error_message?": TEXT,
    "last_computed_version?": (int, None),
    "execution_id?": (uuid, None),
    "request_metrics?": {
        "request_count?": int,
        "request_ids?": [int],
        "latency_ms?": (int, None),
        "price?": (number, None),
        "input_tokens?": (int, None),
        "output_tokens?": (int, None),
        "trace_ids?": [str],
        "...": True,
    },
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
TABLE = {
    "id?": uuid,
    "workspace_id?": int,
    "title?": str,
    "folder_id?": (int, None),
    "sheet_count?": int,
    "created_at?": str,
    "updated_at?": str,
    "sheet_row_counts?": counts,
    "...": True,
}
SHEET = {
    "id?": uuid,
    "table_id?": uuid,
    "workspace_id?": int,
    "title?": str,
    "index?": int,
    "row_count?": int,
    "version_count?": int,
    "created_at?": str,
    "updated_at?": str,
    "...": True,
}
IMPORT = {
    "operation_id?": str,
    "source?": {"file", "request_logs"},
    "status?": {"pending", "running", "completed", "failed"},
    "progress?": (number, None),
    "message?": TEXT,
    "rows_added?": (int, None),
    "row_count?": (int, None),
    "file_name?": TEXT,
    "error_message?": TEXT,
    "created_at?": TEXT,
    "updated_at?": TEXT,
    "...": True,
}
VERSION = {
    "id": uuid,
    "sheet_id": uuid,
    "version_number": int,
    "name?": TEXT,
    "created_by?": TEXT,
    "created_at?": TEXT,
    "metadata?": OBJECT,
    "deltas?": [OBJECT],
    "snapshot?": OBJECT,
    "score?": OBJECT,
    "score_configuration?": (OBJECT, None),
    "...": True,
}
ONE_VERSION = {"success": bool, "version": VERSION, "...": True}
METRIC = {
    "metric_key": {"price", "latency_ms"},
    "metric_label?": TEXT,
    "count": int,
    "sum": number,
    "avg?": (number, None),
    "min?": (number, None),
    "max?": (number, None),
    "column_id?": uuid,
    "source_column_id?": uuid,
    "...": True,
}
STARTED = {"success": bool, "message": str, "operation_id": str, "operation": IMPORT}
STARTED_HERE = {202: {**STARTED, "status_url": str}}
# Of lists of versions alone in the description; here all lists have it beside their own form.
PAGINATION = {"next_cursor": TEXT, "prev_cursor": TEXT, "has_more": bool, "limit": int}
ROW_OF_CELLS = {"row_index?": int, "cells?": cells_of_row, "...": True}


def metrics(value: Any) -> bool:
    return isinstance(value, dict) and all(conforms(each, METRIC) for each in value.values())


def page(item: Any, **more: Any) -> Mapping[int, Any]:
    paging = {"next_cursor?": TEXT, "has_more?": bool, "pagination?": PAGINATION}
    return {200: {"data?": [item], **paging, **more, "...": True}}


_INVALID = {422: OBJECT}

# The description has no 400 and no 404 of these; what they look like is the server's choice.
_MOVED_LABEL = {
    200: {
        "id": int,
        "name": str,
        "prompt_id": int,
        "prompt_version_id": int,
        "created_at": str,
    },
    400: OBJECT,
    404: OBJECT,
    **_INVALID,
}
_TABLES = "/api/public/v2/tables"
_SHEETS = rf"{_TABLES}/[^/]+/sheets"
_SHEET = rf"{_SHEETS}/[^/]+"
_FILE = {"file_name": str, "file_content_base64": str}
_LOGS = {
    "request_log_ids?": ([int], None),
    "filter_group?": OBJECT,
    "q?": TEXT,
    "sort_by?": TEXT,
    "sort_order?": ({"asc", "desc"}, None),
    "metadata_cost_breakdown_key?": TEXT,
    "variables_to_parse?": [str],
    "include_fields?": ([str], None),
    "limit?": (int, None),
}

REQUESTS: dict[tuple[str, str], Any] = {
    ("POST", r"/prompts/\d+/label"): {"prompt_version_number": int, "name": str},
    ("PATCH", r"/prompt-labels/\d+"): {"prompt_version_number": int},
    ("PATCH", rf"{_SHEET}/columns/[^/]+"): {"title?": TEXT, "config?": (OBJECT, None)},
    ("PATCH", "/rest/workflows/[^/]+"): {
        "base_version?": (int, None),
        "commit_message?": lambda value: isinstance(value, str) and len(value) <= 72,
        "release_labels?": ([str], None),
    },
    ("POST", _TABLES): {
        "title?": TEXT,
        "folder_id?": (int, None),
        "create_default_sheet?": bool,
    },
    ("POST", _SHEETS): {
        "title?": TEXT,
        "index?": (int, None),
        "operation_id?": TEXT,
        "source?": (
            {"type": {"file"}, **_FILE},
            # Prompts and times are in the description alone, the rest elsewhere alone.
            {
                "type": {"request_logs"},
                "prompt_id?": (int, None),
                "prompt_version_id?": (int, None),
                "prompt_label_id?": (int, None),
                "start_time?": TEXT,
                "end_time?": TEXT,
                **_LOGS,
            },
        ),
    },
    ("POST", rf"{_SHEET}/rows"): {"count?": int, "values?": ([OBJECT], None)},
    ("POST", rf"{_SHEET}/versions"): {"name?": TEXT, "source_version_id?": (uuid, None)},
    ("POST", rf"{_SHEET}/imports/file"): {"operation_id?": TEXT, **_FILE},
    ("POST", rf"{_SHEET}/imports/request-logs"): {"operation_id?": TEXT, **_LOGS},
}

ANSWERS: dict[tuple[str, str], Mapping[int, Any]] = {
    ("GET", _TABLES): {**page(TABLE), **_INVALID},
    ("POST", _TABLES): {
        201: {"success": bool, "message?": str, "table": TABLE, "default_sheet?": SHEET},
        **_INVALID,
    },
    ("GET", rf"{_TABLES}/[^/]+"): {200: {"success?": bool, "table?": TABLE}},
    ("GET", _SHEETS): {**page(SHEET), **_INVALID},
    ("POST", _SHEETS): {
        201: {"success?": bool, "sheet?": SHEET},
        202: {**STARTED, "sheet": SHEET},
        **_INVALID,
        # Not in the description, as what a repeated operation does.
        409: OBJECT,
    },
    ("GET", rf"{_SHEETS}/operations/[^/]+"): {200: {"success?": bool, "operation?": IMPORT}},
    ("GET", _SHEET): {200: {"success?": bool, "sheet?": SHEET}},
    ("GET", rf"{_SHEET}/columns"): page(COLUMN),
    ("PATCH", rf"{_SHEET}/columns/[^/]+"): {
        200: {
            "success?": bool,
            "column?": COLUMN,
            "requires_recalculation?": bool,
            "affected_column_ids?": [uuid],
            "version?": int,
        },
        **_INVALID,
    },
    ("GET", rf"{_SHEET}/rows"): page(
        ROW_OF_CELLS,
        **{
            "row_count?": int,
            "columns?": [COLUMN],
            "version?": int,
            "execution_metadata_aggregates?": {
                "by_column_id": metrics,
                "sheet": {"by_metric": metrics, "...": True},
                "...": True,
            },
        },
    ),
    ("POST", rf"{_SHEET}/rows"): {
        201: {
            "success?": bool,
            "rows_created?": int,
            "start_row_index?": int,
            "row_indices?": [int],
            "rows?": [ROW_OF_CELLS],
            "cell_count?": int,
            "row_count?": int,
            "version?": int,
            "...": True,
        },
        **_INVALID,
    },
    ("POST", rf"{_SHEET}/imports/file"): {**STARTED_HERE, 409: OBJECT},
    ("POST", rf"{_SHEET}/imports/request-logs"): {**STARTED_HERE, 409: OBJECT},
    ("GET", rf"{_SHEET}/versions"): {
        200: {
            "success": bool,
            "data": [VERSION],
            "pagination": PAGINATION,
            "filters": {},
            "count": int,
        }
    },
    ("POST", rf"{_SHEET}/versions"): {201: ONE_VERSION},
    ("GET", rf"{_SHEET}/versions/score-history"): {
        200: {
            "success": bool,
            "score_history": {
                "points": [OBJECT],
                "total_points": int,
                "returned_points": int,
                "resolution": {"auto", "raw", "min_max_bucket"},
                "range": str,
                "max_points": int,
                "is_sampled": bool,
                "...": True,
            },
            "...": True,
        }
    },
    ("GET", rf"{_SHEET}/versions/[^/]+"): {200: ONE_VERSION},
    ("GET", "/prompt-templates/[^/]+"): {
        200: {
            "success": bool,
            "id": int,
            "prompt_name": str,
            "version": int,
            "workspace_id": int,
            "prompt_template": {"type": {"completion"}, "content": [OBJECT], "...": True},
            "snippets": [OBJECT],
            "...": True,
        },
        404: OBJECT,
        **_INVALID,
    },
    ("GET", "/prompt-templates/[^/]+/labels"): {
        200: {
            "release_labels": [
                {
                    "prompt_version_id": int,
                    "prompt_version_number": int,
                    "release_label": str,
                    "release_label_id": int,
                }
            ],
            "...": True,
        },
        404: OBJECT,
        **_INVALID,
    },
    ("POST", r"/prompts/\d+/label"): _MOVED_LABEL,
    ("PATCH", r"/prompt-labels/\d+"): _MOVED_LABEL,
    ("GET", "/workflows/[^/]+/labels"): {
        200: {
            "success": bool,
            "release_labels": [
                {
                    "release_label": str,
                    "release_label_id": int,
                    "workflow_version_id": int,
                    "workflow_version_number": int,
                }
            ],
        },
        404: OBJECT,
        **_INVALID,
    },
    ("PATCH", "/rest/workflows/[^/]+"): {
        201: {
            "success": bool,
            "workflow_id": int,
            "workflow_name": str,
            "workflow_version_id": int,
            "version_number": int,
            "base_version?": (int, None),
            "release_labels?": ([str], None),
            "nodes?": [OBJECT],
            "required_input_variables?": OBJECT,
            "external_ids": [OBJECT],
        },
        400: OBJECT,
        404: OBJECT,
        **_INVALID,
    },
    # The libraries' form has everything in workflow.
    ("GET", "/workflows/[^/]+"): {
        200: (
            {
                "success": bool,
                "workflow_id": int,
                "workflow_name": str,
                "version": int,
                "workflow_version_id": int,
                "commit_message?": TEXT,
                "required_input_variables?": (OBJECT, None),
                "release_labels?": [str],
                "created_at?": TEXT,
                "nodes": [
                    {
                        "id": str,
                        "workflow_version_id?": int,
                        "name": str,
                        "node_type": str,
                        "is_output_node": bool,
                        "configuration": OBJECT,
                        "dependencies": [str],
                        "...": True,
                    }
                ],
                "edges": [
                    {
                        "id": str,
                        "source_node_name": str,
                        "target_node_name": str,
                        "is_and": bool,
                        "conditionals?": [OBJECT],
                        "...": True,
                    }
                ],
                "...": True,
            },
            {"success": bool, "workflow": OBJECT},
        ),
        404: OBJECT,
        **_INVALID,
    },
}
