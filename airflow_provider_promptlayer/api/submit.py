# SPDX-License-Identifier: Apache-2.0
"""What the answer to a request that starts a job means, and what a lost answer means.

PromptLayer has an idempotency key for imports alone, so such a request is sent again only if it
certainly started nothing. That is so where no connection was made, and where the answer names no id
of a started job and is

- a refusal (4xx), or a redirect, which is not followed. 429 is a refusal too, whoever sent it: a
  rate limit is applied before a request is handled or forwarded, never after.
- a 503 with ``Retry-After``, or with PromptLayer's own JSON. Any other 503 may come from a gateway
  that had forwarded the request and then lost PromptLayer ("upstream connect error … reset reason:
  connection termination").

Every other answer leaves open whether a job was started: :class:`PromptLayerStartUncertainError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from airflow_provider_promptlayer.api.errors import PromptLayerError, PromptLayerStartUncertainError
from airflow_provider_promptlayer.api.fields import FieldError, Fields
from airflow_provider_promptlayer.api.http import (
    Call,
    Request,
    Response,
    error_for,
    is_promptlayers,
    json_or_none,
    retry_after,
    unexpected,
)
from airflow_provider_promptlayer.api.json_reader import loads
from airflow_provider_promptlayer.api.text import quoted, shown

T = TypeVar("T")


def submit_call(
    request: Request,
    read: Callable[[Fields], T],
    *,
    id_field: str,
    advice: str,
    hints: Mapping[int, str] | None = None,
    sent_id: int | None = None,
) -> Call[T]:
    """Return the call of a request that starts a job.

    :param read: turns the object in an answer of 2xx into the result.
    :param id_field: the field with the id of the job. A refusal, a 429 or a 503 that has it does
        not prove that no job was started. It may be the id of another task's job, so a person has
        to check.
    :param advice: what to do where it stays open whether a job was started.
    :param hints: see :func:`.error_for`.
    :param sent_id: an id in the request, which a refusal may repeat under the name of ``id_field``.
    """

    def uncertain(cause: PromptLayerError) -> PromptLayerStartUncertainError:
        return _uncertain(f"{str(cause).rstrip('.')}. {advice}", cause)

    def read_start(response: Response, now: float) -> T:
        if not response.is_success:
            error = error_for(request, response, now=now, hints=hints)
            may_name_it = id_field.encode() in response.body
            if error.retry_helps:
                if not may_name_it and _started_nothing(response, now):
                    raise error
                raise uncertain(error)
            named = _named(response, id_field) if may_name_it else None
            if named is None or named == str(sent_id):
                raise error
            raise _uncertain(
                f"{str(error).rstrip('.')}. The refusal has the {id_field} "
                f"{quoted(named)} all the same. {advice}",
                error,
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
        starts=True,
    )


def _uncertain(message: str, cause: PromptLayerError) -> PromptLayerStartUncertainError:
    error = PromptLayerStartUncertainError(message, status=cause.status)
    error.request_id = cause.request_id
    return error


def _started_nothing(response: Response, now: float) -> bool:
    """Return whether a transient error answer proves that no job was started."""
    return response.status == 429 or (
        response.status == 503
        and (retry_after(response.headers, now=now) is not None or is_promptlayers(response))
    )


def _named(response: Response, id_field: str) -> str | None:
    """Return the id in the field ``id_field`` at any depth of an answer, or None."""
    rest = [json_or_none(response)]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            found = value.get(id_field)
            if isinstance(found, str | int) and not isinstance(found, bool) and found:
                return shown(found)
            rest += value.values()
    return None
