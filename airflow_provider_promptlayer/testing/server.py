# SPDX-License-Identifier: Apache-2.0
"""``LocalPromptLayer``: the API above on a loopback port.

The rule here: this is where state, threads and the outside meet, and the only part that a user of
the package needs to know. What is answered is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

from airflow_provider_promptlayer.testing.api import KEY_HEADER, Api
from airflow_provider_promptlayer.testing.catalog import Catalog
from airflow_provider_promptlayer.testing.changes import Changes
from airflow_provider_promptlayer.testing.definitions import builtin_workflows
from airflow_provider_promptlayer.testing.executions import Execution, Executions
from airflow_provider_promptlayer.testing.http_thread import HttpThread
from airflow_provider_promptlayer.testing.messages import Answer, Request
from airflow_provider_promptlayer.testing.request_log import RecordedRequest, RequestLog
from airflow_provider_promptlayer.testing.workflow_endpoints import WorkflowEndpoints
from airflow_provider_promptlayer.testing.workflows import (
    NO_OUTPUT_STATUSES,
    JsonValue,
    Workflow,
)


class LocalPromptLayer:
    """A PromptLayer of one's own, for the length of a ``with`` or ``async with`` block.

    It answers what PromptLayer's description of August 2026 says about workflows, as strictly, and
    makes no requests of its own: a ``callback_url`` is accepted (202) and never called. It runs in
    a thread with an event loop of its own, so blocking code and coroutines can both use it. Every
    method may be called from any thread. Started again after a stop, it still knows its
    executions.

    Args:
        workflows: definitions, several of one name being its versions; ``None`` for the built-in
            ones.
        api_key: the key to ask for in ``X-API-KEY``.
        host: a loopback address, or ``"localhost"`` for ``127.0.0.1``.
        port: 0 for any free one, a new one at every start.
        clock: seconds from any origin. Node states depend on it and on nothing else, so a test
            that moves its own clock never has to sleep.
        max_requests: how many request records to keep; the oldest go first.
        no_output_status: the HTTP status of the results of a run that ended without a successful
            output node. 200, or the 400 or 500 announced by PromptLayer in March 2026. A workflow
            may have its own.

    Raises:
        ValueError: the host is not loopback, the key cannot be sent in a header, or the workflows
            contradict each other.

    """

    def __init__(
        self,
        workflows: Iterable[Workflow] | None = None,
        *,
        api_key: str = "pl_local_key",
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.monotonic,
        max_requests: int = 10_000,
        no_output_status: int = 200,
    ) -> None:
        if not (api_key and api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise ValueError("api_key must be printable ASCII without spaces, and not empty")
        if no_output_status not in NO_OUTPUT_STATUSES:
            raise ValueError(f"no_output_status is {no_output_status}, must be 200, 400 or 500")
        self._host = _loopback(host)
        self._port = port
        self.api_key = api_key
        self._catalog = Catalog(builtin_workflows() if workflows is None else workflows)
        self._executions = Executions(clock)
        self._log = RequestLog(max_requests)
        self._changes = Changes()
        endpoints = WorkflowEndpoints(self._catalog, self._executions, no_output_status)
        self._api = Api(api_key, endpoints.routes)
        self._thread: HttpThread | None = None

    def start(self) -> None:
        """Listen; return once connections are taken.

        Raises:
            OSError: the port cannot be had.
            RuntimeError: it is listening already.

        """
        if self._thread is not None:
            raise RuntimeError("the local PromptLayer is already running")
        thread = HttpThread(self._answer, self._host, self._port)
        thread.start()
        self._thread = thread

    def stop(self) -> None:
        """Close every connection and wait for the thread to end. Harmless if not started."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end.

        Raises:
            RuntimeError: it is not listening.

        """
        if self._thread is None:
            raise RuntimeError("the local PromptLayer is not running")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._thread.port}"

    @property
    def airflow_connection_json(self) -> str:
        """A value for ``AIRFLOW_CONN_PROMPTLAYER_DEFAULT``."""
        return json.dumps({"conn_type": "promptlayer", "password": self.api_key, "host": self.url})

    @property
    def workflow_names(self) -> list[str]:
        """The names of the workflows, in the order of their definitions."""
        return [entry.name for entry in self._catalog]

    @property
    def executions(self) -> dict[int, Execution]:
        """A copy of all executions, by ``workflow_version_execution_id``."""
        return self._executions.snapshot()

    @property
    def requests(self) -> list[RecordedRequest]:
        """A copy of the latest request records, oldest first, refused requests included."""
        return self._log.latest()

    def count(self, method: str | None = None, path_prefix: str = "/") -> int:
        """Count all requests ever answered; exact even where records were dropped.

        Args:
            method: as in ``"POST"``; ``None`` for any.
            path_prefix: compared with the raw, percent-encoded path without its query.

        """
        return self._log.count(method, path_prefix)

    def start_execution(
        self,
        workflow_name: str,
        input_variables: Mapping[str, JsonValue] | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        workflow_label_name: str | None = None,
        workflow_version_number: int | None = None,
    ) -> int:
        """Start an execution without HTTP; it is not counted as a request.

        Returns:
            its ``workflow_version_execution_id``.

        Raises:
            UnknownWorkflowError: no such workflow, version or label.

        """
        version = self._catalog.find(workflow_name).version(
            workflow_version_number, workflow_label_name
        )
        execution = self._executions.start(
            version.workflow, input_variables=input_variables or {}, metadata=metadata or {}
        )
        self._changes.announce()
        return execution.id

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> None:
        """Block until ``predicate()`` holds; it is asked at once and after every request.

            server.wait_for(lambda: server.count("POST", "/workflows/") >= 3, timeout=10)

        Args:
            predicate: may use this server in any way.
            timeout: in seconds of real time, whatever the server's clock.

        Raises:
            TimeoutError: it did not come to hold in time.

        """
        self._changes.wait_for(predicate, timeout)

    def _answer(self, request: Request) -> Answer:
        answer = self._api.answer(request)
        # Recorded before it is sent: whoever has an answer finds the request counted.
        self._log.add(
            RecordedRequest(
                method=request.method,
                raw_path=request.raw_path,
                query=request.query,
                headers={
                    name: value for name, value in request.headers.items() if name != KEY_HEADER
                },
                key_was_right=self._api.key_is_right(request),
                status=answer.status,
            )
        )
        self._changes.announce()
        return answer


def _loopback(host: str) -> str:
    # The name may resolve to two addresses, which would be two servers on two ports.
    address = "127.0.0.1" if host == "localhost" else host
    try:
        is_loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ValueError(f"the local PromptLayer only listens on loopback, not on {host!r}")
    return address
