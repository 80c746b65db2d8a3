# SPDX-License-Identifier: Apache-2.0
"""Which request meets which fault.

The rule here: for each request the rules are asked in the order in which they were made, and the
first that has a fault for it decides.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

from airflow_provider_promptlayer.testing.faults.model import FAULTS, Fault
from airflow_provider_promptlayer.testing.http.messages import Request

FaultFunction: TypeAlias = Callable[[Request], Fault | None]
"""Asked for each request that fits; ``None`` leaves the request to the next rule."""


@dataclass(frozen=True)
class Selection:
    """Which requests a rule is for: those of a method, a raw path and a run.

    ``None`` means any. The run is that of the query's ``workflow_version_execution_id``.
    """

    method: str | None = None
    path_prefix: str = "/"
    execution_id: int | None = None

    def fits(self, request: Request) -> bool:
        """Tell whether the rule is for this request."""
        return (
            self.method in (None, request.method)
            and request.raw_path.startswith(self.path_prefix)
            and (
                self.execution_id is None
                or request.query.get("workflow_version_execution_id") == str(self.execution_id)
            )
        )


class Script:
    """One rule, as long as it is in force. Made by ``LocalPromptLayer.script``.

    As a context manager it is in force until the end of the block.
    """

    def __init__(
        self,
        faults: Sequence[Fault | FaultFunction],
        selection: Selection,
        *,
        times: int | None,
        after: int,
        acted_on: bool,
        remove: Callable[[Script], None],
    ) -> None:
        self._faults = faults
        self._selection = selection
        self._times = times
        self._after = after
        self._remove = remove
        self._seen = 0
        self._used = 0
        self.acted_on = acted_on

    @property
    def used(self) -> int:
        """How many requests have met a fault of this rule."""
        return self._used

    @property
    def is_used_up(self) -> bool:
        """Whether it has no fault left to give."""
        return self._times is not None and self._used >= self._times * len(self._faults)

    def remove(self) -> None:
        """Put the rule out of force. Faults that are under way go on. Harmless if done twice."""
        self._remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()

    def take(self, request: Request) -> Fault | None:
        """Give the fault that a request meets by this rule, and count it as used."""
        if self.is_used_up or not self._selection.fits(request):
            return None
        self._seen += 1
        if self._seen <= self._after:
            return None
        chosen = self._faults[self._used % len(self._faults)]
        fault = chosen if isinstance(chosen, FAULTS) else chosen(request)
        self._used += fault is not None
        return fault


class FaultScript:
    """All rules of one server. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Script] = []

    def add(
        self,
        faults: Sequence[Fault | FaultFunction],
        selection: Selection,
        *,
        times: int | None,
        after: int,
        acted_on: bool,
    ) -> Script:
        """Add a rule after those that there are.

        Raises:
            ValueError: there is no fault, or a number makes no sense.

        """
        if not faults:
            raise ValueError("a script needs at least one fault")
        if after < 0 or (times is not None and times < 1):
            raise ValueError(f"times={times} must be >= 1 or None, after={after} must be >= 0")
        rule = Script(
            tuple(faults),
            selection,
            times=times,
            after=after,
            acted_on=acted_on,
            remove=self._discard,
        )
        with self._lock:
            self._rules.append(rule)
        return rule

    def take(self, request: Request) -> tuple[Fault, bool] | None:
        """Give the fault that a request meets, and whether it is acted on all the same."""
        with self._lock:
            for rule in self._rules:
                if (fault := rule.take(request)) is not None:
                    return fault, rule.acted_on
        return None

    def clear(self) -> None:
        """Put all rules out of force."""
        with self._lock:
            self._rules.clear()

    def _discard(self, rule: Script) -> None:
        with self._lock:
            if rule in self._rules:
                self._rules.remove(rule)
