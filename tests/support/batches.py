# SPDX-License-Identifier: Apache-2.0
"""Batches: run one, leave one in the middle, and see what it has left."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_promptlayer.bases.batch_starts import BatchStarts
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowBatchOperator
from airflow_provider_promptlayer.submission.batch_input import Note
from airflow_provider_promptlayer.submission.batch_persisted import Head, Page
from airflow_provider_promptlayer.testing import LocalPromptLayer, Script
from support.modes import Ending, FakeTaskInstance, Store, run_task

SLOW = 5
"""How many polls, of whichever run, a run of "Slow" takes."""

HERE = "https://here"


def numbered(count: int, **more: Any) -> list[dict[str, Any]]:
    """Return as many inputs."""
    return [{"n": index, **more} for index in range(count)]


def answers(*values: Any) -> list[Any]:
    """Return what a batch returns for these numbers; None for an input that failed."""
    return [None if value is None else {"Answer": value} for value in values]


def retry(number: int = 2) -> FakeTaskInstance:
    """Return the task instance of a retry."""
    return FakeTaskInstance(try_number=number)


def cleared(number: int = 2) -> FakeTaskInstance:
    """Return the task instance of a try after the task was cleared."""
    return FakeTaskInstance(try_number=number, max_tries=number + 1)


def task(
    inputs: Any,
    workflow: str = "Slow",
    operator: type[PromptLayerRunWorkflowBatchOperator] = PromptLayerRunWorkflowBatchOperator,
    **arguments: Any,
) -> PromptLayerRunWorkflowBatchOperator:
    """Return a task that runs the workflow for the inputs."""
    defaults: dict[str, Any] = {
        "poke_interval": 0.02,
        "retries": 2,
        # So that the runs have ids in the order of the inputs: test_together.py has others.
        "start_concurrency": 1,
        "workflow_id_or_name": workflow,
    }
    return operator(task_id="task", inputs=inputs, **{**defaults, **arguments})


def run(
    inputs: Any = None,
    ti: FakeTaskInstance | None = None,
    store: Store | None = None,
    workflow: str = "Echo",
    *,
    later: dict[str, Any] | None = None,
    **arguments: Any,
) -> Ending:
    """Run a batch, of five inputs by default, to its end.

    :param later: arguments that are others from the second visit of a worker on.
    """
    made: list[None] = []

    def make() -> PromptLayerRunWorkflowBatchOperator:
        made.append(None)  # once to see how it starts, once for each visit
        now = (later if len(made) > 2 else None) or {}
        given = {"inputs": numbered(5) if inputs is None else inputs, **arguments, **now}
        return task(workflow=workflow, **given)

    return run_task(make, ti, **({} if store is None else {"task_state_store": store}))


def leave(
    inputs: Any,
    store: Store | None = None,
    workflow: str = "Slow",
    ti: FakeTaskInstance | None = None,
    **arguments: Any,
) -> TaskDeferred:
    """Start the runs of a batch and leave the worker."""
    with pytest.raises(TaskDeferred) as left:
        task(inputs, workflow, **arguments).execute(context_of(ti or FakeTaskInstance(), store))
    return left.value


def context_of(ti: FakeTaskInstance, store: Store | None = None) -> Any:
    """Return the context of a task."""
    extra = {} if store is None else {"task_state_store": store}
    return {"ti": ti, "run_id": ti.run_id, **extra}


def starts(server: LocalPromptLayer) -> Counter[int]:
    """Return how often each input was started."""
    return Counter(
        {
            int(origin.airflow_batch_index): count
            for origin, count in server.posts_by_origin().items()
        }
    )


def each_once(count: int) -> Counter[int]:
    """Return what :func:`starts` returns where each input was started once."""
    return Counter(range(count))


def index_of(call: Any) -> int:
    """Return which input a start is of."""
    return int(json.loads(call.request.body)["metadata"]["airflow_batch_index"])


class Died(BaseException):
    """The worker is no more."""


class DyingStore(Store):
    """Lets the worker die before or after the write of that number, and writes nothing more."""

    def __init__(self, *, at: int, after: bool) -> None:
        super().__init__()
        self.at = at
        self.after = after
        self.writes = 0

    def set(self, key: str, value: Any) -> None:
        self.writes += 1
        if self.writes < self.at or (self.after and self.writes == self.at):
            super().set(key, value)
        if self.writes >= self.at:
            raise Died


@contextmanager
def dying_around_the_start(index: int, *, after: bool) -> Iterator[None]:
    """Let the worker die before or after it sends the start of an input."""
    start_run = PromptLayerHook.start_run

    def run_it(self: PromptLayerHook, call: Any, *how: Any) -> int:
        is_it = index_of(call) == index
        if is_it and not after:
            raise Died
        run_id = start_run(self, call, *how)
        if is_it:
            raise Died
        return run_id

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PromptLayerHook, "start_run", run_it)
        # A process that is killed cleans nothing up.
        patch.setattr(BatchStarts, "note", lambda _: None)
        yield


def fingerprints(size: int) -> list[str]:
    """Return as many fingerprints of inputs."""
    return [f"input {index}" for index in range(size)]


def noted(notes: Sequence[tuple[str, Note]], epoch: str = "a") -> Store:
    """Return the store of a try that has left these notes, each with its input's fingerprint."""
    store = Store()
    texts, runs = [text for text, _ in notes], [run for _, run in notes]
    head = Head([epoch], len(notes), HERE, list(range(len(notes))))
    store.set("promptlayer_batch", head.payload())
    store.set("promptlayer_batch_0", Page(epoch, HERE, texts, runs).payload())
    return store


def index_in(request: Any) -> int:
    """Return which input a start is of that has arrived."""
    return int(json.loads(request.body)["metadata"]["airflow_batch_index"])


@contextmanager
def watched(
    server: LocalPromptLayer, script: Script, watch: Callable[[], object]
) -> Iterator[None]:
    """Run a block while another thread watches it, and then lets the held requests go.

    The task is what runs in this thread, as Airflow 2 refuses to run one in another.

    :param script: holds the requests until ``watch`` has returned.
    """

    def watch_and_let_go() -> None:
        try:
            watch()
        finally:
            script.remove()
            server.drop_connections()

    with ThreadPoolExecutor(1) as thread:
        watching = thread.submit(watch_and_let_go)
        yield
        watching.result(60)
