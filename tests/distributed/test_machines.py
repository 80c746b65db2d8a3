# SPDX-License-Identifier: Apache-2.0
"""The example DAGs and each kind of work, on two machines whose cables are cut for a while.

Every number of the local PromptLayer is held against Airflow's states.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from distributed.everything import Everything
from live.runs import SECONDS, Run, begin, watch
from support.clocks import Clock

from dev.cluster import SERVERS, Cluster

EXAMPLES = {
    "promptlayer_run_and_use_output": {"input_variables": {"topic": "snow"}},
    "promptlayer_fan_out": {},
    "promptlayer_batch": {},
    "promptlayer_branch_on_output": {},
    "promptlayer_taskflow": {},
    "promptlayer_hook_in_task": {},
    "promptlayer_run_evaluate_promote": {},
}
CUT_SECONDS = 30.0
CUTS = {
    "airflow": ["airflow"],
    "promptlayer": ["promptlayer"],
    "redis": ["redis"],
    "all": list(SERVERS),
}
"""Name, also of a sheet → the servers that the machine cannot reach."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def whole(cluster: Cluster, clock: Clock, folder: Path) -> tuple[dict[str, Run], Everything]:
    """The example DAGs and all kinds of work at the same time, and nothing is cut."""
    runs = begin(cluster.stack, EXAMPLES)
    everything = Everything.begin(cluster, clock, "whole", folder)
    everything.finish()
    watch(cluster.stack, [*runs.values()])
    return runs, everything


def test_the_example_dags(whole: tuple[dict[str, Run], Everything], cluster: Cluster) -> None:
    runs, _ = whole
    assert {dag: run.state for dag, run in runs.items()} == dict.fromkeys(runs, "success")
    posts = cluster.promptlayer.posts_by_origin()
    # The runs of `hook_in_task` do not say which task they are of.
    assert {count for origin, count in posts.items() if origin.airflow_dag_id} == {1}


def test_each_kind_of_work(whole: tuple[dict[str, Run], Everything]) -> None:
    _, everything = whole
    assert set(everything.run.final.values()) == {"success"}
    everything.check()


@pytest.mark.parametrize("name", list(CUTS))
def test_a_machine_is_cut_off(cluster: Cluster, clock: Clock, folder: Path, name: str) -> None:
    """0 doubled, 0 lost, 0 false successes, 0 stuck."""
    if cluster.network.why_not:
        pytest.skip(cluster.network.why_not)
    everything = Everything.begin(cluster, clock, name, folder)
    machine = everything.machine_at_work()
    with cluster.network.cut(machine, *CUTS[name]):
        end = time.monotonic() + CUT_SECONDS
        cluster.stack.wait_for(lambda: time.monotonic() > end, SECONDS, "the cable to be mended")
    everything.finish()
    everything.check()
