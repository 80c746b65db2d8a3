# SPDX-License-Identifier: Apache-2.0
"""The private PostgreSQL itself: tests kill it, and what it has acknowledged must be there then."""

from __future__ import annotations

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from dev.postgres import PostgresServer


def test_a_kill_loses_no_commit() -> None:
    with PostgresServer() as server:
        engine = create_engine(server.new_database("kept"), poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE kept (number int)"))
        for number in range(3):
            with engine.begin() as connection:
                connection.execute(text("INSERT INTO kept VALUES (:number)"), {"number": number})
            server.kill()
            server.start()
        with engine.connect() as connection:
            found = connection.execute(text("SELECT number FROM kept ORDER BY number"))
            assert [row[0] for row in found] == [0, 1, 2]
