# SPDX-License-Identifier: Apache-2.0
"""The one event that a trigger sends to the worker, and how it is read.

The event goes through the metadata database, so it is small and holds no outputs. It is versioned,
because during a rolling upgrade the triggerer and the worker run different releases: an event that
the worker does not understand is an error, never a success.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from airflow_provider_promptlayer.api.errors import (
    PromptLayerAnswerTooLargeError,
    PromptLayerAuthError,
    PromptLayerConfigurationError,
    PromptLayerError,
    PromptLayerEventError,
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
    PromptLayerOutageError,
    PromptLayerRefusedError,
    PromptLayerUnknownConnectionError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.api.fields import Fields
from airflow_provider_promptlayer.api.persisted import read_deferred, versioned
from airflow_provider_promptlayer.api.text import one_line, shown


class Outcome(StrEnum):
    """How a wait in the triggerer ended."""

    ENDED = "ended"
    """The run has ended; the worker reads how."""
    TIMED_OUT = "timed_out"
    """The run did not end before the deadline."""
    OUTAGE = "outage"
    """PromptLayer was out of reach for longer than ``max_outage``."""
    REFUSED = "refused"
    """PromptLayer refused the request for good."""
    KEY_REFUSED = "key_refused"
    """PromptLayer refused the API key."""
    NO_CONNECTION = "no_connection"
    """There is no such Airflow connection."""


@dataclass(frozen=True, slots=True)
class WaitEvent:
    """The end of a wait in the triggerer.

    :param external_id: the job's id.
    :param message: a line for people.
    :param error: the name of the exception's class, where that says more than the outcome.
    :param status: the HTTP status of the answer, or None where there was none.
    :param request_id: see :class:`.PromptLayerError`.
    :param ended_at: when the job was seen to have ended, in seconds since the epoch.
    """

    external_id: int | str
    outcome: Outcome
    message: str
    error: str | None = None
    status: int | None = None
    ended_at: float | None = None
    request_id: str | None = None

    def payload(self) -> dict[str, Any]:
        """Return the event as plain data."""
        return versioned(
            {
                "id": self.external_id,
                "outcome": self.outcome.value,
                "message": self.message,
                # A worker of an earlier release ignores these four.
                "error": self.error,
                "status": self.status,
                "ended_at": self.ended_at,
                "request_id": self.request_id,
            }
        )


def event_for(external_id: int | str, error: PromptLayerError) -> WaitEvent:
    """Return the event for a wait that ended with ``error``."""
    outcomes = (outcome for outcome, cls in _ERRORS.items() if isinstance(error, cls))
    name = type(error).__name__
    return WaitEvent(
        external_id,
        next(outcomes, Outcome.REFUSED),
        str(error),
        name if name in _REFUSALS else None,
        error.status,
        request_id=error.request_id,
    )


def read_event(payload: Any, *, external_id: int | str) -> WaitEvent:
    """Return the event if ``payload`` says that the job has ended.

    :raises PromptLayerEventError: if it is not an event of this version about ``external_id``.
    :raises PromptLayerError: the error that ended the wait, of the class that it had.
    """
    event = read_deferred(
        payload,
        _read,
        name="The triggerer's event",
        missing=f"The triggerer sent no event about the wait for {external_id}.",
    )
    if event.external_id != external_id:
        raise PromptLayerEventError(
            f"The triggerer's event is about {one_line(shown(event.external_id), 80)}, "
            f"not about {external_id!r}."
        )
    if event.outcome is Outcome.ENDED:
        return event
    # A triggerer of another release may name no class, or one that is unknown here.
    refusal = _REFUSALS.get(event.error or "", PromptLayerRefusedError)
    error = _ERRORS.get(event.outcome, refusal)(event.message, status=event.status)
    error.request_id = event.request_id
    raise error


def _read(fields: Fields) -> WaitEvent:
    status = fields.get("status")
    return WaitEvent(
        fields.get("id"),
        Outcome(fields.text("outcome")),
        one_line(str(fields.get("message") or ""), 2000),
        fields.text_if_any("error"),
        status if type(status) is int else None,
        fields.number_if_any("ended_at"),
        fields.text_if_any("request_id"),
    )


_ERRORS: Final[dict[Outcome, type[PromptLayerError]]] = {
    Outcome.TIMED_OUT: PromptLayerWaitTimeoutError,
    Outcome.OUTAGE: PromptLayerOutageError,
    Outcome.KEY_REFUSED: PromptLayerAuthError,
    Outcome.NO_CONNECTION: PromptLayerUnknownConnectionError,
}

_REFUSALS: Final[dict[str, type[PromptLayerError]]] = {
    cls.__name__: cls
    for cls in (
        PromptLayerAnswerTooLargeError,
        PromptLayerConfigurationError,
        PromptLayerInvalidInputError,
        PromptLayerNotFoundError,
        PromptLayerRefusedError,
    )
}
"""The errors that the outcome ``refused`` does not tell apart."""
