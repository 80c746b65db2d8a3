# SPDX-License-Identifier: Apache-2.0
"""The command ``python -m airflow_provider_promptlayer.testing``, as users run it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

import airflow_provider_promptlayer.testing as package
from airflow_provider_promptlayer.testing.__main__ import main

ROOT = Path(package.__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
COMMAND = [sys.executable, "-W", "error", "-m", "airflow_provider_promptlayer.testing"]


@contextmanager
def running(*options):
    """The command, and its six lines of output."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*COMMAND, "--port", "0", *options], env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdout
        try:
            yield process, [process.stdout.readline() for _ in range(6)]
        finally:
            if process.poll() is None:
                process.kill()


def test_it_says_where_it_is_and_stops_cleanly():
    with running("--api-key", "a'b") as (process, (where, *lines, export)):
        assert "a'b" in where
        workflows, prompts, tables, reports = lines
        assert "'Article pipeline' (" in workflows
        assert "'Support reply' (prod: 1, staging: 2)" in prompts
        assert "'Nightly evaluation' (1)" in reports
        assert "'Support answers' (5c0a1e00-0000-4000-8000-000000000001): " in tables
        assert "'Regression set' (5c0a1e00-0000-4000-8000-000000000011), " in tables
        (assignment,) = shlex.split(export)[1:]
        name, _, value = assignment.partition("=")
        connection = json.loads(value)
        assert name == "AIRFLOW_CONN_PROMPTLAYER_DEFAULT"
        url = connection["host"]
        assert url in where
        request = urllib.request.Request(f"{url}/workflows", headers={"X-API-KEY": "a'b"})
        with urllib.request.urlopen(request, timeout=60) as response:
            assert json.load(response)["total"] == 3

        process.send_signal(signal.SIGINT)
        output, log = process.communicate(timeout=60)
        assert output == ""
        assert re.fullmatch(r"\d\d:\d\d:\d\d GET /workflows 200\n", log)
        assert process.returncode == 0


def test_the_ready_file_appears_whole_and_goes_with_the_server(tmp_path):
    definitions = tmp_path / "mine.toml"
    definitions.write_text('[[workflows]]\nname = "Mine"\nnodes = [{ name = "N" }]\n')
    ready = tmp_path / "ready.json"
    options = ("--ready-file", str(ready), "--workflows", str(definitions))
    with running(*options) as (process, (where, workflows, *nothing, _)):
        assert workflows == "Workflows: 'Mine'\n"
        assert nothing == ["Prompts: none\n", "Tables: none\n", "Reports: none\n"]
        deadline = time.monotonic() + 60
        while not ready.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        # Read once: a file that exists must be complete.
        content = json.loads(ready.read_text())
        assert set(tmp_path.iterdir()) == {definitions, ready}
        assert set(content) == {"url", "api_key", "pid"}
        assert content["url"] in where
        assert (content["api_key"], content["pid"]) == ("pl_local_key", process.pid)
        process.terminate()
        assert process.wait(timeout=60) == 0
    assert list(tmp_path.iterdir()) == [definitions]


def test_a_mistake_ends_it_with_one_line_and_exit_code_1(tmp_path, capsys):
    (tmp_path / "bad.toml").write_text("[[workflows")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for options, message in [
            (("--workflows", str(tmp_path / "bad.toml")), "bad.toml"),
            (("--workflows", str(tmp_path / "absent.toml")), "absent.toml"),
            (("--host", "0.0.0.0"), "only listens on loopback"),
            (("--port", str(taken.getsockname()[1])), "address already in use"),
            (("--port", "99999"), "port"),
        ]:
            assert main(options) == 1
            output = capsys.readouterr()
            assert output.out == ""
            assert output.err.startswith("error: ")
            assert output.err.count("\n") == 1
            assert message in output.err


@pytest.mark.parametrize("missing", ["pydantic", "trustme"])
def test_it_says_which_extra_to_install(missing, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)  # as if it were not installed
    assert main(["--port", "0"]) == 1
    extra = "pip install 'airflow-provider-promptlayer[testing]'"
    assert capsys.readouterr() == ("", f"error: {package.__name__} needs {missing}: {extra}\n")
