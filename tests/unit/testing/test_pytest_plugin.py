# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin, in a pytest of its own; and the extra `testing`, where it is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import airflow_provider_promptlayer.testing as package

EXTRA = "pip install 'airflow-provider-promptlayer[testing]'"
MISSING = "import sys\nsys.modules['{}'] = None  # as if it were not installed\n"
HEAVY = "{'aiohttp', 'airflow', 'asyncio', 'cryptography', 'pydantic', 'requests', 'trustme'}"
UNUSED = f"""
import sys

def test_it():
    assert not {HEAVY} & set(sys.modules)
"""
USED = """
def test_it(promptlayer_server):
    assert promptlayer_server.url
"""

PLUGIN_TEST = """
import json, os, urllib.request
import pytest
{override}
def test_it(promptlayer_connection, promptlayer_server):
    assert promptlayer_connection == "promptlayer_default"
    connection = json.loads(os.environ["AIRFLOW_CONN_PROMPTLAYER_DEFAULT"])
    assert connection["host"] == promptlayer_server.url
    request = urllib.request.Request(
        connection["host"] + "/workflows", headers={{"X-API-KEY": connection["password"]}}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        names = [item["name"] for item in json.load(response)["items"]]
    assert sorted(names) == {names!r}

def test_afterwards():
    assert "AIRFLOW_CONN_PROMPTLAYER_DEFAULT" not in os.environ
"""
OVERRIDE = """
from airflow_provider_promptlayer.testing import Node, Workflow

@pytest.fixture
def promptlayer_workflows():
    return [Workflow("Mine", [Node("N")])]
"""

each_package = pytest.mark.parametrize("missing", ["pydantic", "trustme"])


def python(*arguments):
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(package.__file__).parents[2]),
        # The plugin is given by name; a second time, by its entry point, would be an error.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def pytest_run(folder, test, conftest=""):
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_it.py").write_text(test)
    plugin = "airflow_provider_promptlayer.testing.pytest_plugin"
    options = ("-W", "error", "-p", plugin, "-p", "no:cacheprovider", "--rootdir", str(folder))
    return python("-m", "pytest", *options, str(folder)).stdout


@pytest.mark.parametrize(
    ("override", "names"),
    [("", ["Article pipeline", "Broken report", "Triage ticket"]), (OVERRIDE, ["Mine"])],
)
def test_the_fixtures(tmp_path, monkeypatch, override, names):
    monkeypatch.delenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", raising=False)
    output = pytest_run(tmp_path, PLUGIN_TEST.format(override=override, names=names))
    assert "2 passed" in output, output


def test_a_run_that_uses_no_fixture_imports_nothing_heavy(tmp_path):
    assert "1 passed" in pytest_run(tmp_path, UNUSED)


@each_package
def test_a_run_that_uses_no_fixture_does_not_need_the_extra(tmp_path, missing):
    assert "1 passed" in pytest_run(tmp_path, "def test_it(): pass", MISSING.format(missing))


@each_package
def test_a_fixture_says_which_extra_to_install(tmp_path, missing):
    output = pytest_run(tmp_path, USED, MISSING.format(missing))
    assert "1 error" in output
    assert f"needs {missing}: {EXTRA}" in output


@each_package
def test_an_import_says_which_extra_to_install(missing):
    statement = "from airflow_provider_promptlayer.testing import Node"
    done = python("-c", MISSING.format(missing) + statement)
    assert done.returncode == 1
    assert done.stderr.endswith(f"ImportError: {package.__name__} needs {missing}: {EXTRA}\n")


@each_package
def test_the_command_says_which_extra_to_install(missing):
    run = f"import runpy\nrunpy.run_module('{package.__name__}', run_name='__main__')"
    done = python("-c", MISSING.format(missing) + run)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {package.__name__} needs {missing}: {EXTRA}\n"
