# SPDX-License-Identifier: Apache-2.0
"""Which database the live tests give their Airflow: SQLite, or a private PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dev.postgres import PostgresServer


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
