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
from typing import Any, TypeAlias

from airflow_provider_promptlayer.testing.catalog import Catalog
from airflow_provider_promptlayer.testing.templates import Template, has_placeholder
from airflow_provider_promptlayer.testing.workflows import Node, OnlyIf, Workflow

_Types: TypeAlias = type | tuple[type, ...]
_TEXT_OR_NULL = (str, type(None))
_FILE_KEYS: Mapping[str, _Types] = {"workflows": list}
_WORKFLOW_KEYS: Mapping[str, _Types] = {
    "name": str,
    "nodes": list,
    "id": (int, type(None)),
    "version": int,
    "labels": list,
    "required_input_variables": (dict, type(None)),
    "commit_message": _TEXT_OR_NULL,
    "no_output_status": (int, type(None)),
}
_NODE_KEYS: Mapping[str, _Types] = {
    "name": str,
    "value": object,
    "status": str,
    "duration": (int, float),
    "depends_on": list,
    "is_output_node": (bool, type(None)),
    "error_message": _TEXT_OR_NULL,
    "raw_error_message": _TEXT_OR_NULL,
    "only_if": (dict, type(None)),
    "node_type": str,
}
_ONLY_IF_KEYS: Mapping[str, _Types] = {"node": str, "equals": object}


def load_workflows(path: str | Path) -> tuple[Workflow, ...]:
    """Read workflows from a ``.toml`` or ``.json`` file.

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
    return _parse(source.read_text(encoding="utf-8"), ".toml")


def _parse(text: str, suffix: str) -> tuple[Workflow, ...]:
    if suffix == ".toml":
        document: Any = tomllib.loads(text)
    elif suffix == ".json":
        document = json.loads(text)
    else:
        raise ValueError(f"a definition file ends in .toml or .json, not in {suffix!r}")
    _check(document, _FILE_KEYS, ("workflows",), "the file")
    workflows = tuple(
        _workflow(item, f"workflow {number}")
        for number, item in enumerate(document["workflows"], start=1)
    )
    # Only asked whether they contradict each other.
    Catalog(workflows)
    return workflows


def _workflow(item: Any, where: str) -> Workflow:
    _check(item, _WORKFLOW_KEYS, ("name", "nodes"), where)
    where = f"workflow {item['name']!r}"
    nodes = [
        _node(node, f"{where}, node {number}") for number, node in enumerate(item["nodes"], start=1)
    ]
    _check_texts(item.get("labels", []), f"{where}: labels")
    required = item.get("required_input_variables") or {}
    _check_texts([*required.values()], f"{where}: required_input_variables")
    return Workflow(**{**item, "nodes": nodes})


def _node(item: Any, where: str) -> Node:
    _check(item, _NODE_KEYS, ("name",), where)
    fields = dict(item)
    _check_texts(fields.get("depends_on", []), f"{where}: depends_on")
    if (condition := fields.get("only_if")) is not None:
        _check(condition, _ONLY_IF_KEYS, ("node", "equals"), f"{where}: only_if")
        fields["only_if"] = OnlyIf(**condition)
    node = Node(**fields)
    if has_placeholder(node.value):
        # After the plain value was found to be JSON: a template's own result is checked late.
        return Node(**{**fields, "value": Template(node.value)})
    return node


def _check(item: Any, keys: Mapping[str, _Types], required: tuple[str, ...], where: str) -> None:
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


def _takes_bool(types: _Types) -> bool:
    return bool in (types if isinstance(types, tuple) else (types,))


def _check_texts(items: list[Any], where: str) -> None:
    for item in items:
        if not isinstance(item, str):
            raise ValueError(f"{where}: should be text, not {item!r}")
