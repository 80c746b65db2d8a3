# SPDX-License-Identifier: Apache-2.0
"""The operator that moves a release label of a prompt template or a workflow."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Unpack

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.arguments import (
    NOTSET,
    NotSet,
    exactly_one,
    name_or_id,
    one_of,
    positive,
    seconds,
    title_text,
)
from airflow_provider_promptlayer.api.errors import (
    PromptLayerApprovalNeededError,
    PromptLayerInvalidInputError,
    PromptLayerLabelMovedError,
)
from airflow_provider_promptlayer.api.fields import Fields
from airflow_provider_promptlayer.api.labels import NAMES, released
from airflow_provider_promptlayer.api.links import Page
from airflow_provider_promptlayer.api.persisted import read_deferred, versioned
from airflow_provider_promptlayer.api.promotions import (
    VERSIONS,
    CopyMark,
    EarlierTry,
    Promotion,
    PromotionOrder,
)
from airflow_provider_promptlayer.api.text import quoted
from airflow_provider_promptlayer.api.version_watch import VersionWatch
from airflow_provider_promptlayer.bases import configuration, deferral
from airflow_provider_promptlayer.bases.caller import PromptLayerCaller
from airflow_provider_promptlayer.bases.recording import write_or_log
from airflow_provider_promptlayer.bases.rivals import (
    refuse_mapped_rivals,
    refuse_own_event,
    refuse_rivals,
)
from airflow_provider_promptlayer.polling.event import read_event
from airflow_provider_promptlayer.polling.schedule import AIRFLOWS_POKE_INTERVAL
from airflow_provider_promptlayer.polling.state import PollState
from airflow_provider_promptlayer.submission.promotion_state import PromotionState
from airflow_provider_promptlayer.xcom import outputs as xcom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_promptlayer.bases.arguments import PromoteKwargs

_ON_PROTECTED: Final = ("wait", "fail", "skip")

_A_DAY: Final = datetime.timedelta(days=1)


class PromptLayerPromoteOperator(PromptLayerCaller):
    """Have a release label lead to a version of a prompt template or a workflow.

    If the label leads there already, the task succeeds and sends nothing. A rollback is the same
    operator with ``version="{{ ti.xcom_pull('promote')['previous_version'] }}"``, downstream of a
    check that has failed. Where the promotion was not reached, or has moved nothing, there is
    nothing to take back: the guide about promotions has a task that finds out.

    A prompt template's label is moved where it is. PromptLayer has no request that moves a
    workflow's label: **the task makes a copy of the version**, a new version whose commit message
    names the DAG, the task and the DAG run, and PromptLayer moves the label to the copy. A label
    that leads to a copy of the version counts as leading there.

    The task reads the label before and after the request. A retry, and a request whose answer was
    lost, move the label once or not at all, and make one copy at most. After a clear, a workflow's
    version may be copied anew.

    Two promotions of one label in one DAG have to be ordered, such as ``promote >> roll_back``, or
    be on different branches: else both fail. Airflow says so as an import error of the DAG file
    where the arguments are the same as they are written, and the tasks say so where the templates
    render to the same.

    :param prompt: name or id of the prompt template; exactly one of this and ``workflow``.
        Templated.
    :param workflow: name or id of the workflow. Templated.
    :param version: number of the version; exactly one of this and ``from_label``. Templated.
    :param from_label: the label that leads to the version, such as ``"staging"``. Templated.
    :param release_label: the label to move, ``"prod"`` unless another one is given; created if
        there is none. Templated.
    :param label: short for ``release_label``; in ``partial()``, where Airflow would not see that
        this comes from another task, ``release_label`` alone takes the output of one.
    :param expected_version: number of the version that the label has to lead to before, else the
        task fails, because somebody has moved it meanwhile; left out for any version. Templated.
    :param on_protected: what to do where PromptLayer lets a person approve the move first:
        ``"wait"``, ``"fail"``, or ``"skip"`` the tasks downstream.
    :param approval_timeout: seconds (or a ``timedelta``) for which ``"wait"`` waits.
    :param poke_interval: seconds (or a ``timedelta``) from one look at the label to the next; None
        for ``[promptlayer] poke_interval``, and without that for 60 s.
    :param deferrable: whether ``"wait"`` waits in the triggerer, without holding a worker; None for
        ``[promptlayer] default_deferrable``, which is True.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param max_outage: seconds (or a ``timedelta``) for which PromptLayer may be out of reach.
    :returns: ``label``; ``version``, that it leads to now, a copy's number for a workflow; and
        ``previous_version``, the same as ``version`` if the label led there already, so that
        nothing was moved, and None for a new label. Before Airflow 3.3, and on 3.4 after a clear,
        it is None, too, if a prompt's label was there already when the task was tried again, as the
        earlier try may have moved it.
    """

    template_fields: Sequence[str] = (
        "prompt",
        "workflow",
        "version",
        "from_label",
        "release_label",
        "expected_version",
        "promptlayer_conn_id",
    )

    describes_outlets = True
    counted_as = "promotion"

    def __init__(
        self,
        *,
        prompt: str | int | XComArg | None = None,
        workflow: str | int | XComArg | None = None,
        version: int | str | XComArg | None = None,
        from_label: str | XComArg | None = None,
        release_label: str | XComArg | NotSet = NOTSET,
        label: str | XComArg | NotSet = NOTSET,
        expected_version: int | str | XComArg | None = None,
        on_protected: Literal["wait", "fail", "skip"] = "wait",
        approval_timeout: datetime.timedelta | float = _A_DAY,
        poke_interval: datetime.timedelta | float | None = None,
        deferrable: bool | None = None,
        **kwargs: Unpack[PromoteKwargs],
    ) -> None:
        super().__init__(**kwargs)
        exactly_one(NAMES, prompt=prompt, workflow=workflow)
        exactly_one(VERSIONS, version=version, from_label=from_label)
        self.prompt: Any = prompt
        self.workflow: Any = workflow
        self.version: Any = version
        self.from_label: Any = from_label
        # As a template field: label is a property of all operators of Airflow.
        self.release_label: Any = _either(release_label, label)
        self.expected_version: Any = expected_version
        self.note_given("expected_version")
        self.refuse_constants(
            prompt=name_or_id,
            workflow=name_or_id,
            version=positive,
            from_label=title_text,
            release_label=title_text,
            expected_version=positive,
        )
        self.on_protected = one_of("on_protected", on_protected, _ON_PROTECTED)
        self.approval_timeout = seconds("approval_timeout", approval_timeout)
        if poke_interval is None:
            poke_interval = configuration.default_seconds("poke_interval", AIRFLOWS_POKE_INTERVAL)
        self.poke_interval = seconds("poke_interval", poke_interval)
        self.deferrable = configuration.default_deferrable() if deferrable is None else deferrable

    def resolve_template_files(self) -> None:
        """Refuse promotions that race or loop; Airflow calls this once it has read the DAG file."""
        super().resolve_template_files()
        refuse_rivals(self, PromptLayerPromoteOperator)
        refuse_own_event(self)

    def perform(self, context: Context) -> dict[str, Any]:
        """Move the label, unless it leads to the version already."""
        refuse_mapped_rivals(self, context)
        refuse_rivals(self, PromptLayerPromoteOperator, context)
        refuse_own_event(self)
        order = self._order()
        promotion = self._carried_out(order, context)
        if not promotion.is_pending:
            return self._result(context, promotion)
        self.show_link(context)
        self._wait_for_approval(promotion)
        return self._approved(context, promotion)

    @property
    def page(self) -> Page:
        """The web page of the prompt template or the workflow."""
        return released(self.prompt, self.workflow).page

    def _order(self) -> PromotionOrder:
        self.refuse_missing()
        return PromotionOrder(
            released(self.prompt, self.workflow),
            self.release_label,
            version=self.version,
            from_label=self.from_label,
            expected_version=self.expected_version,
        )

    def _carried_out(self, order: PromotionOrder, context: Context) -> Promotion:
        ti: Any = context["ti"]
        is_retry = int(ti.try_number) > 1
        state = PromotionState.of(context)
        url, label = self._url_of(order), order.label

        def note(now: EarlierTry) -> None:
            if state is not None:
                write_or_log(
                    lambda: state.write(url, label, now),
                    self.log,
                    lambda: self.hook.is_stopping,
                    f"Could not record that label {label!r} led to version {now.previous}.",
                )

        promotion = self.hook.carry_out(
            order,
            self._mark(order, context),
            is_retry=is_retry,
            earlier=state.earlier(url, label) if state is not None and is_retry else None,
            note=note,
            max_outage=self.max_outage,
        )
        if not promotion.was_there:
            copied = ", a copy that PromptLayer has made" if order.target.is_copied else ""
            leads = "is to lead to" if promotion.is_pending else "leads now to"
            self.outcome = (
                f"Label {label!r} of {order.target.name} led to version "
                f"{promotion.previous_version}, and {leads} version {promotion.version}{copied}."
            )
            return promotion
        self.outcome = (
            f"Label {label!r} of {order.target.name} leads to version {promotion.version} already, "
            "and was not moved."
        )
        if order.changes_nothing:
            self.log.warning(
                "Label %r was not moved: version and expected_version are the same. If this is to "
                "be a rollback, the promotion has moved nothing that could be taken back.",
                label,
            )
        # Of a workflow the copy tells, and a version that is no copy was not promoted by this task.
        is_known = not is_retry or order.target.is_copied
        if is_known or promotion.previous_version != promotion.version:
            return promotion
        previous = None if state is None else state.previous(url, label, promotion.version)
        if previous is None:
            self.log.warning(
                "An earlier try of this task may have moved the label, and Airflow has not kept "
                "where it led before: previous_version is None."
            )
        return replace(promotion, previous_version=previous)

    def _url_of(self, order: PromotionOrder) -> str:
        """Return what tells the prompt or workflow from those of any other PromptLayer."""
        return f"{self.hook.settings.base_url}{order.target.path}"

    def _mark(self, order: PromotionOrder, context: Context) -> CopyMark:
        """Return the mark of the copies that any try of this task makes, until it is cleared."""
        ti: Any = context["ti"]
        task = ti.dag_id, ti.run_id, ti.task_id, ti.map_index, order.target.path, order.label
        who = f"{ti.dag_id}.{ti.task_id} {ti.run_id}"
        return CopyMark.of(who, *task, clear_epoch=version_compat.clear_epoch(ti))

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Resume the task; if Airflow ended the deferral, raise the error that says so."""
        if next_method != deferral.ENDED_BY_AIRFLOW:
            return super().resume_execution(next_method, next_kwargs, context)
        with self._airflow_errors(context):
            left = "The move still waits until a person approves it."
            raise deferral.ended_by_airflow(next_kwargs, self.approval_timeout, left, self.log)

    def execute_complete(
        self,
        context: Context,
        event: Any = None,
        waiting: dict[str, Any] | None = None,
    ) -> Any:
        """Go on after the triggerer has fired; raises what :meth:`execute` raises.

        :param event: the trigger's event.
        :param waiting: the promotion that waited for approval, as this task kept it when it
            deferred; None where Airflow passes on the event alone, as ``dag.test()`` and
            ``airflow tasks test`` do.
        """
        with self._airflow_errors(context):
            if waiting is None:
                approved = self._promotion_without_notes(context)
            else:
                approved, base_url = read_deferred(
                    waiting,
                    _read_waiting,
                    name="What the task kept of its wait",
                    missing="The task was resumed without the promotion that waits.",
                )
                self._stay_at(base_url)
                self.restore_url(waiting)
            read_event(event, external_id=self._approval_of(approved).id)
            result = self._approved(context, approved)
            self.describe_outlets(context, result)
            return result

    def _promotion_without_notes(self, context: Context) -> Promotion:
        """Return the promotion whose request was sent before Airflow resumed the task."""
        order, state = self._order(), PromotionState.of(context)
        url, label = self._url_of(order), order.label
        if state is not None and (earlier := state.earlier(url, label)) is not None:
            order.keeps_to(earlier)
        mark = self._mark(order, context)
        standing = self.hook.look(order, mark, max_outage=self.max_outage)
        version = standing.base.number if standing.arrived is None else standing.arrived
        previous = standing.previous
        if previous == version:
            previous = None if state is None else state.previous(url, label, version)
        return Promotion(label, version, previous)

    def _stay_at(self, base_url: str) -> None:
        self.hook.stay_at(
            base_url,
            about=f"the move of label {quoted(self.release_label)}",
            way_back="Correct the connection and clear this task.",
        )

    def _wait_for_approval(self, promotion: Promotion) -> None:
        """Do what ``on_protected`` says about a label that is still where it was.

        :raises PromptLayerApprovalNeededError: for ``"fail"``.
        :raises AirflowSkipException: for ``"skip"``.
        :raises TaskDeferred: to wait in the triggerer.
        :raises PromptLayerWaitTimeoutError: if the move was not approved within the time.
        """
        watch = self._approval_of(promotion)
        said = (
            f"PromptLayer has taken the request, and the {watch.name} is protected: the move to "
            f"version {promotion.version} waits until a person approves it."
        )
        if self.on_protected == "skip":
            raise AirflowSkipException(said)
        if self.on_protected == "fail":
            raise PromptLayerApprovalNeededError(said)
        self.log.info("%s %s", self.outcome, said)
        self._stay_at(self.hook.settings.base_url)
        if self.deferrable:
            self._defer(watch, promotion)
        self.hook.wait_for_approval(
            watch,
            timeout=self.approval_timeout,
            poke_interval=self.poke_interval,
            max_outage=self.max_outage,
        )

    def _defer(self, watch: VersionWatch, promotion: Promotion) -> NoReturn:
        # DAG files must not import triggers.
        triggers = import_module("airflow_provider_promptlayer.triggers.promptlayer")
        now = time.time()
        # No later than the deadline, as Airflow ends the deferral soon after it.
        first_pause = max(min(self.poke_interval, self.approval_timeout), deferral.settle_seconds())
        state = PollState(
            watch,
            began_at=now,
            deadline=now + self.approval_timeout,
            next_poll_at=now + first_pause,
            base_url=self.hook.stays_at,
        )
        self.defer(
            trigger=triggers.PromptLayerVersionTrigger(
                state=state,
                promptlayer_conn_id=self.promptlayer_conn_id,
                poke_interval=self.poke_interval,
                max_outage=self.max_outage,
            ),
            method_name="execute_complete",
            kwargs={
                "waiting": versioned(
                    {
                        "promotion": asdict(promotion),
                        "base_url": self.hook.stays_at,
                        **self.kept_url(),
                    }
                )
            },
            timeout=deferral.airflow_timeout(max(self.approval_timeout, first_pause)),
        )

    def _approval_of(self, promotion: Promotion) -> VersionWatch:
        """Return the watch of a protected label, which ends when the label is moved."""
        target = released(self.prompt, self.workflow)
        return VersionWatch.on(target, promotion.label).since(promotion.previous_version)

    def _approved(self, context: Context, promotion: Promotion) -> dict[str, Any]:
        """Return the result once a protected label was moved.

        :raises PromptLayerLabelMovedError: if it was moved elsewhere.
        """
        watch = self._approval_of(promotion)
        seen = self.call(watch.fetch_call(), about=watch.name)
        if seen.version != promotion.version:
            raise PromptLayerLabelMovedError(
                f"While the move to version {promotion.version} waited for approval, the "
                f"{watch.name} was moved elsewhere: {seen.progress}."
            )
        self.outcome = f"The {watch.name} leads now to version {seen.version}: it was approved."
        return self._result(context, promotion)

    def _result(self, context: Context, promotion: Promotion) -> dict[str, Any]:
        result = {
            "label": promotion.label,
            "version": promotion.version,
            "previous_version": promotion.previous_version,
        }
        if self.do_xcom_push:
            for name in ("version", "previous_version"):
                xcom.push(context, f"promptlayer_{name}", result[name])
        return result


def _read_waiting(fields: Fields) -> tuple[Promotion, str]:
    kept = fields.object("promotion")
    promotion = Promotion(
        kept.text("label"), kept.count("version"), kept.count_if_any("previous_version")
    )
    return promotion, fields.text("base_url")


def _either(release_label: Any, label: Any) -> Any:
    given = [each for each in (release_label, label) if each is not NOTSET]
    if len(given) > 1:
        raise PromptLayerInvalidInputError("Give release_label or label, which is short for it.")
    return given[0] if given else "prod"
