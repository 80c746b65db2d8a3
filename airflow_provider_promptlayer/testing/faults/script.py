# SPDX-License-Identifier: Apache-2.0
"""Which request meets which fault.

For each request the rules are asked in the order in which they were made; the first that has a
fault for it decides.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self, TypeAlias

from .model import FAULTS, Fault


@dataclass(frozen=True)
class Request:
    """A request as it arrived.

    ``raw_path`` is percent-encoded and has no query; of several values of one query parameter the
    last counts. Header names are in lower case.
    """

    method: str
    raw_path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


FaultFunction: TypeAlias = Callable[[Request], Fault | None]
"""Called for each request that fits; ``None`` leaves the request to the next rule."""


@dataclass(eq=False)
class Script:
    """One rule, made by ``LocalPromptLayer.script``; a ``with`` block removes it at its end."""

    rules: Rules = field(repr=False)
    faults: Sequence[Fault | FaultFunction]
    method: str | None
    path_prefix: str
    execution_id: int | None
    times: int | None
    after: int
    acted_on: bool
    used: int = 0
    """How many requests have met a fault of this rule."""
    _seen: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        times, after = self.times, self.after
        if not self.faults:
            raise ValueError("a script needs at least one fault")
        if after < 0 or (times is not None and times < 1):
            raise ValueError(f"times={times} must be >= 1 or None, after={after} must be >= 0")

    @property
    def is_used_up(self) -> bool:
        """Whether the rule has no fault left."""
        return self.times is not None and self.used >= self.times * len(self.faults)

    def remove(self) -> None:
        """Remove the rule, if that is not done yet. Faults under way go on."""
        self.rules.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.remove()

    def take(self, request: Request) -> Fault | None:
        """Return the fault that the request meets by this rule, and count it as used."""
        if self.is_used_up or not self._fits(request):
            return None
        self._seen += 1
        if self._seen <= self.after:
            return None
        chosen = self.faults[self.used % len(self.faults)]
        fault = chosen if isinstance(chosen, FAULTS) else chosen(request)
        self.used += fault is not None
        return fault

    def _fits(self, request: Request) -> bool:
        polled = request.query.get("workflow_version_execution_id")
        return (
            self.method in (None, request.method)
            and request.raw_path.startswith(self.path_prefix)
            and (self.execution_id is None or polled == str(self.execution_id))
        )


class Rules:
    """All rules of one server. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Script] = []

    def add(self, rule: Script) -> None:
        """Append a rule."""
        with self._lock:
            self._rules.append(rule)

    def remove(self, rule: Script) -> None:
        """Remove a rule if it is there."""
        with self._lock:
            if rule in self._rules:
                self._rules.remove(rule)

    def clear(self) -> None:
        """Remove all rules."""
        with self._lock:
            self._rules.clear()

    def take(self, request: Request) -> tuple[Fault | None, bool]:
        """Return the fault that the request meets, if any, and whether it is acted on."""
        with self._lock:
            for rule in self._rules:
                if (fault := rule.take(request)) is not None:
                    return fault, rule.acted_on
        return None, True
