# SPDX-License-Identifier: Apache-2.0
"""What the answer to a start means, and what a lost one does.

Nothing that costs money has an idempotency key. A refusal (4xx), 429 and 503 tell that nothing
was started, unless the answer has the id of something that was; so does a connection that was
never made. Anything else leaves it open, and is a :class:`PromptLayerStartUncertainError`, which
nobody sends again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from airflow_provider_promptlayer.api.fields import FieldError, Fields
from airflow_provider_promptlayer.api.http import Call, Request, Response, error_for, unexpected
from airflow_provider_promptlayer.api.json_body import loads
from airflow_provider_promptlayer.api.text import one_line, shown
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
    sent_id: int | None = None,
) -> Call[T]:
    """Return the call of a request that starts something.

    :param read: turns the object in an answer of 2xx into the result.
    :param evidence: the field that names what was started: a refusal, 429 or 503 which has it is
        no proof that nothing was. What it names may also be somebody else's, so it is not waited
        for either: a person has to look.
    :param advice: what to do where it stays open whether something was started.
    :param hints: see :func:`.http.error_for`.
    :param sent_id: an id in the request, which a refusal may repeat under the name of ``evidence``.
    """

    def uncertain(cause: PromptLayerError) -> PromptLayerStartUncertainError:
        return PromptLayerStartUncertainError(
            f"{str(cause).rstrip('.')}. {advice}", status=cause.status
        )

    def read_start(response: Response, now: float) -> T:
        if not response.is_success:
            error = error_for(request, response, now=now, hints=hints)
            may_name_it = evidence.encode() in response.body
            if error.retry_helps:
                if response.status in (429, 503) and not may_name_it:
                    raise error
                raise uncertain(error)
            named = _named(response, evidence) if may_name_it else None
            if named is None or named == str(sent_id):
                raise error
            raise PromptLayerStartUncertainError(
                f"{str(error).rstrip('.')}. The refusal has the {evidence} "
                f"{one_line(repr(named), 80)} all the same. {advice}",
                status=error.status,
            )
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


def _named(response: Response, evidence: str) -> str | None:
    """Return the id under the name of ``evidence`` in an answer, or None if it has none."""
    try:
        rest = [loads(response.body, outline=True)]
    except ValueError:
        return None
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            found = value.get(evidence)
            if isinstance(found, str | int) and not isinstance(found, bool) and found:
                return shown(found)
            rest += value.values()
    return None
