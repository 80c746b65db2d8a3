# SPDX-License-Identifier: Apache-2.0
"""Rows are loaded into a sheet, and what cannot be loaded is refused in one line."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, TaskDeferred
from support.arguments import AT_RUN_TIME
from support.kinds import Serve
from support.loads import CASES, LOST, OPERATIONS, ROWS, TABLE, load, new_server, questions
from support.modes import FakeTaskInstance

from airflow_provider_promptlayer.exceptions import (
    PromptLayerFileError,
    PromptLayerImportFailedError,
    PromptLayerInvalidInputError,
    PromptLayerTransientError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerLoadSheetOperator
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.testing import (
    Close,
    LocalPromptLayer,
    Reply,
    Reset,
)


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    return serve(new_server())


class TestALoad:
    def test_into_a_sheet(self, server: LocalPromptLayer, deferrable: bool) -> None:
        ending = load(deferrable=deferrable)
        (made,) = server.imports
        assert ending.value == {
            "table_id": TABLE.id,
            "sheet_id": CASES.id,
            "operation_id": made.operation_id,
            "rows_added": 2,
            "row_count": 3,
        }
        assert questions(server) == ["Who?", "What?", "When?"]
        assert ending.xcoms == {
            "promptlayer_table_id": TABLE.id,
            "promptlayer_sheet_id": CASES.id,
            "promptlayer_operation_id": made.operation_id,
        }
        assert ending.worker_visits == (2 if deferrable else 1)

    def test_into_a_new_sheet(self, server: LocalPromptLayer, deferrable: bool) -> None:
        ending = load(sheet=None, title="2026-01-01", deferrable=deferrable)
        (made,) = [each for each in server.tables[0].sheets if each.title == "2026-01-01"]
        assert ending.value["sheet_id"] == made.id
        assert questions(server, made.id) == ["What?", "When?"]

    @pytest.mark.parametrize(("index", "title"), [(-1, "manual__1"), (0, "manual__1 0")])
    def test_into_a_sheet_of_the_run_and_the_mapped_instance(self, index: int, title: str) -> None:
        with DAG(dag_id="d", schedule=None) as dag:
            task = PromptLayerLoadSheetOperator(task_id="t", table="Answers", rows=ROWS)
        ti = FakeTaskInstance(map_index=index)
        context: Any = {"run_id": ti.run_id, "ti": ti}
        task.render_template_fields(context, dag.get_template_env())
        assert task.title == title

    @pytest.mark.parametrize("ensure", [False, True])
    def test_looks_each_title_up_once(self, ensure: bool, server: LocalPromptLayer) -> None:
        assert load(ensure=ensure).kind == "success"
        asked = [request.raw_path.partition("?")[0] for request in server.requests]
        lists = [path for path in asked if path.endswith(("/tables", "/sheets"))]
        assert lists == ["/api/public/v2/tables", f"/api/public/v2/tables/{TABLE.id}/sheets"]

    def test_into_a_sheet_by_its_uuid(self, server: LocalPromptLayer) -> None:
        assert load(sheet=UUID(CASES.id), ensure=True).value["sheet_id"] == CASES.id

    def test_of_a_file(self, server: LocalPromptLayer, tmp_path: Path) -> None:
        path = tmp_path / "cases.csv"
        path.write_text('Question\n"say ""hi"",\nthen go"\n=cmd()\n')
        assert load(rows=None, file=f"file://{path}").value["rows_added"] == 2
        assert questions(server)[1:] == ['say "hi",\nthen go', "=cmd()"]
        assert server.imports[0].file_name == "cases.csv"

    @pytest.mark.parametrize("size", [999_998, 999_999, 1_000_000])
    def test_of_a_file_that_is_sent_in_parts(
        self, server: LocalPromptLayer, tmp_path: Path, size: int
    ) -> None:
        path = tmp_path / "cases.csv"
        path.write_text(f"Question\n{'?' * size}\n")
        assert load(rows=None, file=str(path)).value["rows_added"] == 1
        assert questions(server)[1:] == ["?" * size]

    def test_of_json_as_a_template_renders_it(self, server: LocalPromptLayer) -> None:
        assert load(rows='[{"Question": "What?"}]').value["rows_added"] == 1

    def test_of_rows_as_a_database_returns_them(self, server: LocalPromptLayer) -> None:
        assert load(rows=[("What?",)], columns=["Question"]).value["rows_added"] == 1
        assert questions(server) == ["Who?", "What?"]

    def test_the_words_of_older_pages(self, serve: Serve) -> None:
        serve(new_server(dialect="libraries"))
        assert load(sheet=None, title="new").value["rows_added"] == 2


class TestFailures:
    def test_an_import_that_fails_is_not_retried(self, server: LocalPromptLayer) -> None:
        failed = {"operation_id": "1", "status": "failed", "error_message": "Too odd."}
        server.script(Reply.of_json({"operation": failed}), path_prefix=OPERATIONS, after=1)
        ending = load()
        assert ending.kind == "failed for good"
        assert isinstance(ending.error, PromptLayerImportFailedError)
        assert ending.message == "Import 1 has failed: Too odd."

    @pytest.mark.parametrize("added", [1, 2])
    def test_rows_that_are_not_added_are_warned_of(
        self, server: LocalPromptLayer, deferrable: bool, added: int, log: Callable[[], str]
    ) -> None:
        done = {"operation_id": "1", "status": "completed", "rows_added": added}
        answer = Reply.of_json({"operation": done})
        server.script(answer, path_prefix=OPERATIONS, after=2, times=None)
        ending = load(deferrable=deferrable)
        assert (ending.kind, ending.value["rows_added"]) == ("success", added)
        assert ending.worker_visits == (2 if deferrable else 1)
        assert ("has added 1 of the 2 rows that were sent" in log()) == (added == 1)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"rows": [{"A": 1}, 2]}, "rows[1] must be a mapping"),
            ({"rows": []}, "rows: there are no rows to import."),
            ({"rows": "None"}, "rows must be a list, or a list as JSON"),
            ({"rows": None}, "Give one of rows and file, the source of the rows; not none."),
            ({"file": "a.csv"}, "Give one of rows and file, the source of the rows; not both."),
            ({"rows": None, "file": "/nowhere/a.csv"}, "/nowhere/a.csv: there is no such file."),
            ({"rows": None, "file": "a.csv", "columns": ["A"]}, "columns are the titles of rows"),
            ({"sheet": None, "title": " "}, "title must be a text of 1 to 255"),
            ({"sheet": "Nothing"}, "titled 'Nothing'"),
        ],
        ids=str,
    )
    def test_nothing_is_sent_for_what_cannot_be_imported(
        self, server: LocalPromptLayer, arguments: dict[str, Any], message: str
    ) -> None:
        ending = load(**arguments, **AT_RUN_TIME)
        assert ending.kind == "failed for good"
        assert message in ending.message
        assert "\n" not in ending.message
        assert server.count("POST") == 0

    def test_a_folder_in_place_of_a_file(self, server: LocalPromptLayer, tmp_path: Path) -> None:
        folder = tmp_path / "a.csv"
        folder.mkdir()
        ending = load(rows=None, file=str(folder))
        assert ending.kind == "failed for good"
        assert isinstance(ending.error, PromptLayerInvalidInputError)
        assert ending.message == f"{folder}: that is a folder, not a file."

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (OSError(errno.ENOSPC, "No space left on device"), "Could not copy to this disk a.csv"),
            (
                PermissionError(errno.EACCES, "Permission denied"),
                "Could not read a.csv: Permission",
            ),
            (ValueError("botocore says\nno"), "Could not read a.csv: botocore says no."),
        ],
        ids=str,
    )
    def test_a_storage_that_fails(
        self,
        server: LocalPromptLayer,
        error: Exception,
        message: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def fail(*_: Any) -> None:
            raise error

        monkeypatch.setattr(ObjectStoragePath, "open", fail)
        ending = load(rows=None, file="a.csv")
        assert ending.kind == "failed"
        assert isinstance(ending.error, PromptLayerFileError)
        assert ending.message.startswith(message)
        assert "\n" not in ending.message
        assert server.count() == 0

    def test_no_folder_for_the_copy(
        self, server: LocalPromptLayer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Python finds none where the disk is full, and says that there is no such file."""
        (path := tmp_path / "a.csv").write_text("Question\nWhat?\n")
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/nowhere"])
        ending = load(rows=None, file=str(path))
        assert ending.kind == "failed"
        assert "No usable temporary directory" in ending.message

    def test_no_rows_may_be_no_failure(self, server: LocalPromptLayer) -> None:
        assert load(rows=[], on_empty="skip").kind == "skipped"
        ending = load(rows=[], on_empty="succeed")
        assert ending.value == {
            "table_id": None,
            "sheet_id": None,
            "operation_id": None,
            "rows_added": 0,
            "row_count": None,
        }
        assert server.imports == []
        with pytest.raises(PromptLayerInvalidInputError, match="on_empty must be one of"):
            load(on_empty="never")

    def test_rows_that_were_sent_and_are_not_there(self, server: LocalPromptLayer) -> None:
        done = {"operation_id": "1", "status": "completed", "rows_added": 0}
        server.script(Reply.of_json({"operation": done}), path_prefix=OPERATIONS, after=1)
        ending = load(on_empty="succeed")
        assert ending.kind == "failed for good"
        assert ending.message == "Import 1 has failed: no row was added."

    def test_an_outage_between_two_polls(self, server: LocalPromptLayer, deferrable: bool) -> None:
        faults: list[Any] = [Reply(502, "<html>"), Reset(), Reply(200, "{}"), Close(after_bytes=3)]
        server.script(*faults, method="GET", path_prefix=OPERATIONS, after=2)
        assert load(deferrable=deferrable).value["rows_added"] == 2
        assert server.count("POST") == 1

    def test_a_deferral_that_runs_out_sends_nothing(self, server: LocalPromptLayer) -> None:
        ti = FakeTaskInstance()
        context: Any = {"ti": ti}
        task = PromptLayerLoadSheetOperator(task_id="task", table="Answers", title="n", rows=ROWS)
        with pytest.raises(TaskDeferred):
            task.execute(context)
        sent = server.count()
        resumed = PromptLayerLoadSheetOperator(task_id="task", table="Answers", file="gone.csv")
        with pytest.raises(PromptLayerWaitTimeoutError) as error:
            resumed.resume_execution("__fail__", {"error": "Trigger timeout"}, context)
        operation_id = server.imports[0].operation_id
        assert f"Import {operation_id} goes on at PromptLayer." in str(error.value)
        assert server.count() == sent

    def test_ending_the_task_leaves_the_import_going_on(
        self, server: LocalPromptLayer, log: Any
    ) -> None:
        task = PromptLayerLoadSheetOperator(
            task_id="task", table="Answers", sheet="Cases", rows=ROWS
        )
        context: Any = {"ti": FakeTaskInstance()}
        with pytest.raises(TaskDeferred):
            task.execute(context)
        task.on_kill()
        assert "goes on at PromptLayer" in log()
        assert server.imports[0].status != "failed"
        polls = server.count("GET")
        with pytest.raises(PromptLayerTransientError, match="is being stopped"):
            task.hook.load_sheet(TABLE.id, title="new", rows=ROWS)
        assert (server.count("POST"), server.count("GET")) == (1, polls + 1)

    def test_a_title_belongs_to_a_new_sheet(self) -> None:
        with pytest.raises(PromptLayerInvalidInputError, match="title is that of a new sheet"):
            PromptLayerLoadSheetOperator(task_id="t", table="A", sheet="B", title="C", rows=[])

    def test_another_import_into_the_sheet_is_waited_for(
        self, serve: Serve, log: Callable[[], str]
    ) -> None:
        server = serve(new_server(import_duration=9.0))
        server.start_import(TABLE.id, CASES.id, b"Question\nWhy?\n")
        assert load().kind == "success"
        assert "import into this sheet is in progress. Trying again in" in log()
        assert server.count("POST") > 1
        assert questions(server) == ["Who?", "Why?", "What?", "When?"]

    def test_another_import_that_goes_on_for_long_leaves_the_rows_to_a_retry(
        self, serve: Serve
    ) -> None:
        server = serve(new_server(import_duration=1e6))
        server.start_import(TABLE.id, CASES.id, b"Question\nWhy?\n")
        ending = load()
        assert ending.kind == "failed"
        assert "HTTP 409" in ending.message

    def test_a_pause_of_hours_is_left_to_a_retry(self, server: LocalPromptLayer) -> None:
        slow = Reply(429, '{"message": "slow"}', headers={"Retry-After": "7200"})
        server.script(slow, method="POST")
        assert load().kind == "failed"
        assert server.imports == []

    def test_a_404_of_another_server_starts_nothing(self, server: LocalPromptLayer) -> None:
        """It does not say that the import was never started."""
        server.script(Reply(404, "<html>"), method="GET", path_prefix=OPERATIONS, times=None)
        assert load(max_outage=0.05).kind == "failed"
        assert server.count("POST") == 0

    def test_a_start_that_never_gets_through_can_be_retried(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.script(Reply(500, "{}"), times=int(retries.IMPORTING.attempts), method="POST")
        assert load().kind == "failed"
        assert load(2).kind == "success"
        assert len(server.imports) == 1

    def test_sheets_of_one_title_are_told_apart_by_their_time(
        self, server: LocalPromptLayer
    ) -> None:
        load(sheet=None, title="new")
        for _ in range(100):
            PromptLayerHook().get_sheet_operations(TABLE.id, CASES.id)
        server.script(Close(), **LOST)
        ending = load(sheet=None, title="new", max_tries=5)
        assert ending.value["sheet_id"] == server.imports[1].sheet_id
        server.script(Close(), **LOST)
        ending = load(sheet=None, title="new", max_tries=8)
        assert ending.kind == "failed for good"
        assert "2 sheets of table" in ending.message


class TestTheHook:
    @pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "async"])
    def test_loads_and_waits(self, server: LocalPromptLayer, is_async: bool) -> None:
        hook = PromptLayerHook()
        if is_async:
            job = asyncio.run(hook.aload_sheet(TABLE.id, title="new", rows=ROWS))
        else:
            job = hook.load_sheet(TABLE.id, title="new", rows=ROWS)
        where = job.table_id, job.sheet_id, job.operation_id
        if is_async:
            found = asyncio.run(hook.await_for_import(*where, timeout=60, poke_interval=0.01))
        else:
            found = hook.wait_for_import(*where, timeout=60, poke_interval=0.01)
        assert (found.rows_added, found.row_count) == (2, 2)
        assert hook.get_import(*where) == found
        hook.close()

    @pytest.mark.parametrize(
        ("how", "message"),
        [
            ({}, "Give one of sheet_id and title, which is that of a new sheet; not none."),
            ({"sheet_id": CASES.id, "title": "new"}, "of a new sheet; not both."),
            ({"title": ""}, "title must be a text of 1 to 255 characters"),
            ({"title": "new", "operation_id": ".."}, "operation_id must be"),
            pytest.param(
                {"title": "new", "rows": iter(ROWS)}, "rows must be a list", id="iterator"
            ),
        ],
        ids=str,
    )
    def test_what_is_refused(
        self, server: LocalPromptLayer, how: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(PromptLayerInvalidInputError, match=message):
            PromptLayerHook().load_sheet(TABLE.id, **{"rows": ROWS, **how})
        assert server.count() == 0
