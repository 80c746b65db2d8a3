# SPDX-License-Identifier: Apache-2.0
"""What the ETL tests start with: a table at PromptLayer, and a warehouse in PostgreSQL."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from itertools import product
from typing import Any, Final

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from airflow_provider_promptlayer.testing import Column, Scorecard, ScoredRow, Sheet, Table


def has_lake(config: pytest.Config) -> bool:
    """Return whether there are a PostgreSQL and what dev/requirements/etl.txt has."""
    installed = all(map(find_spec, ("moto", "pyarrow", "psycopg2")))
    return installed and bool(config.getoption("--postgres"))


TITLES: Final = ("Nightly", "Billing", "Refunds", "Crashes")
"""Of the sheets: one for each run."""
FIRST: Final = "Is it the first?"
"""In each of the sheets from the start."""


def support_cases() -> Table:
    """Return the table of the ETL tests."""
    columns = [
        Column("Question", type="TEXT"),
        Column("Expected", type="TEXT"),
        Column("Answer", cell_duration=0.01),
    ]
    return Table(
        "Support cases",
        [
            Sheet(
                title,
                columns,
                rows=[{"Question": FIRST}],
                scorecard=Scorecard(title, rows=[ScoredRow(score=0.8)], score=0.9),
            )
            for title in TITLES
        ],
    )


class Warehouse:
    """A database with the tables that ``evaluation_etl.py`` reads and writes."""

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

    def answers(self) -> dict[str, tuple[Any, ...]]:
        """Return question → answer, verdict and score."""
        with self._engine.connect() as connection:
            found = connection.execute(text("SELECT question, answer, verdict, score FROM answers"))
            return {row[0]: tuple(row[1:]) for row in found}

    def _execute(self, sql: str, **parameters: Any) -> None:
        with self._engine.begin() as connection:
            connection.execute(text(sql), parameters)
