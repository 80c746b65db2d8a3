# SPDX-License-Identifier: Apache-2.0
"""Workflows from a file, TOML or JSON, and the built-in ones, which are such a file too.

The rule here: a file is checked key by key, so that a misspelled one is an error and not a default.
The keys are those of ``Workflow`` and ``Node``; ``builtin_workflows.toml`` shows them at work.
Strings in a node's ``value`` may hold placeholders: see ``Template``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

from airflow_provider_promptlayer.testing.evaluations.model import (
    Column,
    Criterion,
    Report,
    Scorecard,
    ScoredRow,
    Sheet,
    Table,
)
from airflow_provider_promptlayer.testing.workflows.catalog import Catalog
from airflow_provider_promptlayer.testing.workflows.model import Node, OnlyIf, Workflow
from airflow_provider_promptlayer.testing.workflows.templates import Template, has_placeholder

Types: TypeAlias = type | tuple[type, ...]
TEXT_OR_NULL = (str, type(None))


def check_keys(item: Any, keys: Mapping[str, Types], required: tuple[str, ...], where: str) -> None:
    """Refuse an object of a file with a key too many or too few, or of another type.

    Raises:
        ValueError: with one line that names it.

    """
    if not isinstance(item, dict):
        raise ValueError(f"{where}: should be a table of keys, not {item!r}")
    for name in required:
        if name not in item:
            raise ValueError(f"{where}: {name!r} is missing")
    for name, value in item.items():
        if name not in keys:
            raise ValueError(f"{where}: unknown key {name!r}; known are {', '.join(keys)}")
        types = keys[name]
        # To Python true is an integer; in a file it is a mistake.
        is_stray_boolean = (
            isinstance(value, bool) and types is not object and not _takes_bool(types)
        )
        if is_stray_boolean or not isinstance(value, types):
            raise ValueError(f"{where}: {name!r} cannot be {value!r}")


def _takes_bool(types: Types) -> bool:
    return bool in (types if isinstance(types, tuple) else (types,))


def check_texts(items: list[Any], where: str) -> None:
    """Refuse a list of a file that has something but text.

    Raises:
        ValueError: with one line that names it.

    """
    for item in items:
        if not isinstance(item, str):
            raise ValueError(f"{where}: should be text, not {item!r}")


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


_FILE_KEYS: Mapping[str, Types] = {"workflows": list, "tables": list, "reports": list}
_WORKFLOW_KEYS: Mapping[str, Types] = {
    "name": str,
    "nodes": list,
    "id": (int, type(None)),
    "version": int,
    "labels": list,
    "required_input_variables": (dict, type(None)),
    "commit_message": TEXT_OR_NULL,
    "no_output_status": (int, type(None)),
}
_NODE_KEYS: Mapping[str, Types] = {
    "name": str,
    "value": object,
    "status": str,
    "duration": (int, float),
    "depends_on": list,
    "is_output_node": (bool, type(None)),
    "error_message": TEXT_OR_NULL,
    "raw_error_message": TEXT_OR_NULL,
    "only_if": (dict, type(None)),
    "node_type": str,
}
_ONLY_IF_KEYS: Mapping[str, Types] = {"node": str, "equals": object}


class Definitions(NamedTuple):
    """What a file defines; ``()`` for what it says nothing of."""

    workflows: tuple[Workflow, ...]
    evaluations: Evaluations


def load_workflows(path: str | Path) -> tuple[Workflow, ...]:
    """Read the workflows of a ``.toml`` or ``.json`` file.

    Raises:
        OSError: it cannot be read.
        ValueError: with one line that says where in the file the mistake is.

    """
    return load_definitions(path).workflows


def load_definitions(path: str | Path) -> Definitions:
    """Read a ``.toml`` or ``.json`` file of workflows, and of tables and reports if it has any.

    Raises:
        OSError: it cannot be read.
        ValueError: with one line that says where in the file the mistake is.

    """
    path = Path(path)
    try:
        return _parse(path.read_text(encoding="utf-8"), path.suffix)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def builtin_workflows() -> tuple[Workflow, ...]:
    """Give the workflows a server has when it is given none."""
    source = files("airflow_provider_promptlayer.testing") / "builtin_workflows.toml"
    return _parse(source.read_text(encoding="utf-8"), ".toml").workflows


def _parse(text: str, suffix: str) -> Definitions:
    if suffix == ".toml":
        document: Any = tomllib.loads(text)
    elif suffix == ".json":
        document = json.loads(text)
    else:
        raise ValueError(f"a definition file ends in .toml or .json, not in {suffix!r}")
    check_keys(document, _FILE_KEYS, ("workflows",), "the file")
    workflows = tuple(
        _workflow(item, f"workflow {number}")
        for number, item in enumerate(document["workflows"], start=1)
    )
    # Only asked whether they contradict each other.
    Catalog(workflows)
    return Definitions(workflows, parse_evaluations(document))


def _workflow(item: Any, where: str) -> Workflow:
    check_keys(item, _WORKFLOW_KEYS, ("name", "nodes"), where)
    where = f"workflow {item['name']!r}"
    nodes = [
        _node(node, f"{where}, node {number}") for number, node in enumerate(item["nodes"], start=1)
    ]
    check_texts(item.get("labels", []), f"{where}: labels")
    required = item.get("required_input_variables") or {}
    check_texts([*required.values()], f"{where}: required_input_variables")
    return Workflow(**{**item, "nodes": nodes})


def _node(item: Any, where: str) -> Node:
    check_keys(item, _NODE_KEYS, ("name",), where)
    fields = dict(item)
    check_texts(fields.get("depends_on", []), f"{where}: depends_on")
    if (condition := fields.get("only_if")) is not None:
        check_keys(condition, _ONLY_IF_KEYS, ("node", "equals"), f"{where}: only_if")
        fields["only_if"] = OnlyIf(**condition)
    node = Node(**fields)
    if has_placeholder(node.value):
        # After the plain value was found to be JSON: a template's own result is checked late.
        return Node(**{**fields, "value": Template(node.value)})
    return node
