# SPDX-License-Identifier: Apache-2.0
"""The event between the triggerer and the worker."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_promptlayer.api.http import Request, Response, error_for
from airflow_provider_promptlayer.api.persisted import VERSION
from airflow_provider_promptlayer.exceptions import (
    PromptLayerAnswerTooLargeError,
    PromptLayerAuthError,
    PromptLayerConfigurationError,
    PromptLayerError,
    PromptLayerEventError,
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
    PromptLayerOutageError,
    PromptLayerRefusedError,
    PromptLayerUnknownConnectionError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.polling.event import Outcome, WaitEvent, event_for, read_event


def through_the_database(event: WaitEvent) -> Any:
    return json.loads(json.dumps(event.payload()))


@pytest.mark.parametrize("job", [7, 2**63 - 1, "op-1"])
def test_an_ending_comes_through(job: int | str) -> None:
    event = WaitEvent(job, Outcome.ENDED, "3 of 3 nodes done", ended_at=12.5)
    assert read_event(through_the_database(event), external_id=job) == event
    of_an_earlier_release = through_the_database(event)
    del of_an_earlier_release["ended_at"], of_an_earlier_release["request_id"]
    assert read_event(of_an_earlier_release, external_id=job).ended_at is None


@pytest.mark.parametrize(
    "error",
    [
        PromptLayerWaitTimeoutError("late"),
        PromptLayerOutageError("gone"),
        PromptLayerAuthError("key", status=401),
        PromptLayerNotFoundError("none", status=404),
        PromptLayerRefusedError("no", status=422),
        PromptLayerConfigurationError("conn"),
        PromptLayerUnknownConnectionError("none"),
        PromptLayerInvalidInputError("id"),
        PromptLayerAnswerTooLargeError("big"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_through(error: PromptLayerError) -> None:
    error.request_id = "4f2a"
    with pytest.raises(PromptLayerError) as caught:
        read_event(through_the_database(event_for(7, error)), external_id=7)
    assert type(caught.value) is type(error)
    assert (str(caught.value), caught.value.status) == (str(error), error.status)
    assert caught.value.request_id == error.request_id


@pytest.mark.parametrize(
    "changes",
    [{"error": "PromptLayerOfTomorrowError"}, {"error": ["x"]}, {"error": None}, {"status": "4"}],
    ids=repr,
)
def test_an_unknown_error_is_a_refusal(changes: dict[str, Any]) -> None:
    event = event_for(7, PromptLayerRefusedError("no")).payload() | changes
    with pytest.raises(PromptLayerRefusedError) as caught:
        read_event(event, external_id=7)
    assert type(caught.value) is PromptLayerRefusedError
    assert caught.value.status is None


GOOD = WaitEvent(7, Outcome.ENDED, "done").payload()


@pytest.mark.parametrize(
    "payload",
    [
        *(None, "ended", [], {}, True),
        *(GOOD | {"version": version} for version in (VERSION + 1, None, str(VERSION))),
        *(GOOD | {"id": job} for job in (8, "7", None)),
        *(GOOD | {"outcome": word} for word in ("success", "ENDED", None, ["ended"])),
        *({key: GOOD[key] for key in GOOD if key != gone} for gone in ("version", "id", "outcome")),
    ],
    ids=repr,
)
def test_what_is_not_understood_is_never_a_success(payload: Any) -> None:
    with pytest.raises(PromptLayerEventError) as caught:
        read_event(payload, external_id=7)
    assert caught.value.retry_helps


def test_another_version_says_what_to_install() -> None:
    with pytest.raises(PromptLayerEventError, match="Install the same release"):
        read_event(GOOD | {"version": 99}, external_id=7)


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome != Outcome.ENDED])
def test_every_other_outcome_ends_the_wait_with_an_error(outcome: Outcome) -> None:
    payload = WaitEvent(7, outcome, "word").payload()
    with pytest.raises(PromptLayerError, match=r"^word$") as caught:
        read_event(payload, external_id=7)
    assert not isinstance(caught.value, PromptLayerEventError)
    del payload["message"]
    with pytest.raises(type(caught.value)):
        read_event(payload, external_id=7)


def test_an_event_is_small_whatever_was_answered() -> None:
    body = json.dumps({"message": "x" * 10**6}).encode()
    error = error_for(Request("GET", "/x", "poll"), Response(422, {}, body), now=0.0)
    assert len(json.dumps(event_for(7, error).payload())) < 2000
