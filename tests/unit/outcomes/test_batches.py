# SPDX-License-Identifier: Apache-2.0
"""Which share of the inputs of a batch is enough, and how a batch that failed is explained."""

from __future__ import annotations

from contextlib import nullcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_promptlayer.exceptions import PromptLayerBatchFailedError
from airflow_provider_promptlayer.outcomes.batches import needed, raise_for_batch


@given(total=st.integers(0, 2000), numerator=st.integers(0, 100))
def test_needed_is_the_least_that_is_enough(total: int, numerator: int) -> None:
    """Also where the fraction cannot be written in binary."""
    exact = -(-total * Fraction(numerator, 100) // 1)
    assert needed(total, numerator / 100) == exact


@pytest.mark.parametrize(
    ("errors", "rate", "passes"),
    [
        ([None, None], 1.0, True),
        ([], 1.0, True),
        ([None, "why"], 1.0, False),
        ([None, "why"], 0.51, False),
        ([None, "why"], 0.5, True),
        ([None, "why"], 0.0, True),
    ],
)
def test_the_share_that_is_enough(errors: list[str | None], rate: float, passes: bool) -> None:
    with nullcontext() if passes else pytest.raises(PromptLayerBatchFailedError):
        raise_for_batch(errors, rate)


def test_the_message_says_how_many_and_names_the_first() -> None:
    errors = [None if index == 1 else f"why\n{index}" for index in range(9)]
    with pytest.raises(PromptLayerBatchFailedError) as raised:
        raise_for_batch(errors, 0.25)
    message = str(raised.value)
    assert message.startswith("1 of 9 inputs succeeded, and min_success_rate=0.25 asks for 3.")
    assert "input 0: why 0; input 2: why 2; " in message
    assert message.endswith("; and 3 more")
    assert raised.value.errors == tuple(errors)
