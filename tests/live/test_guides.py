# SPDX-License-Identifier: Apache-2.0
"""The DAGs of the quick start and of a guide, tested as the guide about tests says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dev.airflow_config import AIRFLOW_3

DOCS = Path(__file__).parents[2] / "docs"


def python_of(page: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


# The pages import from airflow.sdk, and say in a comment what Airflow 2 imports.
@pytest.mark.skipif(not AIRFLOW_3, reason="the pages show code for Airflow 3")
def test_the_tests_of_the_guide_pass(tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    dags.mkdir()
    (article,) = python_of("quickstart.md")
    (nightly,) = python_of("guides/nightly-evaluation.md")
    (dags / "article.py").write_text(article)
    (dags / "nightly_dag.py").write_text(nightly)
    tests = python_of("guides/test-your-dags.md")
    assert len(tests) == 2
    for number, code in enumerate(tests):
        (tmp_path / f"test_guide_{number}.py").write_text(code)
    env = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": os.pathsep.join([str(DOCS.parent), str(dags)]),
    }

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    run("airflow", "db", "migrate")
    assert "2 passed" in run("pytest", "-q", "--rootdir", str(tmp_path))
