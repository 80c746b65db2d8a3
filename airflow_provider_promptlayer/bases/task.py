# SPDX-License-Identifier: Apache-2.0
"""What every task of this provider has: a connection, and errors by which Airflow decides."""

from __future__ import annotations

import datetime
import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast

from airflow.providers.common.compat.sdk import BaseOperator, BaseOperatorLink

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.arguments import is_constant, refuse_none
from airflow_provider_promptlayer.api.errors import (
    PromptLayerAuthError,
    PromptLayerError,
    PromptLayerInvalidInputError,
    PromptLayerStartUncertainError,
    PromptLayerUnknownConnectionError,
)
from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.api.links import Page, is_web_url
from airflow_provider_promptlayer.bases import configuration
from airflow_provider_promptlayer.bases.lineage import (
    Lineage,
    operator_lineage,
    promptlayer_namespace,
)
from airflow_provider_promptlayer.bases.task_errors import airflow_errors
from airflow_provider_promptlayer.hooks import metrics
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.polling.poller import DEFAULT_MAX_OUTAGE
from airflow_provider_promptlayer.xcom import outputs as xcom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

T = TypeVar("T")

_WARNINGS_UNFOLDED: Final = 3
"""How many warnings are logged without a group."""


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


class PromptLayerLink(BaseOperatorLink):
    """The button of a task that leads to PromptLayer, by the URL in the task's XCom."""

    name = "PromptLayer"
    xcom_key = xcom.URL_KEY  # Airflow 3 reads the XCom alone

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the URL; empty where there is none.

        :param operator: in a worker of Airflow 3, at the end of the task, the task itself; in
            Airflow 2's webserver, what it knows of the task.
        """
        url = getattr(operator, "known_url", None) or version_compat.stored_xcom(
            ti_key, self.xcom_key
        )
        return url if is_web_url(url) else ""


class PromptLayerTask(BaseOperator):
    """Base of every task that sends requests to PromptLayer.

    :param promptlayer_conn_id: id of the Airflow connection.
    :param max_outage: seconds (or a ``timedelta``) for which PromptLayer may be out of reach
        before the task fails; None for ``[promptlayer] max_outage``, 30 minutes.
    """

    ui_color = "#e8e4fb"

    operator_extra_links: Collection[BaseOperatorLink] = (PromptLayerLink(),)

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
        self.max_outage = configuration.given_seconds("max_outage", max_outage, DEFAULT_MAX_OUTAGE)
        if self.max_outage == math.inf:  # Airflow 3 cannot pass infinity to a trigger
            raise PromptLayerInvalidInputError("max_outage must be finite.")
        self.outcome: str | None = None  # a line for the end of the log
        self.lineage = Lineage()  # as far as the task has come
        self._known_url: tuple[Page, str] | None = None
        self._url_in_xcom: str | None = None

    def are_constant(self, *names: str) -> bool:
        """Return whether the DAG file has these arguments written out, and nothing renders them.

        What ``expand`` has mapped does not count: it may be the output of another task.
        """
        values = [getattr(self, name) for name in names]
        return not version_compat.is_made_from_mapped(self) and all(map(is_constant, values))

    def note_given(self, *names: str) -> None:
        """Note which optional arguments are given, before they are rendered.

        :param names: of attributes that are None where the argument is left out.
        """
        self._optional = names
        self._given = [name for name in names if getattr(self, name) is not None]

    def refuse_missing(self) -> None:
        """Raise if an argument that was given, see :meth:`note_given`, is None once rendered.

        Else the output of a task that has returned None would drop a condition.

        :raises PromptLayerInvalidInputError: says which.
        """
        given, task = set(self._given), cast("Any", self)  # of Airflow's classes, in part untyped
        if version_compat.is_made_from_mapped(task) and task.has_dag():
            given.update(version_compat.expanded_over(task.dag.get_task(self.task_id)) or ())
        for name in self._optional:
            if name in given:
                refuse_none(name, getattr(self, name))

    def refuse_constants(self, **parsers: Callable[[str, Any], Any]) -> None:
        """Refuse arguments that are wrong as they are written, when the DAG file is parsed.

        Others are left until the task runs, which fails for good then. None is left out.

        :param parsers: name of an attribute → what raises for a wrong value.
        :raises PromptLayerInvalidInputError: for a wrong value.
        """
        for name, parse in parsers.items():
            if (value := getattr(self, name)) is not None and self.are_constant(name):
                parse(name, value)

    @cached_property
    def hook(self) -> PromptLayerHook:
        """The hook for ``promptlayer_conn_id``."""
        return PromptLayerHook(self.promptlayer_conn_id)

    @property
    def known_job(self) -> RemoteJob[Any] | None:
        """The job that the task waits for, once it is known; None for a task that does not wait."""
        return None

    @property
    def counted_as(self) -> str:
        """What metrics call what the task starts."""
        return "other"

    @property
    def page(self) -> Page | None:
        """The web page of PromptLayer that shows what the task is about; None if there is none.

        Known without a request, so it may be known only once the task has begun.
        """
        job = self.known_job
        return None if job is None else job.page

    @property
    def known_url(self) -> str | None:
        """The URL of :attr:`page`, as far as it was found."""
        with suppress(PromptLayerError):  # an argument that cannot be used names no page
            if self._known_url is not None and self._known_url[0] == self.page:
                return self._known_url[1]
        return None

    def show_link(self, context: Context) -> None:
        """Find the URL of :attr:`page` and push it, so that the link is there from now on."""
        url = self._find_url()
        if url is None or url == self._url_in_xcom:
            return
        try:
            self._push(context, xcom.URL_KEY, url)
        except Exception:
            self.log.exception("Could not push the link to PromptLayer to XCom.")
        else:
            self._url_in_xcom = url

    def kept_url(self) -> dict[str, str]:
        """Return the URL, to keep it through a deferral; empty if it is not known."""
        return {} if self.known_url is None else {"url": self.known_url}

    def restore_url(self, kept: Mapping[str, Any]) -> None:
        """Take the URL of :meth:`kept_url`, which was pushed before the deferral."""
        page, url = self.page, kept.get("url")
        if page is not None and is_web_url(url):
            self._known_url, self._url_in_xcom = (page, str(url)), url

    def _find_url(self) -> str | None:
        if (url := self.known_url) is not None:
            return url
        with suppress(PromptLayerError):
            page = self.page
            url = None if page is None else self.hook.find_url(page)
            if page is not None and url is not None:
                self._known_url = page, url
        return url

    def note_lineage(self, make: Callable[[], Lineage]) -> None:
        """Note what the task has read, written and checked.

        :param make: returns it. What it raises is logged alone: the work is done, or has failed
            with an error of its own.
        """
        try:
            self.lineage = make()
        except Exception:
            self.log.exception("Could not note for OpenLineage what the task has read and written.")

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002
        """Return what the task has read, written and checked.

        Airflow's provider of OpenLineage calls this, where it is installed, also after a failure.
        """
        lineage, job, base_url = self.lineage, self.known_job, self.hook.known_base_url
        if job is not None and not lineage.job_ids:
            lineage = replace(lineage, job_ids=job.remote_ids)
        namespace = None if base_url is None else promptlayer_namespace(base_url)
        return operator_lineage(lineage, self.known_url or namespace)

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

    def _push(self, context: Context, key: str, value: Any) -> None:
        if self.do_xcom_push:
            xcom.push(context, key, value)

    @contextmanager
    def _airflow_errors(self, context: Context) -> Iterator[None]:
        """Turn errors into Airflow's; close the connections when the task leaves the worker.

        At the end of the task, say what came of it: in the log, or in the error.
        """
        self.outcome, self.lineage = None, Lineage()
        try:
            with airflow_errors(self.may_retry, self._skips()):
                try:
                    yield
                except PromptLayerError as error:
                    self._count_end(error)
                    self._add_link(context, error)
                    raise
            self._say_outcome(context)
        finally:
            # Airflow 3 pushes the URL of each link at the end, also one that is not known.
            has_link = self.do_xcom_push and self.known_url is not None
            self.operator_extra_links = (PromptLayerLink(),) if has_link else ()
            self.hook.close()

    def _count_end(self, error: PromptLayerError | None = None) -> None:
        if isinstance(error, PromptLayerStartUncertainError):
            metrics.count_uncertain_starts(self.counted_as)
        elif self.known_job is not None:
            metrics.count_wait(self.counted_as, error)

    def _say_outcome(self, context: Context) -> None:
        if self.outcome is not None:
            self._count_end()
            self.show_link(context)
            url = "" if self.known_url is None else f" {self.known_url}"
            self.log.info("%s%s", self.outcome, url)

    def _warn(self, lines: Sequence[str]) -> None:
        """Log warnings; many of them in a group, which Airflow's log tab folds."""
        is_group = len(lines) > _WARNINGS_UNFOLDED
        if is_group:
            self.log.info("::group::%s warnings", len(lines))
        for line in lines:
            self.log.warning("%s", line)
        if is_group:
            self.log.info("::endgroup::")

    def _advice(self, context: Context, error: PromptLayerError) -> str:  # noqa: ARG002
        """Return what to do about an error, as a sentence; empty where the error says it."""
        return ""

    def _add_link(self, context: Context, error: PromptLayerError) -> None:
        """Add to an error what to do, where to look, and the id of the job."""
        job = self.known_job
        error.external_id = None if job is None else job.id
        if not error.retry_helps:  # else PromptLayer may be out of reach
            self.show_link(context)
        error.url = self.known_url
        if error.url is not None:  # Airflow's log tab cuts the error, but not a line as short
            self.log.error("Look in PromptLayer: %s", error.url)
        more = [self._advice(context, error), "" if error.url is None else f"See {error.url}"]
        if any(more):
            text = str(error)
            end = "" if text[-1:] in ".!?…" else "."
            error.args = (" ".join(filter(None, [f"{text}{end}", *more])),)
