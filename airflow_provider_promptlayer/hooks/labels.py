# SPDX-License-Identifier: Apache-2.0
"""The hook's methods for release labels of prompt templates and workflows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from airflow_provider_promptlayer.api.job import CallFlow
from airflow_provider_promptlayer.api.labels import (
    Labels,
    ReleasedVersion,
    released,
    version_numbers,
)
from airflow_provider_promptlayer.api.promotions import (
    CopyMark,
    EarlierTry,
    Promotion,
    PromotionOrder,
    Standing,
)
from airflow_provider_promptlayer.api.version_watch import SeenVersion, VersionWatch
from airflow_provider_promptlayer.hooks.base import PromptLayerConnectionHook, Wait, twins
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import (
    Loop,
    ask_with_backoff,
    each_with_backoff,
    poll_until_ended,
)
from airflow_provider_promptlayer.polling.poller import DEFAULT_MAX_OUTAGE, PollDecision

T = TypeVar("T")


class LabelMethods(PromptLayerConnectionHook):
    """The methods for release labels of :class:`.PromptLayerHook`."""

    def _get_labels(
        self, *, prompt: Any = None, workflow: Any = None, max_outage: float = DEFAULT_MAX_OUTAGE
    ) -> Loop[dict[str, int]]:
        """Return release labels, and the numbers of the versions that they lead to.

        :param prompt: name or id of a prompt template; exactly one of this and ``workflow``.
        :param workflow: name or id of a workflow.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        """
        target = released(prompt, workflow)

        def flow() -> CallFlow[dict[str, int]]:
            labels: Labels = yield target.labels()
            return version_numbers(labels)

        return each_with_backoff(
            flow(), about=target.name, policy=retries.POLLING.within(max_outage)
        )

    get_labels, aget_labels = twins(_get_labels)

    def _get_latest_version(
        self, *, prompt: Any = None, workflow: Any = None, max_outage: float = DEFAULT_MAX_OUTAGE
    ) -> Loop[int]:
        """Return the number of the latest version.

        :param prompt: see :meth:`get_labels`.
        :param workflow: see :meth:`get_labels`.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        """
        target = released(prompt, workflow)

        def flow() -> CallFlow[int]:
            latest: ReleasedVersion = yield target.version()
            return latest.number

        return each_with_backoff(
            flow(), about=target.name, policy=retries.POLLING.within(max_outage)
        )

    get_latest_version, aget_latest_version = twins(_get_latest_version)

    def _wait_for_version(
        self,
        *,
        prompt: Any = None,
        workflow: Any = None,
        release_label: str | None = None,
        newer_than: Any = None,
        timeout: float,
        poke_interval: float | None = None,
        max_outage: float = DEFAULT_MAX_OUTAGE,
    ) -> Wait[SeenVersion]:
        """Wait until a release label moves, or until there is a newer version. Holds the worker.

        :param prompt: name or id of a prompt template; exactly one of this and ``workflow``.
        :param workflow: name or id of a workflow.
        :param release_label: the label to watch; None for the latest version.
        :param newer_than: the number of a version: wait for a newer one, at once if it is there.
            None for any other version than there is now.
        :param timeout: seconds to wait at most.
        :param poke_interval: seconds between two polls; None for intervals that grow with the wait.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        :raises PromptLayerWaitTimeoutError: if there is none in time.
        """
        watch = VersionWatch.on(released(prompt, workflow), release_label, newer_than)
        poller = self._new_poller(watch, timeout, poke_interval, max_outage)

        def loop() -> Loop[SeenVersion]:
            begun = watch
            if watch.newer_than is None:
                now = yield from ask_with_backoff(
                    poller, watch.fetch_call(), deadline=poller.deadline
                )
                begun = watch.since(now.version)
            return (yield from poll_until_ended(poller, begun.fetch_call()))

        return Wait(poller, loop())

    wait_for_version, await_for_version = twins(_wait_for_version)

    def _promote(
        self,
        *,
        prompt: Any = None,
        workflow: Any = None,
        version: Any = None,
        from_label: Any = None,
        release_label: str = "prod",
        expected_version: Any = None,
        max_outage: float = DEFAULT_MAX_OUTAGE,
    ) -> Loop[Promotion]:
        """Have a release label lead to a version; send nothing if it does already.

        A prompt template's label is moved where it is. For a workflow PromptLayer makes a copy of
        the version, and moves the label to the copy.

        :param prompt: name or id of a prompt template; exactly one of this and ``workflow``.
        :param workflow: name or id of a workflow.
        :param version: the number of the version; exactly one of this and ``from_label``.
        :param from_label: the label that leads to the version.
        :param release_label: the label to move; created if there is none.
        :param expected_version: the number of the version that the label has to lead to before;
            None for any.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        :raises PromptLayerNotFoundError: if there is no such prompt, workflow, version or label.
        :raises PromptLayerLabelMovedError: if the label leads elsewhere than expected.
        :raises PromptLayerStartUncertainError: if two answers were lost, and the label is where it
            was.
        """
        order = PromotionOrder(
            released(prompt, workflow),
            release_label,
            version=version,
            from_label=from_label,
            expected_version=expected_version,
        )
        return self._carry_out(order, CopyMark.new(), max_outage)

    promote, apromote = twins(_promote)

    def carry_out(
        self,
        order: PromotionOrder,
        mark: CopyMark,
        *,
        is_retry: bool,
        earlier: EarlierTry | None,
        note: Callable[[EarlierTry], None],
        max_outage: float,
    ) -> Promotion:
        """Do what :meth:`promote` does for a task, which may be tried again.

        :param mark: that of the copies that any try of the task makes.
        :param is_retry: whether an earlier try may have sent the request.
        :param earlier: what the last one has noted, if that is known.
        :param note: notes how far this try has come; first, before the label is read for the last
            time.
        """
        return self._run(
            self._carry_out(order, mark, max_outage, is_retry=is_retry, earlier=earlier, note=note)
        )

    def look(self, order: PromotionOrder, mark: CopyMark, *, max_outage: float) -> Standing:
        """Return how far a promotion is; send nothing that would move the label."""
        policy = retries.POLLING.within(max_outage)
        flow = order.look(mark, may_have_copied=True)
        return self._run(each_with_backoff(flow, about=order.target.name, policy=policy))

    def wait_for_approval(
        self, watch: VersionWatch, *, timeout: float, poke_interval: float, max_outage: float
    ) -> None:
        """Wait until a protected label leads elsewhere than before.

        :raises PromptLayerWaitTimeoutError: if it did not within ``timeout`` seconds.
        """
        poller = self._new_poller(watch, timeout, poke_interval, max_outage)
        self._run(Wait(poller, poll_until_ended(poller, watch.fetch_call())))

    def _carry_out(
        self,
        order: PromotionOrder,
        mark: CopyMark,
        max_outage: float,
        *,
        is_retry: bool = False,
        earlier: EarlierTry | None = None,
        note: Callable[[EarlierTry], None] = lambda _: None,
    ) -> Loop[Promotion]:
        def ask(flow: CallFlow[T]) -> Loop[T]:
            policy = retries.POLLING.within(max_outage)
            return each_with_backoff(flow, about=order.target.name, policy=policy)

        if earlier is not None and not order.keeps_to(earlier):
            earlier = None
        standing = yield from ask(order.look(mark, may_have_copied=is_retry))
        arrived = standing.arrived
        if arrived is not None and standing.is_done:
            return Promotion(order.label, arrived, standing.previous, was_there=True)
        order.refuse_if_moved(standing)
        if earlier is not None:
            order.refuse_if_moved_after(earlier, standing)
            if earlier.stage == "sent" and not order.target.is_copied:
                arrived = earlier.target
        if standing.current is None:
            order.refuse_new_label_with_spaces()
        now = EarlierTry(standing.base.number, standing.previous, "sending")
        order.keeps_to(now)  # also when from_label is moved before the label is seen to have moved
        if arrived is None:
            note(now)
            arrived = yield from self._move(order, mark, standing, ask)
            note(replace(now, stage="sent"))
        promotion = yield from self._read_back(order, standing, arrived, ask)
        if not promotion.is_pending:
            note(replace(now, stage="moved"))
        return promotion

    def _move(
        self,
        order: PromotionOrder,
        mark: CopyMark,
        before: Standing,
        ask: Callable[[CallFlow[Any]], Loop[Any]],
    ) -> Loop[int]:
        """Send the request; return the number of the version that the label should lead to."""

        def find() -> Loop[int | None]:
            now: Standing = yield from ask(order.look(mark, may_have_copied=True))
            if now.arrived is None:
                order.refuse_if_moved_since(before, now)
            return now.arrived

        def check() -> Loop[int | None]:
            """Read the label once more: much time may have passed since the look."""
            current = (yield from ask(_read_labels(order))).get(order.label)
            if (current and current.version) != before.previous:
                return (yield from find())
            return None

        message = mark.message(order.label, before.base.number, before.previous)
        return self._sent_once(
            lambda: order.target.move(order.label, before.current, before.base, message),
            find,
            check,
        )

    def _read_back(
        self,
        order: PromotionOrder,
        before: Standing,
        arrived: int,
        ask: Callable[[CallFlow[Any]], Loop[Any]],
    ) -> Loop[Promotion]:
        """Return what has become of the promotion; look again where the label has not moved."""
        looks, policy = 0, retries.LOOKING_FOR_CREATED
        while True:
            found = order.settled((yield from ask(_read_labels(order))), before, arrived)
            if found is not None:
                return found
            pause = policy.next_pause(looks := looks + 1, elapsed=0.0)
            if pause is None:
                return Promotion(order.label, arrived, before.previous, is_pending=True)
            yield PollDecision(sleep=pause)


def _read_labels(order: PromotionOrder) -> CallFlow[Labels]:
    labels: Labels = yield order.target.labels()
    return labels
