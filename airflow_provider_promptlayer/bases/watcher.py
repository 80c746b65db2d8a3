# SPDX-License-Identifier: Apache-2.0
"""How a task waits until a release label moves, or until there is a newer version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.arguments import (
    exactly_one,
    name_or_id,
    title_text,
    version_number,
)
from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.labels import NAMES, released
from airflow_provider_promptlayer.api.version_watch import SeenVersion, VersionWatch
from airflow_provider_promptlayer.bases.kind import JobKind, ResultOnly
from airflow_provider_promptlayer.bases.waiter import PromptLayerWaiter
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.submission.task_state import WatchState
from airflow_provider_promptlayer.xcom import outputs as xcom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg


class VersionTask(PromptLayerWaiter[SeenVersion]):
    """Base of a task that waits for another version than there is when it begins."""

    # Before Airflow 3.3 only a deferral keeps the version that the task has begun with; and such a
    # wait hardly ever ends within seconds.
    may_stay = False

    def __init__(
        self,
        *,
        prompt: str | int | XComArg | None = None,
        workflow: str | int | XComArg | None = None,
        release_label: str | XComArg | None = None,
        newer_than: int | str | XComArg | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prompt: Any = prompt
        self.workflow: Any = workflow
        self.release_label: Any = release_label
        self.newer_than: Any = newer_than
        exactly_one(NAMES, prompt=prompt, workflow=workflow)
        self.refuse_constants(
            prompt=name_or_id,
            workflow=name_or_id,
            release_label=title_text,
            newer_than=version_number,
        )
        self.note_given("prompt", "workflow", "release_label", "newer_than")
        if self.is_rescheduled and newer_than is None and not version_compat.HAS_TASK_STATE:
            raise PromptLayerInvalidInputError(
                "With mode='reschedule' each poll is another process, and before Airflow 3.3 none "
                "of them knows which version the first one has seen: give newer_than, or set "
                "deferrable=True."
            )

    def new_kind(self) -> JobKind[SeenVersion]:
        """Return watches of versions."""
        return JobKind(
            job_types=(VersionWatch,),
            id_key=xcom.WATCH_KEY,
            trigger="PromptLayerVersionTrigger",
            job_from_id=lambda _: self._new_watch(),
            raise_for_outcome=lambda _: None,
            outputs=lambda seen: ResultOnly(self._result(seen)),
        )

    def get_job(self, context: Context) -> VersionWatch:
        """Return the watch that an earlier try or poll has begun, or else begin one now."""
        watch = self._new_watch()
        if watch.newer_than is not None:
            return watch
        state = WatchState.of(context)
        noted = None if state is None else state.read(watch)
        if noted is not None:
            found, base_url = noted
            self._stay_at(base_url, found.name)
        else:
            now: SeenVersion = self.hook.call_with_backoff(
                watch.fetch_call(),
                about=watch.name,
                policy=retries.POLLING.within(self.max_outage),
            )
            found = watch.since(now.version)
            self._stay_at(self.hook.settings.base_url, found.name)
            self.log.info("Waiting for a change of %s: %s.", watch.name, now.progress)
            if state is not None:
                state.write(found, self.hook.settings.base_url)
        self._push(context, xcom.WATCH_KEY, found.previous_version)
        return found

    def restore_job(self, context: Context) -> VersionWatch:
        """Return the watch that this task has begun before it deferred."""
        watch = self._new_watch()
        if watch.newer_than is not None:
            return watch
        return watch.since(xcom.pull_own(context, xcom.WATCH_KEY))

    def _stay_at(self, base_url: str, about: str) -> None:
        way_back = (
            "Correct the connection: a retry goes on then, and a clear begins a new wait, for "
            "another version than there is by then."
        )
        self.hook.stay_at(base_url, about=f"the wait for {about}", way_back=way_back)

    def _new_watch(self) -> VersionWatch:
        """Return the watch that the rendered arguments describe."""
        self.refuse_missing()
        return VersionWatch.on(
            released(self.prompt, self.workflow), self.release_label, self.newer_than
        )

    def _result(self, seen: SeenVersion) -> dict[str, Any]:
        watch: Any = self.known_job
        return {
            "version": seen.version,
            "label": watch.release_label,
            "previous_version": watch.previous_version,
        }
