# SPDX-License-Identifier: Apache-2.0
"""What every task of this provider has: a connection, and errors by which Airflow decides."""

from __future__ import annotations

import datetime
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_promptlayer.api.arguments import seconds
from airflow_provider_promptlayer.api.errors import (
    PromptLayerAuthError,
    PromptLayerError,
    PromptLayerInvalidInputError,
    PromptLayerUnknownConnectionError,
)
from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.bases import configuration
from airflow_provider_promptlayer.bases.task_errors import airflow_errors
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.polling.poller import DEFAULT_MAX_OUTAGE

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

T = TypeVar("T")


class _WholeSignature:
    """Has ``help()``, and the reference, show the arguments that the base classes handle too."""

    def __get__(self, task: object, cls: Any) -> inspect.Signature:
        named: dict[str, inspect.Parameter] = {}
        for base in cls.mro()[: cls.mro().index(BaseOperator)]:
            for name, parameter in inspect.signature(base.__init__).parameters.items():
                if parameter.kind is parameter.KEYWORD_ONLY:
                    named.setdefault(name, parameter)
        kwargs = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD, annotation="Any")
        return inspect.Signature([*named.values(), kwargs])


class PromptLayerTask(BaseOperator):
    """Base of every task that sends requests to PromptLayer.

    :param promptlayer_conn_id: id of the Airflow connection.
    :param max_outage: seconds (or a ``timedelta``) for which PromptLayer may be out of reach
        before the task fails; None for ``[promptlayer] max_outage``, 30 minutes.
    """

    ui_color = "#e8e4fb"

    __signature__ = _WholeSignature()

    if TYPE_CHECKING:
        # Airflow's own types refuse what its DAGs are full of: op.output["a node"], an output as an
        # argument of a @task function, the same of a mapped task, and a >> b >> [c, d].
        partial: Callable[..., Any]

        @property
        def output(self) -> Any:
            """What the task pushes, for another task."""

        def __rshift__(self, other: T) -> T: ...

    describes_outlets: ClassVar[bool] = False
    """Whether the result tells a DAG that an asset in ``outlets`` starts what has happened."""

    def __init__(
        self,
        *,
        promptlayer_conn_id: str = PromptLayerHook.default_conn_name,
        max_outage: datetime.timedelta | float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.promptlayer_conn_id = promptlayer_conn_id
        if max_outage is None:
            max_outage = configuration.default_seconds("max_outage", DEFAULT_MAX_OUTAGE, zero=True)
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

    def describe_outlets(self, context: Context, result: Any) -> None:
        """Put the numbers and texts of the result into the events of the assets in ``outlets``.

        Lists and objects stay in XCom, because Airflow keeps the events for long.
        """
        events: Any = context.get("outlet_events")
        if not self.describes_outlets or events is None or not isinstance(result, Mapping):
            return
        plain = {
            name: value
            for name, value in result.items()
            if value is None or isinstance(value, (str, int, float))
        }
        for outlet in self.outlets or ():
            if hasattr(outlet, "uri"):  # an asset, and not an alias, which has no event of its own
                events[outlet].extra.update(plain)

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
