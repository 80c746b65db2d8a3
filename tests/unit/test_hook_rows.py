# SPDX-License-Identifier: Apache-2.0
"""The hook's methods that read the rows of a sheet, and write them to a file."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import airflow.models.dag  # noqa: F401  # which the paths of Airflow 2 need, and do not import
import pytest
from airflow.providers.common.compat.sdk import AirflowException, ObjectStoragePath
from fsspec.implementations.local import (  # type: ignore[import-untyped]
    LocalFileOpener,
    LocalFileSystem,
)
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from support.sheets import (
    EMPTY,
    IDS,
    QUESTIONS,
    REFUSAL,
    ROWS_PATH,
    TABLE,
    read_file,
    serving,
)

from airflow_provider_promptlayer.exceptions import (
    PromptLayerFileError,
    PromptLayerInvalidInputError,
    PromptLayerRefusedError,
    PromptLayerSheetChangedError,
)
from airflow_provider_promptlayer.hooks import pages as hook_pages
from airflow_provider_promptlayer.hooks import rows as hook_rows
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.testing import (
    Column,
    LocalPromptLayer,
    RequestMetrics,
    Sheet,
    Table,
)


@pytest.fixture(params=["description", "libraries"])
def dialect(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPromptLayer]:
    yield from serving(monkeypatch)


@pytest.fixture
def logged(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Callable[[], str]:
    """Return what was logged, which Airflow 3 writes to the standard output."""
    caplog.set_level("INFO")
    return lambda: capsys.readouterr().out + caplog.text


def test_rows(
    rows_of: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch, dialect: Any
) -> None:
    for server in serving(monkeypatch, dialect=dialect):
        calculation = server.start_calculation(*IDS)
        rows = rows_of(*IDS, scorecard=True)
        assert [row["row_index"] for row in rows] == list(range(250))
        assert [row["Question"] for row in rows] == QUESTIONS
        assert {(row["Answer"], row["Answer_status"]) for row in rows} == {
            (question.upper(), "completed") for question in QUESTIONS
        }
        assert rows[120] | {"Answer": ""} == {
            "row_index": 120,
            "Question": "Question 120",
            "Answer": "",
            "Answer_status": "completed",
            **dict.fromkeys(f"Answer_{name}" for name in ("error", "price", "latency_ms")),
            **dict.fromkeys(f"Answer_{name}_tokens" for name in ("input", "output")),
            "Answer_request_ids": None,
            "scorecard_verdict": "fail",
            "scorecard_score": 0.1,
            "scorecard_reasons": {"Polite": "Rude."},
            "scorecard_error": None,
        }
        asked = [request for request in server.requests if "scorecard/rows" in request.raw_path]
        assert len(asked) == 4  # one for each page, and one for the row that has not passed
        assert {request.query["calculation_id"] for request in asked} == {calculation}
        assert list(rows_of(*IDS, columns=["Question"])[0]) == ["row_index", "Question"]


def test_what_calculated_cells_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    column = Column("Answer", failing_rows=[1], metrics=RequestMetrics(price=0.25, latency_ms=None))
    sheet = Sheet("Costly", [column], row_count=3)
    table = Table("Other", [sheet])
    for server in serving(monkeypatch, table):
        server.start_operation(table.id, sheet.id)
        export = PromptLayerHook().export_rows(table.id, sheet.id, None, return_rows=True)
    assert export.cell_counts == {"completed": 2, "failed": 1}
    assert export.rows is not None
    first, failed, _ = export.rows
    assert (first["Answer_price"], first["Answer_latency_ms"]) == (0.25, None)
    assert (first["Answer_input_tokens"], first["Answer_output_tokens"]) == (100, 20)
    assert len(first["Answer_request_ids"]) == 1
    assert (failed["Answer"], failed["Answer_status"]) == (None, "failed")
    assert failed["Answer_error"]


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_an_export(
    ending: str, hook: PromptLayerHook, server: LocalPromptLayer, tmp_path: Path
) -> None:
    path = tmp_path / f"cases.{ending}"
    path.write_text("an older export\n" * 1000)
    export = hook.export_rows(*IDS, path.as_uri())
    assert (export.path, export.row_count, export.version) == (path.as_uri(), 250, 1)
    assert export.cell_counts == {"completed": 250}
    assert export.rows is None
    rows = read_file(path)
    assert list(rows[0]) == export.fields
    assert [row["Question"] for row in rows] == QUESTIONS
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


def test_an_export_of_an_empty_sheet(
    hook: PromptLayerHook, server: LocalPromptLayer, tmp_path: Path
) -> None:
    path = tmp_path / "cases.csv"
    assert hook.export_rows(TABLE.id, EMPTY.id, str(path)).row_count == 0
    assert path.read_text() == "row_index,Question\n"


def test_a_sheet_that_changes_is_read_again(
    hook: PromptLayerHook,
    server: LocalPromptLayer,
    tmp_path: Path,
    logged: Callable[[], str],
) -> None:
    path = tmp_path / "cases.jsonl"
    changes = iter([True])

    def add_row(_: Any) -> None:
        if next(changes, False):
            server.add_rows(*IDS, [{"Question": "another"}])

    server.script(add_row, path_prefix=ROWS_PATH, after=1, times=None)
    export = hook.export_rows(*IDS, path)
    assert export.row_count == len(read_file(path)) == 251
    assert read_file(path)[-1]["Question"] == "another"
    assert "was changed while it was read (version 2, before 1). Reading it again" in logged()


def keep_changing(server: LocalPromptLayer) -> None:
    """Add a row to the sheet before each page is answered."""
    server.script(
        lambda _: server.add_rows(*IDS, [{"Question": "another"}]),
        path_prefix=ROWS_PATH,
        times=None,
    )


@pytest.mark.parametrize(("on_change", "pages"), [("again", 10), ("fail", 2)])
def test_a_sheet_that_goes_on_changing(
    on_change: Any, pages: int, hook: PromptLayerHook, server: LocalPromptLayer, tmp_path: Path
) -> None:
    keep_changing(server)
    with pytest.raises(PromptLayerSheetChangedError):
        hook.export_rows(*IDS, tmp_path / "cases.csv", on_change=on_change)
    assert list(tmp_path.iterdir()) == []
    assert server.count("GET", ROWS_PATH) == pages


def test_a_sheet_that_changes_ends_an_iteration(
    rows_of: Callable[..., list[Any]], server: LocalPromptLayer
) -> None:
    keep_changing(server)
    with pytest.raises(PromptLayerSheetChangedError):
        rows_of(*IDS)


def test_a_cursor_that_is_refused_later_means_a_change(
    hook: PromptLayerHook, server: LocalPromptLayer, tmp_path: Path
) -> None:
    server.script(REFUSAL, path_prefix=ROWS_PATH, after=2)
    assert hook.export_rows(*IDS, tmp_path / "cases.csv").row_count == 250


def test_rows_of_a_small_sheet_are_returned(
    hook: PromptLayerHook, server: LocalPromptLayer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = hook.export_rows(*IDS, tmp_path / "cases.jsonl", return_rows=True)
    assert export.rows == read_file(tmp_path / "cases.jsonl")
    monkeypatch.setattr(hook_rows, "MAX_RETURNED_ROWS", 249)
    asked = server.count("GET", ROWS_PATH)
    with pytest.raises(PromptLayerInvalidInputError, match=r"at most 249 rows, .* has 250"):
        hook.export_rows(*IDS, None, return_rows=True)
    assert server.count("GET", ROWS_PATH) <= asked + 2


def test_progress_is_logged_every_ten_seconds(
    hook: PromptLayerHook,
    server: LocalPromptLayer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], str],
) -> None:
    hook.export_rows(*IDS, tmp_path / "cases.csv")
    text = logged()
    assert "Read " not in text
    monkeypatch.setattr(hook_pages, "_PROGRESS_SECONDS", 0.0)
    hook.export_rows(*IDS, tmp_path / "cases.csv")
    assert "Read 200 of 250 rows." in logged()


def refusing(error: Exception) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise error

    return refuse


@pytest.mark.parametrize("at", ["open", "write", "close", "mv"])
def test_a_storage_that_refuses_leaves_nothing(
    at: str,
    hook: PromptLayerHook,
    server: LocalPromptLayer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "cases.csv"
    path.write_text("an older export")
    full = refusing(OSError(errno.ENOSPC, "No space left on device"))
    if at in ("open", "mv"):
        monkeypatch.setattr(LocalFileSystem, at, full)
    else:
        monkeypatch.setattr(LocalFileOpener, at, full)
    with pytest.raises(PromptLayerFileError) as caught:
        hook.export_rows(*IDS, path)
    assert str(caught.value) == f"Could not write {path}: No space left on device."
    assert [file.name for file in tmp_path.iterdir()] == ["cases.csv"]
    assert path.read_text() == "an older export"


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("{folder}/cases", r"\.jsonl, \.csv, \.parquet"),
        ("{folder}/cases.xlsx", "none of them"),
        ("nowhere://bucket/cases.csv", "Cannot write to 'nowhere://bucket/cases.csv'"),
        ("{folder}/c*.csv", "takes for a pattern"),
    ],
)
def test_a_path_that_cannot_be_used(
    to: str, says: str, hook: PromptLayerHook, server: LocalPromptLayer, tmp_path: Path
) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match=says):
        hook.export_rows(*IDS, to.format(folder=tmp_path))
    assert server.count() == 0


def test_a_connection_of_the_storage_that_cannot_be_read(
    hook: PromptLayerHook, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ObjectStoragePath, "fs", property(refusing(AirflowException("no such connection")))
    )
    with pytest.raises(PromptLayerFileError) as caught:  # a retry may find the connection
        hook.export_rows(*IDS, "file:///bucket/cases.csv")
    assert str(caught.value) == "Could not write file:///bucket/cases.csv: no such connection."


def test_a_folder_in_the_place_of_the_file(
    hook: PromptLayerHook, server: LocalPromptLayer, tmp_path: Path
) -> None:
    path = tmp_path / "cases.csv"
    path.mkdir()
    with pytest.raises(
        PromptLayerInvalidInputError, match=f"{path}: There is a folder of that name"
    ):
        hook.export_rows(*IDS, path)
    assert list(tmp_path.rglob("*")) == [path]


def test_a_folder_that_does_not_exist(
    hook: PromptLayerHook, server: LocalPromptLayer, tmp_path: Path
) -> None:
    path = tmp_path / "nowhere" / "cases.csv"
    with pytest.raises(PromptLayerInvalidInputError, match=f"{path}: Its folder does not exist"):
        hook.export_rows(*IDS, path)
    assert server.count() == 0


def test_a_file_that_is_given_up_is_closed_before_it_is_removed(
    hook: PromptLayerHook, server: LocalPromptLayer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage of objects stores what it has when a file is closed, at the latest by Python."""
    steps: list[str] = []

    def noting(step: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            # Python may close a file of an earlier test meanwhile.
            if any(str(tmp_path) in str(getattr(each, "path", each)) for each in args):
                steps.append(step)
            return call(*args)

        return noted

    monkeypatch.setattr(LocalFileOpener, "close", noting("close", LocalFileOpener.close))
    monkeypatch.setattr(LocalFileSystem, "rm", noting("rm", LocalFileSystem.rm))
    server.script(REFUSAL, path_prefix=ROWS_PATH)
    with pytest.raises(PromptLayerRefusedError):
        hook.export_rows(*IDS, tmp_path / "cases.csv")
    assert steps[:2] == ["close", "rm"]


def test_a_storage_of_objects(
    hook: PromptLayerHook, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryFileSystem()
    monkeypatch.setattr(ObjectStoragePath, "fs", store)
    monkeypatch.setattr(ObjectStoragePath, "path", "/bucket/cases.jsonl")
    store.pipe("/bucket/cases.jsonl", b"an older export")
    store.pipe("/bucket/.cases.jsonl.task-1.part", b"half")
    try:
        hook.export_rows(*IDS, "file:///bucket/cases.jsonl", key="task", attempt=3)
        assert store.ls("/bucket", detail=False) == ["/bucket/cases.jsonl"]
        assert store.cat("/bucket/cases.jsonl").count(b"\n") == 250
        server.script(REFUSAL, path_prefix=ROWS_PATH)
        with pytest.raises(PromptLayerRefusedError):
            hook.export_rows(*IDS, "file:///bucket/cases.jsonl")
        assert store.ls("/bucket", detail=False) == ["/bucket/cases.jsonl"]
        store.mv("/bucket/cases.jsonl", "/bucket/cases.jsonl/part-1.jsonl")
        with pytest.raises(PromptLayerInvalidInputError, match="There is a folder of that name"):
            hook.export_rows(*IDS, "file:///bucket/cases.jsonl")
        assert store.find("/bucket") == ["/bucket/cases.jsonl/part-1.jsonl"]
    finally:
        store.rm("/bucket", recursive=True)
