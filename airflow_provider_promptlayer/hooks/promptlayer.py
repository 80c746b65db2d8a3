# SPDX-License-Identifier: Apache-2.0
"""The hook: an Airflow connection, and a method for each request to PromptLayer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from airflow_provider_promptlayer.hooks.evaluations import EvaluationMethods
from airflow_provider_promptlayer.hooks.imports import ImportMethods
from airflow_provider_promptlayer.hooks.labels import LabelMethods
from airflow_provider_promptlayer.hooks.rows import RowMethods
from airflow_provider_promptlayer.hooks.tables import TableMethods
from airflow_provider_promptlayer.hooks.workflows import WorkflowMethods

__all__ = ["PromptLayerHook"]

_FOR_TASKS: Final = frozenset(
    [
        "acall",
        "acall_with_backoff",
        "aget_settings",
        "astart_import",
        "baseline_loop",
        "call",
        "call_from_signal_handler",
        "call_with_backoff",
        "carry_out",
        "compare_scores",
        "was_connected",
        "find_baseline",
        "find_url",
        "find_usage",
        "giving_up_at",
        "is_stopping",
        "look",
        "raise_for_scorecard",
        "request_log_source",
        "score_of_report",
        "sender",
        "settings",
        "start_import",
        "start_run",
        "start_table_operation",
        "stay_at",
        "stays_at",
        "stop_starting",
        "submit",
        "throttle",
        "wait_for_approval",
        "warm_up",
        "write_file",
    ]
)
"""What the operators and triggers of this package need, and no user: may change in any release."""


class PromptLayerHook(
    WorkflowMethods, EvaluationMethods, ImportMethods, TableMethods, RowMethods, LabelMethods
):
    """Send requests to PromptLayer with the key of an Airflow connection.

    :param promptlayer_conn_id: id of an Airflow connection of type ``promptlayer``. Its password
        is the API key; host, ``timeout``, ``verify`` and ``proxy`` are optional.

    A method that starts, waits for, cancels or finds what its name says has an ``a…`` twin, a
    coroutine; so have ``get_workflow_results``, ``get_labels``,
    ``get_latest_version``, ``promote`` and ``summarize_evaluation``. Every method raises
    :class:`.PromptLayerConfigurationError` if there is no such connection or it cannot be used,
    :class:`.PromptLayerInvalidInputError` for arguments that cannot be sent,
    :class:`.PromptLayerRefusedError` if PromptLayer refuses for good, and
    :class:`.PromptLayerTransientError` if PromptLayer was out of reach.
    """

    def __dir__(self) -> Iterable[str]:
        """Return the names that completion shows: without what only tasks need."""
        return set(super().__dir__()) - _FOR_TASKS
