# SPDX-License-Identifier: Apache-2.0
"""The operators and sensors in a DAG: templates, mapping, default arguments."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowException
from support.kinds import SHEETS, TABLE, at
from support.modes import FakeTaskInstance
from support.starts import RUN_REPORT, RUN_SCORECARD, RUN_TABLE, RUN_WORKFLOW, STARTS, Start

from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError
from airflow_provider_promptlayer.operators import promptlayer as operators
from airflow_provider_promptlayer.sensors import promptlayer as sensors
from airflow_provider_promptlayer.testing import LocalPromptLayer

every_engine = pytest.mark.parametrize("native", [False, True])


OF_WORKFLOW = "workflow_id_or_name metadata workflow_label_name workflow_version_number nodes"
OF_SHEET = "table sheet table_id sheet_id"
TEMPLATED = {
    operators.PromptLayerRunWorkflowOperator: f"{OF_WORKFLOW} input_variables callback_url",
    operators.PromptLayerRunWorkflowBatchOperator: f"{OF_WORKFLOW} inputs",
    operators.PromptLayerWorkflowResultsOperator: "workflow_version_execution_id nodes",
    operators.PromptLayerImportRequestLogsOperator: (
        f"{OF_SHEET} title start end prompt release_label tags metadata filter_group "
        "request_ids limit variables fields"
    ),
    operators.PromptLayerLoadSheetOperator: f"{OF_SHEET} title rows columns file",
    operators.PromptLayerRunTableOperator: (
        f"{OF_SHEET} columns column_ids row_ids statuses max_price column_versions"
    ),
    operators.PromptLayerRunScorecardOperator: (
        f"{OF_SHEET} row_indices step_ids fail_on_verdict min_score max_drop baseline"
    ),
    operators.PromptLayerEvaluationReportOperator: (
        f"{OF_SHEET} to calculation_id min_score usage"
    ),
    operators.PromptLayerSnapshotSheetOperator: f"{OF_SHEET} name",
    operators.PromptLayerPromoteOperator: (
        "prompt workflow version from_label release_label expected_version"
    ),
    operators.PromptLayerExportSheetOperator: f"{OF_SHEET} to columns",
    operators.PromptLayerRunReportOperator: "report_id name dataset_id min_score",
    sensors.PromptLayerWorkflowSensor: "workflow_version_execution_id",
    sensors.PromptLayerTableOperationSensor: f"{OF_SHEET} operation_id",
    sensors.PromptLayerSheetImportSensor: f"{OF_SHEET} operation_id",
    sensors.PromptLayerScorecardSensor: (
        f"{OF_SHEET} calculation_id fail_on_verdict min_score max_drop baseline"
    ),
    sensors.PromptLayerReportSensor: "report_id min_score",
    sensors.PromptLayerVersionSensor: "prompt workflow release_label newer_than",
}


@every_engine
@pytest.mark.parametrize("cls", TEMPLATED, ids=lambda cls: cls.__name__)
def test_what_a_user_would_template_keeps_its_type(cls: Any, native: bool) -> None:
    fields = [*TEMPLATED[cls].split(), "promptlayer_conn_id"]
    # Without other names for the same, and the title of a new sheet, which excludes a sheet.
    others = {"table_id", "sheet_id", "column_ids", "title", "file", "workflow", "from_label"}
    given = set(fields) - others
    with DAG(dag_id="d", schedule=None, render_template_as_native_obj=native) as dag:
        how = {"wait_for_completion": False} if "callback_url" in given else {}
        task = cls(task_id="t", **how, **dict.fromkeys(given, "{{ number }}"))
    task.render_template_fields({"number": 7}, dag.get_template_env())
    assert {getattr(task, field) for field in given} == {7 if native else "7"}
    assert sorted(fields) == sorted(cls.template_fields)


@every_engine
def test_evaluations_take_what_a_template_renders(native: bool, server: LocalPromptLayer) -> None:
    def listed(name: str) -> str:
        return f"{{{{ {name} }}}}" if native else f"{{{{ {name} | tojson }}}}"

    sheet: dict[str, Any] = {"table_id": "{{ table }}", "sheet_id": "{{ sheet }}"}
    with DAG(dag_id="d", schedule=None, render_template_as_native_obj=native) as dag:
        table = RUN_TABLE.make(
            task_id="table",
            **sheet,
            row_ids="{{ rows }}",
            column_ids=["{{ column }}"],
            statuses=listed("statuses"),
            deferrable=False,
        )
        card = RUN_SCORECARD.make(
            task_id="card",
            **sheet,
            row_indices="{{ rows }}",
            fail_on_verdict=listed("verdicts"),
            min_score="{{ score }}",
            deferrable=False,
        )
        report = RUN_REPORT.make(
            task_id="report",
            report_id="{{ number }}",
            name="{{ ds_nodash }}",
            min_score="{{ score }}",
            deferrable=False,
        )
    context: Any = {
        "table": TABLE.id,
        "sheet": SHEETS["good"].id,
        "rows": [0, 2],
        "column": SHEETS["good"].columns[1].id,
        "statuses": ["STALE", "FAILED"],
        "verdicts": ["fail"],
        "score": 0.5,
        "number": 1,
        "ds_nodash": "20260101",
        "ti": FakeTaskInstance(),
    }
    for task in (table, card, report):
        task.render_template_fields(context, dag.get_template_env())
    assert table.execute(context)["cell_count"] == 2
    assert card.execute(context)["verdict"] == "pass"
    assert report.execute(context)["score"] == 90.0
    (made,) = server.reports.values()
    assert made.name == "20260101"


class TestMissingScore:
    """A score that turns out to be None opens no gate."""

    @every_engine
    @pytest.mark.parametrize("start", [RUN_SCORECARD, RUN_REPORT], ids=["scorecard", "report"])
    def test_rendered(self, start: Start, native: bool, server: LocalPromptLayer) -> None:
        with DAG(dag_id="d", schedule=None, render_template_as_native_obj=native) as dag:
            task = start.make(min_score="{{ needed }}")
        context: Any = {"needed": None, "ti": FakeTaskInstance()}
        task.render_template_fields(context, dag.get_template_env())
        with pytest.raises(AirflowException, match="min_score must be a number"):
            task.execute(context)
        assert server.count() == 0

    def test_mapped(self, server: LocalPromptLayer) -> None:
        with DAG(dag_id="d", schedule=None):
            mapped = operators.PromptLayerRunScorecardOperator.partial(
                task_id="t", **at("bad"), fail_on_verdict=()
            ).expand(min_score=[0.9, None])
        context: Any = {"ti": FakeTaskInstance()}
        with pytest.raises(AirflowException, match="min_score must be a number"):
            mapped.unmap({"min_score": None}).execute(context)
        assert server.count() == 0


def test_partial_and_default_args() -> None:
    defaults = {
        "retries": 3,
        "promptlayer_conn_id": "other",
        "fail_on": "never",
        "min_score": 0.5,
    }
    with DAG(dag_id="d", schedule=None, default_args=defaults):
        mapped = operators.PromptLayerRunTableOperator.partial(
            task_id="mapped", table_id=TABLE.id, confirm_large=True
        ).expand(sheet_id=[one.id for one in SHEETS.values()])
        plain = operators.PromptLayerRunScorecardOperator(
            task_id="plain", table_id=TABLE.id, sheet_id=mapped.output
        )
    assert mapped.operator_class is operators.PromptLayerRunTableOperator
    assert mapped.partial_kwargs["confirm_large"] is True
    assert plain.promptlayer_conn_id == "other"
    assert plain.retries == 3
    assert plain.min_score == 0.5


class TestAtParseTime:
    def test_gates_that_come_from_a_template_are_not_refused(self) -> None:
        with DAG(dag_id="d", schedule=None):
            first = operators.PromptLayerRunTableOperator(task_id="a", **at("good"))
            operators.PromptLayerRunScorecardOperator(
                task_id="b", **at("good"), fail_on_verdict=first.output, min_score="{{ x }}"
            )

    @pytest.mark.parametrize(
        ("start", "known"),
        [
            (RUN_WORKFLOW, "'no_output', 'any_node', 'never'"),
            (RUN_TABLE, "'any_cell', 'all_cells', 'never'"),
            (RUN_REPORT, "'any_cell', 'all_cells', 'never'"),
        ],
        ids=["workflow", "table", "report"],
    )
    def test_an_unknown_fail_on_is_refused(self, start: Start, known: str) -> None:
        with pytest.raises(PromptLayerInvalidInputError, match=known):
            start.make(fail_on="always")

    @pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
    def test_mode_reschedule_is_refused_where_it_would_start_again(self, start: Start) -> None:
        with pytest.raises(PromptLayerInvalidInputError, match="start a run at each poll"):
            start.make(mode="reschedule", deferrable=False)
        start.make(mode="reschedule")
