# SPDX-License-Identifier: Apache-2.0
"""What every task of this provider has: a connection, and errors by which Airflow decides."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_promptlayer.api.arguments import seconds
from airflow_provider_promptlayer.api.errors import (
    PromptLayerAuthError,
    PromptLayerError,
    PromptLayerInvalidInputError,
    PromptLayerUnknownConnectionError,
)
from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.bases.task_errors import airflow_errors
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.polling.poller import DEFAULT_MAX_OUTAGE


class PromptLayerTask(BaseOperator):
    """Base of every task that sends requests to PromptLayer.

    :param promptlayer_conn_id: id of the Airflow connection.
    :param max_outage: seconds (or a ``timedelta``) for which PromptLayer may be out of reach
        before the task fails.
    """

    ui_color = "#e8e4fb"

    def __init__(
        self,
        *,
        promptlayer_conn_id: str = PromptLayerHook.default_conn_name,
        max_outage: datetime.timedelta | float = DEFAULT_MAX_OUTAGE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.promptlayer_conn_id = promptlayer_conn_id
        self.max_outage = seconds("max_outage", max_outage, zero=True)
        if self.max_outage == math.inf:  # Airflow 3 cannot pass infinity to a trigger
            raise PromptLayerInvalidInputError("max_outage must be finite.")

    @cached_property
    def hook(self) -> PromptLayerHook:
        """The hook for ``promptlayer_conn_id``."""
        return PromptLayerHook(self.promptlayer_conn_id)

    @property
    def known_job(self) -> RemoteJob[Any] | None:
        """The job that the task waits for, once it is known; None for a task that does not wait."""
        return None

    def may_retry(self, error: Exception) -> bool:
        """Return whether a retry of the task can help and does no harm."""
        if isinstance(error, (PromptLayerAuthError, PromptLayerUnknownConnectionError)):
            return True  # a user may correct the connection between two tries
        return error.retry_helps if isinstance(error, PromptLayerError) else True

    def _skips(self) -> Sequence[str]:
        """Return the options that are set and turn a failure into a skip."""
        return ()

    @contextmanager
    def _airflow_errors(self) -> Iterator[None]:
        """Turn errors into Airflow's; close the connections when the task leaves the worker."""
        try:
            with airflow_errors(self.may_retry, self._skips()):
                yield
        finally:
            self.hook.close()
