# SPDX-License-Identifier: Apache-2.0
"""A sequence of requests, each of which depends on the answer to the one before, as one value.

A *call flow* is a generator that yields calls. Its driver sends the result of each into it, or
throws the error in. So both hooks, blocking and asynchronous, send the same requests in one order.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.job import RemoteJob

R = TypeVar("R")

CallFlow: TypeAlias = Generator[Call[Any], Any, R]


def cancellation(job: RemoteJob[Any]) -> CallFlow[str]:
    """Cancel a job, unless that would cancel another one too.

    Returns a phrase for the log that goes on after the name of the job.
    """
    cancel, question = job.cancel(), job.cancel_precondition()
    if cancel is None:
        return job.abandoned_phrase
    if question is not None and not (yield question):
        return "was not cancelled: it has ended, or a newer one would be cancelled with it"
    return "was cancelled" if (yield cancel) else "had ended and was not cancelled"
