# SPDX-License-Identifier: Apache-2.0
"""Waits that have begun elsewhere, as a worker hands them over."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import Any

from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.polling.state import PollState
from airflow_provider_promptlayer.triggers.base import PromptLayerTrigger

_STATE = {each.name for each in fields(PollState)}


def state_for(job: RemoteJob[Any], **times: Any) -> dict[str, Any]:
    """Return the state of a wait that began now and has an hour, unless it is said otherwise."""
    now = time.time()
    return PollState(job, **{"began_at": now, "deadline": now + 3600.0, **times}).payload()


def trigger_for(trigger: type[PromptLayerTrigger], job: RemoteJob[Any], **arguments: Any) -> Any:
    """Return a trigger that takes a wait over.

    :param arguments: those of the trigger, and the fields of its state.
    """
    how = {name: value for name, value in arguments.items() if name not in _STATE}
    times = {name: value for name, value in arguments.items() if name in _STATE}
    return trigger(state=state_for(job, **times), **how)
