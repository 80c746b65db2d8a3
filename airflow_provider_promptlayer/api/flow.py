# SPDX-License-Identifier: Apache-2.0
"""Several requests of which each hangs on the answer to the last, as one value.

A *talk* is a generator: it yields calls and is sent what their answers mean; an error is thrown
into it. So the blocking and the asynchronous hook send the same requests for the same reason.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.job import RemoteJob

R = TypeVar("R")

CallFlow: TypeAlias = Generator[Call[Any], Any, R]


def cancellation(job: RemoteJob[Any]) -> CallFlow[str]:
    """Cancel a subject, unless that would end something else too.

    Returns what became of it, to follow its name in a line of the log.
    """
    cancel, question = job.cancel(), job.cancel_precondition()
    if cancel is None:
        return job.abandoned_phrase
    if question is not None and not (yield question):
        return "was not cancelled: it has ended, or something newer would be cancelled with it"
    return "was cancelled" if (yield cancel) else "had ended and was not cancelled"
