# SPDX-License-Identifier: Apache-2.0
"""Rows are imported once, whatever happens between the worker and PromptLayer."""

from __future__ import annotations

from typing import Any

import pytest
from support.kinds import Serve
from support.loads import LOST, OPERATIONS, ROWS, load, new_server
from support.modes import Ending, FakeTaskInstance, run_task

from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerLoadSheetOperator
from airflow_provider_promptlayer.testing import (
    Close,
    LocalPromptLayer,
    Reply,
    Reset,
)


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    return serve(new_server())


@pytest.mark.parametrize("new", [False, True], ids=["into a sheet", "into a new sheet"])
class TestOnce:
    """One import, whatever happens."""

    def run(self, new: bool, number: int = 1, **more: Any) -> Ending:
        where: dict[str, Any] = {"sheet": None, "title": "new"} if new else {}
        return load(number, **where, **more)

    def only(self, server: LocalPromptLayer) -> Any:
        (made,) = server.imports
        return made

    @pytest.mark.parametrize(
        ("faults", "acted_on", "posts"),
        [
            ([Close()], True, 1),
            ([Reply(502, "<html>")], True, 1),
            ([Reply(202, "<html>")], True, 1),
            ([Reset()], False, 2),
            ([Reply(429, '{"message": "slow"}')], False, 2),
            ([Reply(502, "<html>")], False, 2),
            ([Reply(503, '{"error": "overloaded"}'), Reset(), Close(after_bytes=9)], False, 4),
        ],
        ids=str,
    )
    def test_after_trouble_with_the_start(
        self, server: LocalPromptLayer, new: bool, faults: list[Any], acted_on: bool, posts: int
    ) -> None:
        server.script(*faults, method="POST", acted_on=acted_on)
        ending = self.run(new)
        made = self.only(server)
        assert (made.rows_added, server.count("POST")) == (2, posts)
        assert ending.value["sheet_id"] == made.sheet_id
        assert ending.value["rows_added"] == 2

    @pytest.mark.parametrize("repeated", ["same", "conflict", "again"])
    @pytest.mark.parametrize("fault", [Close(), Reply(504, "<html>")], ids=str)
    def test_after_a_start_that_takes_a_while(
        self, serve: Serve, new: bool, repeated: Any, fault: Any
    ) -> None:
        """PromptLayer is still reading the request when the import is looked up."""
        server = serve(new_server(repeated_import=repeated))
        server.script(fault, **LOST)
        unknown = Reply(404, '{"success": false, "message": "Operation not found"}')
        server.script(unknown, times=4, method="GET", path_prefix=OPERATIONS)
        assert self.run(new).kind == "success"
        self.only(server)

    def test_after_a_list_of_sheets_that_cannot_be_read(
        self, server: LocalPromptLayer, new: bool
    ) -> None:
        server.script(Close(), **LOST)
        sheets = OPERATIONS.removesuffix("/operations/")
        odd = Reply.of_json({"data": [{"title": "new"}], "has_more": False})
        script = server.script(lambda request: odd if request.raw_path == sheets else None)
        assert self.run(new).kind == "success"
        assert script.used == 1
        self.only(server)

    def test_after_a_dead_worker(
        self, server: LocalPromptLayer, new: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for dies_at in ("warm_up", "stay_at"):  # before the look-up, and after the start
            with monkeypatch.context() as patch:
                patch.setattr(PromptLayerHook, dies_at, _die)
                with pytest.raises(WorkerDiedError):
                    self.run(new)
            assert len(server.imports) == (0 if dies_at == "warm_up" else 1)
        ending = self.run(new, 2)
        assert ending.value["sheet_id"] == self.only(server).sheet_id
        assert server.count("POST") == 1

    def test_after_a_worker_that_dies_between_two_polls(
        self, server: LocalPromptLayer, new: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(PromptLayerLoadSheetOperator, "_pause", _die)
            with pytest.raises(WorkerDiedError):
                self.run(new)
        assert self.run(new, 2).kind == "success"
        self.only(server)

    def test_and_again_after_a_clear_or_for_other_rows(
        self, server: LocalPromptLayer, new: bool
    ) -> None:
        self.run(new)
        self.run(new, 2)
        self.only(server)
        self.run(new, 3, max_tries=4)
        assert len(server.imports) == 2
        self.run(new, 4, max_tries=4, rows=ROWS[:1])
        assert len(server.imports) == 3


def test_after_a_lost_answer_when_the_time_is_up(server: LocalPromptLayer) -> None:
    """The import is looked for all the same, so that the task's end names it."""
    server.script(Close(), **LOST)
    ending = load(timeout=0.0)
    (made,) = server.imports
    assert ending.kind == "timeout"
    assert made.operation_id in ending.message
    assert ending.xcoms["promptlayer_operation_id"] == made.operation_id


class WorkerDiedError(BaseException):
    """Ends a worker as SIGKILL does: no code of the task sees it."""


def _die(*_: Any, **__: Any) -> None:
    raise WorkerDiedError


def test_a_retry_for_another_sheet_imports_into_that_one(server: LocalPromptLayer) -> None:
    others: list[dict[str, Any]] = [{"title": "newer", "sheet": None}, {"sheet": "Cases"}]
    load(title="new", sheet=None)
    for number, where in enumerate(others, 1):
        assert load(2, **where).value["sheet_id"] == server.imports[number].sheet_id
    assert len({made.sheet_id for made in server.imports}) == 3


@pytest.mark.parametrize(
    "other", [{"dag_id": "b"}, {"run_id": "b"}, {"task_id": "b"}, {"map_index": 0}], ids=str
)
def test_each_task_instance_imports_its_own(
    server: LocalPromptLayer, other: dict[str, Any]
) -> None:
    for fields in ({}, other):
        instance: Any = {"dag_id": "a", "run_id": "a", "task_id": "a", **fields}
        ending = run_task(
            lambda: PromptLayerLoadSheetOperator(
                task_id="task", table="Answers", sheet="Cases", rows=ROWS, poke_interval=0.02
            ),
            FakeTaskInstance(**instance),
        )
        assert ending.kind == "success"
    assert len(server.imports) == 2


class TestEnsure:
    """``ensure=True`` creates the table and the sheet that are missing, once."""

    def test_creates_what_is_missing(self, server: LocalPromptLayer, deferrable: bool) -> None:
        for number, rows in ((1, 2), (2, 4)):
            ending = run_task(
                lambda: PromptLayerLoadSheetOperator(
                    task_id="task",
                    table="New",
                    sheet="Cases",
                    ensure=True,
                    rows=ROWS,
                    poke_interval=0.02,
                    deferrable=deferrable,
                ),
                FakeTaskInstance(run_id=f"night {number}"),
            )
            assert ending.kind == "success", ending
            assert (ending.value["rows_added"], ending.value["row_count"]) == (2, rows)
        hook = PromptLayerHook()
        assert ending.value["table_id"] == hook.find_table("New")
        assert ending.value["sheet_id"] == hook.find_sheet("New", "Cases").sheet_id

    @pytest.mark.parametrize("acted_on", [True, False])
    def test_a_lost_answer_doubles_nothing(self, acted_on: bool, server: LocalPromptLayer) -> None:
        for after in (0, 1):  # that of the table, and that of the import
            server.script(Close(), method="POST", acted_on=acted_on, after=after)
        ending = load(table="New", ensure=True)
        assert (ending.kind, ending.value["row_count"]) == ("success", 2), ending
        hook = PromptLayerHook()
        assert hook.find_sheet("New", "Cases").sheet_id == ending.value["sheet_id"]
        assert len(server.imports) == 1
        assert server.count("POST") == (2 if acted_on else 4)

    def test_a_retry_goes_back_to_the_import_that_made_the_sheet(
        self, server: LocalPromptLayer
    ) -> None:
        first = load(sheet="Others", ensure=True)
        again = load(2, sheet="Others", ensure=True)
        assert again.value == first.value
        assert len(server.imports) == 1
