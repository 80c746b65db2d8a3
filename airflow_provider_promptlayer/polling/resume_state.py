# SPDX-License-Identifier: Apache-2.0
"""What a task leaves for itself when it defers: what it waits for, and since when.

Airflow keeps it in the metadata database, so another release may read it (a rolling upgrade).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from airflow_provider_promptlayer.api.errors import PromptLayerEventError
from airflow_provider_promptlayer.api.fields import FieldError, Fields
from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.api.persisted import UnreadableError, read_persisted, versioned

S = TypeVar("S", bound=RemoteJob[Any])


@dataclass(frozen=True, slots=True)
class ResumeState:
    """The notes of a deferral. All times are seconds since the epoch.

    :param ids: the fields of the :class:`.RemoteJob` that is waited for.
    :param started_at: when the wait began.
    :param deadline: when it ends without success.
    :param outage_since: since when the worker could not ask; None if it could.
    :param is_own: whether this task has started the subject, which so ends with it.
    :param base_url: where the subject is; None if that was not known for certain.
    """

    ids: Mapping[str, Any]
    started_at: float
    deadline: float
    outage_since: float | None = None
    submitted_by_this_task: bool = False
    base_url: str | None = None

    def payload(self) -> dict[str, Any]:
        """Return the notes as plain JSON."""
        fields = asdict(self)
        return versioned({"job": fields.pop("ids"), **fields})

    @classmethod
    def read(cls, kept: Any) -> ResumeState:
        """Return the notes that were kept.

        :raises PromptLayerEventError: if there are none that this release can read.
        """
        try:
            state = read_persisted(kept, cls._read)
        except UnreadableError as error:
            raise PromptLayerEventError(
                f"What the task noted for itself when it was deferred {error.found}. "
                f"{error.remedy}".rstrip()
            ) from None
        if state is None:
            raise PromptLayerEventError("The task was resumed without its own notes.")
        return state

    @classmethod
    def _read(cls, fields: Fields) -> ResumeState:
        ids = fields.mapping_or_none("job")
        if ids is None:
            raise FieldError("has no job")
        return cls(
            ids,
            _time(fields, "started_at"),
            _time(fields, "deadline"),
            fields.number_or_none("outage_since"),
            fields.flag("submitted_by_this_task"),
            fields.text_or_none("base_url"),
        )

    def job(self, job_type: type[S]) -> S:
        """Return what is waited for.

        :raises PromptLayerEventError: if that is of another kind.
        """
        try:
            return job_type(**self.ids)
        except TypeError:
            raise PromptLayerEventError(
                "What the task noted for itself when it was deferred names no "
                f"{job_type.__name__}: it has {', '.join(sorted(self.ids)) or 'no ids'}."
            ) from None


def _time(fields: Fields, name: str) -> float:
    value = fields.number_or_none(name)
    if value is None:
        raise FieldError(f"has no {name}")
    return value
