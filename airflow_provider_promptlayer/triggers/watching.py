# SPDX-License-Identifier: Apache-2.0
"""The trigger of asset watchers, which starts DAGs when there is another version."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final

from airflow.triggers import base
from airflow.triggers.base import TriggerEvent

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.arguments import exactly_one, seconds, title_text
from airflow_provider_promptlayer.api.errors import (
    PromptLayerConfigurationError,
    PromptLayerError,
    PromptLayerNotFoundError,
    PromptLayerRateLimitError,
)
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.labels import NAMES, released, version_numbers
from airflow_provider_promptlayer.api.promotions import is_own_copy
from airflow_provider_promptlayer.hooks import metrics
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.hooks.sender import Sender
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.poller import DEFAULT_MAX_OUTAGE
from airflow_provider_promptlayer.submission.batch import fingerprint
from airflow_provider_promptlayer.triggers.seen import SeenVersions

POKE_INTERVAL: Final = 30.0
"""Seconds between two polls, where none are given."""

COUNTED_AS: Final = "watcher"
"""What metrics call the polls of watchers."""

_JITTER: Final = 0.2


_unsettled: Final[defaultdict[Hashable, set[SeenVersions]]] = defaultdict(set)
"""Stream → the watchers that need its next poll, even if it finds what the one before has found."""

_BaseEventTrigger: Any = getattr(base, "BaseEventTrigger", base.BaseTrigger)
"""Airflow 2 has no base class for the triggers of watchers."""


class PromptLayerVersionEventTrigger(_BaseEventTrigger):  # type: ignore[misc]
    """Start DAGs when a release label moves, or when there is a newer version.

    For ``Asset(…, watchers=[AssetWatcher(name=…, trigger=…)])``. A DAG that the asset starts finds
    in ``extra["payload"]`` of the asset event the ``version``, the ``label``, the
    ``previous_version`` (None for a new label) and the name of the ``prompt`` or ``workflow``.

    On Airflow 3.3 and later the asset's state has what was reported last. So a move is reported
    that came about while no triggerer ran: the last state, at least once, and only once unless a
    triggerer is killed within seconds of the event, see :mod:`.seen`. Before, a watcher that starts
    again watches from then on. Airflow 3.3 and later polls once for all watchers of the same prompt
    or workflow that have the same connection and interval; those of labels, and those of the latest
    version.

    A poll that fails is repeated for ever: a watcher that ended would never start again.

    :param prompt: name or id of a prompt template; exactly one of this and ``workflow``.
    :param workflow: name or id of a workflow.
    :param release_label: the label to watch; None for the latest version.
    :param promptlayer_conn_id: id of the Airflow connection.
    :param poke_interval: seconds (or a ``timedelta``) between two polls.
    :param ignore_own: report no version of a workflow that :class:`.PromptLayerPromoteOperator` or
        the hook has just made to move the label to it, so that a DAG which promotes does not start
        itself again; in any DAG. Without ``release_label``, none that they have made, but a newer
        version below. PromptLayer keeps no sign of who has moved a prompt's label: each move is
        reported, and the operator refuses to move the label that starts its DAG, unless this is
        False.
    :raises PromptLayerConfigurationError: on Airflow 2, which has no watchers.
    :raises PromptLayerInvalidInputError: for what cannot be sent.
    """

    def __init__(
        self,
        *,
        prompt: str | int | None = None,
        workflow: str | int | None = None,
        release_label: str | None = None,
        promptlayer_conn_id: str = PromptLayerHook.default_conn_name,
        poke_interval: Any = POKE_INTERVAL,
        ignore_own: bool = True,
    ) -> None:
        if not version_compat.HAS_ASSET_WATCHERS:
            raise PromptLayerConfigurationError(
                "PromptLayerVersionEventTrigger needs Airflow 3, as Airflow 2 has no asset "
                "watchers. Use PromptLayerVersionSensor here."
            )
        super().__init__()
        exactly_one(NAMES, prompt=prompt, workflow=workflow)
        self._target = released(prompt, workflow)
        self.prompt = prompt
        self.workflow = workflow
        self.release_label = (
            None if release_label is None else title_text("release_label", release_label)
        )
        self.promptlayer_conn_id = promptlayer_conn_id
        self.poke_interval = seconds("poke_interval", poke_interval)
        self.ignore_own = ignore_own

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments that recreate the trigger."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "prompt": self.prompt,
                "workflow": self.workflow,
                "release_label": self.release_label,
                "promptlayer_conn_id": self.promptlayer_conn_id,
                "poke_interval": self.poke_interval,
                "ignore_own": self.ignore_own,
            },
        )

    def shared_stream_key(self) -> Hashable:
        """Return what watchers have in common that share one poll."""
        is_latest = self.release_label is None
        return (*self._what(), self.promptlayer_conn_id, self.poke_interval, is_latest)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Any]:
        """Yield what polls find; Airflow drives this once for all that share it.

        Airflow hands each item to all of them, so a poll that finds nothing new is not yielded,
        unless one of them needs it.
        """
        trigger = cls(**kwargs)
        unsettled = _unsettled[trigger.shared_stream_key()]
        last = None
        async with aclosing(trigger._polls()) as polls:
            async for versions in polls:
                if versions != last or unsettled:
                    yield versions
                last = versions

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the events of this watcher alone, where Airflow shares no polls."""
        async with (
            aclosing(self._polls()) as polls,
            aclosing(self.filter_shared_stream(polls)) as events,
        ):
            async for event in events:
                yield event

    async def filter_shared_stream(
        self, shared_stream: AsyncIterator[Mapping[str | None, int]]
    ) -> AsyncGenerator[TriggerEvent]:
        """Yield an event for each poll that has found another version."""
        state = version_compat.asset_state(self)
        watched = json.dumps(
            [*self._what(), self.release_label, self.promptlayer_conn_id, self.ignore_own]
        )
        seen = SeenVersions(state, f"promptlayer_{fingerprint(watched.encode())}", self.log)
        unsettled = _unsettled[self.shared_stream_key()]
        unsettled.add(seen)
        try:
            async for versions in shared_stream:
                version = versions.get(self.release_label, 0)
                try:
                    previous = await seen.claim(version)
                    (unsettled.discard if seen.is_settled(version) else unsettled.add)(seen)
                    if previous is None:
                        continue
                    foreign = await self._foreign(version, previous, seen.newest)
                except PromptLayerError as error:
                    self.log.warning("%s Trying again with the next poll.", error)
                    continue
                except asyncio.CancelledError:
                    seen.give_up()
                    raise
                if foreign != version:
                    self.log.info("Version %s is a copy of our own: no event.", version)
                if foreign is not None:
                    yield self._event(foreign, previous)
                await seen.note(version, was_reported=foreign is not None)
        finally:
            unsettled.discard(seen)

    async def _foreign(self, version: int, previous: int, newest: int) -> int | None:
        """Return the number of the version to report, which is no copy of our own; None if none.

        A promotion moves a label to a copy that it has just made for it. So a label that leads to
        another copy, or to one no newer than a version that was seen, was moved by somebody else.

        A promotion may have put its copy on top of a newer version that no poll has seen. So for
        the latest version this looks below the copies, down to the version before.
        """
        label = self.release_label
        is_known = label is not None and version <= newest
        if not (self.ignore_own and self._target.is_copied) or is_known:
            return version
        hook = PromptLayerHook(self.promptlayer_conn_id)
        lowest = min(version, previous + 1) if label is None else version
        for number in range(version, lowest - 1, -1):
            try:
                if not is_own_copy(await hook.acall(self._target.version(number)), label):
                    return number
            except PromptLayerNotFoundError:
                if number == version:
                    raise
        return None

    def _event(self, version: int, previous: int) -> TriggerEvent:
        payload = {
            "version": version,
            "label": self.release_label,
            "previous_version": previous or None,
            self._target.noun: self._target.id_or_name,
        }
        return TriggerEvent(payload)  # type: ignore[no-untyped-call]

    def _what(self) -> tuple[str, str]:
        return self._target.noun, self._target.id_or_name

    def _call(self) -> Call[Mapping[str | None, int]]:
        """Return the call that reads the versions by label, or the latest one under None."""
        if self.release_label is None:
            return self._target.version().then(lambda latest: {None: latest.number})
        return self._target.labels().then(lambda labels: dict(version_numbers(labels).items()))

    async def _polls(self) -> AsyncGenerator[Mapping[str | None, int]]:
        hook, call = PromptLayerHook(self.promptlayer_conn_id), self._call()
        failures, said = 0, ""
        send: Sender | None = None
        async with AsyncExitStack() as pool:
            while True:
                pause = self.poke_interval * (1 - _JITTER * random.random())  # noqa: S311
                try:
                    if send is None:
                        send = await pool.enter_async_context(hook.sender())
                    await asyncio.sleep(hook.throttle.delay(now=time.time()))
                    versions = await send(call)
                except PromptLayerError as error:
                    failures += 1
                    metrics.count_poll(COUNTED_AS, begins_outage=failures == 1)
                    backoff = min(retries.POLLING.pause(failures, error), DEFAULT_MAX_OUTAGE)
                    pause = max(pause, backoff)
                    if isinstance(error, PromptLayerRateLimitError):
                        hook.throttle.hold_for(backoff, now=time.time())
                    if str(error) != said:
                        self.log.warning("%s Still watching %s.", error, self._target.name)
                    said = str(error)
                else:
                    metrics.count_poll(COUNTED_AS, begins_outage=False)
                    if failures:
                        self.log.info("PromptLayer answers again about %s.", self._target.name)
                    failures, said = 0, ""
                    yield versions
                await asyncio.sleep(pause)
