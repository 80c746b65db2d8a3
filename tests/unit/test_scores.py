# SPDX-License-Identifier: Apache-2.0
"""The operators for scorecards and reports: the gate, what explains it, and what may be retried."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.kinds import Fate, Serve, sheet
from support.modes import Ending, Store
from support.starts import RUN_REPORT, RUN_SCORECARD

from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.testing import (
    Criterion,
    LocalPromptLayer,
    Reply,
    Scorecard,
    ScoredRow,
    Silence,
    Table,
)


def with_card(card: Scorecard | None, rows: int = 3) -> LocalPromptLayer:
    only = sheet("good", scorecard=card, row_count=rows)
    return LocalPromptLayer(tables=[Table("Table", [only])])


def judge(fate: Fate = "good", store: Store | None = None, **arguments: Any) -> Ending:
    return RUN_SCORECARD.run(store, fate, **arguments)


def report(store: Store | None = None, **arguments: Any) -> Ending:
    return RUN_REPORT.run(store, **arguments)


class TestGate:
    """The gate of a scorecard."""

    MESSAGE = (
        "the verdict is 'fail'. Failing criteria: 'Cites a source' (fail, 0.2): 1 of 3 fails. "
        "Worst rows: row 1 (fail, 0.1): 'Cites a source': The link leads nowhere. "
        "To start another scorecard calculation, clear this task."
    )

    def test_names_criteria_and_rows_and_pushes_what_an_alert_wants(
        self, server: LocalPromptLayer
    ) -> None:
        ending = judge("bad")
        assert ending.kind == "failed for good"
        assert ending.message.endswith(self.MESSAGE)
        (calculation_id,) = server.calculations
        assert ending.xcoms.pop("promptlayer_criterion_summaries")
        assert ending.xcoms == {
            "promptlayer_calculation_id": calculation_id,
            "promptlayer_score": 0.4,
            "promptlayer_verdict": "fail",
            "promptlayer_drift_summary": {"delta": 0.1},
        }

    @pytest.mark.parametrize(
        ("fate", "gate", "kind"),
        [
            ("bad", {"soft_fail": True}, "skipped"),
            ("bad", {"fail_on_verdict": ()}, "success"),
            ("bad", {"fail_on_verdict": ["error"]}, "success"),
            ("bad", {"fail_on_verdict": (), "min_score": 0.4}, "success"),
            ("bad", {"fail_on_verdict": (), "min_score": "0.41"}, "failed for good"),
        ],
        ids=str,
    )
    def test_gate(
        self, server: LocalPromptLayer, fate: Fate, gate: dict[str, Any], kind: str
    ) -> None:
        assert judge(fate, **gate).kind == kind

    def test_a_low_score_names_rows_whatever_their_verdict(self, server: LocalPromptLayer) -> None:
        message = judge(min_score=0.95).message
        assert "the score 0.9 is below min_score=0.95" in message
        assert "row 2 (pass, 0.9)" in message

    def test_rows_that_pass_are_not_named_beside_others(self, serve: Serve) -> None:
        rows = [ScoredRow("pass", 1.0), ScoredRow("skipped", None), ScoredRow("warn", 0.84)]
        serve(with_card(Scorecard("Q", [], rows, score=0.93)))
        message = judge(min_score=0.95).message
        assert "Worst rows: row 2 (warn, 0.84). " in message
        assert "row 0" not in message
        assert "row 1" not in message

    @pytest.mark.parametrize(
        ("path", "status", "kept"),
        [
            ("/scorecard", 503, ["'Cites a source' (fail"]),
            ("/scorecard/rows", 503, ["'Cites a source' (fail"]),
            ("/scorecard/rows/1", 503, ["'Cites a source' (fail", "row 1 (fail, 0.1)"]),
            ("/scorecard/rows/1", 404, ["'Cites a source' (fail", "row 1 (fail, 0.1)"]),
        ],
    )
    def test_trouble_in_explaining_changes_no_verdict(
        self,
        server: LocalPromptLayer,
        path: str,
        status: int,
        kept: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(retries, "EXPLAINING", retries.EXPLAINING.within(0.1))

        def fault(request: Any) -> Reply | None:
            return Reply(status) if request.raw_path.partition("?")[0].endswith(path) else None

        server.script(fault, times=None)
        ending = judge("bad")
        assert ending.kind == "failed for good"
        for part in ("the verdict is 'fail'", *kept, "There is more to know", f"HTTP {status}"):
            assert part in ending.message
        assert ending.xcoms["promptlayer_score"] == 0.4

    def test_a_blip_in_explaining_loses_nothing(self, server: LocalPromptLayer) -> None:
        hits: list[str] = []

        def fault(request: Any) -> Reply | None:
            if "/scorecard/calculations/" in request.raw_path or request.method != "GET":
                return None
            hits.append(request.raw_path)
            return Reply(503) if hits.count(request.raw_path) == 1 else None

        server.script(fault, times=None)
        assert judge("bad").message.endswith(self.MESSAGE)

    @pytest.mark.parametrize(
        ("card", "kind", "says", "starts"),
        [
            # What did not come to an end may be retried.
            (
                Scorecard("Q", status="failed", error_summary="No model.", score=None),
                "failed",
                "PromptLayer says: No model",
                2,
            ),
            # A calculation of an unknown status may still be running.
            (Scorecard("Q", status="QUEUED", score=None), "failed for good", "'QUEUED'", 1),
            # A calculation without a verdict neither passes nor is retried.
            (Scorecard("Q", verdict=None), "failed for good", "gave no verdict", 1),
        ],
        ids=["failed", "of an unknown status", "without a verdict"],
    )
    def test_a_calculation_that_does_not_complete(
        self, card: Scorecard, kind: str, says: str, starts: int, serve: Serve
    ) -> None:
        server, store = serve(with_card(card)), Store()
        for number in (1, 2):
            ending = judge(store=store, number=number)
            assert ending.kind == kind, ending
            assert says in ending.message
        assert server.count("POST") == starts

    def test_clearing_asks_for_another_verdict_also_after_trouble(
        self, server: LocalPromptLayer
    ) -> None:
        store = Store()
        assert judge("bad", store).kind == "failed for good"
        server.script(Reply(503, headers={"Retry-After": "0"}), method="POST", times=None)
        ending = judge("bad", store, number=2, max_tries=3, max_outage=0.2)
        assert ending.kind == "failed"
        server.clear_scripts()
        judge("bad", store, number=3, max_tries=3)
        assert len(server.calculations) == 2

    def test_names_that_airflow_cannot_store_are_changed(
        self, serve: Serve, log: Callable[[], str]
    ) -> None:
        card = Scorecard("Q", drift_summary={"\x00": "\x00"})
        serve(with_card(card))
        assert "\x00" not in json.dumps(judge().xcoms["promptlayer_drift_summary"])
        assert log().count("The result was changed so that Airflow can store it") == 1


def test_the_reasons_of_the_worst_rows_are_read_together(serve: Serve) -> None:
    rows = [
        ScoredRow("fail", number / 10, reasons={"Cites a source": f"Reason {number}."})
        for number in range(7)
    ]
    card = Scorecard("Q", [Criterion("Cites a source")], rows, verdict="fail", score=0.3)
    server = serve(with_card(card, rows=7))
    asked: list[str] = []

    def fault(request: Any) -> Silence | None:
        if "/scorecard/rows/" not in request.raw_path:
            return None
        asked.append(request.raw_path)
        return Silence() if len(asked) <= 5 else None

    def let_go() -> None:
        server.wait_for(lambda: len(asked) == 5, timeout=60)  # none of them has been answered
        server.drop_connections()

    server.script(fault, times=None)
    with ThreadPoolExecutor(1) as thread:
        letting_go = thread.submit(let_go)
        message = judge().message  # in this thread, as Airflow 2 refuses to run a task in another
        letting_go.result(60)
    worst = message.partition("Worst rows: ")[2]
    assert re.findall(r"row (\d) .*?Reason (\d)", worst) == [(str(n), str(n)) for n in range(5)]


class TestManyRows:
    """The rows come page by page."""

    @pytest.fixture
    def server(self, serve: Serve) -> LocalPromptLayer:
        rows = [
            ScoredRow("fail" if row % 2 else "pass", 1 - row / 1000, error_summary=f"e{row}")
            for row in range(450)
        ]
        rows[3] = ScoredRow("error", None, error_summary="no answer")
        return serve(with_card(Scorecard("Q", [], rows, verdict="fail", score=0.5), rows=450))

    def test_the_worst_of_all_pages_are_named(self, server: LocalPromptLayer) -> None:
        worst = judge().message.partition("Worst rows: ")[2]
        assert worst == (
            "row 3 (error): no answer; row 449 (fail, 0.551): e449; row 447 (fail, 0.553): e447; "
            "row 445 (fail, 0.555): e445; row 443 (fail, 0.557): e443. "
            "To start another scorecard calculation, clear this task."
        )
        polls, cards, rows = 1, 1, 5
        assert server.count("GET") - polls - cards - rows == 1 + 3  # pages of errors, of failures

    def test_pages_that_cannot_be_had(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retries, "EXPLAINING", retries.EXPLAINING.within(0.1))
        server.script(lambda request: Reply(500) if "cursor" in request.query else None, times=None)
        message = judge().message
        assert "row 3 (error)" in message
        assert "There is more to know" in message

    def test_pages_without_an_end(self, server: LocalPromptLayer) -> None:
        row = {"row_index": 1, "aggregate_score": 0.0, "aggregate_verdict": "fail"}

        def page(request: Any) -> Reply | None:
            if not request.raw_path.partition("?")[0].endswith("/scorecard/rows"):
                return None
            following = int(request.query.get("cursor", 0)) + 1
            return Reply.of_json({"rows": [row], "next_cursor": following})

        server.script(page, times=100)
        assert judge(fail_on_verdict=["fail"]).kind == "failed for good"
        assert sum("cursor" in request.query for request in server.requests) < 50


class TestReport:
    """Running a legacy pipeline."""

    def test_score_and_counts(self, server: LocalPromptLayer) -> None:
        ending = report(min_score=90)
        assert ending.kind == "success", ending
        assert ending.xcoms["promptlayer_score"] == ending.value["score"] == 90.0
        assert (ending.value["completed_count"], ending.value["failed_count"]) == (4, 0)

    def test_below_the_score(self, server: LocalPromptLayer) -> None:
        ending = report(Store(), min_score=90.5)
        assert ending.kind == "failed for good"
        assert "the score 90 is below min_score=90.5" in ending.message
        assert "'Is polite' 90" in ending.message
        assert ending.xcoms["promptlayer_score"] == 90.0

    def test_an_unknown_status_is_neither_retried_nor_scored(
        self, server: LocalPromptLayer
    ) -> None:
        body = {"success": True, "status": "EXPLODED", "report": {}, "stats": {"status_counts": {}}}
        server.script(Reply.of_json(body), method="GET", times=None)
        ending = report(Store(), min_score=1)
        assert ending.kind == "failed for good", ending
        assert server.count("POST", "/reports") == 1
        assert "it ended as 'EXPLODED'" in ending.message
