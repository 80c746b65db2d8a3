# SPDX-License-Identifier: Apache-2.0
"""A benchmark of a real Airflow as a command of its own: progress on stderr, figures on stdout."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from dev.airflow_stack import StackError, Terminated


class Measure(Protocol):
    """The ``measure`` of such a benchmark."""

    def __call__(self, *, quick: bool, say: Callable[[str], None]) -> Sequence[Mapping[str, Any]]:
        """Return the figures; report progress to ``say``."""


def run(prog: str, description: str | None, measure: Measure) -> int:
    """Print the figures as lines of JSON; return the exit code: 0, 1, or 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--quick", action="store_true", help="a small one, to try")
    options = parser.parse_args()
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:6.1f} s  {text}", file=sys.stderr, flush=True)

    try:
        for figure in measure(quick=options.quick, say=say):
            print(json.dumps(figure), flush=True)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        return 143 if isinstance(stop, Terminated) else 130
    return 0
