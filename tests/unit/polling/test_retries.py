# SPDX-License-Identifier: Apache-2.0
"""How soon, how often, for how long, and when not."""

from __future__ import annotations

import math

import pytest

from airflow_provider_promptlayer.exceptions import (
    PromptLayerNotFoundError,
    PromptLayerRateLimitError,
    PromptLayerServerError,
    PromptLayerStartUncertainError,
    PromptLayerUnreachableError,
)
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.retries import RetryPolicy

BLIP = PromptLayerServerError("HTTP 503")
POLICIES = {name: found for name, found in vars(retries).items() if isinstance(found, RetryPolicy)}


def test_pauses_grow_up_to_the_longest() -> None:
    policy = RetryPolicy(first_pause=3.0, factor=2.0, longest_pause=20.0, jitter=0.0)
    assert [policy.pause(failures) for failures in (1, 2, 3, 4, 5, 5000)] == [3, 6, 12, 20, 20, 20]


@pytest.mark.parametrize(("chance", "pause"), [(0.0, 3.0), (1.0, 4.0)])
def test_a_share_of_a_pause_is_left_to_chance(chance: float, pause: float) -> None:
    assert RetryPolicy(first_pause=4.0, jitter=0.25).pause(1, jitter=lambda: chance) == pause


def test_a_pause_is_as_long_as_an_answer_asks_for() -> None:
    busy = PromptLayerRateLimitError("HTTP 429", retry_after=45.0)
    assert RetryPolicy().next_pause(1, busy, elapsed=0.0) == 45.0
    assert RetryPolicy(longest_retry_after=45.0).next_pause(1, busy, elapsed=0.0) == 45.0
    assert RetryPolicy(longest_retry_after=44.0).next_pause(1, busy, elapsed=0.0) is None
    ignoring = RetryPolicy(first_pause=3.0, jitter=0.0, longest_retry_after=None)
    assert ignoring.next_pause(1, busy, elapsed=0.0) == 3.0


@pytest.mark.parametrize(("asked", "pauses"), [(0.0, [4, 8, 16]), (5.0, [5, 8, 16])])
def test_a_pause_grows_beyond_what_answers_ask_for(asked: float, pauses: list[float]) -> None:
    """Else a server that says the same to everyone is asked ever again by all at once."""
    busy = PromptLayerRateLimitError("HTTP 429", retry_after=asked)
    policy = RetryPolicy(first_pause=4.0, jitter=0.0)
    assert [policy.pause(failures, busy) for failures in (1, 2, 3)] == pauses


def test_gives_up() -> None:
    policy = RetryPolicy(first_pause=1.0, jitter=0.0, attempts=3, give_up_after=10.0)
    assert policy.next_pause(2, BLIP, elapsed=8.0) == 2.0
    assert policy.next_pause(3, BLIP, elapsed=0.0) is None
    assert policy.next_pause(1, BLIP, elapsed=9.5) is None
    assert policy.next_pause(1, PromptLayerNotFoundError("HTTP 404"), elapsed=0.0) is None
    assert policy.within(5.0).next_pause(1, BLIP, elapsed=4.5) is None
    assert policy.within(500.0) == policy


@pytest.mark.parametrize(
    ("error", "is_sent_again"),
    [
        (PromptLayerUnreachableError("refused", arrived=False), True),
        (PromptLayerUnreachableError("reset", arrived=True), False),
        (PromptLayerRateLimitError("HTTP 429", retry_after=60.0), True),
        (PromptLayerRateLimitError("HTTP 429", retry_after=61.0), False),
        (PromptLayerStartUncertainError("HTTP 502"), False),
    ],
    ids=str,
)
def test_a_start_is_sent_again_only_if_it_started_nothing(
    error: Exception, is_sent_again: bool
) -> None:
    assert (retries.SUBMITTING.next_pause(1, error, elapsed=0.0) is not None) == is_sent_again


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_ends(name: str) -> None:
    """But for that of polls, whose ``max_outage`` is the user's."""
    policy = POLICIES[name]
    elapsed, failures = 0.0, 1
    while (pause := policy.next_pause(failures, BLIP, elapsed=elapsed)) and failures < 1000:
        elapsed += pause
        failures += 1
    assert (pause is None) == (policy is not retries.POLLING)
    assert elapsed <= policy.give_up_after
    assert math.isfinite(policy.pause(1))
