# SPDX-License-Identifier: Apache-2.0
"""The writer of what is nested too deeply for Python's own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_promptlayer.api import json_body, json_steps
from airflow_provider_promptlayer.xcom import deep_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
)


@given(JSON)
def test_written_piece_by_piece_is_what_python_writes(value: Any) -> None:
    assert "".join(deep_json._written(value)) == json.dumps(value)


@pytest.mark.parametrize("opening", ["[", '{"k":'])
@pytest.mark.parametrize("depth", [1_000, json_steps.MAX_DEPTH])
def test_writes_deep_documents(opening: str, depth: int) -> None:
    text = opening * depth + "1" + ("]" if opening == "[" else "}") * depth
    value = json_body.loads(text.encode())
    assert "".join(deep_json.dumps(value).split()) == text
