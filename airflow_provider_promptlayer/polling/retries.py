# SPDX-License-Identifier: Apache-2.0
"""When a request is sent again: for each situation how often, how long, and when not."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from airflow_provider_promptlayer.api.errors import (
    PromptLayerError,
    PromptLayerTransientError,
    PromptLayerUnreachableError,
)

MAX_SENDS: Final = 5
"""How often one call sends a start at most, the first time included."""


_FIRST_PAUSE: Final = 1.0


_LONGEST_PAUSE: Final = 60.0
"""Seconds before the next send at most; a start that is to wait longer is left to a retry."""


def resend_after(
    error: PromptLayerError, sent: int, *, jitter: Callable[[], float] = random.random
) -> float | None:
    """Return the seconds after which to send a start again, or None if it must not be.

    It may be after a connection that was never made, and after the 429 and 503 that say so; for
    everything that leaves open whether a run was started, the caller has an error that is not
    transient. Never before the time that ``Retry-After`` asked for.

    :param sent: how often it was sent so far.
    """
    if not isinstance(error, PromptLayerTransientError) or sent >= MAX_SENDS:
        return None
    if isinstance(error, PromptLayerUnreachableError) and error.arrived:
        return None
    if error.retry_after is not None:
        return error.retry_after if error.retry_after <= _LONGEST_PAUSE else None
    return _FIRST_PAUSE * 2.0 ** (sent - 1) * (0.5 + 0.5 * jitter())
