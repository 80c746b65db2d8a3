# SPDX-License-Identifier: Apache-2.0
"""The types of what operators and sensors take as ``**kwargs``, for editors and type checkers.

Each class handles its own arguments and passes the others on, which is what Airflow's
``default_args`` and ``partial()`` need. So the signature of an operator names its own, and refers
to a dictionary of this module for those that its base classes handle (:pep:`692`). A test compares
the two. No module imports this one when it runs.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from typing import Any, Literal, Required, TypeAlias, TypedDict

from airflow.providers.common.compat.sdk import DAG, TaskGroup, XComArg

from airflow_provider_promptlayer.outcomes.evaluations import FailOnCells
from airflow_provider_promptlayer.outcomes.workflows import FailOn

Callbacks: TypeAlias = Callable[..., Any] | Collection[Callable[..., Any]] | None
"""What Airflow calls with a task's context: a function or a notifier, or several."""


class OperatorKwargs(TypedDict, total=False):
    """The arguments of each operator of Airflow but its id, as of 2.11 to 3.4."""

    allow_nested_operators: bool
    dag: DAG | None
    default_args: dict[str, Any] | None
    depends_on_past: bool
    do_xcom_push: bool
    doc: str | None
    doc_json: str | None
    doc_md: str | None
    doc_rst: str | None
    doc_yaml: str | None
    email: str | Sequence[str] | None
    email_on_failure: bool
    email_on_retry: bool
    end_date: datetime.datetime | None
    execution_timeout: datetime.timedelta | None
    executor: str | None
    executor_config: dict[str, Any] | None
    ignore_first_depends_on_past: bool
    inlets: Any
    logger_name: str | None
    map_index_template: str | None
    max_active_tis_per_dag: int | None
    max_active_tis_per_dagrun: int | None
    max_retry_delay: datetime.timedelta | float | None
    multiple_outputs: bool
    on_execute_callback: Callbacks
    on_failure_callback: Callbacks
    on_retry_callback: Callbacks
    on_skipped_callback: Callbacks
    on_success_callback: Callbacks
    outlets: Any
    owner: str
    params: MutableMapping[str, Any] | None
    pool: str | None
    pool_slots: int
    post_execute: Callable[..., Any] | None
    pre_execute: Callable[..., Any] | None
    priority_weight: int
    queue: str
    render_template_as_native_obj: bool | None
    resources: dict[str, Any] | None
    retries: int | None
    retry_delay: datetime.timedelta | float
    retry_exponential_backoff: float
    retry_policy: Any
    run_as_user: str | None
    sla: datetime.timedelta | None
    start_date: datetime.datetime | None
    task_display_name: str | None
    task_group: TaskGroup | None
    trigger_rule: str
    wait_for_downstream: bool
    wait_for_past_depends_before_skipping: bool
    weight_rule: Any


class NamedKwargs(OperatorKwargs):
    """The arguments of each operator of Airflow; a decorated function has its name for an id."""

    task_id: str


class TaskKwargs(OperatorKwargs, total=False):
    """The arguments of :class:`.PromptLayerTask`, which every task of this provider takes."""

    promptlayer_conn_id: str
    max_outage: datetime.timedelta | float | None


class PromoteKwargs(TaskKwargs, NamedKwargs):
    """Those of :class:`.PromptLayerPromoteOperator`."""


class WaitKwargs(TaskKwargs, total=False):
    """The arguments of :class:`.PromptLayerWaiter`, which every task takes that waits."""

    deferrable: bool | None
    defer_after: datetime.timedelta | float | None
    poke_interval: datetime.timedelta | float | None
    timeout: datetime.timedelta | float | None
    mode: Literal["poke", "reschedule"]
    soft_fail: bool
    never_fail: bool
    exponential_backoff: bool
    max_wait: datetime.timedelta | float | None


class ReattachKwargs(WaitKwargs, total=False):
    """The arguments of :class:`.PromptLayerReattacher`."""

    reattach: bool | None
    durable: bool | None


class SubmitKwargs(ReattachKwargs, total=False):
    """The arguments of :class:`.PromptLayerSubmitter`."""

    wait_for_completion: bool


class CancelKwargs(SubmitKwargs, total=False):
    """The arguments of :class:`.PromptLayerCanceller`."""

    cancel_on_kill: bool
    cancel_on_timeout: bool


class RunKwargs(WaitKwargs, total=False):
    """The arguments of the tasks that wait for a workflow run."""

    fail_on: FailOn


class RunSensorKwargs(RunKwargs, NamedKwargs):
    """Those of :class:`.PromptLayerWorkflowSensor`."""


class RunOutputsKwargs(RunKwargs, total=False):
    """The arguments of the tasks that push the outputs of a workflow run."""

    nodes: Sequence[str] | XComArg | None
    return_all_outputs: bool
    push_node_xcoms: bool


class RunResultsKwargs(RunOutputsKwargs, NamedKwargs):
    """Those of :class:`.PromptLayerWorkflowResultsOperator`."""


class RunWorkflowKwargs(RunOutputsKwargs, SubmitKwargs, NamedKwargs):
    """Those of :class:`.PromptLayerRunWorkflowOperator`."""


class WorkflowTaskKwargs(RunOutputsKwargs, SubmitKwargs, total=False):
    """Those of ``@task.promptlayer_workflow``: the operator's, whose inputs a function returns."""

    task_id: str
    workflow_id_or_name: Required[int | str | XComArg]
    metadata: Mapping[str, Any] | str | XComArg | None
    workflow_label_name: str | XComArg | None
    workflow_version_number: int | str | XComArg | None
    check_inputs: bool
    callback_url: str | XComArg | None


class BatchKwargs(ReattachKwargs, total=False):
    """The arguments of the tasks that wait for many workflow runs."""

    max_active_runs: int | None
    start_concurrency: int
    min_success_rate: float
    nodes: Sequence[str] | XComArg | None
    return_all_outputs: bool
    fail_on: FailOn


class RunWorkflowBatchKwargs(BatchKwargs, NamedKwargs):
    """Those of :class:`.PromptLayerRunWorkflowBatchOperator`."""


class BatchTaskKwargs(BatchKwargs, total=False):
    """Those of ``@task.promptlayer_batch``: the operator's, whose inputs a function returns."""

    task_id: str
    workflow_id_or_name: Required[int | str | XComArg]
    metadata: Mapping[str, Any] | str | XComArg | None
    workflow_label_name: str | XComArg | None
    workflow_version_number: int | str | XComArg | None


class SheetKwargs(TaskKwargs, NamedKwargs, total=False):
    """The arguments of :class:`.SheetArguments`."""

    table: str | XComArg | None
    sheet: str | XComArg | None
    table_id: str | XComArg | None
    sheet_id: str | XComArg | None


class SheetWaitKwargs(SheetKwargs, WaitKwargs):
    """Those of a task that waits for a job of a sheet."""


class ImporterKwargs(SheetWaitKwargs, total=False):
    """The arguments of :class:`.PromptLayerImporter`."""

    title: str | XComArg | None
    ensure: bool


class CellsKwargs(SheetWaitKwargs, total=False):
    """The arguments of the tasks that wait for a sheet's cells."""

    fail_on: FailOnCells


class RunTableKwargs(CellsKwargs, CancelKwargs, total=False):
    """Those of :class:`.PromptLayerRunTableOperator`."""

    column_versions: Mapping[str, Any] | str | XComArg | None
    restore: bool


class ScorecardKwargs(SheetWaitKwargs, total=False):
    """The arguments of the tasks that gate on a scorecard."""

    fail_on_verdict: Sequence[str] | str | XComArg
    min_score: float | str | XComArg
    max_drop: float | str | XComArg
    baseline: str | XComArg


class RunScorecardKwargs(ScorecardKwargs, CancelKwargs):
    """Those of :class:`.PromptLayerRunScorecardOperator`."""


class ReportKwargs(WaitKwargs, NamedKwargs, total=False):
    """The arguments of the tasks that gate on a report."""

    report_id: Required[int | str | XComArg]
    fail_on: FailOnCells
    min_score: float | str | XComArg


class RunReportKwargs(ReportKwargs, SubmitKwargs):
    """Those of :class:`.PromptLayerRunReportOperator`."""


class VersionKwargs(WaitKwargs, NamedKwargs, total=False):
    """The arguments of the tasks that wait for another version."""

    prompt: str | int | XComArg | None
    workflow: str | int | XComArg | None
    release_label: str | XComArg | None
    newer_than: int | str | XComArg | None
