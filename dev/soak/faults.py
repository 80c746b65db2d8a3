# SPDX-License-Identifier: Apache-2.0
"""What the local PromptLayer does wrong: a share of its GETs gets a 429, a 502 or a reset."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from typing import Final

from airflow_provider_promptlayer.testing import Reply, Reset
from airflow_provider_promptlayer.testing.faults.model import Fault
from airflow_provider_promptlayer.testing.faults.script import Request

FAULTS: Final[dict[str, Fault]] = {
    "429": Reply(429, '{"detail": "slow down"}', {"Retry-After": "1"}),
    "502": Reply(502, "<html>Bad gateway</html>", {"Content-Type": "text/html"}),
    "reset": Reset(),
}


SHARE: Final = 0.03
"""How many of the GETs meet a fault."""


class Faults:
    """A rule for `LocalPromptLayer.script`, which also notes when what was written.

    The faults follow from the seed; which request meets which depends on their order.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - to be repeated
        self.gets = 0
        self.met = Counter[str]()
        """Name of a fault → how often it was met."""
        self.writes = defaultdict[str, list[float]](list)
        """Method and path of what was not a GET → when it arrived."""

    def __call__(self, request: Request) -> Fault | None:
        """Return the fault of a request, or None."""
        if request.method != "GET":
            self.writes[f"{request.method} {request.raw_path}"].append(time.time())
            return None
        self.gets += 1
        if self._random.random() >= SHARE:
            return None
        name = self._random.choice(list(FAULTS))
        self.met[name] += 1
        return FAULTS[name]
