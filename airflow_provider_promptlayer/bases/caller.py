# SPDX-License-Identifier: Apache-2.0
"""How a task sends a few requests and starts nothing to wait for, such as an export."""

from __future__ import annotations

from abc import abstractmethod
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.bases.task import PromptLayerTask
from airflow_provider_promptlayer.polling import retries

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

T = TypeVar("T")


class PromptLayerCaller(PromptLayerTask):
    """Base of every task that starts nothing to wait for.

    A subclass says what the task does: :meth:`perform`. In a DAG, a subclass of an operator may
    override :meth:`execute`.
    """

    @abstractmethod
    def perform(self, context: Context) -> Any:
        """Send the requests; return the task's result.

        :raises PromptLayerError: which :meth:`execute` turns into one of Airflow's.
        """

    def execute(self, context: Context) -> Any:
        """Do what the task is for.

        Each error is also of the class of :mod:`.exceptions` that says what has happened, with the
        attributes of that class.

        :raises AirflowFailException: if a retry cannot help.
        :raises AirflowException: if it can.
        """
        with self._airflow_errors(context):
            result = self.perform(context)
            self.describe_outlets(context, result)
            return result

    def call(self, call: Call[T], *, about: str) -> T:
        """Send a request, and again while PromptLayer is out of reach for at most ``max_outage``.

        :param call: one that may be sent again without harm.
        :param about: what it asks about, for messages.
        :raises PromptLayerOutageError: if PromptLayer was out of reach for longer.
        """
        policy = retries.POLLING.within(self.max_outage)
        return self.hook.call_with_backoff(call, about=about, policy=policy)

    def file_key(self, context: Context) -> str:
        """Return the ``key`` under which the hook writes a file for this task, in each try."""
        ti = context["ti"]
        task = f"{ti.dag_id}\n{ti.run_id}\n{ti.task_id}\n{ti.map_index}"
        return blake2b(task.encode(), digest_size=8, usedforsecurity=False).hexdigest()

    def on_kill(self) -> None:
        """Send nothing more that creates anything.

        Airflow 3 lets the task go on until it is killed, seconds later.
        """
        self.hook.stop_starting()
        self.log.warning("The task is being stopped.")
