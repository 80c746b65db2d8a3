# SPDX-License-Identifier: Apache-2.0
"""What the ETL tests start with, and whether they can."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final

import pytest

from airflow_provider_promptlayer.testing import Column, Scorecard, ScoredRow, Sheet, Table


def has_lake(config: pytest.Config) -> bool:
    """Return whether there are a PostgreSQL and what dev/requirements/etl.txt has."""
    installed = all(map(find_spec, ("moto", "pyarrow", "psycopg2")))
    return installed and bool(config.getoption("--postgres"))


TABLE, BUCKET = "Support cases", "evaluations"
CASES: Final = {
    "Billing": {"What does it cost?"},
    "Refunds": {'Is "it" refunded,\nor lost?', "When?"},
}
"""Topic → questions."""
RUNS: Final[dict[str, dict[str, Any]]] = {
    "promptlayer_evaluation_etl": {
        "table": TABLE,
        "sheet": "Nightly",
        "lake": f"s3://lake@{BUCKET}/nightly",
    },
    "promptlayer_evaluation_etl_mapped": {
        "table": TABLE,
        "topics": list(CASES),
        "lake": f"s3://lake@{BUCKET}/mapped",
    },
    "live_etl": {},
}
"""DAG → the conf of its run."""
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
        TABLE,
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
