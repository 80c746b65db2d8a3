# SPDX-License-Identifier: Apache-2.0
"""Threads that take work while a task does something else."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, wait
from queue import SimpleQueue
from typing import Any, TypeVar

from airflow_provider_promptlayer.api.errors import PromptLayerTransientError
from airflow_provider_promptlayer.polling.loop import AT_ONCE

T = TypeVar("T")


def run_together(functions: Sequence[Callable[[], T]]) -> list[T]:
    """Run functions, :data:`.AT_ONCE` at a time; return their results in their order.

    :raises Exception: the first error, as soon as it is known; no further function is run then.
    """
    with DaemonThreads(AT_ONCE) as threads:
        running = [threads.submit(each) for each in functions]
        done, _ = wait(running, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
        return [future.result() for future in running]


class DaemonThreads:
    """Some threads that run functions for a ``with`` block.

    Unlike those of :class:`concurrent.futures.ThreadPoolExecutor`, they hold up nothing: neither
    the end of the block nor that of a process waits for a function that is running.

    :param count: of the threads, which are started as they are needed.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._started = 0
        self._is_left = threading.Event()
        self._todo: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()

    def __enter__(self) -> DaemonThreads:
        return self

    def __exit__(self, *exception: object) -> None:
        """Run no more functions."""
        self._is_left.set()
        for _ in range(self._started):
            self._todo.put(None)

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Run a function as soon as a thread is free; return the future of its result.

        :raises PromptLayerTransientError: if no thread at all can be started; the function is not
            run then.
        """
        if self._started < self._count:
            thread = threading.Thread(target=self._run, name="promptlayer-work", daemon=True)
            try:
                thread.start()
                self._started += 1
            except RuntimeError as error:
                if not self._started:
                    raise PromptLayerTransientError(f"No thread can be started: {error}.") from None
                self._count = self._started  # those that there are do all the work
        future: Future[T] = Future()
        self._todo.put((future, function))
        return future

    def in_order(self, functions: Iterable[Callable[[], T]]) -> Iterator[Future[T]]:
        """Run functions; yield the future of each in their order, once it is done.

        The first runs alone, as a caller may stop after it. Then twice as many run after each that
        is yielded, up to the number of the threads. Each is taken from the iterable right before
        it is run.
        """
        todo, running, most = iter(functions), deque[Future[T]](), 1
        while True:
            while len(running) < most and (function := next(todo, None)) is not None:
                running.append(self.submit(function))
            if not running:
                return
            future = running.popleft()
            wait([future])
            yield future
            most = min(2 * most, self._count)

    def sleep(self, seconds: float) -> None:
        """Sleep in a function that is running, if it is still wanted.

        :raises CancelledError: once the block is left.
        """
        if self._is_left.wait(seconds):
            raise CancelledError

    def _run(self) -> None:
        while (job := self._todo.get()) is not None:
            future, function = job
            if self._is_left.is_set():
                future.cancel()
                continue
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                future.set_exception(error)
            del job, future, function  # so that no thread holds a result while it waits
