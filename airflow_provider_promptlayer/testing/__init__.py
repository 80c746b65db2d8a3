# SPDX-License-Identifier: Apache-2.0
"""A local PromptLayer on loopback, to try DAGs without a key and without spending.

The rule here: importing this package stays cheap. Names are resolved on first use (PEP 562), so
neither a DAG file nor a pytest run that only loads the plugin pays for aiohttp.

    from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Workflow

    greet = Workflow("Greet", [Node("Hello", "hi", is_output_node=True)])
    with LocalPromptLayer([greet]) as server:
        ...  # point a connection at server.url with the key server.api_key
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_promptlayer.testing.definitions import (
        Definitions,
        builtin_evaluations,
        builtin_workflows,
        load_definitions,
        load_workflows,
    )
    from airflow_provider_promptlayer.testing.evaluations.model import (
        Column,
        Criterion,
        Report,
        Scorecard,
        ScoredRow,
        Sheet,
        Table,
    )
    from airflow_provider_promptlayer.testing.evaluations.runs import (
        Calculation,
        Operation,
        ReportRun,
    )
    from airflow_provider_promptlayer.testing.faults.model import (
        Close,
        Drip,
        GoAway,
        Huge,
        Raw,
        Reply,
        Reset,
        Silence,
        Slow,
    )
    from airflow_provider_promptlayer.testing.faults.script import Script
    from airflow_provider_promptlayer.testing.http.request_log import RecordedRequest
    from airflow_provider_promptlayer.testing.server import LocalPromptLayer, Origin
    from airflow_provider_promptlayer.testing.workflows.catalog import UnknownWorkflowError
    from airflow_provider_promptlayer.testing.workflows.executions import Execution
    from airflow_provider_promptlayer.testing.workflows.model import Node, OnlyIf, Workflow
    from airflow_provider_promptlayer.testing.workflows.templates import Template

__all__ = [
    "Calculation",
    "Close",
    "Column",
    "Criterion",
    "Definitions",
    "Drip",
    "Execution",
    "GoAway",
    "Huge",
    "LocalPromptLayer",
    "Node",
    "OnlyIf",
    "Operation",
    "Origin",
    "Raw",
    "RecordedRequest",
    "Reply",
    "Report",
    "ReportRun",
    "Reset",
    "Scorecard",
    "ScoredRow",
    "Script",
    "Sheet",
    "Silence",
    "Slow",
    "Table",
    "Template",
    "UnknownWorkflowError",
    "Workflow",
    "builtin_evaluations",
    "builtin_workflows",
    "load_definitions",
    "load_workflows",
]

_HOME_OF = {
    "Calculation": "evaluations.runs",
    "Close": "faults.model",
    "Column": "evaluations.model",
    "Criterion": "evaluations.model",
    "Definitions": "definitions",
    "Drip": "faults.model",
    "Execution": "workflows.executions",
    "GoAway": "faults.model",
    "Huge": "faults.model",
    "LocalPromptLayer": "server",
    "Node": "workflows.model",
    "OnlyIf": "workflows.model",
    "Operation": "evaluations.runs",
    "Origin": "server",
    "Raw": "faults.model",
    "RecordedRequest": "http.request_log",
    "Reply": "faults.model",
    "Report": "evaluations.model",
    "ReportRun": "evaluations.runs",
    "Reset": "faults.model",
    "Scorecard": "evaluations.model",
    "ScoredRow": "evaluations.model",
    "Script": "faults.script",
    "Sheet": "evaluations.model",
    "Silence": "faults.model",
    "Slow": "faults.model",
    "Table": "evaluations.model",
    "Template": "workflows.templates",
    "UnknownWorkflowError": "workflows.catalog",
    "Workflow": "workflows.model",
    "builtin_evaluations": "definitions",
    "builtin_workflows": "definitions",
    "load_definitions": "definitions",
    "load_workflows": "definitions",
}


def __getattr__(name: str) -> Any:
    """Import the module that defines ``name`` when the name is first asked for."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
