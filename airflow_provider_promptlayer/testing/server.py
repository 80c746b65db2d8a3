# SPDX-License-Identifier: Apache-2.0
"""``LocalPromptLayer``: PromptLayer's API on a loopback port.

This is the only class that a user of the package needs to know.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from .certificates import CertificateKind, Certificates
from .definitions import builtin_evaluations, builtin_workflows
from .evaluations.control import EvaluationControl
from .evaluations.imports import ImportEndpoints
from .evaluations.model import Report, Table
from .evaluations.operations import OperationEndpoints
from .evaluations.reports import ReportEndpoints
from .evaluations.request_logs import RequestLog
from .evaluations.rows import RowEndpoints
from .evaluations.runs import ReportRuns
from .evaluations.scorecards import ScorecardEndpoints
from .evaluations.tables import TableEndpoints
from .evaluations.versions import VersionEndpoints
from .evaluations.workspace import RepeatedImport, Workspace
from .faults.connections import Connections
from .faults.model import Fault
from .faults.script import FaultFunction, Script
from .http.app import Api, RecordedRequest
from .http.dialect import Dialect
from .http.thread import HttpThread
from .json_text import JsonValue
from .releases.control import ReleaseControl
from .releases.endpoints import PromptEndpoints
from .releases.prompts import Prompt, Prompts
from .workflows.catalog import Catalog
from .workflows.endpoints import WorkflowEndpoints
from .workflows.engine import Execution, Executions, Origin
from .workflows.model import NO_OUTPUT_STATUSES, Workflow


class LocalPromptLayer(EvaluationControl, ReleaseControl):
    """A local PromptLayer, for the length of a ``with`` or ``async with`` block.

    It serves the workflows, the tables with their scorecards, and the reports of
    PromptLayer's description of August 2026, and is as strict. It makes no requests itself: a
    ``callback_url`` is accepted (202) and never called. It serves no stream: ``run_workflow`` of
    PromptLayer's Python library, which waits on one, gets a 404 that says so. It runs in a thread
    with its own event loop, so blocking code and coroutines can both use it. Every method may be
    called from any thread; what needs a running server raises ``RuntimeError`` without one.
    Started again after a stop, it still has its executions.

    :param workflows: definitions, several of one name being its versions; ``None`` for the built-in
        ones.
    :param tables: definitions; ``None`` for the built-in ones.
    :param reports: definitions, of pipelines and of final reports; ``None`` for the built-in ones.
    :param request_logs: what imports from request logs find; ``None`` for the built-in ones.
    :param prompts: prompt templates, besides those that the request logs were made with; ``None``
        for the built-in ones.
    :param import_duration: seconds that an import into a sheet takes; ``math.inf`` if it never
        ends.
    :param repeated_import: what a repeated ``operation_id`` of an import does: it answers with the
        ``same`` import, is a ``conflict`` (409), or imports ``again``.
    :param dialect: where PromptLayer's sources disagree about tables, answer as its ``description``
        says, or as its ``libraries`` expect.
    :param api_key: the key that requests must have in ``X-API-KEY``.
    :param host: a loopback address, or ``"localhost"`` for ``127.0.0.1``.
    :param port: 0 for any free one, a new one at every start.
    :param clock: seconds from any origin. Node states depend on it alone, so a test that moves its
        own clock never has to sleep.
    :param max_requests: how many request records to keep; the oldest are dropped first.
    :param no_output_status: the HTTP status of the results of a run that ended without a successful
        output node. 200, or the 400 or 500 announced by PromptLayer in March 2026. A workflow may
        have its own.
    :param tls: serve HTTPS with a certificate of this kind, made at every start; ``None`` for HTTP.
    :raises ValueError: the host is not loopback, the key cannot be sent in a header, or the
        definitions contradict each other.
    """

    def __init__(
        self,
        workflows: Iterable[Workflow] | None = None,
        *,
        tables: Iterable[Table] | None = None,
        reports: Iterable[Report] | None = None,
        request_logs: Iterable[RequestLog] | None = None,
        prompts: Iterable[Prompt] | None = None,
        import_duration: float = 0.0,
        repeated_import: RepeatedImport = "same",
        dialect: Dialect = "description",
        api_key: str = "pl_local_key",
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.monotonic,
        max_requests: int = 10_000,
        no_output_status: int = 200,
        tls: CertificateKind | None = None,
    ) -> None:
        _check_key(api_key)
        if no_output_status not in NO_OUTPUT_STATUSES:
            raise ValueError(f"no_output_status is {no_output_status}, must be 200, 400 or 500")
        self._host = _loopback(host)
        self._port = port
        self.api_key = api_key
        self._catalog = Catalog(builtin_workflows() if workflows is None else workflows)
        self._executions = Executions(clock)
        builtin = builtin_evaluations()
        workspace = Workspace(
            builtin.tables if tables is None else tables,
            clock,
            request_logs=builtin.request_logs if request_logs is None else request_logs,
            import_duration=import_duration,
            repeated_import=repeated_import,
            dialect=dialect,
        )
        templates = Prompts(builtin.prompts if prompts is None else prompts, workspace.request_logs)
        report_runs = ReportRuns(builtin.reports if reports is None else reports, clock)
        self._api = Api(
            api_key,
            [
                *WorkflowEndpoints(
                    self._catalog, self._executions, no_output_status, dialect
                ).routes,
                # Before those of a sheet, for which "operations" would be an id.
                *ImportEndpoints(workspace).routes,
                *TableEndpoints(workspace).routes,
                *RowEndpoints(workspace).routes,
                *OperationEndpoints(workspace).routes,
                *VersionEndpoints(workspace).routes,
                *ScorecardEndpoints(workspace).routes,
                *ReportEndpoints(report_runs).routes,
                *PromptEndpoints(templates).routes,
            ],
            clock=clock,
            max_requests=max_requests,
        )
        announce_change = self._api.log.announce_change
        EvaluationControl.__init__(self, workspace, report_runs, announce_change)
        ReleaseControl.__init__(self, self._catalog, templates, announce_change)
        self._connections = Connections()
        self._tls = tls
        self._thread: HttpThread | None = None

    def start(self) -> None:
        """Start the server; return once it accepts connections.

        :raises OSError: the port is not available.
        :raises RuntimeError: it is already running.
        """
        if self._thread is not None:
            raise RuntimeError("the local PromptLayer is already running")
        thread = HttpThread(self._api, self._host, self._port, self._connections, self._tls)
        thread.start()
        self._thread = thread

    def stop(self) -> None:
        """Close every connection and wait for the thread to end. Does nothing if not running."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await asyncio.to_thread(self.stop)

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{host}:{self._running.port}"

    @property
    def ca_file(self) -> str:
        """The path of the CA file that a client has to trust: ``verify`` of a connection."""
        return str(self._certificates.ca_file)

    @property
    def airflow_connection_json(self) -> str:
        """A value for ``AIRFLOW_CONN_PROMPTLAYER_DEFAULT``; with TLS it trusts ``ca_file``."""
        connection: dict[str, Any] = {
            "conn_type": "promptlayer",
            "password": self.api_key,
            "host": self.url,
        }
        if self._tls is not None:
            connection["extra"] = {"verify": self.ca_file}
        return json.dumps(connection)

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
        """A copy of the latest request records, oldest first, including refused requests."""
        return self._api.log.latest()

    def count(self, method: str | None = None, path_prefix: str = "/") -> int:
        """Count all requests that arrived completely, including those whose record was dropped.

        A request is counted before it is answered, also if a fault keeps it from being answered.
        Of a request without the right key only the headers have to arrive.

        :param method: as in ``"POST"``; ``None`` for any.
        :param path_prefix: compared with the raw, percent-encoded path without its query.
        """
        return self._api.log.count(method, path_prefix)

    def posts_by_origin(self) -> Counter[Origin]:
        """Count the runs that requests have started, by the task that requested them.

        A count above 1 is a run started twice, unless the task was meant to start several.
        """
        return Counter(run.origin for run in self.executions.values() if run.was_posted)

    @property
    def open_connections(self) -> int:
        """How many connections are open now; with TLS, after the handshake."""
        return len(self._connections)

    @property
    def connections_made(self) -> int:
        """How many connections there have been; with TLS, those whose handshake succeeded."""
        return self._connections.made

    def script(
        self,
        *faults: Fault | FaultFunction,
        method: str | None = None,
        path_prefix: str = "/",
        execution_id: int | None = None,
        times: int | None = 1,
        after: int = 0,
        acted_on: bool = False,
    ) -> Script:
        """Make requests meet faults.

            server.script(Reply(502, "<html>"), Reset(), method="GET")  # the next two GETs
            server.script(Close(), method="POST", acted_on=True)  # run started, answer lost
            with server.script(Silence(), times=None): ...  # every request, for a while

        Rules are asked in the order in which they were made; the first that has a fault for a
        request decides. Faults come before the key is checked.

        :param faults: used one after the other, one for each request; or functions from ``Request``
            to a fault or ``None``, which leaves the request to the next rule. They are called in
            the server's thread and must not wait for this server. The body of a request without the
            right key is empty.
        :param method: only requests of this method; ``None`` for any.
        :param path_prefix: compared with the raw, percent-encoded path without its query.
        :param execution_id: only polls of this run.
        :param times: how often to go through the faults; ``None`` for as long as the rule exists.
        :param after: how many fitting requests to leave alone first.
        :param acted_on: whether a POST, PATCH or DELETE that meets a fault takes effect. ``False``:
            it does nothing, as if it had not arrived. ``True``: it starts its run, or cancels, and
            then the answer meets the fault. A request whose fault only delays the true answer
            always takes effect. No meaning for a GET.
        :return: The rule, which says how often it was used and can be removed.
        :raises ValueError: there is no fault, or a number is out of range.
        """
        rule = Script(
            rules=self._api.rules,
            faults=faults,
            method=method,
            path_prefix=path_prefix,
            execution_id=execution_id,
            times=times,
            after=after,
            acted_on=acted_on,
        )
        self._api.rules.add(rule)
        return rule

    def clear_scripts(self) -> None:
        """Remove every rule of ``script``."""
        self._api.rules.clear()

    def go_away(self) -> None:
        """Reset every connection and refuse new ones, until ``come_back``; the port is kept."""
        self._running.go_away()

    def come_back(self) -> None:
        """Listen again, on the same port."""
        self._running.come_back()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Go away for the length of a ``with`` block."""
        self.go_away()
        try:
            yield
        finally:
            self.come_back()

    def drop_connections(self) -> None:
        """Reset every open connection, like a gateway that restarts."""
        self._running.drop_connections()

    def rotate_key(self, new_key: str, *, keep_old: bool = False) -> None:
        """Accept a new key from the next request on; ``api_key`` is the new one.

        :param new_key: the key.
        :param keep_old: also accept the previous keys, until ``rotate_key`` is called without it.
        :raises ValueError: the key cannot be sent in a header.
        """
        _check_key(new_key)
        self._api.rotate_key(new_key, keep_old=keep_old)
        self.api_key = new_key

    def use_certificate(self, kind: CertificateKind) -> None:
        """Present another certificate; open connections are reset, so that every client sees it."""
        self._certificates.use(kind)
        self.drop_connections()

    def start_execution(
        self,
        workflow_name: str,
        input_variables: Mapping[str, JsonValue] | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        workflow_label_name: str | None = None,
        workflow_version_number: int | None = None,
    ) -> int:
        """Start an execution without HTTP; return its ``workflow_version_execution_id``.

        :raises UnknownWorkflowError: no such workflow, version or label.
        """
        version = self._catalog.find(workflow_name).version(
            workflow_version_number, workflow_label_name
        )
        execution = self._executions.start(
            version.workflow, input_variables=input_variables or {}, metadata=metadata or {}
        )
        self._api.log.announce_change()
        return execution.id

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> None:
        """Block until ``predicate()`` holds; it is evaluated now and after every request.

            server.wait_for(lambda: server.count("POST", "/workflows/") >= 3, timeout=10)

        :param predicate: may use this server in any way.
        :param timeout: after so many seconds of real time, raise ``TimeoutError``.
        """
        self._api.log.wait_for(predicate, timeout)

    @property
    def _running(self) -> HttpThread:
        if self._thread is None:
            raise RuntimeError("the local PromptLayer is not running")
        return self._thread

    @property
    def _certificates(self) -> Certificates:
        if self._thread is None or self._thread.certificates is None:
            raise RuntimeError("the local PromptLayer is not running with TLS")
        return self._thread.certificates


def _check_key(api_key: str) -> None:
    if not (api_key and api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise ValueError("api_key must be printable ASCII without spaces, and not empty")


def _loopback(host: str) -> str:
    # "localhost" may resolve to two addresses, which would be two servers on two ports.
    address = "127.0.0.1" if host == "localhost" else host
    try:
        is_loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ValueError(f"the local PromptLayer only listens on loopback, not on {host!r}")
    return address
