# SPDX-License-Identifier: Apache-2.0
"""The state of a wait, which goes from the worker to the triggerer and back to a worker.

The trigger's arguments and the deferral's kwargs hold the same dict. Airflow keeps both in the
metadata database, so another release may read them (a rolling upgrade).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Generic, Self, TypeVar

from airflow_provider_promptlayer.api.fields import FieldError, Fields
from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.api.persisted import read_deferred, versioned
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.polling.poller import Poller
from airflow_provider_promptlayer.polling.schedule import PollSchedule

J = TypeVar("J", bound=RemoteJob[Any])

_LONG_WAIT: Final = 600.0
"""A worker's outage counts as over this many seconds after the triggerer's first poll."""


@dataclass(frozen=True, slots=True)
class PollState(Generic[J]):
    """A wait so far. All times are seconds since the epoch.

    :param began_at: when the wait began.
    :param deadline: when the wait fails; infinite where the caller watches the time.
    :param grace: see :class:`.Poller`.
    :param outage_since: since when polls of the status have failed; None if the last one succeeded.
    :param fetch_outage_since: since when requests of workers failed, see :meth:`worker_outage`.
    :param next_poll_at: when the triggerer is to poll first, where a worker has deferred.
    :param submitted_by_this_task: whether this task has started the job.
    :param cancel_on_kill: whether to cancel such a job when the task is killed.
    :param base_url: where the job is; None if that is not known for certain.
    """

    job: J
    began_at: float
    deadline: float
    grace: float = 0.0
    outage_since: float | None = None
    fetch_outage_since: float | None = None
    next_poll_at: float | None = None
    submitted_by_this_task: bool = False
    cancel_on_kill: bool = True
    base_url: str | None = None

    @classmethod
    def of_deferral(
        cls, job: J, poller: Poller, *, was_deferred: bool, next_poll_at: float, **more: Any
    ) -> PollState[J]:
        """Return the state of a wait that leaves its worker.

        :param was_deferred: whether the triggerer has already seen the job end: this worker has
            only fetched. The triggerer takes over the outage of the first worker alone.
        :param more: the other fields.
        """
        return cls(
            job,
            poller.began_at,
            poller.deadline,
            poller.grace,
            outage_since=None if was_deferred else poller.outage_since,
            fetch_outage_since=poller.outage_since if was_deferred else None,
            next_poll_at=next_poll_at,
            **more,
        )

    @property
    def last_deadline(self) -> float:
        """When to stop, whatever the last answer was."""
        return self.deadline + self.grace

    def poller(
        self,
        job: RemoteJob[Any],
        schedule: PollSchedule,
        *,
        max_outage: float,
        doubts_connection: bool = False,
    ) -> Poller:
        """Return what decides after each poll of a job.

        :param job: the one of this state, or a part of it, such as one run of a batch.
        """
        return Poller(
            job.name,
            schedule,
            began_at=self.began_at,
            deadline=self.deadline,
            grace=self.grace,
            max_outage=max_outage,
            outage_since=self.outage_since,
            doubts_connection=doubts_connection,
            pending_phrase=job.pending_phrase,
            abandoned_phrase=job.abandoned_phrase,
        )

    def worker_outage(self, *, now: float) -> float | None:
        """Return since when requests of workers have failed, such as those for results.

        An outage goes on from one worker to the next, unless the triggerer polled for ten minutes
        in between: two blips an hour apart are no outage of an hour. The pause until the
        triggerer's first poll does not end an outage, however long the ``poke_interval`` is.
        """
        return None if self._was_polled_for_long(now) else self.fetch_outage_since

    def without_old_outage(self, *, now: float) -> Self:
        """Return the state for a triggerer, which may take the wait over from another one.

        That one has polled since ``next_poll_at``, and cannot tell how: so an outage that a worker
        has met counts for ten minutes.
        """
        return replace(self, outage_since=None) if self._was_polled_for_long(now) else self

    def _was_polled_for_long(self, now: float) -> bool:
        return self.next_poll_at is not None and now - self.next_poll_at > _LONG_WAIT

    def payload(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        job = fields.pop("job")
        return versioned({"job_type": type(job).__name__, "job": asdict(job), **fields})

    @classmethod
    def read(cls, kept: Any, *job_types: type[J]) -> PollState[J]:
        """Return the state that was kept.

        :param job_types: the kinds of job that the caller waits for.
        :raises PromptLayerEventError: if there is none, or this release cannot read it.
        """
        return read_deferred(
            kept,
            lambda fields: cls._read(fields, job_types),
            name="The state of the wait, as it was kept when the task was deferred,",
            missing="The task was resumed without the state of its wait.",
        )

    @classmethod
    def _read(cls, fields: Fields, job_types: Sequence[type[J]]) -> PollState[J]:
        return cls(
            _job(fields, job_types),
            _time(fields, "began_at"),
            _time(fields, "deadline"),
            fields.number_or_none("grace") or 0.0,
            fields.number_or_none("outage_since"),
            fields.number_or_none("fetch_outage_since"),
            fields.number_or_none("next_poll_at"),
            fields.flag("submitted_by_this_task"),
            fields.get("cancel_on_kill") is not False,
            fields.text_or_none("base_url"),
        )


def _job(fields: Fields, job_types: Sequence[type[J]]) -> J:
    ids = fields.mapping_or_none("job")
    if ids is None:
        raise FieldError("has no job")
    types = {job_type.__name__: job_type for job_type in job_types}
    job_type = types.get(kept := fields.text("job_type"))
    if job_type is None:
        raise FieldError(f"is about a {one_line(kept, 80)}, not about a {' or '.join(types)}")
    try:
        return job_type(**ids)
    except TypeError:
        raise FieldError(
            f"names no {job_type.__name__}: it has {', '.join(sorted(ids)) or 'no ids'}"
        ) from None


def _time(fields: Fields, name: str) -> float:
    value = fields.number_or_none(name)
    if value is None:
        raise FieldError(f"has no {name}")
    return value
