# SPDX-License-Identifier: Apache-2.0
"""How a task records what it starts: the record goes out, or nothing is started."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from airflow_provider_promptlayer.api.errors import PromptLayerTransientError
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import drive, retried
from airflow_provider_promptlayer.polling.poller import PollDecision


def write_with_retries(
    write: Callable[[], None], log: Any, is_stopping: Callable[[], bool]
) -> None:
    """Write a record without which a later try has to ask a person; again if that fails.

    :param write: may be called more than once.
    :param is_stopping: whether there is no time any more.
    :raises Exception: what the last attempt raised.
    """
    policy = replace(retries.WRITING_TASK_STATE, retries=lambda _error: not is_stopping())
    is_first = True

    def pause(decision: PollDecision) -> None:
        nonlocal is_first
        if is_first:
            decision.log_to(log)
        is_first = False
        time.sleep(decision.sleep)

    says = "Could not write the task's state ({error}); trying again for {give_up_after}."
    drive(retried(policy, write, says=says), lambda write: write(), pause)


def store_trouble(error: Exception) -> PromptLayerTransientError:
    """Return the error for a start that was not sent, as it could not be noted before."""
    return PromptLayerTransientError(
        f"Airflow's task state store could not be written ({error}), so nothing more is started."
    )
