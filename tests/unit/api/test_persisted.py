# SPDX-License-Identifier: Apache-2.0
"""What one process keeps for another is there, is not there, or cannot be read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_promptlayer.api.fields import Fields
from airflow_provider_promptlayer.api.persisted import (
    VERSION,
    UnreadableError,
    read_persisted,
    versioned,
)


def number(fields: Fields) -> int:
    """Build what the tests keep: a number."""
    return int(fields.text("number"))


def test_what_is_kept_comes_back() -> None:
    assert read_persisted(json.loads(json.dumps(versioned({"number": "7"}))), number) == 7


def test_nothing_is_nothing() -> None:
    assert read_persisted(None, number) is None


@pytest.mark.parametrize(
    ("kept", "found", "remedy"),
    [
        ({"__airflow_state_ref__": "s3://bucket/key"}, "state backend", "state_store_backend"),
        ({"number": "7"}, "has version None", "the same release"),
        ({"version": VERSION + 1, "number": "7"}, f"has version {VERSION + 1}", "the same release"),
        ({"version": True, "number": "7"}, "has version True", "the same release"),
        ({"version": VERSION}, "has no number", ""),
        ({"version": VERSION, "number": "seven"}, "unknown (invalid literal", ""),
        ("7", "is not a JSON object", ""),
        ([], "is not a JSON object", ""),
        (False, "is not a JSON object", ""),
        ({}, "has version None", "the same release"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_not_nothing(kept: Any, found: str, remedy: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        read_persisted(kept, number)
    assert found in caught.value.found
    assert remedy in caught.value.remedy
    assert bool(remedy) == bool(caught.value.remedy)
