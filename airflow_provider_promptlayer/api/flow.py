# SPDX-License-Identifier: Apache-2.0
"""Several requests of which each hangs on the answer to the last, as one value.

A *talk* is a generator: it yields calls and is sent what their answers mean; an error is thrown
into it. So the blocking and the asynchronous hook send the same requests for the same reason.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.job import Subject

R = TypeVar("R")

Talk: TypeAlias = Generator[Call[Any], Any, R]


def cancellation(subject: Subject[Any]) -> Talk[str]:
    """Cancel a subject, unless that would end something else too.

    Returns what became of it, to follow its name in a line of the log.
    """
    cancel, question = subject.cancel(), subject.may_cancel()
    if cancel is None:
        return subject.when_left
    if question is not None and not (yield question):
        return "was not cancelled: it has ended, or something newer would be cancelled with it"
    return "was cancelled" if (yield cancel) else "had ended and was not cancelled"
