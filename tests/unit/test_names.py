# SPDX-License-Identifier: Apache-2.0
"""Titles of tables, sheets and columns in place of UUIDs, in tasks and in the hook."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException
from support.arguments import AT_RUN_TIME
from support.clocks import timed_by_polls
from support.kinds import SHEETS, TABLE, Fate, Serve, sheet
from support.modes import FakeTaskInstance, Store, run_task
from support.starts import RUN_SCORECARD, RUN_TABLE, Start, deferred

from airflow_provider_promptlayer.exceptions import (
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
    PromptLayerStartUncertainError,
    PromptLayerUnexpectedAnswerError,
)
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunTableOperator
from airflow_provider_promptlayer.sensors.promptlayer import (
    PromptLayerScorecardSensor,
    PromptLayerTableOperationSensor,
)
from airflow_provider_promptlayer.testing import Close, Column, LocalPromptLayer, Reply, Table

Ask = Callable[..., Any]
OTHER = "aaaaaaaa-0000-4000-8000-000000000001"
TWIN = "aaaaaaaa-0000-4000-8000-000000000002"


Titles = list[tuple[str, str | None]]
"""UUID and title of each item of a list."""


class Lists:
    """The list endpoints of a workspace, whose pages have one item each.

    :param form: where an answer has the cursor: at its top, or below ``pagination``.
    """

    def __init__(self, form: str = "top") -> None:
        self.form = form
        self.tables: Titles = [(OTHER, "table"), (TABLE.id, "Table"), (TWIN, "Table of contents")]
        self.sheets: Titles = [(sheet.id, sheet.title) for sheet in SHEETS.values()]
        self.asked: list[str] = []

    def __call__(self, request: Any) -> Reply | None:
        path, query = request.raw_path, request.query
        listed = {
            "/api/public/v2/tables": self.tables,
            f"/api/public/v2/tables/{TABLE.id}/sheets": self.sheets,
        }.get(path)
        if request.method != "GET" or listed is None:
            return None
        self.asked.append(path)
        part = query.get("name", "").casefold()
        found = [item for item in listed if part in (item[1] or "").casefold()]
        at = int(query.get("cursor", "0"))
        more = at + 1 < len(found)
        end = {"next_cursor": str(at + 1) if more else None, "has_more": more}
        data = [{"id": one, "title": title} for one, title in found[at : at + 1]]
        page = end if self.form == "top" else {"pagination": end}
        return Reply.of_json({"success": True, "data": data, **page})


@pytest.fixture(params=["top", "pagination"])
def lists(request: pytest.FixtureRequest, server: LocalPromptLayer) -> Lists:
    lists = Lists(request.param)
    server.script(lists, times=None)
    return lists


def named(fate: Fate, **more: Any) -> dict[str, Any]:
    return {
        "table_id": None,
        "sheet_id": None,
        "table": TABLE.title,
        "sheet": SHEETS[fate].title,
        **more,
    }


both = pytest.mark.parametrize("start", [RUN_TABLE, RUN_SCORECARD], ids=["table", "scorecard"])


class TestTask:
    @both
    def test_looks_titles_up_once(self, start: Start, lists: Lists, deferrable: bool) -> None:
        ending = start.run(**named("good"), deferrable=deferrable)
        assert ending.kind == "success", ending
        assert len(lists.asked) == 3 + 3  # the pages of the tables, and of the sheets

    @both
    def test_does_not_look_up_what_the_wait_has(
        self, start: Start, lists: Lists, server: LocalPromptLayer
    ) -> None:
        ti = FakeTaskInstance(max_tries=2)
        deferral = deferred(start.make("never", **named("never")), ti=ti)
        lists.tables.clear()
        asked = len(lists.asked)
        waiting = (deferral.kwargs or {})["waiting"]
        server.script(Reply(404, b'{"detail": "gone"}'), method="GET", times=None)
        event = {"version": 1, "id": waiting["job"][start.kind.id_name], "outcome": "ended"}
        task = start.make("never", **named("never"))
        with pytest.raises(AirflowFailException, match="no such thing"):
            task.resume_execution(
                "execute_complete",
                {"waiting": waiting, "event": {**event, "message": ""}},
                {"ti": ti},
            )
        assert len(lists.asked) == asked

    @pytest.mark.parametrize(
        ("sensor", "begin"),
        [
            (PromptLayerTableOperationSensor, "start_operation"),
            (PromptLayerScorecardSensor, "start_calculation"),
        ],
        ids=["table", "scorecard"],
    )
    def test_waits_for_a_job_of_a_titled_sheet(
        self, sensor: Any, begin: str, lists: Lists, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        job_id = getattr(server, begin)(TABLE.id, SHEETS["good"].id)
        id_field = {sensor.id_field: job_id}
        arguments = {"task_id": "t", "deferrable": deferrable, **named("good"), **id_field}
        assert run_task(lambda: sensor(**arguments)).kind == "success"
        assert len(lists.asked) == 3 + 3

    @pytest.mark.parametrize("keeps_state", [True, False])
    def test_looks_titles_up_once_though_it_is_rescheduled(
        self, keeps_state: bool, serve: Serve
    ) -> None:
        """Each poll is another process; a second passes with each GET, and the job takes 20."""
        answers = Column("Answer", cell_duration=20.0)
        table = Table(
            "Table", [sheet(fate, columns=[answers], row_count=4) for fate in ("good", "bad")]
        )
        server = serve(timed_by_polls(tables=[table]))
        server.script(lists := Lists(), times=None)
        state = {"task_state_store": Store()} if keeps_state else {}

        def lookups(number: int, fate: Fate = "good") -> int:
            at = {"table_id": TABLE.id, "sheet_id": SHEETS[fate].id}
            arguments = {
                **named(fate),
                "operation_id": server.start_operation(**at, row_ids=[len(server.operations)]),
                "mode": "reschedule",
                "deferrable": False,
                "poke_interval": 0.001,
            }
            before = len(lists.asked)
            ending = run_task(
                lambda: PromptLayerTableOperationSensor(task_id="t", **arguments),
                FakeTaskInstance(try_number=number),
                **state,
            )
            assert ending.kind == "success", ending
            return len(lists.asked) - before

        if keeps_state:
            assert [lookups(1), lookups(1), lookups(2), lookups(2, "bad")] == [6, 0, 6, 6]
        else:
            assert lookups(1) > 6

    @both
    def test_takes_uuids_for_titles(self, start: Start, server: LocalPromptLayer) -> None:
        where = {"table": TABLE.id.upper(), "sheet": SHEETS["good"].id}
        ending = start.run(**named("good", **where))
        assert ending.kind == "success", ending
        lists = ("/tables", "/sheets")
        assert not [one for one in server.requests if one.raw_path.endswith(lists)]

    def test_finds_nothing_to_start_out(self, lists: Lists) -> None:
        """The counts of the sheet decide, which is another job than an operation."""
        for _ in range(2):
            ending = RUN_TABLE.run(**named("good"))
        assert (ending.kind, ending.value["operation_id"]) == ("success", None), ending

    @both
    def test_goes_back_to_the_job_of_a_sheet_that_has_another_title_by_now(
        self, start: Start, lists: Lists, server: LocalPromptLayer
    ) -> None:
        store = Store()
        start.run(store, **named("good"))
        lists.sheets = [(one, f"old {title}") for one, title in lists.sheets]
        ending = start.run(store, number=2, **named("good"))
        assert ending.kind == "success", ending
        assert len(start.started(server)) == 1

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"table": "Tables"}, "No table is titled 'Tables', and .* these exist: 'table'"),
            (
                {"sheet": "Good"},
                "No sheet of table 'Table' is titled 'Good', .* these exist: 'good', 'bad'",
            ),
            ({"table": "Twins"}, f"2 tables are titled 'Twins': give the UUID of one.*{TWIN}"),
            ({"sheet": "  "}, "sheet must be a text of 1 to 255 characters, not '  '"),
            ({"table": None, "table_id": "Table"}, "table_id must be a UUID"),
        ],
        ids=str,
    )
    def test_fails_for_good_before_it_starts_anything(
        self, change: dict[str, Any], says: str, lists: Lists, server: LocalPromptLayer
    ) -> None:
        lists.tables += [(OTHER, "Twins"), (TWIN, "Twins")]
        store = Store()
        ending = RUN_TABLE.run(store, **named("good", **change), **AT_RUN_TIME)
        assert ending.kind == "failed for good", ending
        assert re.search(says, ending.message), ending
        assert (server.count("POST"), store) == (0, {})

    def test_rides_an_outage_out(self, lists: Lists, server: LocalPromptLayer) -> None:
        server.script(Reply(503), method="GET", times=3)
        assert RUN_TABLE.run(**named("good")).kind == "success"

    @pytest.mark.parametrize(
        ("how", "kind"),
        [
            ({"timeout": 0.1}, "timeout"),
            ({"timeout": 0.1, "soft_fail": True}, "skipped"),
            ({"max_outage": 0.1}, "failed"),
        ],
        ids=str,
    )
    def test_ends_in_time_while_promptlayer_is_out_of_reach(
        self, how: dict[str, Any], kind: str, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        server.script(Reply(503), method="GET", times=None)
        ending = RUN_TABLE.run(**named("good"), **how, deferrable=deferrable)
        assert ending.kind == kind, ending
        assert server.count("POST") == 0

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"table": None}, "Give one of table, a title or a UUID, and table_id.*none"),
            ({"sheet_id": SHEETS["good"].id}, "Give one of sheet.*both"),
        ],
        ids=str,
    )
    def test_is_refused_without_one_of_both(self, given: dict[str, Any], says: str) -> None:
        with pytest.raises(PromptLayerInvalidInputError, match=says):
            RUN_TABLE.make(**named("good", **given))


def test_titles_come_from_default_args_and_are_mapped() -> None:
    with DAG("d", schedule=None, default_args={"table": "Table"}):
        task = PromptLayerRunTableOperator(task_id="one", sheet="good")
        mapped: Any = PromptLayerRunTableOperator.partial(task_id="many").expand(
            sheet=["good", "bad"]
        )
    assert (task.table, task.sheet) == ("Table", "good")
    unmapped = mapped.unmap({"sheet": "bad"})
    assert (unmapped.table, unmapped.sheet) == ("Table", "bad")


class TestColumns:
    """``columns`` of a recalculation."""

    @pytest.mark.parametrize(
        "given", [["Answer"], '["Answer"]', ["Answer", SHEETS["good"].columns[1].id.upper()]]
    )
    def test_are_found_by_title(self, given: Any, server: LocalPromptLayer) -> None:
        ending = RUN_TABLE.run(**named("good"), columns=given)
        assert (ending.kind, ending.value["cell_count"]) == ("success", 3), ending

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            (["answer"], "No column of sheet .* is titled 'answer', .*'Answer', 'Question'"),
            ("Answer", "columns must be a list"),
            ([], "columns is empty"),
        ],
        ids=str,
    )
    def test_are_refused(self, given: Any, says: str, server: LocalPromptLayer) -> None:
        ending = RUN_TABLE.run(**named("good"), columns=given, **AT_RUN_TIME)
        assert ending.kind == "failed for good", ending
        assert re.search(says, ending.message), ending
        assert server.count("POST") == 0

    def test_are_given_once(self) -> None:
        with pytest.raises(PromptLayerInvalidInputError, match="columns or column_ids"):
            RUN_TABLE.make(columns=["Answer"], column_ids=[OTHER])


class TestEnsure:
    """A table and a sheet are created once, whatever becomes of the answer."""

    def test_creates_what_is_missing(self, ask: Ask, server: LocalPromptLayer) -> None:
        sheet = ask("ensure_sheet", "New", "Cases")
        assert ask("ensure_sheet", "New", "Cases") == ask("find_sheet", "New", "Cases") == sheet
        assert ask("ensure_table", "New") == sheet.table_id
        assert server.count("POST") == 2

    def test_creates_nothing_in_a_table_that_does_not_exist(
        self, ask: Ask, server: LocalPromptLayer
    ) -> None:
        with pytest.raises(PromptLayerNotFoundError, match="list the sheets"):
            ask("ensure_sheet", OTHER, "Cases")
        assert server.count("POST") == 0

    def test_finds_what_there_is(self, ask: Ask, server: LocalPromptLayer) -> None:
        assert ask("ensure_sheet", TABLE.title, "good").sheet_id == SHEETS["good"].id
        assert server.count("POST") == 0

    @pytest.mark.parametrize("has_arrived", [True, False])
    def test_looks_again_before_it_sends_again(
        self, ask: Ask, has_arrived: bool, server: LocalPromptLayer
    ) -> None:
        server.script(Close(), method="POST", acted_on=has_arrived)
        table_id = ask("ensure_table", "New")
        assert ask("find_table", "New") == table_id  # of two, none would be chosen
        assert server.count("POST") == (1 if has_arrived else 2)

    def test_gives_up_after_two_lost_answers(self, ask: Ask, server: LocalPromptLayer) -> None:
        server.script(Close(), method="POST", times=None)
        with pytest.raises(PromptLayerStartUncertainError, match="may have been created"):
            ask("ensure_table", "New")
        assert server.count("POST") == 2

    def test_rides_out_what_certainly_created_nothing(
        self, ask: Ask, server: LocalPromptLayer
    ) -> None:
        server.script(Reply(429), method="POST", times=2)
        assert ask("ensure_table", "New") == ask("find_table", "New")


class TestHook:
    def test_finds_a_title_whatever_is_in_it(self, ask: Ask, server: LocalPromptLayer) -> None:
        for title in ("50% & more", "a/b?c#d+e", " ünï 🍵\n", "_%", "'; --"):
            assert ask("ensure_table", title) == ask("find_table", title)

    def test_finds(self, ask: Ask, lists: Lists) -> None:
        assert ask("find_table", "Table") == TABLE.id
        sheet = ask("find_sheet", "Table", "bad")
        assert (sheet.table_id, sheet.sheet_id) == (TABLE.id, SHEETS["bad"].id)

    def test_sends_nothing_for_uuids(self, ask: Ask, server: LocalPromptLayer) -> None:
        assert ask("find_table", f" {OTHER.upper()}") == OTHER
        assert ask("find_sheet", TWIN, OTHER).sheet_id == OTHER
        assert server.count() == 0

    def test_refuses_a_list_that_never_ends(self, ask: Ask, server: LocalPromptLayer) -> None:
        page = {"data": [], "next_cursor": "again", "has_more": True}
        server.script(Reply.of_json(page), times=None)
        with pytest.raises(PromptLayerUnexpectedAnswerError, match="leads back"):
            ask("find_table", "Table")
        assert server.count() == 2

    def test_names_the_five_titles_that_are_closest(self, ask: Ask, lists: Lists) -> None:
        titles = ["", "zzz", *(f"{month} cases" for month in ("May", "June", "July")), "cases", "0"]
        lists.sheets = [(OTHER[:-2] + f"{at:02}", title) for at, title in enumerate(titles)]
        with pytest.raises(PromptLayerNotFoundError, match=r"exist: 'July cases', .* and 1 more"):
            ask("find_sheet", "Table", "july cases")
        lists.sheets = [(OTHER, None)]
        with pytest.raises(PromptLayerNotFoundError, match="there are no sheets"):
            ask("find_sheet", "Table", "Sheet")
