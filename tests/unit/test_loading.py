# SPDX-License-Identifier: Apache-2.0
"""Rows are imported once, whatever happens between the worker and PromptLayer."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, TaskDeferred
from support.clocks import timed_by_polls
from support.kinds import Serve
from support.modes import Ending, FakeTaskInstance, run_task

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
    Column,
    LocalPromptLayer,
    Reply,
    Reset,
    Sheet,
    Table,
)

CASES = Sheet("Cases", [Column("Question", type="TEXT")], rows=[{"Question": "Who?"}])
TABLE = Table("Answers", [CASES])
ROWS = [{"Question": "What?"}, {"Question": "When?"}]
OPERATIONS = f"/api/public/v2/tables/{TABLE.id}/sheets/operations/"

LOST: dict[str, Any] = {"method": "POST", "acted_on": True}
"""PromptLayer acts on the request, and the answer is lost."""


def new_server(**how: Any) -> LocalPromptLayer:
    """Return a server at which a second passes with each poll."""
    return timed_by_polls([], **{"tables": [TABLE], "import_duration": 2.0, **how})


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    return serve(new_server())


def load(number: int = 1, *, max_tries: int = 2, **arguments: Any) -> Ending:
    """Run a try of a task that loads rows."""
    given = {"table": "Answers", "sheet": "Cases", "rows": ROWS, **arguments}
    return run_task(
        lambda: PromptLayerLoadSheetOperator(
            task_id="task", poke_interval=0.02, retries=2, **given
        ),
        FakeTaskInstance(try_number=number, max_tries=max_tries),
    )


def questions(server: LocalPromptLayer, sheet_id: str = CASES.id) -> list[Any]:
    """Return what is in the column of a sheet."""
    path = f"/api/public/v2/tables/{TABLE.id}/sheets/{sheet_id}/rows"
    answer = requests.get(
        server.url + path, headers={"X-API-KEY": server.api_key}, timeout=60
    ).json()
    (column,) = [each["id"] for each in answer["columns"] if each["title"] == "Question"]
    return [row["cells"][column]["value"] for row in answer["data"]]


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

    def test_of_a_file(self, server: LocalPromptLayer, tmp_path: Path) -> None:
        path = tmp_path / "cases.csv"
        path.write_text('Question\n"say ""hi"",\nthen go"\n=cmd()\n')
        assert load(rows=None, file=f"file://{path}").value["rows_added"] == 2
        assert questions(server)[1:] == ['say "hi",\nthen go', "=cmd()"]
        assert server.imports[0].file_name == "cases.csv"

    def test_of_json_as_a_template_renders_it(self, server: LocalPromptLayer) -> None:
        assert load(rows='[{"Question": "What?"}]').value["rows_added"] == 1

    def test_of_rows_as_a_database_returns_them(self, server: LocalPromptLayer) -> None:
        assert load(rows=[("What?",)], columns=["Question"]).value["rows_added"] == 1
        assert questions(server) == ["Who?", "What?"]

    def test_the_words_of_older_pages(self, serve: Serve) -> None:
        serve(new_server(dialect="libraries"))
        assert load(sheet=None, title="new").value["rows_added"] == 2


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


class WorkerDiedError(BaseException):
    """Ends a worker as SIGKILL does: no code of the task sees it."""


def _die(*_: Any, **__: Any) -> None:
    raise WorkerDiedError


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


class TestFailures:
    def test_an_import_that_fails_is_not_retried(self, server: LocalPromptLayer) -> None:
        failed = {"operation_id": "1", "status": "failed", "error_message": "Too odd."}
        server.script(Reply.of_json({"operation": failed}), path_prefix=OPERATIONS, after=1)
        ending = load()
        assert ending.kind == "failed for good"
        assert isinstance(ending.error, PromptLayerImportFailedError)
        assert ending.message == "Import 1 has failed: Too odd."

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"rows": [{"A": 1}, 2]}, "rows[1] must be a mapping"),
            ({"rows": []}, "rows: it has no rows, so there is nothing to import."),
            ({"rows": "None"}, "rows must be a list, or a list as JSON"),
            ({"rows": None}, "Give one of rows and file, not none."),
            ({"file": "a.csv"}, "Give one of rows and file, not both."),
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
        ending = load(**arguments)
        assert ending.kind == "failed for good"
        assert message in ending.message
        assert "\n" not in ending.message
        assert server.count("POST") == 0

    def test_a_file_that_cannot_be_read(self, server: LocalPromptLayer, tmp_path: Path) -> None:
        folder = tmp_path / "a.csv"
        folder.mkdir()
        ending = load(rows=None, file=str(folder))
        assert ending.kind == "failed"
        assert isinstance(ending.error, PromptLayerFileError)
        assert ending.message == f"Could not read {folder}: Is a directory."

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

    def test_another_import_into_the_sheet_is_waited_for(self, serve: Serve) -> None:
        server = serve(new_server(import_duration=9.0))
        server.start_import(TABLE.id, CASES.id, b"Question\nWhy?\n")
        assert load().kind == "success"
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
        server.script(Reply(404, "<html>"), method="GET", path_prefix=OPERATIONS)
        assert load().kind == "failed for good"
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
