# SPDX-License-Identifier: Apache-2.0
"""The errors that a task raises: each is of a class of this provider and of one of Airflow's.

Airflow decides by its own classes what comes next: a retry, a failure for good, a skip. Failure
callbacks and retry policies want to know what has happened: a failed run, an outage, a start that
may have arrived. So a task raises an error of both classes, with the attributes of this provider's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
)

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.errors import (
    PromptLayerError,
    PromptLayerWaitTimeoutError,
    rebuilt,
)

_DECISIONS: Final = (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    version_compat.RescheduleException,
)
"""The errors that tell Airflow what to do; others leave that to ``may_retry``."""


@contextmanager
def airflow_errors(may_retry: Callable[[Exception], bool], skips: Sequence[str]) -> Iterator[None]:
    """Turn this provider's errors into those by which Airflow decides what comes next.

    :param may_retry: returns whether a retry of the task can help and does no harm.
    :param skips: the options, of those that are set, which turn a failure into a skip.
    """
    try:
        yield
    except PromptLayerError as error:
        if isinstance(error, AirflowException):
            raise  # it is of both classes already
        message = str(error)
        if skips:
            airflow_class: type[AirflowException] = AirflowSkipException
            message += f" Skipping, as {skips[0]} is set."
        elif isinstance(error, PromptLayerWaitTimeoutError):
            airflow_class = AirflowSensorTimeout
        else:
            airflow_class = AirflowException if may_retry(error) else AirflowFailException
        # Without the same message again, and the frames below it: both would hide what it says.
        raise task_error(airflow_class, error, message) from error.__cause__
    except _DECISIONS:
        raise
    except Exception as error:
        # Also a plain AirflowException, as an XCom backend may raise.
        if may_retry(error):
            raise
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


def task_error(
    airflow_class: type[AirflowException], error: PromptLayerError, message: str
) -> AirflowException:
    """Return an error of the class of ``error`` and of ``airflow_class``.

    :param airflow_class: tells Airflow what to do: fail, fail for good, time out or skip.
    :param error: its attributes are copied.
    :param message: a line for people.
    """
    return _rebuild(airflow_class, type(error), (message,), error.__dict__)


_classes: dict[tuple[type, type], type[AirflowException]] = {}
"""Each pair of classes → the class that is derived from both."""


def _both(
    airflow_class: type[AirflowException], our_class: type[PromptLayerError]
) -> type[AirflowException]:
    if found := _classes.get((airflow_class, our_class)):
        return found

    def reduce(self: Any) -> tuple[Any, ...]:
        return _rebuild, (airflow_class, our_class, self.args, self.__dict__)

    members = {"__module__": our_class.__module__, "__doc__": our_class.__doc__}
    both = type(our_class.__name__, (our_class, airflow_class), {**members, "__reduce__": reduce})
    return _classes.setdefault((airflow_class, our_class), both)


def _rebuild(
    airflow_class: type[AirflowException],
    our_class: type[PromptLayerError],
    args: tuple[Any, ...],
    state: dict[str, Any],
) -> AirflowException:
    return rebuilt(_both(airflow_class, our_class), args, state)
