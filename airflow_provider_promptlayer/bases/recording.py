# SPDX-License-Identifier: Apache-2.0
"""How a task records what it starts in Airflow's task state."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from airflow_provider_promptlayer.api.errors import PromptLayerTransientError
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import drive, retried
from airflow_provider_promptlayer.polling.poller import PollDecision


def write_or_log(
    write: Callable[[], None], log: Any, is_stopping: Callable[[], bool], failure: str
) -> None:
    """Write a record for later tries; retry if that fails.

    :param write: may be called more than once.
    :param is_stopping: returns whether the task is being stopped: then there is no time to retry.
    :param failure: what to log with the error of the last attempt. The task goes on: the job runs,
        and failing now would lose it.
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
    try:
        drive(retried(policy, write, says=says), lambda write: write(), pause)
    except Exception:
        log.exception("%s", failure)


def store_trouble(error: Exception) -> PromptLayerTransientError:
    """Return the error for a start that was not sent because it could not be recorded first."""
    return PromptLayerTransientError(
        f"Could not write to Airflow's task state store ({error}), so nothing more is started."
    )
