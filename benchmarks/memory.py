# SPDX-License-Identifier: Apache-2.0
"""The largest resident memory of this process, over a while."""

from __future__ import annotations

import ctypes
import gc
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PROCESS: Final = Path("/proc/self")


@contextmanager
def peak_memory() -> Iterator[Callable[[], float]]:
    """Measure the largest resident memory, in bytes, beyond that at the start."""
    _forget_peak()
    start, end = _resident_peak(), 0.0
    yield lambda: end - start
    end = _resident_peak()


def _forget_peak() -> None:
    """Give free memory back to the system, and have it forget the peak; on Linux."""
    gc.collect()
    if _PROCESS.exists():
        ctypes.CDLL(None).malloc_trim(0)
        (_PROCESS / "clear_refs").write_text("5")


def _resident_peak() -> float:
    if _PROCESS.exists():
        lines = (_PROCESS / "status").read_text().splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
