# SPDX-License-Identifier: Apache-2.0
"""Which tests are live tests, and which database they give their Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dev.postgres import PostgresServer


HERE = Path(__file__).parent
LIVE_FOLDERS = {HERE / "live", HERE / "live_postgres", HERE / "distributed"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of the folders that start a real Airflow as a live test."""
    for item in items:
        if not LIVE_FOLDERS.isdisjoint(item.path.parents):
            item.add_marker(pytest.mark.live)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --postgres."""
    parser.addoption(
        "--postgres", action="store_true", help="run the live tests on PostgreSQL, not on SQLite"
    )


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the session; a database for each that asks for one."""
    from dev.postgres import PostgresServer

    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def database_url(request: pytest.FixtureRequest) -> str:
    """Where `stack` of tests/live keeps its metadata; "" for SQLite in its home."""
    if not request.config.getoption("postgres"):
        return ""
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database("live")
