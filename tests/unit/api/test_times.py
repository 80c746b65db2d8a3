# SPDX-License-Identifier: Apache-2.0
"""Times as people give and read them, and dates as servers write them."""

from __future__ import annotations

import math

import pendulum
import pytest

from airflow_provider_promptlayer.api.arguments import seconds as seconds_of
from airflow_provider_promptlayer.api.times import in_words, moment, seconds_until

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


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


@pytest.mark.parametrize(
    "date",
    [
        "Fri, 15 Jan 2027 08:00:05 GMT",
        "Friday, 15-Jan-27 08:00:05 GMT",
        "Fri Jan 15 08:00:05 2027",
        "Fri, 15 Jan 2027 09:00:05 +0100",
    ],
)
def test_http_dates(date: str) -> None:
    assert seconds_until(date, now=NOW) == 5.0


@pytest.mark.parametrize("text", ["", "soon", "Fri, 99 Jan 2027 08:00:05 GMT"])
def test_no_date(text: str) -> None:
    assert seconds_until(text, now=NOW) is None


def test_arguments_may_be_durations_of_pendulum() -> None:
    assert seconds_of("timeout", pendulum.duration(hours=3)) == 3 * 3600.0
