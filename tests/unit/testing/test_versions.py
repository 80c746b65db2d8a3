# SPDX-License-Identifier: Apache-2.0
"""Saved versions of a sheet, and their scores."""

from __future__ import annotations

from dataclasses import replace

import pytest
from unit.testing.evaluations import CARD, HERE, NOWHERE, PATH, TABLE, TEXT, checked
from unit.testing.test_sheets import get, post

VERSIONS = f"{PATH}/versions"


@pytest.fixture
def client(serve):
    return serve(tables=[TABLE])


def saved(client, **body):
    return post(client, VERSIONS, body)["version"]


def calculate(client, clock, **changes):
    """Calculate a scorecard that is like ``CARD`` but for some changes."""
    client.server.use_scorecard(*HERE, replace(CARD, **changes))
    client.server.start_calculation(*HERE)
    clock.now += 10


def test_names_are_not_unique_and_the_newest_comes_first(client):
    ids = [saved(client, name=name)["id"] for name in ("nightly", "x", "nightly")]
    first = get(client, VERSIONS, limit=2)
    rest = get(client, VERSIONS, cursor=first["pagination"]["next_cursor"])
    assert (first["count"], first["pagination"]["has_more"]) == (2, True)
    assert [each["id"] for each in [*first["data"], *rest["data"]]] == ids[::-1]
    assert [each["version_number"] for each in rest["data"]] == [1]
    assert "snapshot" not in first["data"][0]
    oldest = get(client, VERSIONS, order="asc", limit=1)["data"]
    assert [each["id"] for each in oldest] == ids[:1]


def test_a_version_holds_what_the_sheet_held(client):
    client.server.add_rows(*HERE, [{"Question": "Who?"}])
    first = saved(client, name="first")
    client.server.add_rows(*HERE, [{"Question": "Why?"}])
    again = get(client, f"{VERSIONS}/{first['id']}")["version"]
    assert again == first
    assert (again["name"], again["score"], again["snapshot"]["row_count"]) == ("first", {}, 5)
    assert again["snapshot"]["rows"][4]["cells"][TEXT.id]["value"] == "Who?"

    restored = saved(client, source_version_id=first["id"].upper())
    assert (restored["version_number"], restored["name"]) == (2, None)
    assert restored["snapshot"]["row_count"] == 5
    assert get(client, PATH)["sheet"]["row_count"] == 5


def test_a_score_is_that_of_the_calculation_that_had_completed(client, clock):
    calculate(client, clock, score=0.9)
    client.server.start_calculation(*HERE)
    score = saved(client, name="a")["score"]
    assert (score["aggregate_score"], score["aggregate_verdict"]) == (0.9, "fail")
    assert score["calculation_id"] == next(iter(client.server.calculations))
    assert get(client, VERSIONS)["data"][0]["score"] == score


def test_the_history_has_the_versions_with_a_score(client, clock):
    saved(client, name="before any")
    calculate(client, clock, score=0.9)
    saved(client, name="a")
    calculate(client, clock, score=0.7, criteria=CARD.criteria[:1], rows=())
    saved(client, name="b")
    history = get(client, f"{VERSIONS}/score-history")["score_history"]
    assert [(each["version_number"], each["score"]) for each in history["points"]] == [
        (2, 0.9),
        (3, 0.7),
    ]
    hashes = {each["config_hash"] for each in history["points"]}
    assert hashes == {each.config_hash for each in client.server.calculations.values()}
    assert len(hashes) == 2
    assert (history["total_points"], history["is_sampled"]) == (2, False)


def test_too_long_a_history_is_sampled(client, clock):
    calculate(client, clock)
    for number in range(60):
        saved(client, name=str(number))
    history = get(client, f"{VERSIONS}/score-history", max_points=50)["score_history"]
    assert (history["returned_points"], history["total_points"]) == (30, 60)
    assert history["is_sampled"]
    assert history["points"][-1]["version_number"] == 60
    last = get(client, f"{VERSIONS}/score-history", range="last_25")["score_history"]
    assert [each["version_number"] for each in last["points"]] == list(range(36, 61))


def test_times_tell_which_came_first(client, clock):
    times = []
    for _ in range(2):
        times.append(saved(client, name="a")["created_at"])
        clock.now += 10
        calculate(client, clock)
        latest = get(client, f"{PATH}/scorecard")["latest_calculation"]
        times += [latest["started_at"], latest["completed_at"]]
    assert times == sorted(set(times))


@pytest.mark.parametrize(("config_hash", "expected"), [("other", "other"), (None, None)])
def test_calculations_tell_their_configuration(client, clock, config_hash, expected):
    calculate(client, clock, config_hash=config_hash)
    (calculation_id,) = client.server.calculations
    found = get(client, f"{PATH}/scorecard/calculations/{calculation_id}")["calculation"]
    assert found["config_hash"] == expected
    assert get(client, f"{PATH}/scorecard/rows/0")["config_hash"] == expected


@pytest.mark.parametrize(
    "body", [{}, {"name": ""}, {"name": "x" * 256}, {"name": None}, {"source_version_id": "x"}]
)
def test_a_version_that_is_refused(client, body):
    post(client, VERSIONS, body, 400)
    assert get(client, VERSIONS)["data"] == []


def test_an_unknown_one_is_404(client):
    post(client, VERSIONS, {"source_version_id": NOWHERE}, 404)
    path = f"{VERSIONS}/{NOWHERE}"
    assert checked("GET", path, client.get(path)).status == 404
    for query in ("max_points=49", "range=last_7", "resolution=low"):
        assert client.get(f"{VERSIONS}/score-history?{query}").status == 400
