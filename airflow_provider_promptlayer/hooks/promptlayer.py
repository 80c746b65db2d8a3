# SPDX-License-Identifier: Apache-2.0
"""The hook: an Airflow connection, and a method for each request to PromptLayer."""

from __future__ import annotations

from airflow_provider_promptlayer.hooks.evaluations import EvaluationMethods
from airflow_provider_promptlayer.hooks.imports import ImportMethods
from airflow_provider_promptlayer.hooks.labels import LabelMethods
from airflow_provider_promptlayer.hooks.rows import RowMethods
from airflow_provider_promptlayer.hooks.tables import TableMethods
from airflow_provider_promptlayer.hooks.workflows import WorkflowMethods

__all__ = ["PromptLayerHook"]


class PromptLayerHook(
    WorkflowMethods, EvaluationMethods, ImportMethods, TableMethods, RowMethods, LabelMethods
):
    """Send requests to PromptLayer with the key of an Airflow connection.

    :param promptlayer_conn_id: id of an Airflow connection of type ``promptlayer``. Its password
        is the API key; host, ``timeout``, ``verify`` and ``proxy`` are optional.

    A method that starts, waits for, cancels or finds what its name says has an ``a…`` twin, a
    coroutine; so have ``get_workflow_results``, ``get_labels``,
    ``get_latest_version`` and ``promote``. Every method raises
    :class:`.PromptLayerConfigurationError` if there is no such connection or it cannot be used,
    :class:`.PromptLayerInvalidInputError` for arguments that cannot be sent,
    :class:`.PromptLayerRefusedError` if PromptLayer refuses for good, and
    :class:`.PromptLayerTransientError` if PromptLayer was out of reach.
    """
