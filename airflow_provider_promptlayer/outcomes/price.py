# SPDX-License-Identifier: Apache-2.0
"""Was a recalculation too dear? PromptLayer says no price before, so it is judged at the end.

Where PromptLayer does not say what it has cost, it has not passed: an unknown price must not open
the gate.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_promptlayer.api.arguments import NOTSET, score
from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.tables import TableOperation, show_count
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.usage import Usage, show_price
from airflow_provider_promptlayer.outcomes.evaluations import PromptLayerEvaluationFailedError


def check_max_price(max_price: Any) -> float | None:
    """Return the highest price that passes, in US dollars, or None where any does.

    :param max_price: :data:`.NOTSET` where the user gave none.
    :raises PromptLayerInvalidInputError: if it is no number from 0, and for None: a missing XCom
        must not open the gate.
    """
    if max_price is NOTSET:
        return None
    if max_price is None:
        raise PromptLayerInvalidInputError(
            "max_price must be a number, not None, which a template or an XCom without a value "
            "gives: leave max_price out where any price will do."
        )
    return score("max_price", max_price)


def price_problem(usage: Usage | None, max_price: float | None) -> str:
    """Return why a price does not pass, as a phrase; empty if it passes."""
    if max_price is None:
        return ""
    if usage is None or usage.price is None:
        return (
            f"PromptLayer does not say what it has cost, and max_price={max_price:.6g} needs that"
        )
    if usage.price > max_price:
        return f"it has cost {show_price(usage.price)}, more than max_price={max_price:.6g}"
    if usage.unpriced:
        return (
            f"PromptLayer does not say what {show_count(usage.unpriced)} of the cells have cost, "
            f"and the others {show_price(usage.price)}; max_price={max_price:.6g} needs all prices"
        )
    return ""


def too_dear(operation: TableOperation, problem: str) -> PromptLayerEvaluationFailedError:
    """Return the error for a recalculation whose price does not pass.

    :param problem: from :func:`price_problem`.
    """
    return PromptLayerEvaluationFailedError(
        f"Table operation {one_line(operation.operation_id, 80)} does not pass: {problem} "
        f"({operation.progress}). The cells have been calculated all the same.",
        outcome=operation,
    )
