# SPDX-License-Identifier: Apache-2.0
"""The warehouse of `evaluation_etl.py`: cases and answers in a database of PostgreSQL."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool


class Warehouse:
    """The tables that the DAG reads and writes, in an empty database."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._engine = create_engine(self._url, poolclass=NullPool)
        for table in (
            "cases (question text, expected text, topic text, asked_on date)",
            "answers (question text PRIMARY KEY, answer text, verdict text, score real)",
        ):
            self._execute(f"CREATE TABLE {table}")

    @property
    def airflow_connection_json(self) -> str:
        """An Airflow connection of type `postgres` that leads here."""
        return json.dumps(
            {
                "conn_type": "postgres",
                "host": self._url.host,
                "port": self._url.port,
                "login": self._url.username,
                "password": self._url.password,
                "schema": self._url.database,
            }
        )

    def add_cases(self, topic: str, *questions: str) -> None:
        """Add cases of today and, since a run may begin after midnight, of tomorrow."""
        today = datetime.now(UTC).date()
        for question, day in product(questions, (today, today + timedelta(days=1))):
            self._execute(
                "INSERT INTO cases VALUES (:question, 'Yes', :topic, :day)",
                question=question,
                topic=topic,
                day=day,
            )

    def answers(self) -> list[tuple[Any, ...]]:
        """Return question, answer, verdict and score of each row, by the question."""
        sql = "SELECT question, answer, verdict, score FROM answers ORDER BY question"
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql))]

    def _execute(self, sql: str, **parameters: Any) -> None:
        with self._engine.begin() as connection:
            connection.execute(text(sql), parameters)
