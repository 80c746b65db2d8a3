# SPDX-License-Identifier: Apache-2.0
"""Workflows, tables and reports from a file, TOML or JSON; the built-in ones are such files too.

The keys are the arguments of ``Workflow``, ``Node``, ``Table`` and so on;
``builtin_workflows.toml`` shows them in use. Types are checked strictly, and a misspelled key is
an error. Strings in a node's ``value`` may hold placeholders: see ``Template``.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from .evaluations.model import Report, Table
from .evaluations.request_logs import RequestLog
from .releases.prompts import Prompt
from .workflows.catalog import Catalog
from .workflows.model import Node, Template, Workflow, has_placeholder

_WORDS = {"missing": "the key is missing", "unexpected_keyword_argument": "unknown key"}


class Evaluations(NamedTuple):
    """The tables, reports, request logs and prompt templates of a file."""

    tables: tuple[Table, ...] = ()
    reports: tuple[Report, ...] = ()
    request_logs: tuple[RequestLog, ...] = ()
    prompts: tuple[Prompt, ...] = ()


class Definitions(NamedTuple):
    """What a file defines; ``()`` for what it does not mention."""

    workflows: tuple[Workflow, ...]
    evaluations: Evaluations


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    workflows: list[Workflow] = []
    tables: list[Table] = []
    reports: list[Report] = []
    request_logs: list[RequestLog] = []
    prompts: list[Prompt] = []


def load_workflows(path: str | Path) -> tuple[Workflow, ...]:
    """Read the workflows of a ``.toml`` or ``.json`` file: see ``load_definitions``."""
    return load_definitions(path).workflows


def load_definitions(path: str | Path) -> Definitions:
    """Read a ``.toml`` or ``.json`` file of workflows, and of tables, reports and request logs.

    :raises OSError: it cannot be read.
    :raises ValueError: with one line that says where in the file the mistake is.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".toml":
            return _parse(tomllib.loads(text))
        if path.suffix == ".json":
            return _parse(json.loads(text))
        raise ValueError(f"a definition file ends in .toml or .json, not in {path.suffix!r}")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


@cache
def builtin_workflows() -> tuple[Workflow, ...]:
    """Return the workflows that a server has by default."""
    return _parse(_builtin("builtin_workflows.toml")).workflows


@cache
def builtin_evaluations() -> Evaluations:
    """Return the tables, reports, request logs and prompts that a server has by default."""
    return _parse(_builtin("builtin_evaluations.toml")).evaluations


def _builtin(name: str) -> dict[str, Any]:
    source = files("airflow_provider_promptlayer.testing") / name
    return tomllib.loads(source.read_text(encoding="utf-8"))


def _parse(document: Any) -> Definitions:
    if document == {}:
        raise ValueError("the file defines nothing")
    try:
        # As JSON, since pydantic takes no dictionary for a dataclass when it is strict.
        parsed = _File.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise ValueError("; ".join(map(_mistake, error.errors()))) from None
    # Finds contradictions between workflows.
    Catalog(parsed.workflows)
    workflows = (
        replace(workflow, nodes=[_with_template(node) for node in workflow.nodes])
        for workflow in parsed.workflows
    )
    evaluations = Evaluations(
        tuple(parsed.tables),
        tuple(parsed.reports),
        tuple(parsed.request_logs),
        tuple(parsed.prompts),
    )
    return Definitions(tuple(workflows), evaluations)


def _mistake(error: Any) -> str:
    """Word a mistake: ``workflows[0].nodes[1].durration: unknown key``."""
    if error["type"] == "value_error":
        # A definition that refuses itself says which one it is.
        return str(error["ctx"]["error"])
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    return f"{where.removeprefix('.') or 'the file'}: {_WORDS.get(error['type'], error['msg'])}"


def _with_template(node: Node) -> Node:
    return replace(node, value=Template(node.value)) if has_placeholder(node.value) else node
