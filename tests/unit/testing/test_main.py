# SPDX-License-Identifier: Apache-2.0
"""The command, in a process of its own, as users run it."""

from __future__ import annotations

import json
import os
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

ROOT = Path(package.__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
COMMAND = [sys.executable, "-W", "error", "-m", "airflow_provider_promptlayer.testing"]


@contextmanager
def running(*options):
    """The command, and its three lines of output."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*COMMAND, *options], env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdout
        try:
            yield process, [process.stdout.readline() for _ in range(3)]
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_stops_cleanly(number):
    with running("--port", "0", "--api-key", "a'b") as (process, (where, workflows, export)):
        assert "a'b" in where
        assert "'Article pipeline'" in workflows
        (assignment,) = shlex.split(export)[1:]
        name, _, value = assignment.partition("=")
        connection = json.loads(value)
        assert name == "AIRFLOW_CONN_PROMPTLAYER_DEFAULT"
        url = connection["host"]
        assert url in where
        request = urllib.request.Request(f"{url}/workflows", headers={"X-API-KEY": "a'b"})
        with urllib.request.urlopen(request, timeout=60) as response:
            assert json.load(response)["total"] == 3

        process.send_signal(number)
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == 0


def test_the_ready_file_appears_whole_and_goes_with_the_server(tmp_path):
    ready = tmp_path / "ready.json"
    with running("--port", "0", "--ready-file", str(ready)) as (process, (where, _, _)):
        deadline = time.monotonic() + 60
        while not ready.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        # No second look: a file that exists must be complete.
        content = json.loads(ready.read_text())
        assert list(tmp_path.iterdir()) == [ready]
        assert set(content) == {"url", "api_key", "pid"}
        assert content["url"] in where
        assert (content["api_key"], content["pid"]) == ("pl_local_key", process.pid)
        process.terminate()
        process.wait(timeout=60)
    assert list(tmp_path.iterdir()) == []


def test_definitions_from_a_file(tmp_path):
    definitions = tmp_path / "mine.toml"
    definitions.write_text('[[workflows]]\nname = "Mine"\nnodes = [{ name = "N" }]\n')
    options = ("--port", "0", "--workflows", str(definitions))
    with running(*options) as (_, (_, workflows, _)):
        assert workflows == "Workflows: 'Mine'\n"


def run_to_its_end(*options):
    return subprocess.run(
        [*COMMAND, *options],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_mistakes_end_with_one_line_and_exit_code_1(tmp_path):
    (tmp_path / "bad.toml").write_text("[[workflows")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for options, message in [
            (("--workflows", str(tmp_path / "bad.toml")), "bad.toml"),
            (("--workflows", str(tmp_path / "absent.toml")), "absent.toml"),
            (("--host", "0.0.0.0"), "only listens on loopback"),
            (("--port", str(taken.getsockname()[1])), "address already in use"),
            (("--port", "99999"), "port"),
        ]:
            done = run_to_its_end(*options)
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.startswith("error: ")
            assert done.stderr.count("\n") == 1
            assert message in done.stderr
