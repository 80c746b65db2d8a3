# SPDX-License-Identifier: Apache-2.0
"""The states and triggers of waits that a worker has left to the triggerer."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import Any

from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.polling.state import PollState
from airflow_provider_promptlayer.triggers.base import PromptLayerTrigger

_STATE = {each.name for each in fields(PollState)}


def state_for(job: RemoteJob[Any], **times: Any) -> dict[str, Any]:
    """Return the state of a wait that begins now and has an hour, but for ``times``."""
    now = time.time()
    return PollState(job, **{"began_at": now, "deadline": now + 3600.0, **times}).payload()


def trigger_for(trigger: type[PromptLayerTrigger], job: RemoteJob[Any], **arguments: Any) -> Any:
    """Return a trigger that goes on with a wait.

    :param arguments: those of the trigger, and the fields of its state.
    """
    how = {name: value for name, value in arguments.items() if name not in _STATE}
    times = {name: value for name, value in arguments.items() if name in _STATE}
    return trigger(state=state_for(job, **times), **how)
