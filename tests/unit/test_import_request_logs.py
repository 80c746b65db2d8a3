# SPDX-License-Identifier: Apache-2.0
"""Request logs are sampled into a sheet: which ones, how often, and what if there are none."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.arguments import AT_RUN_TIME
from support.clocks import timed_by_polls
from support.kinds import Serve
from support.loads import CASES, LOST, OPERATIONS, TABLE, questions
from support.modes import Ending, FakeTaskInstance, run_task

from airflow_provider_promptlayer.api.request_logs import LogSelection
from airflow_provider_promptlayer.exceptions import PromptLayerImportFailedError
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerImportRequestLogsOperator
from airflow_provider_promptlayer.testing import Close, LocalPromptLayer, Reply, RequestLog

MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)


def log(number: int, hours: float = 1.0, **more: Any) -> RequestLog:
    """Return a log of a request that was sent so many hours after midnight."""
    return RequestLog(
        number,
        **{
            "start_time": MIDNIGHT + timedelta(hours=hours),
            "input_variables": {"Question": f"No. {number}"},
            **more,
        },
    )


LOGS = [
    log(1, -0.1),
    log(2, 0.0),
    log(3, 12.0, prompt="Joke", version=1, label="prod"),
    log(4, 12.0, prompt="Joke", version=2, label="dev", tags=["a", "b"]),
    log(5, 12.0, tags=["a"], metadata={"customer": "7"}, price=0.5),
    log(6, 23.99, tags=["ab"], metadata={"customer": "8"}),
    log(7, 24.0),
]


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    return serve(timed_by_polls([], tables=[TABLE], request_logs=LOGS, import_duration=2.0))


def run(number: int = 1, *, max_tries: int = 2, **arguments: Any) -> Ending:
    given = {"sheet": "Cases", **arguments}
    return run_task(
        lambda: PromptLayerImportRequestLogsOperator(
            task_id="task", table="Answers", poke_interval=0.02, retries=2, **given
        ),
        FakeTaskInstance(try_number=number, max_tries=max_tries),
    )


def numbers(server: LocalPromptLayer, sheet_id: str = CASES.id) -> list[int]:
    """Return the numbers of the logs that are in a sheet."""
    found = questions(server, sheet_id)
    return [int(text.removeprefix("No. ")) for text in found if text.startswith("No. ")]


@pytest.mark.parametrize("new", [False, True], ids=["into a sheet", "into a new sheet"])
@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"start": MIDNIGHT, "end": MIDNIGHT + timedelta(days=1)}, [2, 3, 4, 5, 6]),
        ({"start": "2026-03-01 00:00:00+00:00", "end": "2026-03-01T12:00:00"}, [2]),
        ({"start": "2026-03-01T01:00:00+01:00", "limit": "2"}, [2, 3]),
        ({"prompt": "Joke"}, [3, 4]),
        ({"prompt": "Joke", "release_label": "dev"}, [4]),
        ({"tags": "a"}, [4, 5]),
        ({"tags": '["a", "b"]'}, [4]),
        ({"metadata": {"customer": 7}}, [5]),
        ({"tags": ["a"], "prompt": "Joke", "start": MIDNIGHT}, [4]),
        ({"filter_group": {"filters": [{"field": "cost", "operator": "gt", "value": 0.1}]}}, [5]),
        ({"request_ids": ["3", 7]}, [3, 7]),
    ],
    ids=str,
)
def test_which_logs(
    server: LocalPromptLayer, new: bool, conditions: dict[str, Any], expected: list[int]
) -> None:
    where: dict[str, Any] = {"sheet": None, "title": "new"} if new else {}
    ending = run(**conditions, **where)
    assert ending.kind == "success", ending
    assert numbers(server, ending.value["sheet_id"]) == expected
    assert ending.value["rows_added"] == len(expected)


def test_a_new_sheet_gets_the_fields_of_the_description_too(server: LocalPromptLayer) -> None:
    """It has no filter there, so its reader would import all logs of the workspace."""
    selection = LogSelection(start=MIDNIGHT, end="2026-03-02", prompt="7")
    assert PromptLayerHook().request_log_source(selection).fields_of_new_sheet == {
        "start_time": "2026-03-01T00:00:00+00:00",
        "end_time": "2026-03-02T00:00:00+00:00",
        "prompt_id": 7,
    }


def test_which_columns(server: LocalPromptLayer) -> None:
    run(sheet=None, title="new", request_ids=[5], variables=["Question"], fields=["cost"])
    (sheet,) = [each for each in server.tables[0].sheets if each.title == "new"]
    assert [column.title for column in sheet.columns] == ["Question", "output", "cost"]


@pytest.mark.parametrize("new", [False, True], ids=["into a sheet", "into a new sheet"])
class TestNoLogs:
    def run(self, new: bool, on_empty: str) -> Ending:
        where: dict[str, Any] = {"sheet": None, "title": "new"} if new else {}
        return run(tags="none", on_empty=on_empty, **where)

    def test_are_a_success(self, server: LocalPromptLayer, new: bool) -> None:
        ending = self.run(new, "succeed")
        assert (ending.kind, ending.value["rows_added"]) == ("success", 0)

    def test_may_skip(self, server: LocalPromptLayer, new: bool) -> None:
        ending = self.run(new, "skip")
        assert (ending.kind, ending.message) == ("skipped", "No request log meets the conditions.")

    def test_may_fail(self, server: LocalPromptLayer, new: bool) -> None:
        ending = self.run(new, "fail")
        assert ending.kind == "failed for good"
        assert isinstance(ending.error, PromptLayerImportFailedError)
        assert "No requests found for the given criteria" in ending.message


def test_a_condition_that_is_missing_does_not_widen_the_import(server: LocalPromptLayer) -> None:
    def make() -> Any:
        task = PromptLayerImportRequestLogsOperator(
            task_id="task", table="Answers", sheet="Cases", start=MIDNIGHT, prompt="Joke"
        )
        task.prompt = None  # as Airflow renders an XCom that is not there
        return task

    ending = run_task(make)
    assert (ending.kind, server.imports) == ("failed for good", [])
    assert ending.message.startswith("prompt is None, as a missing XCom is")


def test_as_many_logs_as_promptlayer_imports_at_once(
    server: LocalPromptLayer, request: pytest.FixtureRequest
) -> None:
    logged = request.getfixturevalue("log")
    done = {"operation_id": "1", "status": "completed", "rows_added": 50_000}
    server.script(Reply.of_json({"operation": done}), path_prefix=OPERATIONS, after=1)
    assert run(tags="a").value["rows_added"] == 50_000
    assert "at most 50000 request logs at once: more may meet" in logged()


def test_a_lost_answer_and_a_retry_import_once(server: LocalPromptLayer) -> None:
    server.script(Close(), **LOST)
    assert run(tags="a").kind == "success"
    assert run(2, tags='["a"]').value["rows_added"] == 2
    assert len(server.imports) == 1
    run(3, max_tries=4, tags="a")
    run(4, max_tries=4, tags="ab")
    assert len(server.imports) == 3


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (
            {},
            "Give at least one of start, end, prompt, release_label",
        ),
        ({"tags": [], "metadata": {}, "prompt": "", "limit": 5}, "Give at least one of start"),
        ({"request_ids": []}, "Give at least one of start"),
        ({"request_ids": [1], "tags": "a"}, "request_ids name the logs, so leave out tags."),
        ({"release_label": "prod"}, "release_label is one of a prompt"),
        ({"start": "None"}, "start must be a datetime, or one in ISO 8601, not 'None'."),
        ({"start": MIDNIGHT, "end": MIDNIGHT}, "start must be before end"),
        ({"start": MIDNIGHT, "end": "2026-03-01T00:30:00+01:00"}, "start must be before end"),
        ({"tags": "a", "limit": 50_001}, "limit must be at most 50000"),
        ({"tags": "a", "limit": 0}, "limit must be a positive integer"),
        ({"prompt": "Nothing"}, "Could not find prompt 'Nothing'"),
        (
            {"prompt": "Joke", "release_label": "x"},
            "Prompt 'Joke' has no label 'x'; it has: 'prod', 'dev'.",
        ),
    ],
    ids=str,
)
def test_what_is_refused(
    server: LocalPromptLayer, conditions: dict[str, Any], message: str
) -> None:
    ending = run(**conditions, **AT_RUN_TIME)
    assert ending.kind == "failed for good"
    assert message in ending.message
    assert server.imports == []


@pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "async"])
def test_the_hook(server: LocalPromptLayer, is_async: bool) -> None:
    hook = PromptLayerHook()
    how: dict[str, Any] = {"sheet_id": CASES.id, "prompt": "Joke", "release_label": "dev"}
    job = (
        asyncio.run(hook.aimport_request_logs(TABLE.id, **how))
        if is_async
        else hook.import_request_logs(TABLE.id, **how)
    )
    found = hook.wait_for_import(
        job.table_id, job.sheet_id, job.operation_id, timeout=60, poke_interval=0.01
    )
    hook.close()
    assert found.rows_added == 1
    assert numbers(server) == [4]
