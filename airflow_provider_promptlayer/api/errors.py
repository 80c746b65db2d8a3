# SPDX-License-Identifier: Apache-2.0
"""The errors that this provider raises on purpose, as one tree.

Each class says whether trying again can help: ``retry_helps`` is about the *same* request,
sent again later. Polling and the operators decide by it and by the class alone, never by the
text of a message. A message is one line, says what to do about the error where that is known, and
never holds the API key. Errors that carry a result are in :mod:`..outcomes`.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

E = TypeVar("E", bound=Exception)


class PromptLayerError(Exception):
    """Root of the tree.

    :param message: one line for people.
    :param status: HTTP status of the answer, or None where there was none.
    """

    retry_helps: ClassVar[bool] = False
    """Whether the same request may succeed when it is sent again later."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.external_id: int | str | None = None
        """The id of the job that the task waits for, such as a ``workflow_version_execution_id``.

        None where no task has raised the error, or where the job is not known.
        """
        self.request_id: str | None = None
        """What PromptLayer, or a gateway, calls the request; None where the answer has no id."""
        self.url: str | None = None
        """Where to look in PromptLayer; None where that is not known."""

    def __reduce__(self) -> tuple[Any, ...]:
        # So that it can be pickled: the default calls the class with ``args`` alone, which the
        # subclasses with keyword-only arguments refuse.
        return rebuilt, (type(self), self.args, self.__dict__)


def rebuilt(cls: type[E], args: tuple[Any, ...], state: dict[str, Any]) -> E:
    """Return an error of a class with these attributes, without a call of its constructor."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class PromptLayerConfigurationError(PromptLayerError, ValueError):
    """The Airflow connection cannot be used as it is. Trying again does not help."""


class PromptLayerUnknownConnectionError(PromptLayerConfigurationError):
    """Airflow knows no such connection. Trying again helps once it does.

    Airflow says the same where its API server or its secrets backend could not be asked.
    """


class PromptLayerInvalidInputError(PromptLayerError, ValueError):
    """An argument cannot be used, mostly before a request is sent. Trying again does not help."""


class PromptLayerRefusedError(PromptLayerError):
    """PromptLayer refused the request for good (400, 422, …). Trying again does not help.

    :ivar is_foreign: whether the answer (4xx) is not PromptLayer's own, but of something between,
        such as a gateway, or of another web server.
    """

    is_foreign = False


class PromptLayerAuthError(PromptLayerRefusedError):
    """The API key was refused (401, 403). Trying again helps only with another key."""


class PromptLayerNotFoundError(PromptLayerRefusedError):
    """There is no such thing at PromptLayer (404). Trying again does not help."""


class PromptLayerTransientError(PromptLayerError):
    """A blip: trying again later can help. It says nothing about the job that is waited for.

    :param retry_after: seconds that the answer asked to wait, or None.
    """

    retry_helps: ClassVar[bool] = True

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after


class PromptLayerRateLimitError(PromptLayerTransientError):
    """Too many requests (429). Trying again helps after ``retry_after`` seconds."""


class PromptLayerServerError(PromptLayerTransientError):
    """PromptLayer, or a gateway before it, could not answer (5xx). Trying again can help."""


class PromptLayerUnexpectedAnswerError(PromptLayerTransientError):
    """The answer is not JSON, or not of the documented shape. Trying again can help."""


class PromptLayerAnswerTooLargeError(PromptLayerError):
    """The answer is larger than this provider reads. Trying again does not help."""

    arrived: ClassVar[bool] = True
    """Whether PromptLayer may have seen the request."""


class PromptLayerUnreachableError(PromptLayerTransientError):
    """No whole answer arrived: refused, reset, DNS, TLS, time-out. Trying again can help.

    :param arrived: False where PromptLayer certainly never saw the request (no connection was
        made), True where it may have.
    """

    def __init__(self, message: str, *, arrived: bool) -> None:
        super().__init__(message)
        self.arrived = arrived


class PromptLayerStartUncertainError(PromptLayerError):
    """A job was asked for and no usable answer came: it may have been started, and billed.

    PromptLayer has no idempotency key, so the request is not sent again: trying again can start
    a second job.
    """


class PromptLayerConfirmationNeededError(PromptLayerError):
    """The job is so large that PromptLayer asks first; nothing was started.

    Trying again helps only with the confirmation.

    :param affected_cell_count: the cells that would be calculated.
    """

    def __init__(self, message: str, *, affected_cell_count: int) -> None:
        super().__init__(message)
        self.affected_cell_count = affected_cell_count


class PromptLayerOutcomeError(PromptLayerError):
    """A job has ended, and its outcome counts as a failure. Polling it again never helps.

    :param outcome: the last status of the job; of a batch, what went wrong with each input.
    """

    def __init__(self, message: str, *, outcome: Any) -> None:
        super().__init__(message)
        self.outcome = outcome


class PromptLayerWaitTimeoutError(PromptLayerError, TimeoutError):
    """The job did not end within the time that was given. The job itself goes on.

    Waiting again, with more time, can help.
    """


class PromptLayerEventError(PromptLayerError):
    """The triggerer's event is missing, malformed or from another version of this provider.

    Trying again can help: the wait begins anew. It never counts as a success.
    """

    retry_helps: ClassVar[bool] = True


class PromptLayerOutageError(PromptLayerError):
    """PromptLayer was out of reach for longer than ``max_outage``. The job may well go on.

    Trying again later can help.
    """

    retry_helps: ClassVar[bool] = True


class PromptLayerSheetChangedError(PromptLayerError):
    """A sheet was changed while it was read, so its pages do not belong together.

    Reading it again helps once it is left alone.
    """

    retry_helps: ClassVar[bool] = True


class PromptLayerLabelMovedError(PromptLayerError):
    """A release label leads to another version than expected: another task or person has moved it.

    Trying again does not help.
    """


class PromptLayerApprovalNeededError(PromptLayerError):
    """A release label is protected: the move that was asked for waits until a person approves it.

    Trying again helps once it is approved.
    """


class PromptLayerFileError(PromptLayerError):
    """A file could not be read or written, for a reason that its storage gives.

    Trying again can help: the storage has room, or permits it, by then.
    """

    retry_helps: ClassVar[bool] = True
