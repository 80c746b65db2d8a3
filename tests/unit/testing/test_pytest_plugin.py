# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin, in a pytest of its own, with and without the extra ``testing``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import airflow_provider_promptlayer.testing as package

TEST_OF_A_USER = """
import json, os, urllib.request

def test_it(promptlayer_connection, promptlayer_server):
    assert promptlayer_connection == "promptlayer_default"
    connection = json.loads(os.environ["AIRFLOW_CONN_PROMPTLAYER_DEFAULT"])
    assert connection["host"] == promptlayer_server.url
    request = urllib.request.Request(
        connection["host"] + "/workflows", headers={"X-API-KEY": connection["password"]}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        names = [item["name"] for item in json.load(response)["items"]]
    assert sorted(names) == NAMES

def test_afterwards():
    assert "AIRFLOW_CONN_PROMPTLAYER_DEFAULT" not in os.environ

NAMES = ["Article pipeline", "Broken report", "Triage ticket"]
"""
OVERRIDE = """
import pytest
from airflow_provider_promptlayer.testing import Node, Workflow

@pytest.fixture
def promptlayer_workflows():
    return [Workflow("Mine", [Node("N")])]

NAMES = ["Mine"]
"""
HEAVY = "{'aiohttp', 'airflow', 'asyncio', 'cryptography', 'pydantic', 'requests', 'trustme'}"
NOTHING_HEAVY = f"""
import sys

def test_it():
    assert not {HEAVY} & set(sys.modules)
"""
WITHOUT_THE_EXTRA = """
import sys
import pytest

sys.modules["{missing}"] = None  # as if it were not installed

def test_without_a_fixture():
    pass

def test_with_a_fixture(promptlayer_server):
    pass

def test_import():
    with pytest.raises(ImportError, match="{missing}"):
        from airflow_provider_promptlayer.testing import Node
"""


def pytest_output(folder, *modules):
    for number, text in enumerate(modules):
        (folder / f"test_{number}.py").write_text(text)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(package.__file__).parents[2]),
        # The plugin is given by name; a second time, by its entry point, would be an error.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    environment.pop("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", None)
    plugin = "airflow_provider_promptlayer.testing.pytest_plugin"
    options = ("-W", "error", "-p", plugin, "-p", "no:cacheprovider", "--rootdir", str(folder))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


def test_the_fixtures(tmp_path):
    output = pytest_output(tmp_path, TEST_OF_A_USER, TEST_OF_A_USER + OVERRIDE)
    assert "4 passed" in output, output


def test_a_run_that_uses_no_fixture_imports_nothing_heavy(tmp_path):
    assert "1 passed" in pytest_output(tmp_path, NOTHING_HEAVY)


@pytest.mark.parametrize("missing", ["pydantic", "trustme"])
def test_a_fixture_and_an_import_say_which_extra_to_install(tmp_path, missing):
    output = pytest_output(tmp_path, WITHOUT_THE_EXTRA.format(missing=missing))
    assert "2 passed, 1 error" in output, output
    extra = "pip install 'airflow-provider-promptlayer[testing]'"
    assert f"{package.__name__} needs {missing}: {extra}" in output
