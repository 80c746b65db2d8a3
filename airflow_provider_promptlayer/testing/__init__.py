# SPDX-License-Identifier: Apache-2.0
"""A local PromptLayer on loopback, to test DAGs without a key and without spending.

It needs the extra ``testing``::

    from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Workflow

    greet = Workflow("Greet", [Node("Hello", "hi", is_output_node=True)])
    with LocalPromptLayer([greet]) as server:
        ...  # point a connection at server.url with the key server.api_key

pytest imports this package in every run, to load the plugin. Names are therefore imported on first
use; that is also when a missing extra is reported.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .definitions import (
        Definitions,
        builtin_evaluations,
        builtin_workflows,
        load_definitions,
        load_workflows,
    )
    from .evaluations.model import (
        Column,
        Criterion,
        Report,
        RequestMetrics,
        Scorecard,
        ScoredRow,
        Sheet,
        Table,
    )
    from .evaluations.request_logs import RequestLog
    from .evaluations.runs import Calculation, Import, Operation, ReportRun
    from .faults.model import Close, Drip, GoAway, Huge, Raw, Reply, Reset, Silence, Slow
    from .faults.script import Script
    from .http.app import RecordedRequest
    from .releases.prompts import Prompt
    from .server import LocalPromptLayer
    from .workflows.catalog import UnknownWorkflowError
    from .workflows.engine import Execution, Origin
    from .workflows.model import Node, OnlyIf, Template, Workflow

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
    "Import",
    "LocalPromptLayer",
    "Node",
    "OnlyIf",
    "Operation",
    "Origin",
    "Prompt",
    "Raw",
    "RecordedRequest",
    "Reply",
    "Report",
    "ReportRun",
    "RequestLog",
    "RequestMetrics",
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

_MODULES = {
    "definitions": "Definitions builtin_evaluations builtin_workflows load_definitions "
    "load_workflows",
    "evaluations.model": "Column Criterion Report RequestMetrics Scorecard ScoredRow Sheet Table",
    "evaluations.request_logs": "RequestLog",
    "evaluations.runs": "Calculation Import Operation ReportRun",
    "faults.model": "Close Drip GoAway Huge Raw Reply Reset Silence Slow",
    "faults.script": "Script",
    "http.app": "RecordedRequest",
    "releases.prompts": "Prompt",
    "server": "LocalPromptLayer",
    "workflows.catalog": "UnknownWorkflowError",
    "workflows.engine": "Execution Origin",
    "workflows.model": "Node OnlyIf Template Workflow",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Import the module that defines ``name`` when the name is first used (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for package in ("pydantic", "trustme"):
        if find_spec(package) is None:
            raise ImportError(
                f"{__name__} needs {package}: pip install 'airflow-provider-promptlayer[testing]'"
            )
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
