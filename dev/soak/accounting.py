# SPDX-License-Identifier: Apache-2.0
"""Hold what PromptLayer was asked to start against what Airflow says of its tasks.

Pure: `judge` gets records and returns a verdict.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Literal

from dev.soak.load import Marker

FINAL: Final = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
_ASKS: Final = ("PromptLayerStartUncertainError", "may be going on")


@dataclass(frozen=True)
class Start:
    """One job that PromptLayer was asked to start.

    :param id: as the task names it, in XCom and in its log.
    :param started_at: seconds since the epoch, as all times.
    :param ended_at: of a job that has failed or was cancelled, when that happened.
    :param result: what a task that delivers the job has to have as its result.
    """

    marker: Marker
    id: str
    started_at: float
    ended_at: float
    outcome: Literal["succeeded", "failed", "cancelled"]
    result: Any = None


@dataclass(frozen=True)
class Task:
    """What Airflow says of a task, or of one input of a batch.

    :param state: of the task instance.
    :param ended_at: when it came to that state.
    :param delivered: the id of the job that it has pushed, if any.
    :param result: what it has pushed, as `Start.result`.
    :param reason: the error with which it failed, in one line that begins with the error's class;
        "" for an input of a failed batch that has not failed itself.
    :param log: what all its tries have logged.
    """

    marker: Marker
    state: str | None
    ended_at: float | None = None
    delivered: str | None = None
    result: Any = None
    reason: str = ""
    log: str = field(default="", repr=False)

    @property
    def asks_a_person(self) -> bool:
        """Whether it failed because only a person can find out whether its job was started."""
        return any(words in self.reason for words in _ASKS)

    def names(self, job_id: str) -> bool:
        """Whether a person who looks at the task finds the id of the job."""
        in_log = rf"(?<![\w-]){re.escape(job_id)}(?![\w-])"
        return self.delivered == job_id or re.search(in_log, self.log) is not None


@dataclass
class Verdict:
    """What became of all starts; each list has a line for each case."""

    starts: int = 0
    succeeded: int = 0
    """Tasks, and inputs of batches, that succeeded and have what their job has made."""
    replaced: int = 0
    """Jobs that had failed or were cancelled before another one took their place."""
    doubled: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    false_successes: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    uncertain: list[str] = field(default_factory=list)
    """Failed by asking a person."""
    failed: list[str] = field(default_factory=list)
    """Failed otherwise, though no job of theirs has failed."""
    failed_as_their_jobs: int = 0

    @property
    def holds(self) -> bool:
        """Whether the package has kept its word."""
        return not (self.doubled or self.lost or self.false_successes or self.stuck)


def judge(expected: Iterable[Marker], starts: Iterable[Start], tasks: Iterable[Task]) -> Verdict:
    """Return what became of each marker.

    :param expected: all that was to start a job.
    :param starts: in any order.
    :param tasks: one for each marker at most.
    """
    verdict = Verdict()
    by_marker = defaultdict[Marker, list[Start]](list)
    for start in sorted(starts, key=lambda each: each.started_at):
        by_marker[start.marker].append(start)
        verdict.starts += 1
    known = {task.marker: task for task in tasks}
    for marker in dict.fromkeys([*expected, *by_marker]):
        _judge_one(verdict, by_marker[marker], known.get(marker, Task(marker, None)))
    return verdict


def _judge_one(verdict: Verdict, starts: list[Start], task: Task) -> None:
    where = _name(task.marker)
    for earlier, later in pairwise(starts):
        if earlier.outcome == "succeeded" or earlier.ended_at > later.started_at:
            verdict.doubled.append(
                f"{where}: {later.id} was started while {earlier.id} went on or had succeeded"
            )
        else:
            verdict.replaced += 1
    if task.state not in FINAL:
        verdict.stuck.append(f"{where}: {task.state}")
        verdict.lost += [f"{where}: {each.id}" for each in starts if not task.names(each.id)]
    elif task.state == "success":
        problem = _problem_of_success(starts, task)
        if problem:
            verdict.false_successes.append(f"{where}: {problem}")
        else:
            verdict.succeeded += 1
    else:
        _judge_failed(verdict, where, starts, task)


def _problem_of_success(starts: list[Start], task: Task) -> str:
    delivered = next((each for each in reversed(starts) if each.id == task.delivered), None)
    if delivered is None:
        return f"its job {task.delivered} was never started"
    if delivered.outcome != "succeeded":
        return f"its job {delivered.id} has {delivered.outcome}"
    if task.ended_at is None or delivered.ended_at > task.ended_at:
        return f"its job {delivered.id} went on"
    if task.result != delivered.result:
        return f"it has {task.result!r}, and its job {delivered.id} has made {delivered.result!r}"
    return ""


def _judge_failed(verdict: Verdict, where: str, starts: list[Start], task: Task) -> None:
    if task.asks_a_person:
        found = ", ".join(each.id for each in starts) or "nothing"
        verdict.uncertain.append(f"{where} (started: {found}): {task.reason}")
        return
    # Of jobs before the last one, a later try has known that they had failed.
    verdict.lost += [
        f"{where}: {each.id}, and the task says only: {task.reason}"
        for each in starts[-1:]
        if not task.names(each.id)
    ]
    if starts and starts[-1].outcome == "failed":
        verdict.failed_as_their_jobs += 1
    elif task.reason:
        verdict.failed.append(f"{where}: {task.reason}")


def _name(marker: Marker) -> str:
    indexes = [f"[{marker.map_index}]"] if marker.map_index >= 0 else []
    indexes += [f" input {marker.batch_index}"] if marker.batch_index >= 0 else []
    return f"{marker.round} {marker.task}{''.join(indexes)}"
