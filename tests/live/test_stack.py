# SPDX-License-Identifier: Apache-2.0
"""The harness of the live tests: it ends all that it started, and reports what died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from dev.airflow_stack import AirflowStack, StackError
from dev.processes import Components
from dev.processor_time import seconds_used
from dev.watchdog import members

# A program that ignores a polite request, and a child of it that has left its process group.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
print("ready", flush=True)
time.sleep(600)
"""

OWNER = f"""
import sys, time
from pathlib import Path
from dev.processes import Components
components = Components({{}}, Path("."), Path(sys.argv[1]))
print(components.start("stubborn", [sys.executable, "-c", {STUBBORN!r}]).pid, flush=True)
time.sleep(600)
"""

# A program with a child that uses one CPU second and ends; the program may wait for it.
PARENT = """
import os, sys, time
if not (child := os.fork()):
    while time.process_time() < 1.0:
        pass
    os._exit(0)
os.waitid(os.P_PID, child, os.WEXITED | (0 if sys.argv[1] == "reap" else os.WNOWAIT))
print("over", flush=True)
time.sleep(600)
"""


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def components(tmp_path: Path) -> Iterator[Components]:
    with closing(Components(os.environ, tmp_path, tmp_path)) as components:
        yield components


def test_stop_ends_the_whole_session(components: Components) -> None:
    component = components.start("stubborn", [sys.executable, "-c", STUBBORN])
    wait_until(lambda: "ready" in component.log.read_text())
    assert len(members(component.pid)) == 2

    components.stop(["stubborn"], grace=0.2)

    assert members(component.pid) == []
    assert components.running() == []


def test_the_watchdog_ends_what_a_killed_owner_leaves(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout
        session = int(owner.stdout.readline())
        wait_until(lambda: "ready" in (tmp_path / "stubborn.log").read_text())
        owner.send_signal(signal.SIGKILL)

    wait_until(lambda: not members(session))


# Of the benchmarks in a live Airflow, which report CPU time on Linux alone.
@pytest.mark.skipif(not psutil.LINUX, reason="only Linux keeps the CPU time of ended children")
@pytest.mark.parametrize("notice", ["reap", "leave"])
def test_the_cpu_time_of_ended_children_is_counted(components: Components, notice: str) -> None:
    parents = [
        components.start(name, [sys.executable, "-c", PARENT, notice]) for name in ("one", "two")
    ]
    wait_until(lambda: all("over" in one.log.read_text() for one in parents))

    # The kernel tells whole ticks of 10 ms, rounded down, and a start takes its time too. A child
    # that is missed, or counted twice, makes a difference of a second.
    assert 0.9 <= seconds_used([parents[0].pid]) < 1.9
    assert 1.8 <= seconds_used([one.pid for one in parents]) < 2.8


def test_a_dead_component_is_reported_with_its_log(stack: AirflowStack) -> None:
    component = stack.start_triggerer()
    psutil.Process(component.pid).kill()
    component.popen.wait()

    with pytest.raises(StackError, match=f"{component.name} ended with exit code -9") as caught:
        stack.wait_for(lambda: False, 60, "nothing")
    assert "last lines of" in str(caught.value)

    stack.kill(component.name)
    stack.check_alive()
