# SPDX-License-Identifier: Apache-2.0
"""Tables and reports from a file, and the built-in ones, which are such a file too.

The rule here is that of ``definitions.py``. The keys are those of ``Table``, ``Sheet``, ``Column``,
``Scorecard``, ``Criterion``, ``ScoredRow`` and ``Report``; ``builtin_evaluations.toml`` shows them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any, NamedTuple, TypeVar

from airflow_provider_promptlayer.testing.definition_keys import TEXT_OR_NULL, Types, check_keys
from airflow_provider_promptlayer.testing.evaluations import (
    Column,
    Criterion,
    Report,
    Scorecard,
    ScoredRow,
    Sheet,
    Table,
)

T = TypeVar("T")

_NUMBER = (int, float)
_NUMBER_OR_NULL = (int, float, type(None))
_INTEGER_OR_NULL = (int, type(None))
_OBJECT_OR_NULL = (dict, type(None))

_TABLE_KEYS: Mapping[str, Types] = {"title": str, "sheets": list, "id": str}
_SHEET_KEYS: Mapping[str, Types] = {
    "title": str,
    "columns": list,
    "row_count": int,
    "id": str,
    "scorecard": _OBJECT_OR_NULL,
    "confirm_above": _INTEGER_OR_NULL,
    "status_lag": _NUMBER,
    "rows_paging": str,
}
_COLUMN_KEYS: Mapping[str, Types] = {
    "title": str,
    "id": str,
    "type": str,
    "cell_duration": _NUMBER,
    "failing_rows": list,
    "is_stale": bool,
}
_SCORECARD_KEYS: Mapping[str, Types] = {
    "name": str,
    "criteria": list,
    "rows": list,
    "id": str,
    "verdict": TEXT_OR_NULL,
    "score": _NUMBER_OR_NULL,
    "drift_summary": _OBJECT_OR_NULL,
    "queue_duration": _NUMBER,
    "duration": _NUMBER,
    "status": str,
    "error_summary": TEXT_OR_NULL,
}
_CRITERION_KEYS: Mapping[str, Types] = {
    "title": str,
    "id": str,
    "primitive_type": str,
    "verdict": TEXT_OR_NULL,
    "score": _NUMBER_OR_NULL,
    "error_summary": TEXT_OR_NULL,
}
_ROW_KEYS: Mapping[str, Types] = {
    "verdict": TEXT_OR_NULL,
    "score": _NUMBER_OR_NULL,
    "error_summary": TEXT_OR_NULL,
    "reasons": _OBJECT_OR_NULL,
}
_REPORT_KEYS: Mapping[str, Types] = {
    "name": str,
    "id": _INTEGER_OR_NULL,
    "is_blueprint": bool,
    "cells": int,
    "failed_cells": int,
    "duration": _NUMBER,
    "score": _NUMBER_OR_NULL,
    "column_scores": _OBJECT_OR_NULL,
    "score_calculation_error": TEXT_OR_NULL,
    "has_dynamic_dataset": bool,
}


class Evaluations(NamedTuple):
    """The tables and reports of a file."""

    tables: tuple[Table, ...] = ()
    reports: tuple[Report, ...] = ()


def builtin_evaluations() -> Evaluations:
    """Give the tables and reports a server has when it is given none."""
    source = files("airflow_provider_promptlayer.testing") / "builtin_evaluations.toml"
    return parse_evaluations(tomllib.loads(source.read_text(encoding="utf-8")))


def parse_evaluations(document: Mapping[str, Any]) -> Evaluations:
    """Read the ``tables`` and ``reports`` of a file.

    Raises:
        ValueError: with one line that says where in the file the mistake is.

    """
    return Evaluations(
        _each(document, "tables", "the file", _table), _each(document, "reports", "", _report)
    )


def _table(item: Any, where: str) -> Table:
    check_keys(item, _TABLE_KEYS, ("title",), where)
    return Table(**{**item, "sheets": _each(item, "sheets", f"table {item['title']!r}", _sheet)})


def _sheet(item: Any, where: str) -> Sheet:
    check_keys(item, _SHEET_KEYS, ("title",), where)
    fields = {**item, "columns": _each(item, "columns", f"sheet {item['title']!r}", _column)}
    if item.get("scorecard") is not None:
        fields["scorecard"] = _scorecard(item["scorecard"], f"{where}: scorecard")
    return Sheet(**fields)


def _column(item: Any, where: str) -> Column:
    check_keys(item, _COLUMN_KEYS, ("title",), where)
    return Column(**item)


def _scorecard(item: Any, where: str) -> Scorecard:
    check_keys(item, _SCORECARD_KEYS, ("name",), where)
    return Scorecard(
        **{
            **item,
            "criteria": _each(item, "criteria", where, _criterion),
            "rows": _each(item, "rows", where, _row),
        }
    )


def _criterion(item: Any, where: str) -> Criterion:
    check_keys(item, _CRITERION_KEYS, ("title",), where)
    return Criterion(**item)


def _row(item: Any, where: str) -> ScoredRow:
    check_keys(item, _ROW_KEYS, (), where)
    return ScoredRow(**item)


def _report(item: Any, where: str) -> Report:
    check_keys(item, _REPORT_KEYS, ("name",), where)
    return Report(**item)


def _each(
    item: Mapping[str, Any], key: str, where: str, parse: Callable[[Any, str], T]
) -> tuple[T, ...]:
    """Parse each entry of a list, telling it where it is: ``sheet 'Answers', columns 2``."""
    prefix = f"{where}, " if where else ""
    return tuple(
        parse(entry, f"{prefix}{key} {number}")
        for number, entry in enumerate(item.get(key, ()), start=1)
    )
