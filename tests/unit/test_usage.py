# SPDX-License-Identifier: Apache-2.0
"""What a recalculation has cost: which cells count, and the gate on the price."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.arguments import AT_RUN_TIME
from support.kinds import Serve, at, new_server, sheet
from support.modes import Ending, Store
from support.starts import RUN_TABLE, deferred

from airflow_provider_promptlayer.api.tables import QueuedOperation
from airflow_provider_promptlayer.api.usage import Usage
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.testing import (
    Column,
    LocalPromptLayer,
    Reply,
    RequestMetrics,
    Table,
)

Log = Callable[[], str]
ONE_CELL = {"price": 0.001, "input_tokens": 100, "output_tokens": 20, "requests": 1}


def of_rows(count: int, *columns: Column) -> LocalPromptLayer:
    """Return a server with one sheet, which is at the same address as the good one of others."""
    return LocalPromptLayer(
        tables=[
            Table(
                "Table",
                [
                    sheet(
                        "good",
                        row_count=count,
                        columns=[Column("Question", type="TEXT"), *(columns or [Column("Answer")])],
                    )
                ],
            )
        ]
    )


def run(store: Store | None = None, **arguments: Any) -> Ending:
    return RUN_TABLE.run(store, "good", **arguments)


def usage(ending: Ending) -> Any:
    assert ending.kind == "success", ending
    return ending.xcoms.get("promptlayer_usage")


def pages_read(server: LocalPromptLayer) -> int:
    return sum(request.raw_path.endswith("/rows") for request in server.requests)


def test_the_cost_is_in_xcom_and_in_the_log(serve: Serve, deferrable: bool, log: Log) -> None:
    server = serve(new_server(by_polls=True))
    ending = run(deferrable=deferrable)
    assert ending.worker_visits == 1 + deferrable
    found = usage(ending)
    assert found == {"price": 0.003, "input_tokens": 300, "output_tokens": 60, "requests": 3}
    assert "3 of 3 cells done, cost 0.003 USD, 3 requests, 300 tokens in, 60 tokens out, " in log()
    assert pages_read(server) == 1


def test_cells_of_other_operations_do_not_count(serve: Serve) -> None:
    cheap = Column("Cheap")
    serve(of_rows(3, Column("Dear", metrics=RequestMetrics(price=0.5)), cheap))
    assert usage(run())["price"] == 1.503
    assert usage(run(statuses=[], column_ids=[cheap.id]))["price"] == 0.003
    assert usage(run(statuses=[], column_ids=[cheap.id], row_ids=[1])) == ONE_CELL


@pytest.mark.parametrize(("row", "pages"), [(249, 1), (150, 1), (149, 2), (0, 3)])
def test_rows_are_read_until_all_cells_are_found(serve: Serve, row: int, pages: int) -> None:
    server = serve(of_rows(250))
    assert usage(run(row_ids=[row])) == ONE_CELL
    assert pages_read(server) == pages


def test_a_cell_that_failed_may_have_no_cost(serve: Serve) -> None:
    serve(of_rows(3, Column("Answer", failing_rows=[1])))
    assert usage(run(fail_on="never"))["price"] == 0.002


def test_only_a_gate_on_the_price_reads_a_large_sheet_to_its_end(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    monkeypatch.setattr("airflow_provider_promptlayer.hooks.versions.MAX_ROWS_READ", 200)
    server = serve(of_rows(250))
    assert usage(run(row_ids=[0, 249])) is None
    assert pages_read(server) == 2
    assert "PromptLayer does not say what operation" in log()
    assert usage(run(statuses=[], row_ids=[0, 249], max_price=1))["price"] == 0.002


def test_executions_that_no_cell_names_are_not_searched_for(serve: Serve) -> None:
    server = serve(of_rows(250))

    def page(request: Any) -> Reply | None:
        if not request.raw_path.endswith("/rows"):
            return None
        cell = {"status": "completed", "request_metrics": {"price": 1}}
        rows = [{"row_index": i, "cells": {"a": cell}} for i in range(100)]
        more = {"next_cursor": "more", "has_more": True}
        return Reply.of_json({"data": rows, "columns": [], **more})

    server.script(page, method="GET", times=None)
    assert usage(run()) is None
    assert pages_read(server) == 1


@pytest.mark.parametrize(
    ("max_price", "says"),
    [
        (0.003, ""),
        ("0.01", ""),
        (0.0029, "it has cost 0.003 USD, more than max_price=0.0029 (3 of 3 cells done)"),
        ("0", "it has cost 0.003 USD, more than max_price=0 ("),
    ],
)
def test_gate_on_the_price(
    server: LocalPromptLayer, deferrable: bool, max_price: Any, says: str
) -> None:
    ending = run(max_price=max_price, deferrable=deferrable)
    assert ending.kind == ("failed for good" if says else "success")
    assert says in ending.message
    assert ending.xcoms["promptlayer_usage"]["price"] == 0.003


@pytest.mark.parametrize("statuses", [None, ["STALE", "FAILED"]])
def test_no_try_after_one_that_was_too_dear_calculates_again(
    server: LocalPromptLayer, statuses: Any
) -> None:
    store = Store()
    for number in (1, 2):
        ending = run(store, number=number, max_price=0.001, statuses=statuses)
        assert "more than max_price" in ending.message
        assert ending.kind == "failed for good"
    assert len(server.operations) == 1


def test_failed_cells_come_before_the_price(serve: Serve) -> None:
    serve(of_rows(3, Column("Answer", failing_rows=[1])))
    message = run(max_price=0).message
    assert "cells failed" in message
    assert "max_price" not in message


@pytest.mark.parametrize(
    ("metrics", "price", "line"),
    [
        ([RequestMetrics(price=None)] * 2, None, "an unknown price, 6 requests"),
        (
            [RequestMetrics(price=None), RequestMetrics(price=0.5, input_tokens=None)],
            1.5,
            "1.5 USD, 6 requests, 300 tokens in, 120 tokens out; PromptLayer has no price for 3 ",
        ),
    ],
    ids=["none", "some"],
)
def test_prices_that_promptlayer_does_not_know(
    serve: Serve,
    metrics: Sequence[RequestMetrics],
    price: float | None,
    line: str,
    log: Log,
) -> None:
    serve(of_rows(3, Column("A", metrics=metrics[0]), Column("B", metrics=metrics[1])))
    assert usage(run())["price"] == price
    assert f", cost {line}" in log()
    ending = run(statuses=[], max_price=2)
    assert ending.kind == "failed for good"
    which = "it has cost" if price is None else "3 of the cells have cost, and the others 1.5 USD"
    assert f"PromptLayer does not say what {which}" in ending.message


def test_cells_that_another_operation_has_calculated_since(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(of_rows(3))
    read = PromptLayerHook.get_usage

    def overtaken(hook: PromptLayerHook, *args: Any, **kwargs: Any) -> Usage | None:
        hook.run_table_operation(**at("good"), statuses="all", row_ids=[1])
        return read(hook, *args, **kwargs)

    monkeypatch.setattr(PromptLayerHook, "get_usage", overtaken)
    ending = run(max_price=1)
    assert ending.kind == "failed for good"
    assert "does not say what 1 of the cells have cost, and the others 0.002 USD" in ending.message
    assert ending.xcoms["promptlayer_usage"]["requests"] == 2


def test_columns_that_ask_no_language_model(serve: Serve) -> None:
    serve(of_rows(3, Column("Length", type="CODE_EXECUTION")))
    assert usage(run()) is None
    assert "does not say what it has cost" in run(statuses=[], max_price=2).message


def test_nothing_to_do_costs_nothing(server: LocalPromptLayer) -> None:
    run()
    assert usage(run(max_price=0)) is None


def test_trouble_in_reading_the_cost(
    server: LocalPromptLayer, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "EXPLAINING", retries.EXPLAINING.within(0.05))

    def fault(request: Any) -> Reply | None:
        return Reply(503) if request.raw_path.endswith("/rows") else None

    with server.script(fault, times=None):
        assert usage(run()) is None
        assert "Could not read what operation" in log()
        ending = run(statuses=[], max_price=1, max_outage=0.05, retries=0)
        assert "No request about the cost of cells" in ending.message


def test_a_try_that_goes_back_to_an_operation_knows_its_cost(server: LocalPromptLayer) -> None:
    store = Store()
    deferred(RUN_TABLE.make("never"), store)
    (operation,) = server.operations.values()
    assert store["promptlayer_run"]["notes"]["execution_ids"] == [operation.execution_id]
    store = Store()
    run(store, max_price=0)  # fails before the outputs are noted as delivered
    ending = run(store, number=2)
    assert usage(ending)["price"] == 0.003
    assert ending.worker_visits
    assert len(server.operations) == 2


def test_the_ids_of_too_many_executions_are_not_kept(
    server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    module = "airflow_provider_promptlayer.operators.evaluations"
    monkeypatch.setattr(f"{module}._MAX_EXECUTIONS_NOTED", 0)
    store = Store()
    assert usage(run(store)) is None
    assert store["promptlayer_run"]["notes"]["execution_ids"] == []
    assert "in 1 executions, and the task keeps the ids of at most 0" in log()


@pytest.mark.parametrize("is_async", [False, True], ids=["hook", "async hook"])
def test_hook(server: LocalPromptLayer, is_async: bool) -> None:
    hook, where = PromptLayerHook(), at("good")
    try:
        started = hook.run_table_operation(**where)
        assert isinstance(started, QueuedOperation)
        hook.wait_for_table_operation(**where, operation_id=started.operation_id, timeout=10)
        if is_async:
            found = asyncio.run(hook.aget_usage(**where, execution_ids=started.execution_ids))
        else:
            found = hook.get_usage(**where, execution_ids=started.execution_ids)
        assert found == Usage(0.003, 300, 60, 3)
        assert hook.get_usage(**where, execution_ids=["another"]) is None
    finally:
        hook.close()


@pytest.mark.parametrize("max_price", [None, -1, "much", float("nan")])
def test_prices_that_are_refused(server: LocalPromptLayer, max_price: Any) -> None:
    ending = run(max_price=max_price, **AT_RUN_TIME)
    assert ending.kind == "failed for good"
    assert "max_price must be a number" in ending.message
    assert not server.requests
