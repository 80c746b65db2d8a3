# SPDX-License-Identifier: Apache-2.0
"""Placeholders in the values of a definition file: ``"A summary of {topic}"``.

The rule here: a placeholder is a name to look up and nothing else. No attributes, no indexes, no
format specifications, so neither a definition nor an input can reach anything but the values.
"""

from __future__ import annotations

import json
import re
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_promptlayer.testing.workflows.model import JsonValue

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class Template:
    """A node's value with ``{name}`` placeholders in its strings, at any depth.

    - ``name`` is everything between the braces: an input variable or, if there is none of that
      name, a node this one depends on, directly or not (``{Draft reply}`` is fine).
    - A string that is one placeholder and no more becomes the value itself, of whatever type.
    - Inside a longer string, text is put in as it is and any other value as JSON.
    - Braces around anything else stay as they are, so JSON text needs no escaping and a variable
      that was not given is visible in the output.
    - What was put in is not looked at again. Keys of objects are not looked at.
    """

    value: JsonValue

    def __call__(
        self, inputs: Mapping[str, JsonValue], values: Mapping[str, JsonValue]
    ) -> JsonValue:
        """Give the value with its placeholders filled in."""
        return _fill(self.value, ChainMap(dict(inputs), dict(values)))


def has_placeholder(value: JsonValue) -> bool:
    """Tell whether ``Template(value)`` could differ from ``value``."""
    match value:
        case str():
            return _PLACEHOLDER.search(value) is not None
        case list():
            return any(has_placeholder(item) for item in value)
        case dict():
            return any(has_placeholder(item) for item in value.values())
    return False


def _fill(value: JsonValue, names: Mapping[str, JsonValue]) -> JsonValue:
    match value:
        case str():
            return _fill_text(value, names)
        case list():
            return [_fill(item, names) for item in value]
        case dict():
            return {key: _fill(item, names) for key, item in value.items()}
    return value


def _fill_text(text: str, names: Mapping[str, JsonValue]) -> JsonValue:
    def replacement(match: re.Match[str]) -> str:
        if match[1] not in names:
            return match[0]
        found = names[match[1]]
        return found if isinstance(found, str) else json.dumps(found)

    whole = _PLACEHOLDER.fullmatch(text)
    if whole and whole[1] in names:
        return names[whole[1]]
    return _PLACEHOLDER.sub(replacement, text)
