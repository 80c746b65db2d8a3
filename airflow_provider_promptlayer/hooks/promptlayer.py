# SPDX-License-Identifier: Apache-2.0
"""The hook: an Airflow connection, and one method for each thing that PromptLayer can be asked.

Each method is there twice, blocking and as an ``a…`` coroutine. Both build the same request and
read the answer with the same function; only the transport differs. aiohttp and requests are
imported on first use, because DAG files import this module on every parse.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowNotFoundException,
    BaseHook,
)

from airflow_provider_promptlayer.api.arguments import execution_id
from airflow_provider_promptlayer.api.endings import FailOn, check_fail_on, judge
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.pace import Pace
from airflow_provider_promptlayer.api.settings import Settings, read_connection
from airflow_provider_promptlayer.api.starting import resend_after
from airflow_provider_promptlayer.api.subjects import L, Subject
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.throttle import Throttle
from airflow_provider_promptlayer.api.waiting import DEFAULT_MAX_OUTAGE, Step, Wait
from airflow_provider_promptlayer.api.workflows import (
    StartedRun,
    WorkflowResults,
    WorkflowRun,
    run_workflow,
    workflow_count,
    workflow_results,
)
from airflow_provider_promptlayer.exceptions import (
    PromptLayerAuthError,
    PromptLayerError,
    PromptLayerNotFoundError,
    PromptLayerTransientError,
    PromptLayerUnexpectedAnswerError,
    PromptLayerUnknownConnectionError,
    PromptLayerUnreachableError,
)

if TYPE_CHECKING:
    import requests

    from airflow_provider_promptlayer.transport.aio import AsyncTransport
    from airflow_provider_promptlayer.transport.blocking import BlockingTransport

T = TypeVar("T")

_aio: ModuleType | None = None
"""The asynchronous transport, once it is imported."""

_throttles: dict[Settings, Throttle] = {}
"""Connection → the brake of all waits in this process that use it."""


class PromptLayerHook(BaseHook):
    """Talk to PromptLayer with the key of an Airflow connection.

    :param promptlayer_conn_id: id of an Airflow connection of type ``promptlayer``. Its password
        is the API key; host, ``timeout``, ``verify`` and ``proxy`` are optional.

    Every method raises :class:`PromptLayerConfigurationError` if there is no such connection or
    it cannot be used, :class:`PromptLayerInvalidInputError` for arguments that cannot be sent,
    :class:`PromptLayerRefusedError` if PromptLayer refuses for good, and
    :class:`PromptLayerTransientError` if it could not be asked.
    """

    conn_name_attr = "promptlayer_conn_id"
    default_conn_name = "promptlayer_default"
    conn_type = "promptlayer"
    hook_name = "PromptLayer"

    def __init__(self, promptlayer_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.promptlayer_conn_id = promptlayer_conn_id
        self._settings: Settings | None = None
        self._transport: BlockingTransport | None = None

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields of the connection form (Airflow 2; 3 reads the provider info)."""
        from airflow_provider_promptlayer.hooks.connection_form import widgets

        return widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and hidden fields of the connection form."""
        from airflow_provider_promptlayer.hooks.connection_form import FIELD_BEHAVIOUR

        behaviour: Any = FIELD_BEHAVIOUR
        return {key.replace("-", "_"): value for key, value in behaviour.items()}

    def get_conn(self) -> requests.Session:
        """Return a session for calls that this hook has no method for.

        It adds the key to requests to PromptLayer and to no others, and has the connection's TLS
        and proxy settings. The caller closes it and gives a ``timeout`` to each call.
        """
        from airflow_provider_promptlayer.transport.blocking import PromptLayerSession

        return PromptLayerSession(self.settings)

    @property
    def settings(self) -> Settings:
        """The connection as read on first use; blocking."""
        return self._settings or self._adopt(self._read_connection())

    def run_workflow(
        self,
        workflow_id_or_name: int | str,
        *,
        input_variables: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        workflow_label_name: str | None = None,
        workflow_version_number: int | str | None = None,
        return_all_outputs: bool = True,
    ) -> int:
        """Start a run of a workflow and return without waiting for it.

        PromptLayer has no idempotency key, so a second POST would be a second, billed run. It is
        sent again, a few times and with growing pauses, only when it certainly did not arrive: no
        connection was made, or the answer was 429 or 503.

        :param workflow_id_or_name: name or numeric id.
        :param input_variables: what the workflow takes; anything that JSON can hold.
        :param metadata: strings to find the run by in PromptLayer.
        :param workflow_label_name: run the version with this release label.
        :param workflow_version_number: run this version; excludes the label. Without either,
            the latest version runs.
        :param return_all_outputs: sent as it is; how results are read is said when they are.
        :returns: the run's ``workflow_version_execution_id``.
        :raises PromptLayerStartUncertainError: if a run may have been started and its id is not
            known.
        """
        call = run_workflow(
            workflow_id_or_name,
            input_variables=input_variables,
            metadata=metadata,
            workflow_label_name=workflow_label_name,
            workflow_version_number=workflow_version_number,
            return_all_outputs=return_all_outputs,
        )
        return self._started(self.start(call))

    async def arun_workflow(
        self,
        workflow_id_or_name: int | str,
        *,
        input_variables: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        workflow_label_name: str | None = None,
        workflow_version_number: int | str | None = None,
        return_all_outputs: bool = True,
    ) -> int:
        """Do what :meth:`run_workflow` does, without blocking the event loop."""
        call = run_workflow(
            workflow_id_or_name,
            input_variables=input_variables,
            metadata=metadata,
            workflow_label_name=workflow_label_name,
            workflow_version_number=workflow_version_number,
            return_all_outputs=return_all_outputs,
        )
        return self._started(await self.astart(call))

    def get_workflow_results(
        self, workflow_version_execution_id: int | str, *, return_all_outputs: bool = True
    ) -> WorkflowResults:
        """Look once at a run; never waits, and does not judge how it ended.

        :param workflow_version_execution_id: as int or digits in a string.
        :param return_all_outputs: False asks for the main output alone: ``nodes`` is then empty
            once the run has ended, and nothing tells whether it succeeded.
        """
        return self.call(
            workflow_results(workflow_version_execution_id, return_all_outputs=return_all_outputs)
        )

    async def aget_workflow_results(
        self, workflow_version_execution_id: int | str, *, return_all_outputs: bool = True
    ) -> WorkflowResults:
        """Do what :meth:`get_workflow_results` does, without blocking the event loop."""
        return await self.acall(
            workflow_results(workflow_version_execution_id, return_all_outputs=return_all_outputs)
        )

    def wait_for_workflow_results(
        self,
        workflow_version_execution_id: int | str,
        *,
        timeout: float,
        poke_interval: float | None = None,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        fail_on: FailOn = "no_output",
    ) -> WorkflowResults:
        """Wait for a run to end; for use inside ``@task`` functions. Holds the worker.

        Rides out trouble in asking, as the sensor does.

        :param timeout: seconds to wait at most.
        :param poke_interval: seconds between two looks; None for a pace that fits the work.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        :param fail_on: which ending counts as a failure, see :data:`FailOn`.
        :raises PromptLayerRunFailedError: if the run ended badly; has the results.
        :raises PromptLayerWaitTimeoutError: if the run did not end in time. It goes on.
        :raises PromptLayerOutageError: if PromptLayer was out of reach for too long.
        """
        run = WorkflowRun(execution_id(workflow_version_execution_id))
        check_fail_on(fail_on)
        results = self._wait_for(run, self._new_wait(run, timeout, poke_interval, max_outage))
        judge(results, fail_on)
        return results

    async def await_for_workflow_results(
        self,
        workflow_version_execution_id: int | str,
        *,
        timeout: float,  # noqa: ASYNC109 - the twin of a blocking method
        poke_interval: float | None = None,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        fail_on: FailOn = "no_output",
    ) -> WorkflowResults:
        """Do what :meth:`wait_for_workflow_results` does, without blocking the event loop."""
        run = WorkflowRun(execution_id(workflow_version_execution_id))
        check_fail_on(fail_on)
        results = await self._await_for(
            run, self._new_wait(run, timeout, poke_interval, max_outage)
        )
        judge(results, fail_on)
        return results

    def test_connection(self) -> tuple[bool, str]:
        """Make the cheapest authenticated call, and say who is wrong if it fails.

        :returns: whether it worked, and a line for people.
        """
        try:
            count = self.call(workflow_count())
        except PromptLayerAuthError as error:
            return False, f"The host is reachable, but the key is wrong. {error}"
        except PromptLayerUnreachableError as error:
            return False, f"The host {self.settings.base_url} is not reachable. {error}"
        except (PromptLayerNotFoundError, PromptLayerUnexpectedAnswerError) as error:
            return False, f"{self.settings.base_url} answers, but it is not PromptLayer. {error}"
        except PromptLayerError as error:
            return False, str(error)
        finally:
            self.close()
        found = (
            "" if count is None else f" The key sees {count} workflow{'' if count == 1 else 's'}."
        )
        return True, f"PromptLayer answers at {self.settings.base_url}.{found}"

    @asynccontextmanager
    async def async_transport(self) -> AsyncIterator[AsyncTransport]:
        """Hold the event loop's connection pool open, so that the calls within share it."""
        global _aio
        if _aio is None:  # aiohttp takes tenths of a second to import: not on the event loop
            _aio = await asyncio.to_thread(
                import_module, "airflow_provider_promptlayer.transport.aio"
            )
        async with _aio.SharedTransport(await self.aget_settings()) as transport:
            yield transport

    async def aget_settings(self) -> Settings:
        """Return :attr:`settings`, without blocking the event loop."""
        return self._settings or self._adopt(await self._aread_connection())

    def close(self) -> None:
        """Close the blocking connections. The hook can be used again."""
        if self._transport is not None:
            self._transport.close()

    def call(self, call: Call[T]) -> T:
        """Send a request of :mod:`..api` and return what its answer means.

        If the key is refused, the connection is read again: somebody may have changed it.
        """
        try:
            return self._call_once(call)
        except PromptLayerAuthError as error:
            self.close()
            self._transport = None
            if not self._is_news(self._read_connection()):
                raise
            self._say_key_changed(error)
            return self._call_once(call)

    async def acall(self, call: Call[T], over: AsyncTransport | None = None) -> T:
        """Do what :meth:`call` does, without blocking the event loop.

        :param over: what :meth:`async_transport` lends, where the caller holds it.
        """
        try:
            return await self._acall_once(call, over)
        except PromptLayerAuthError as error:
            if not self._is_news(await self._aread_connection()):
                raise
            self._say_key_changed(error)
            return await self._acall_once(call)

    def start(self, call: Call[T]) -> T:
        """Do what :meth:`call` does for a request that starts something.

        It is sent again, a few times and with growing pauses, only when it certainly did not
        arrive: no connection was made, or the answer was 429 or 503.
        """
        sent = 0
        while True:
            try:
                return self.call(call)
            except PromptLayerError as error:
                sent += 1
                time.sleep(self._until_resend(error, sent))

    async def astart(self, call: Call[T]) -> T:
        """Do what :meth:`start` does, without blocking the event loop."""
        sent = 0
        while True:
            try:
                return await self.acall(call)
            except PromptLayerError as error:
                sent += 1
                await asyncio.sleep(self._until_resend(error, sent))

    def _wait_for(self, subject: Subject[L], wait: Wait) -> L:
        while True:
            time.sleep(wait.before_look(now=time.time()))
            try:
                look = self.call(subject.read())
                step = wait.after_look(look, now=time.time())
            except PromptLayerTransientError as error:
                step = wait.after_error(error, now=time.time())
            self._log_step(step)
            if step.is_done:
                return look
            time.sleep(step.sleep)

    async def _await_for(self, subject: Subject[L], wait: Wait) -> L:
        async with self.async_transport():
            while True:
                if (hold := wait.before_look(now=time.time())) > 0:
                    await asyncio.sleep(hold)
                try:
                    look = await self.acall(subject.read())
                    step = wait.after_look(look, now=time.time())
                except PromptLayerTransientError as error:
                    step = wait.after_error(error, now=time.time())
                self._log_step(step)
                if step.is_done:
                    return look
                await asyncio.sleep(step.sleep)

    def _call_once(self, call: Call[T]) -> T:
        from airflow_provider_promptlayer.transport.blocking import BlockingTransport

        if self._transport is None:
            self._transport = BlockingTransport(self.settings)
        try:
            response = self._transport.send(call.request)
        except PromptLayerUnreachableError as error:
            raise call.unanswered(error) from None
        return call.read(response, time.time())

    async def _acall_once(self, call: Call[T], over: AsyncTransport | None = None) -> T:
        if over is None:
            async with self.async_transport() as transport:
                return await self._acall_once(call, transport)
        try:
            response = await over.send(call.request)
        except PromptLayerUnreachableError as error:
            raise call.unanswered(error) from None
        if response.is_large:
            return await asyncio.to_thread(call.read, response, time.time())
        return call.read(response, time.time())

    def _is_news(self, settings: Settings) -> bool:
        """Take the connection as it is now, and tell whether it has changed."""
        if settings == self._settings:
            return False
        self._adopt(settings)
        return True

    def _say_key_changed(self, error: PromptLayerAuthError) -> None:
        self.log.warning(
            "PromptLayer refused the API key (HTTP %s); the connection %r has changed meanwhile, "
            "so it is tried again.",
            error.status,
            self.promptlayer_conn_id,
        )

    def _until_resend(self, error: PromptLayerError, sent: int) -> float:
        seconds = resend_after(error, sent)
        if seconds is None:
            raise error
        self.log.warning("%s Nothing was started; trying again in %.1f s.", error, seconds)
        return seconds

    def _read_connection(self) -> Settings:
        try:
            return read_connection(self.get_connection(self.promptlayer_conn_id))
        except AirflowNotFoundException:
            raise self._unknown_connection() from None
        except AirflowException as error:
            raise self._unreadable_connection(error) from error

    async def _aread_connection(self) -> Settings:
        from airflow.providers.common.compat.connection import get_async_connection

        try:
            return read_connection(await get_async_connection(self.promptlayer_conn_id, type(self)))
        except AirflowNotFoundException:
            raise self._unknown_connection() from None
        except AirflowException as error:
            raise self._unreadable_connection(error) from error

    def _unreadable_connection(self, error: AirflowException) -> PromptLayerTransientError:
        return PromptLayerTransientError(
            f"Could not read the Airflow connection {self.promptlayer_conn_id!r}: "
            f"{one_line(str(error))}"
        )

    def _unknown_connection(self) -> PromptLayerUnknownConnectionError:
        return PromptLayerUnknownConnectionError(
            f"There is no Airflow connection {self.promptlayer_conn_id!r}: add one of type "
            "'promptlayer' with the API key as its password, or correct promptlayer_conn_id."
        )

    def _adopt(self, settings: Settings) -> Settings:
        if settings.is_cleartext:
            self.log.warning(
                "Airflow connection %r sends the API key unencrypted to %s: use https.",
                self.promptlayer_conn_id,
                settings.base_url,
            )
        if settings.verify is False:
            self.log.warning(
                "Airflow connection %r does not verify TLS certificates: anybody on the way can "
                "read the API key.",
                self.promptlayer_conn_id,
            )
        self._settings = settings
        return settings

    @property
    def throttle(self) -> Throttle:
        """What all waits of this process that use the same connection share."""
        return _throttles.setdefault(self.settings, Throttle())

    def _new_wait(
        self, subject: Subject[L], timeout: float, poke_interval: float | None, max_outage: float
    ) -> Wait:
        now = time.time()
        return Wait(
            subject.name,
            Pace(poke_interval),
            started_at=now,
            deadline=now + timeout,
            max_outage=max_outage,
            throttle=self.throttle,
        )

    def _started(self, run: StartedRun) -> int:
        self.log.info("PromptLayer started workflow run %s.", run.workflow_version_execution_id)
        if run.warning:
            self.log.warning("PromptLayer warns: %s", run.warning)
        return run.workflow_version_execution_id

    def _log_step(self, step: Step) -> None:
        if step.note:
            (self.log.warning if step.is_trouble else self.log.info)("%s", step.note)
