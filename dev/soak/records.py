# SPDX-License-Identifier: Apache-2.0
"""Read from the local PromptLayer what was started, and from Airflow what became of the tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, cast

from airflow_provider_promptlayer.testing import LocalPromptLayer
from airflow_provider_promptlayer.testing.evaluations.request_logs import prompt_number
from dev.metadata_db import MetadataDb
from dev.soak.accounting import Start, Task
from dev.soak.load import BATCH, CELLS, DAG_ID, LABEL, REPORT_SCORE, ROWS, SCORE, Marker, markers

ID_KEYS: Final = {
    "run": "promptlayer_execution_id",
    "again": "promptlayer_execution_id",
    "doomed": "promptlayer_execution_id",
    "mapped": "promptlayer_execution_id",
    "cells": "promptlayer_operation_id",
    "scorecard": "promptlayer_calculation_id",
    "report": "promptlayer_report_id",
    "load": "promptlayer_operation_id",
    "promote_prompt": "promptlayer_version",
    "promote_workflow": "promptlayer_version",
}
"""Task → the XCom with the id of its job; of a promotion, with the version that it has reached."""
_OF_INTEREST: Final = {
    "cells": ("completed_count", "failed_count"),
    "scorecard": ("score",),
    "report": ("score",),
    "load": ("rows_added", "row_count"),
}
"""Task → which keys of its result are compared."""


def read_starts(
    server: LocalPromptLayer, writes: Mapping[str, Sequence[float]], round_ids: Sequence[str]
) -> Iterator[Start]:
    """Yield every start that the local PromptLayer has got.

    :param writes: see `Faults.writes`.
    """
    for number, run in server.executions.items():
        origin = run.origin
        (node,) = run.plan
        yield Start(
            Marker(
                origin.airflow_run_id,
                origin.airflow_task_id,
                int(origin.airflow_map_index),
                int(origin.airflow_batch_index or -1),
            ),
            str(number),
            run.started_at,
            run.started_at + node.ends_at,
            "succeeded" if node.status == "SUCCESS" else "failed",
            {node.name: node.value},
        )
    of_table = {table.id: table for table in server.tables}
    for operation in server.operations.values():
        yield _cancellable(
            Marker(of_table[operation.table_id].title, "cells"),
            operation.id,
            operation.started_at,
            operation.cells[-1].ends_at,
            operation.cancelled_at,
            {"completed_count": CELLS, "failed_count": 0},
        )
    for calculation in server.calculations.values():
        card = calculation.scorecard
        yield _cancellable(
            Marker(of_table[calculation.table_id].title, "scorecard"),
            calculation.id,
            calculation.started_at,
            card.queue_duration + card.duration,
            calculation.cancelled_at,
            {"score": SCORE},
        )
    for number, report in server.reports.items():
        ended_at = report.started_at + report.report.duration
        marker = Marker(report.name, "report")
        result = {"score": REPORT_SCORE}
        yield Start(marker, str(number), report.started_at, ended_at, "succeeded", result)
    for each in server.imports:
        yield Start(
            Marker(of_table[each.table_id].title, "load"),
            each.operation_id,
            each.started_at,
            each.started_at + each.duration,
            "failed" if each.status == "failed" else "succeeded",
            {"rows_added": ROWS, "row_count": ROWS},
        )
    for round_id in round_ids:
        # Version 2 is promoted; of a workflow, that is a copy of it.
        label = prompt_number(round_id, "label", LABEL)
        for task, version, request in (
            ("promote_prompt", 2, f"PATCH /prompt-labels/{label}"),
            ("promote_workflow", 3, f"PATCH /rest/workflows/{round_id}"),
        ):
            moved = {"label": LABEL, "version": version, "previous_version": 1}
            for at in writes.get(request, ()):
                yield Start(Marker(round_id, task), str(version), at, at, "succeeded", moved)


def _cancellable(
    marker: Marker,
    job_id: str,
    started_at: float,
    duration: float,
    cancelled_at: float | None,
    result: Any,
) -> Start:
    ended_at = started_at + duration if cancelled_at is None else cancelled_at
    outcome: Literal["succeeded", "cancelled"] = (
        "succeeded" if cancelled_at is None else "cancelled"
    )
    return Start(marker, job_id, started_at, ended_at, outcome, result)


def read_tasks(db: MetadataDb, logs: Path, round_id: str) -> Iterator[Task]:
    """Yield what Airflow says of the tasks of a round.

    :param logs: the folder with the tasks' logs.
    """
    found = db.rows(
        "SELECT task_id, map_index, state, end_date FROM task_instance"
        " WHERE dag_id = :dag_id AND run_id = :run_id",
        dag_id=DAG_ID,
        run_id=round_id,
    )
    rows = {(row["task_id"], row["map_index"]): row for row in found}
    for marker in markers(round_id):
        row = rows.get((marker.task, marker.map_index))
        if row is None:
            yield Task(marker, None)
            continue
        xcoms = db.xcoms(DAG_ID, round_id, marker.task, marker.map_index)
        log, reason = read_log(logs, marker)
        end: datetime | None = row["end_date"]
        about = (marker, row["state"], None if end is None else end.timestamp())
        if marker.batch_index < 0:
            delivered = xcoms.get(ID_KEYS[marker.task])
            yield Task(
                *about,
                None if delivered is None else str(delivered),
                _result(marker.task, xcoms.get("return_value")),
                reason,
                log,
            )
        else:
            yield _input(about, xcoms, reason, log)


def _input(
    about: tuple[Marker, str | None, float | None], xcoms: Mapping[str, Any], reason: str, log: str
) -> Task:
    index = about[0].batch_index
    ids, results, errors = (
        xcoms.get(key) or [None] * BATCH
        for key in ("promptlayer_execution_ids", "return_value", "promptlayer_errors")
    )
    was_told = "promptlayer_errors" in xcoms
    return Task(
        *about,
        None if ids[index] is None else str(ids[index]),
        results[index],
        (errors[index] or "") if was_told else reason,
        log,
    )


def _result(task: str, returned: Any) -> Any:
    keys = _OF_INTEREST.get(task)
    if keys is None or not isinstance(returned, dict):
        return returned
    return {key: returned.get(key) for key in keys}


def read_log(logs: Path, marker: Marker) -> tuple[str, str]:
    """Return all that a task has logged, and the error with which its last try failed."""
    folder = logs / f"dag_id={DAG_ID}" / f"run_id={marker.round}" / f"task_id={marker.task}"
    if marker.map_index >= 0:
        folder /= f"map_index={marker.map_index}"
    files = sorted(folder.glob("attempt=*.log*"), key=_attempt)
    texts = {file: file.read_text(errors="replace") for file in files}
    last = _attempt(files[-1]) if files else 0
    lines = [line for file in files if _attempt(file) == last for line in texts[file].splitlines()]
    reasons = [reason for line in lines if (reason := _reason(line))]
    what = reasons[-1] if reasons else f"no error in the log of try {last}"
    return "\n".join(texts.values()), what


def _attempt(file: Path) -> int:
    return int(file.name.split("=")[1].split(".")[0])


def _reason(line: str) -> str:
    """Return the error of a line of a log, which is JSON; "" for a line without one."""
    try:
        entry = json.loads(line)
        details = cast("list[dict[str, Any]]", entry["error_detail"])
        return f"{details[-1]['exc_type']}: {details[-1]['exc_value']}"
    except (ValueError, KeyError, TypeError, IndexError):
        return ""
