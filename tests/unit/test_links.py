# SPDX-License-Identifier: Apache-2.0
"""The link from a task to PromptLayer: in XCom, in the log, in errors, and as a button."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG
from airflow.serialization import serialized_objects
from support import promotions
from support.connections import connect
from support.kinds import (
    KINDS,
    REPORT,
    SHEETS,
    TABLE,
    TABLE_OPERATION,
    WORKFLOW_RUN,
    Fate,
    Kind,
    at,
)
from support.modes import MODES_OF_ALL_KINDS, TASK_MODES, FakeTaskInstance, first_event, run_task
from support.starts import RUN_SCORECARD, RUN_WORKFLOW, STARTS, Start, deferred

from airflow_provider_promptlayer import exceptions
from airflow_provider_promptlayer.bases.task import PromptLayerLink
from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerExportSheetOperator,
    PromptLayerLoadSheetOperator,
    PromptLayerRunScorecardOperator,
    PromptLayerRunWorkflowBatchOperator,
    PromptLayerSnapshotSheetOperator,
)
from airflow_provider_promptlayer.testing import Close, LocalPromptLayer, Reply

HOST = "https://dashboard.example.com"
EXTRA = {
    "timeout": 60,
    "dashboard_url": f"{HOST}/",
    "run_url": "/runs/{workflow_version_execution_id}",
    "prompt_url": "/workspace/{workspace_id}/prompts/{prompt}",
    "workflow_url": "https://other.example.com/workflows/{workflow}",
    "report_url": "/reports/{report_id}",
}

TABLE_PATH = f"/api/public/v2/tables/{TABLE.id}"


def sheet_url(sheet_id: str) -> str:
    return f"{HOST}/workspace/1/smart-tables/{TABLE.id}?sheet={sheet_id}"


def url_of(kind: Kind, fate: Fate, its_id: Any) -> str:
    if kind is WORKFLOW_RUN:
        return f"{HOST}/runs/{its_id}"
    if kind is REPORT:
        return f"{HOST}/reports/{its_id}"
    return sheet_url(SHEETS[fate].id)


@pytest.fixture
def linked(server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch) -> LocalPromptLayer:
    """A server whose connection says where its web pages are."""
    connect(server, monkeypatch, extra=EXTRA)
    return server


every_task_mode = pytest.mark.parametrize(
    "mode", [mode for mode in MODES_OF_ALL_KINDS if mode in TASK_MODES]
)
HOW: dict[str, dict[str, Any]] = {
    "poke": {"deferrable": False},
    "reschedule": {"deferrable": False, "mode": "reschedule"},
    "deferred": {"deferrable": True},
}


@every_task_mode
@pytest.mark.parametrize("fate", ["good", "bad"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_sensor_links_to_what_it_has_waited_for(
    kind: Kind, fate: Fate, mode: str, linked: LocalPromptLayer
) -> None:
    ids = kind.start(linked, fate)
    ending = run_task(lambda: kind.sensor(task_id="task", poke_interval=0.02, **ids, **HOW[mode]))
    url = url_of(kind, fate, ids[kind.id_name])
    assert ending.xcoms["promptlayer_url"] == url
    if fate == "bad":
        assert ending.message.endswith(f" See {url}")
        assert isinstance(ending.error, exceptions.PromptLayerOutcomeError)
        assert (ending.error.url, ending.error.external_id) == (url, ids[kind.id_name])
    workspaces = [each for each in linked.requests if each.raw_path == TABLE_PATH]
    assert len(workspaces) == (kind not in (WORKFLOW_RUN, REPORT))


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_an_operator_links_to_what_it_has_started(
    start: Start, deferrable: bool, linked: LocalPromptLayer
) -> None:
    ending = start.run(deferrable=deferrable)
    (its_id,) = start.started(linked)
    assert ending.xcoms["promptlayer_url"] == url_of(start.kind, "good", its_id)


def test_the_link_is_there_while_the_task_is_deferred(linked: LocalPromptLayer) -> None:
    ti = FakeTaskInstance()
    deferral = deferred(RUN_SCORECARD.make("never", timeout=60), ti=ti)
    assert ti.xcoms["promptlayer_url"] == sheet_url(SHEETS["never"].id)
    json.dumps(deferral.kwargs)


def test_a_try_that_goes_back_to_a_run_links_to_it(linked: LocalPromptLayer, store: Any) -> None:
    deferred(RUN_WORKFLOW.make("never"), store)
    ending = RUN_WORKFLOW.run(store, "never", number=2, timeout=0.1)
    assert ending.kind == "timeout"
    assert ending.xcoms["promptlayer_url"] == f"{HOST}/runs/{max(linked.executions)}"


class TestOthers:
    """The tasks that are not among the kinds of job."""

    def test_a_batch_links_to_its_workflow(
        self, linked: LocalPromptLayer, deferrable: bool
    ) -> None:
        ending = run_task(
            lambda: PromptLayerRunWorkflowBatchOperator(
                task_id="task",
                workflow_id_or_name="bad",
                inputs=[{}],
                poke_interval=0.02,
                deferrable=deferrable,
            )
        )
        url = "https://other.example.com/workflows/bad"
        assert ending.xcoms["promptlayer_url"] == url
        assert ending.message.endswith(f" See {url}")

    @pytest.mark.parametrize(
        "make",
        [
            lambda: PromptLayerLoadSheetOperator(
                task_id="task", rows=[{"Question": "Who?"}], **at("good")
            ),
            lambda: PromptLayerExportSheetOperator(task_id="task", return_rows=True, **at("good")),
            lambda: PromptLayerExportSheetOperator(
                task_id="task", return_rows=True, table=TABLE.title, sheet=SHEETS["good"].title
            ),
            lambda: PromptLayerSnapshotSheetOperator(task_id="task", name="night", **at("good")),
        ],
        ids=["load", "export", "export by titles", "snapshot"],
    )
    def test_what_works_on_a_sheet_links_to_it(
        self, make: Callable[[], Any], linked: LocalPromptLayer
    ) -> None:
        ending = run_task(make)
        assert ending.kind == "success", ending
        assert ending.xcoms["promptlayer_url"] == sheet_url(SHEETS["good"].id)

    @pytest.mark.parametrize("label", ["prod", "legal"])
    def test_a_promotion_links_to_what_it_promotes(
        self, label: str, serve: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = serve(promotions.new_server())
        connect(server, monkeypatch, extra=EXTRA)
        ending = promotions.promote(**promotions.PROMPT, label=label, on_protected="fail")
        url = f"{HOST}/workspace/1/prompts/a%2Fb%20Reply"
        assert ending.xcoms["promptlayer_url"] == url
        assert label == "prod" or ending.message.endswith(f" See {url}")

    def test_who_approves_a_promotion_finds_the_link(
        self, serve: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = serve(promotions.new_server())
        connect(server, monkeypatch, extra=EXTRA)
        ti = FakeTaskInstance()
        deferral = deferred(promotions.make(**promotions.PROMPT, label="legal"), ti=ti)
        url = f"{HOST}/workspace/1/prompts/a%2Fb%20Reply"
        assert ti.xcoms["promptlayer_url"] == url
        server.approve_label("legal", **promotions.PROMPT)
        event = asyncio.run(first_event(deferral.trigger))
        task = promotions.make(**promotions.PROMPT, label="legal")
        task.resume_execution(
            deferral.method_name,
            {**(deferral.kwargs or {}), "event": event.payload},
            {"ti": ti},  # type: ignore[typeddict-item]
        )
        assert [each.raw_path for each in server.requests].count("/workflows") == 1


class TestWithoutAnAddress:
    """Where nothing is known there is no link, and no request for one."""

    @pytest.mark.parametrize("fate", ["good", "bad"])
    @pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
    def test_there_is_none_to_a_server_on_loopback(
        self, start: Start, fate: Fate, server: LocalPromptLayer
    ) -> None:
        task = start.make(fate, deferrable=False)
        ti = FakeTaskInstance()
        if fate == "good":
            task.execute({"ti": ti})
        else:
            with pytest.raises(exceptions.PromptLayerOutcomeError) as raised:
                task.execute({"ti": ti})
            assert "See " not in str(raised.value)
            assert raised.value.url is None
        assert "promptlayer_url" not in ti.xcoms
        assert not task.operator_extra_links
        assert TABLE_PATH not in [each.raw_path for each in server.requests]

    def test_there_is_none_to_a_run_whose_page_is_unknown(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connect(server, monkeypatch, extra={"dashboard_url": HOST})
        assert "promptlayer_url" not in RUN_WORKFLOW.run().xcoms

    @pytest.mark.parametrize(
        "answer",
        [
            Reply(500, "oops"),
            Reply(404, '{"success": false, "message": "no"}'),
            Reply(200, '{"table": {"workspace_id": "1/../../evil"}}'),
            Reply(200, "[]"),
            Close(),
        ],
        ids=str,
    )
    def test_a_workspace_that_is_not_told_fails_no_task(
        self, answer: Any, linked: LocalPromptLayer
    ) -> None:
        linked.script(
            lambda request: answer if request.raw_path == TABLE_PATH else None, times=None
        )
        ending = RUN_SCORECARD.run()
        assert ending.kind == "success"
        assert "promptlayer_url" not in ending.xcoms


def test_a_start_that_is_uncertain_says_where_to_look(linked: LocalPromptLayer) -> None:
    linked.script(Close(), method="POST", acted_on=True)
    ending = RUN_SCORECARD.run()
    assert isinstance(ending.error, exceptions.PromptLayerStartUncertainError)
    assert ending.message.endswith(f" See {sheet_url(SHEETS['good'].id)}")
    assert ending.error.external_id is None


def test_an_outage_asks_for_no_link(linked: LocalPromptLayer) -> None:
    ids = TABLE_OPERATION.start(linked, "never")
    linked.script(Reply(500, "oops"), times=None)
    ending = run_task(
        lambda: TABLE_OPERATION.sensor(
            task_id="task", poke_interval=0.02, max_outage=0, deferrable=False, **ids
        )
    )
    assert isinstance(ending.error, exceptions.PromptLayerOutageError)
    assert ending.error.external_id == ids["operation_id"]
    asked = [each for each in linked.requests if each.raw_path == TABLE_PATH]
    assert len(asked) == 1  # at the start, and not once more for the error


class TestButton:
    """What Airflow makes of the link."""

    def task(self) -> PromptLayerRunScorecardOperator:
        return PromptLayerRunScorecardOperator(task_id="task", deferrable=False, **at("good"))

    def test_it_survives_the_serialization_of_the_dag(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with DAG("dag", schedule=None) as dag:
            self.task()
            PromptLayerRunScorecardOperator.partial(task_id="mapped", table_id=TABLE.id).expand(
                sheet_id=[SHEETS["good"].id]
            )
        name = "DagSerialization" if hasattr(serialized_objects, "DagSerialization") else ""
        serialized: Any = getattr(serialized_objects, name or "SerializedDAG")
        # A dag.test() in the same process leaves links out from then on, as the scheduler does.
        monkeypatch.setattr(serialized, "_load_operator_extra_links", True)
        read = serialized.from_dict(json.loads(json.dumps(serialized.to_dict(dag))))
        for task_id in ("task", "mapped"):
            assert list(read.get_task(task_id).extra_links) == ["PromptLayer"]

    def test_airflow_pushes_the_url_at_the_end(self, linked: LocalPromptLayer) -> None:
        task, ti = self.task(), FakeTaskInstance()
        task.execute({"ti": ti})  # type: ignore[typeddict-item]
        (link,) = task.operator_extra_links
        assert isinstance(link, PromptLayerLink)
        assert link.xcom_key == "promptlayer_url"
        assert link.get_link(task, ti_key=ti) == ti.xcoms["promptlayer_url"]

    def test_a_task_that_pushes_nothing_has_none(self, linked: LocalPromptLayer) -> None:
        task, ti = self.task(), FakeTaskInstance()
        task.do_xcom_push = False
        task.execute({"ti": ti})  # type: ignore[typeddict-item]
        assert not task.operator_extra_links
        assert ti.xcoms == {}

    @pytest.mark.parametrize(
        ("stored", "shown"),
        [
            (f"{HOST}/x", f"{HOST}/x"),
            ("javascript:alert(1)", ""),
            ("https://user:secret@example.com", ""),
            ({"url": HOST}, ""),
            (None, ""),
        ],
        ids=str,
    )
    def test_the_webserver_of_airflow_2_shows_a_url_alone(
        self, stored: Any, shown: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "airflow_provider_promptlayer.version_compat.stored_xcom", lambda *_: stored
        )
        assert PromptLayerLink().get_link(object(), ti_key=None) == shown
