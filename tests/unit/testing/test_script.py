# SPDX-License-Identifier: Apache-2.0
"""Which requests meet the faults of a script."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from unit.testing.conftest import GREET, RESULTS, Client, get

from airflow_provider_promptlayer.testing import Reply


@pytest.fixture
def server(serve):
    return serve(GREET).server


def statuses(server, *paths):
    return [get(server, path).status_code for path in paths]


def test_in_order(server):
    first = server.script(Reply(501), times=2)
    second = server.script(Reply(502), Reply(503), times=2)
    found = statuses(server, *["/workflows"] * 7)
    assert found == [501, 501, 502, 503, 502, 503, 200]
    assert (first.used, second.used) == (2, 4)
    assert first.is_used_up
    assert second.is_used_up


def test_for_ever_until_removed(server):
    with server.script(Reply(501), times=None) as script:
        assert statuses(server, *["/workflows"] * 5) == [501] * 5
        assert not script.is_used_up
    assert statuses(server, "/workflows") == [200]
    script.remove()
    assert script.used == 5
    server.script(Reply(501))
    server.clear_scripts()
    assert statuses(server, "/workflows") == [200]


def test_selection(server):
    one, two = server.start_execution("Greet"), server.start_execution("Greet")
    server.script(Reply(501), execution_id=two, times=None)
    server.script(Reply(502), method="POST", times=None)
    server.script(Reply(503), path_prefix="/workflows/", after=1)
    query = f"{RESULTS}?return_all_outputs=true&workflow_version_execution_id="
    paths = ["/workflows", query + str(one), query + str(two), *["/workflows/Greet"] * 3]
    assert statuses(server, *paths) == [200, 200, 501, 200, 503, 200]
    assert Client(server).run().status == 502


def test_a_function_decides(server):
    script = server.script(
        lambda request: Reply(501) if request.query.get("page") == "1" else None, times=2
    )
    server.script(Reply(502), times=None, path_prefix="/workflows/")
    paths = ["?page=2", "?page=1", "/Greet", "?page=1", "?page=1"]
    found = statuses(server, *(f"/workflows{path}" for path in paths))
    assert found == [200, 501, 502, 501, 200]
    assert script.used == 2


def test_before_the_key_is_checked(server):
    server.script(Reply(502))
    assert requests.get(server.url, timeout=60).status_code == 502
    assert not server.requests[0].key_was_right


def test_from_many_threads_each_fault_is_used_once(server):
    script = server.script(Reply(501), times=100)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: get(server).status_code, range(150)))
    assert (found.count(501), found.count(200), script.used) == (100, 50, 100)
