# SPDX-License-Identifier: Apache-2.0
"""Times as people read them."""

from __future__ import annotations

import math

import pytest
from unit.api.answers import NOW

from airflow_provider_promptlayer.api.times import in_words, moment


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 seconds"),
        (0.412, "0.41 seconds"),
        (1.0, "1 second"),
        (59.6, "1 minute"),
        (5400.0, "1 hour 30 minutes"),
        (3 * 3600.0, "3 hours"),
        (7 * 24 * 3600.0, "1 week"),
        (1e300, "1e+300 seconds"),
        (math.inf, "inf seconds"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_moments() -> None:
    assert moment(NOW + 0.9) == "2027-01-15 08:00:00 UTC"
