# SPDX-License-Identifier: Apache-2.0
"""Tests that crash and restart parts of a real Airflow: on PostgreSQL, as in production."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder as a live test."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.live)
