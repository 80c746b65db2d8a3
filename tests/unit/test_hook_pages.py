# SPDX-License-Identifier: Apache-2.0
"""How the hook reads the pages of a sheet: a page ahead, and a large sheet from both ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import airflow.models.dag  # noqa: F401  # which the paths of Airflow 2 need, and do not import
import pytest
from support.sheets import COLUMNS, IDS, REFUSAL, ROWS_PATH, SHEET, read_file, serving

from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.rows import RowsPage, rows_page
from airflow_provider_promptlayer.exceptions import (
    PromptLayerOutageError,
    PromptLayerRefusedError,
    PromptLayerUnexpectedAnswerError,
)
from airflow_provider_promptlayer.hooks import pages as hook_pages
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.testing import (
    Close,
    Criterion,
    LocalPromptLayer,
    Reply,
    Reset,
    Scorecard,
    ScoredRow,
    Sheet,
    Silence,
    Table,
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPromptLayer]:
    yield from serving(monkeypatch)


def test_an_outage_between_two_pages_is_ridden_out(
    rows_of: Callable[..., list[Any]], server: LocalPromptLayer
) -> None:
    faults: list[Any] = [
        Close(),
        Reset(),
        Reply(502, "<html>"),
        Reply(429, "{}"),
        Reply(200, "<html>"),
    ]
    script = server.script(*faults, path_prefix=ROWS_PATH, after=1)
    assert len(rows_of(*IDS)) == 250
    assert script.used == len(faults)
    server.script(Close(), path_prefix=ROWS_PATH, after=1, times=None)
    with pytest.raises(PromptLayerOutageError):
        rows_of(*IDS, max_outage=0.01)


def test_the_next_page_is_requested_while_one_is_used(
    hook: PromptLayerHook, server: LocalPromptLayer
) -> None:
    rows = hook.iter_rows(*IDS)
    assert next(rows)["row_index"] == 0
    server.wait_for(lambda: server.count("GET", ROWS_PATH) == 2, timeout=5)
    time.sleep(0.1)
    assert server.count("GET", ROWS_PATH) == 2  # and no more than one page ahead
    rows.close()  # type: ignore[attr-defined]


def test_a_reader_that_stops_leaves_no_thread(
    hook: PromptLayerHook, server: LocalPromptLayer
) -> None:
    server.script(Reply(502, "<html>"), path_prefix=ROWS_PATH, after=1, times=None)
    rows = hook.iter_rows(*IDS)
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name == "promptlayer-work":
            thread.join(5)
            assert not thread.is_alive()


@dataclass(frozen=True)
class Rude:
    """A sheet of 120 rows, each of which has a reason for its verdict."""

    server: LocalPromptLayer
    ids: tuple[str, str]

    @property
    def reasons_path(self) -> str:
        return "/api/public/v2/tables/{}/sheets/{}/scorecard/rows/".format(*self.ids)

    @property
    def asked(self) -> int:
        """How many reasons were asked for."""
        return len([r for r in self.server.requests if r.raw_path.startswith(self.reasons_path)])


@pytest.fixture
def rude(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rude]:
    scores = [ScoredRow("fail", reasons={"Polite": f"Rude {number}."}) for number in range(120)]
    rows: list[dict[str, Any]] = [{} for _ in scores]
    card = Scorecard("Quality", [Criterion("Polite")], scores)
    table = Table("Rude", [Sheet("Rude", COLUMNS, rows=rows, scorecard=card)])
    ids = table.id, table.sheets[0].id
    for server in serving(monkeypatch, table):
        server.start_calculation(*ids)
        yield Rude(server, ids)


def test_reasons_are_read_eight_at_once(rows_of: Callable[..., list[Any]], rude: Rude) -> None:
    rude.server.script(*[Silence()] * 8, path_prefix=rude.reasons_path)
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(rows_of, *rude.ids, scorecard=True)
        rude.server.wait_for(lambda: rude.asked >= 8, timeout=60)
        time.sleep(0.1)
        assert rude.asked == 8  # the first eight are held, so there is no ninth
        rude.server.drop_connections()
        found = reading.result(60)
    assert [row["scorecard_reasons"] for row in found] == [
        {"Polite": f"Rude {number}."} for number in range(120)
    ]


def test_a_reason_that_cannot_be_read_ends_the_reading(
    rows_of: Callable[..., list[Any]], server: LocalPromptLayer
) -> None:
    server.start_calculation(*IDS)
    path = ROWS_PATH.replace("/rows", "/scorecard/rows/")
    server.script(REFUSAL, path_prefix=path)
    with pytest.raises(PromptLayerRefusedError, match="read scorecard row 120"):
        rows_of(*IDS, scorecard=True)


def test_it_ends_the_reading_at_once(rows_of: Callable[..., list[Any]], rude: Rude) -> None:
    rude.server.script(REFUSAL, path_prefix=rude.reasons_path)
    rude.server.script(Silence(), path_prefix=rude.reasons_path, times=None)
    with pytest.raises(PromptLayerRefusedError):
        rows_of(*rude.ids, scorecard=True)
    assert rude.asked <= 9  # one was refused, and seven or eight have no answer yet


@pytest.fixture(params=[100, 101, 199, 200, 250, 300, 301])
def large(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[LocalPromptLayer, str, str, int]]:
    """A sheet that is large enough to be read from both ends: its server, its ids, its rows."""
    monkeypatch.setattr(hook_pages, "_BOTH_ENDS_FROM", 2)
    monkeypatch.setattr(hook_pages, "_IN_MEMORY_BYTES", 1_000)
    rows = [{"Question": str(number)} for number in range(request.param)]
    sheet = Sheet("Large", COLUMNS, rows=rows, scorecard=SHEET.scorecard)
    table = Table("Large", [sheet])
    for server in serving(monkeypatch, table):
        server.start_calculation(table.id, sheet.id)
        yield server, table.id, sheet.id, request.param


Large: TypeAlias = tuple[LocalPromptLayer, str, str, int]


def test_a_large_sheet_is_read_from_both_ends(
    large: Large, hook: PromptLayerHook, tmp_path: Path
) -> None:
    server, table_id, sheet_id, count = large
    path = tmp_path / "rows.jsonl"
    export = hook.export_rows(table_id, sheet_id, path, scorecard=True)
    rows = read_file(path)
    assert [row["Question"] for row in rows] == [str(number) for number in range(count)]
    assert [row["row_index"] for row in rows if row["scorecard_reasons"]] == [120][: count // 121]
    assert (export.row_count, export.cell_counts) == (count, {"completed": count})
    assert {"desc"} & {request.query.get("order") for request in server.requests}


def without_order(server: LocalPromptLayer, table_id: str, sheet_id: str) -> None:
    """Answer as if PromptLayer listed rows from the first one in either order."""
    path = f"/api/public/v2/tables/{table_id}/sheets/{sheet_id}/rows"

    def answer(request: Any) -> Reply | None:
        if "order" not in request.query:
            return None
        data = [{"row_index": number, "cells": {}} for number in range(100)]
        page = {"data": data, "version": 1, "row_count": 300, "next_cursor": "x"}
        return Reply(200, json.dumps(page))

    server.script(answer, path_prefix=path, times=None)


@pytest.mark.parametrize("large", [300], indirect=True)
def test_rows_that_are_listed_in_one_order_alone(
    large: Large, hook: PromptLayerHook, tmp_path: Path
) -> None:
    server, table_id, sheet_id, count = large
    without_order(server, table_id, sheet_id)
    hook.export_rows(table_id, sheet_id, tmp_path / "rows.csv")
    rows = read_file(tmp_path / "rows.csv")
    assert [row["Question"] for row in rows] == [str(number) for number in range(count)]


@pytest.mark.parametrize("large", [300], indirect=True)
def test_rows_that_are_missing_in_the_middle(
    large: Large, hook: PromptLayerHook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, table_id, sheet_id, _ = large

    def miscounted(*args: Any, **kwargs: Any) -> Call[RowsPage]:
        return rows_page(*args, **kwargs).then(lambda page: replace(page, row_count=301))

    monkeypatch.setattr("airflow_provider_promptlayer.api.records.rows_page", miscounted)
    with pytest.raises(PromptLayerUnexpectedAnswerError, match="301, and has listed 300"):
        hook.export_rows(table_id, sheet_id, tmp_path / "rows.csv")
    assert list(tmp_path.iterdir()) == []


def test_what_is_nested_deep_waits_for_its_turn_too(
    hook: PromptLayerHook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_pages, "_BOTH_ENDS_FROM", 2)
    deep: Any = "bottom"
    for _ in range(5_000):
        deep = [deep]
    rows: list[dict[str, Any]] = [{} for _ in range(300)]
    rows[299]["Answer"] = deep
    sheet = Sheet("Deep", COLUMNS, rows=rows)
    table = Table("Deep", [sheet])
    for _ in serving(monkeypatch, table):
        hook.export_rows(table.id, sheet.id, tmp_path / "rows.jsonl")
    assert "bottom" in (tmp_path / "rows.jsonl").read_text()
