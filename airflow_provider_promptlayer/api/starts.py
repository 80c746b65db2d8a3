# SPDX-License-Identifier: Apache-2.0
"""What the answer to a start means, and what a lost one does.

Nothing that costs money has an idempotency key. A refusal (4xx), 429 and 503 tell that nothing
was started, and so does a connection that was never made; anything else leaves it open, and is a
:class:`PromptLayerStartUncertainError`, which nobody sends again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from airflow_provider_promptlayer.api.fields import FieldError, Fields
from airflow_provider_promptlayer.api.http import Call, Request, Response, error_for, unexpected
from airflow_provider_promptlayer.api.json_body import loads
from airflow_provider_promptlayer.exceptions import (
    PromptLayerError,
    PromptLayerStartUncertainError,
)

T = TypeVar("T")


def start(
    request: Request,
    read: Callable[[Fields], T],
    *,
    evidence: str,
    advice: str,
    hints: Mapping[int, str] | None = None,
) -> Call[T]:
    """Return the call of a request that starts something.

    :param read: turns the object in an answer of 2xx into the result.
    :param evidence: the field that names what was started: a 429 or 503 which has it is no proof
        that nothing was.
    :param advice: what to do where it stays open whether something was started.
    :param hints: see :func:`.http.error_for`.
    """

    def uncertain(cause: PromptLayerError) -> PromptLayerStartUncertainError:
        return PromptLayerStartUncertainError(
            f"{str(cause).rstrip('.')}. {advice}", status=cause.status
        )

    def read_start(response: Response, now: float) -> T:
        if not response.is_success:
            error = error_for(request, response, now=now, hints=hints)
            names_it = evidence.encode() in response.body
            if not error.retry_helps or (response.status in (429, 503) and not names_it):
                raise error
            raise uncertain(error)
        try:
            return read(Fields(loads(response.body)))
        except FieldError as error:
            problem = str(error)
        except ValueError:
            problem = "is not JSON"
        raise uncertain(unexpected(request, response, problem))

    return Call(
        request,
        read_start,
        unanswered=lambda error: uncertain(error) if error.arrived else error,
    )
