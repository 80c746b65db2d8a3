# SPDX-License-Identifier: Apache-2.0
"""Whether a batch of runs is a success: whether enough of its runs have succeeded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from airflow_provider_promptlayer.api.errors import PromptLayerOutcomeError
from airflow_provider_promptlayer.api.text import PROBLEM_LIMIT, listed, one_line

_INPUTS_NAMED: Final = 5
"""How many inputs a message names."""


def needed(total: int, min_success_rate: float) -> int:
    """Return how many of ``total`` have to succeed."""
    # By division, which is exact where the rate was written as such a fraction: 7 of 100 are 0.07,
    # and 0.07 of 100 are a little more than 7.
    about = math.floor(total * min_success_rate)
    return next(
        (count for count in range(max(about - 1, 0), total) if count / total >= min_success_rate),
        total,
    )


def raise_for_batch(errors: Sequence[str | None], min_success_rate: float) -> None:
    """Accept a batch, or raise.

    :param errors: what went wrong with each input, None where nothing did.
    :param min_success_rate: the share of the inputs that have to succeed, from 0 to 1.
    :raises PromptLayerBatchFailedError: naming the first inputs that failed, and why.
    """
    asked = needed(len(errors), min_success_rate)
    succeeded = sum(error is None for error in errors)
    if succeeded >= asked:
        return
    raise PromptLayerBatchFailedError(
        f"{succeeded} of {len(errors)} inputs succeeded, and min_success_rate={min_success_rate:g} "
        f"asks for {asked}. {_named(errors)}",
        errors=errors,
    )


def tally(errors: Sequence[str | None]) -> str:
    """Return how many inputs have succeeded, and why others have failed, as a phrase."""
    succeeded = sum(error is None for error in errors)
    failed = "" if succeeded == len(errors) else f"; failed: {_named(errors).rstrip('.')}"
    return f"{succeeded} of {len(errors)} inputs succeeded{failed}"


def _named(errors: Sequence[str | None]) -> str:
    failed = [(index, error) for index, error in enumerate(errors) if error is not None]
    named = (f"input {index}: {one_line(error, PROBLEM_LIMIT)}" for index, error in failed)
    return listed(named, len(failed), _INPUTS_NAMED)


class PromptLayerBatchFailedError(PromptLayerOutcomeError):
    """Too few runs of a batch have succeeded. Polling them again never helps.

    Trying again helps where it starts those anew that failed.

    :param errors: what went wrong with each input, in their order; None where nothing did.
    """

    def __init__(self, message: str, *, errors: Sequence[str | None]) -> None:
        self.errors = tuple(errors)
        super().__init__(message, outcome=self.errors)
