# SPDX-License-Identifier: Apache-2.0
"""Workflows from a file, TOML or JSON, and the built-in ones, which are such a file too.

The rule here: a file is checked key by key, so that a misspelled one is an error and not a default.
The keys are those of ``Workflow`` and ``Node``; ``builtin_workflows.toml`` shows them at work.
Strings in a node's ``value`` may hold placeholders: see ``Template``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from airflow_provider_promptlayer.testing.catalog import Catalog
from airflow_provider_promptlayer.testing.definition_keys import (
    TEXT_OR_NULL,
    Types,
    check_keys,
    check_texts,
)
from airflow_provider_promptlayer.testing.evaluation_definitions import (
    Evaluations,
    parse_evaluations,
)
from airflow_provider_promptlayer.testing.templates import Template, has_placeholder
from airflow_provider_promptlayer.testing.workflows import Node, OnlyIf, Workflow

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
