# SPDX-License-Identifier: Apache-2.0
"""What users may import, and what the package may import."""

from __future__ import annotations

import ast
import pkgutil
import re
import sys
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import BaseHook
from packaging.requirements import Requirement

import airflow_provider_promptlayer
from airflow_provider_promptlayer.get_provider_info import get_provider_info
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook

NAME = "airflow_provider_promptlayer"
ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]

PUBLIC = {
    NAME: "__version__",
    f"{NAME}.decorators.promptlayer": "promptlayer_batch_task promptlayer_workflow_task",
    f"{NAME}.exceptions": """
        PromptLayerAnswerTooLargeError PromptLayerApprovalNeededError
        PromptLayerAuthError PromptLayerBatchFailedError
        PromptLayerConfigurationError PromptLayerConfirmationNeededError PromptLayerError
        PromptLayerEvaluationFailedError PromptLayerEventError PromptLayerFileError
        PromptLayerImportFailedError
        PromptLayerInvalidInputError PromptLayerLabelMovedError
        PromptLayerNotFoundError PromptLayerOutageError
        PromptLayerOutcomeError PromptLayerRateLimitError PromptLayerRefusedError
        PromptLayerRunFailedError PromptLayerServerError PromptLayerSheetChangedError
        PromptLayerStartUncertainError PromptLayerTransientError
        PromptLayerUnexpectedAnswerError PromptLayerUnknownConnectionError
        PromptLayerUnreachableError PromptLayerWaitTimeoutError
    """,
    f"{NAME}.get_provider_info": "get_provider_info",
    f"{NAME}.hooks.promptlayer": "PromptLayerHook",
    f"{NAME}.operators.promptlayer": """
        PromptLayerEvaluationReportOperator
        PromptLayerExportSheetOperator PromptLayerImportRequestLogsOperator
        PromptLayerLoadSheetOperator PromptLayerPromoteOperator
        PromptLayerRunReportOperator PromptLayerRunScorecardOperator
        PromptLayerRunTableOperator PromptLayerRunWorkflowBatchOperator
        PromptLayerRunWorkflowOperator PromptLayerSnapshotSheetOperator
        PromptLayerWorkflowResultsOperator
    """,
    f"{NAME}.sensors.promptlayer": """
        PromptLayerReportSensor PromptLayerScorecardSensor PromptLayerSheetImportSensor
        PromptLayerTableOperationSensor PromptLayerVersionSensor
        PromptLayerWorkflowSensor
    """,
    f"{NAME}.testing": """
        Calculation Close Column Criterion Definitions Drip Execution GoAway Huge Import
        LocalPromptLayer Node OnlyIf Operation Origin Prompt Raw RecordedRequest Reply Report
        ReportRun RequestLog RequestMetrics Reset Scorecard ScoredRow Script Sheet Silence
        Slow Table Template
        UnknownWorkflowError Workflow builtin_evaluations builtin_workflows load_definitions
        load_workflows
    """,
    f"{NAME}.testing.pytest_plugin": """
        promptlayer_connection promptlayer_server promptlayer_workflows
    """,
    f"{NAME}.triggers.promptlayer": """
        PromptLayerReportTrigger PromptLayerScorecardTrigger PromptLayerSheetImportTrigger
        PromptLayerTableOperationTrigger PromptLayerVersionEventTrigger
        PromptLayerVersionTrigger
        PromptLayerWorkflowBatchTrigger PromptLayerWorkflowTrigger
    """,
}
"""Public module → its names, sorted. A release that takes one away says so in CHANGELOG.md."""

OF_AIRFLOW_2 = {"flask_appbuilder", "wtforms"}
"""What only Airflow 2 imports, which has it."""

OF_OPENLINEAGE = {"attr", "openlineage"}
"""What is imported only when Airflow's provider of OpenLineage asks, which needs both."""

OF_PYTEST = {"pytest"}
"""What the pytest plugin imports, which pytest loads."""


@pytest.mark.parametrize("module", PUBLIC)
def test_names_of_a_public_module(module: str) -> None:
    loaded = import_module(module)
    assert sorted(loaded.__all__) == PUBLIC[module].split()
    assert all(hasattr(loaded, name) for name in loaded.__all__)


def test_airflow_is_told_of_public_modules() -> None:
    info = get_provider_info()
    sections = ("hooks", "operators", "sensors", "triggers")
    told = {name for part in sections for entry in info[part] for name in entry["python-modules"]}
    assert told == {f"{NAME}.{part}.promptlayer" for part in sections}


def test_what_is_private_says_so() -> None:
    for module in pkgutil.walk_packages(airflow_provider_promptlayer.__path__, f"{NAME}."):
        is_folder_or_at_top = module.ispkg or module.name.count(".") == 1
        if is_folder_or_at_top and module.name not in PUBLIC:
            has_public = f"{module.name}.promptlayer" in PUBLIC
            mark = "The public interface is" if has_public else "No public interface: "
            assert mark in (import_module(module.name).__doc__ or ""), module.name


def distributions_imported(folder: Path, *, without: Path | None = None) -> set[str]:
    """Return the names under which what the modules in a folder import is installed."""
    modules = set()
    for path in folder.rglob("*.py"):
        if without is not None and path.is_relative_to(without):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(node.module or "")
            elif isinstance(node, ast.Import):
                modules |= {name.name for name in node.names}
    top = {module.partition(".")[0] for module in modules} - {NAME, *sys.stdlib_module_names}
    installed_as = {"airflow": "apache-airflow"}
    return {installed_as.get(module, module) for module in top} | (
        {"apache-airflow-providers-common-compat"}
        if any(module.startswith("airflow.providers.common.compat") for module in modules)
        else set()
    )


def test_what_is_imported_is_declared_and_nothing_else() -> None:
    declared = {Requirement(line).name for line in PROJECT["dependencies"]}
    testing = ROOT / NAME / "testing"
    imported = distributions_imported(ROOT / NAME, without=testing)
    assert imported == declared | OF_AIRFLOW_2 | OF_OPENLINEAGE
    extra = {Requirement(line).name for line in PROJECT["optional-dependencies"]["testing"]}
    assert distributions_imported(testing) - declared == extra | OF_PYTEST


def test_this_airflow_satisfies_what_is_declared() -> None:
    for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        for requirement in map(Requirement, lines):
            assert version(requirement.name) in requirement.specifier, requirement


def test_completion_of_the_hook_shows_what_its_reference_documents() -> None:
    reference = (ROOT / "docs" / "reference" / "hook.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"PromptLayerHook\.(\w+)$", reference, re.MULTILINE))
    shown = {name for name in dir(PromptLayerHook()) if not name.startswith("_")}
    ours = shown - set(dir(BaseHook)) - {"promptlayer_conn_id"}
    ours = {name for name in ours if callable(getattr(PromptLayerHook, name, None))}
    without_twins = {name for name in ours if name.removeprefix("a") not in ours - {name}}
    assert without_twins == documented - set(dir(BaseHook))
    assert {"run_workflow", "arun_workflow", "conn_type", "get_conn"} <= shown
    assert "call_with_backoff" not in shown
