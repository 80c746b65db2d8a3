# SPDX-License-Identifier: Apache-2.0
"""A batch where the process may start no further thread, as in a container at its limit."""

from __future__ import annotations

import threading

import pytest
from support.batches import answers, each_once, numbered, retry, run, starts
from support.modes import Store

from airflow_provider_promptlayer.testing import LocalPromptLayer


def fail_once(monkeypatch: pytest.MonkeyPatch, name: str, *, number: int) -> None:
    """Let one thread not start: of those of this name the one of that number, from 0."""
    start, asked = threading.Thread.start, list[None]()

    def start_unless(thread: threading.Thread) -> None:
        if thread.name == name:
            asked.append(None)
            if len(asked) == number + 1:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_unless)


def test_the_threads_that_there_are_do_the_work(
    server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_once(monkeypatch, "promptlayer-work", number=2)
    assert run(numbered(6), start_concurrency=4).value == answers(*range(6))
    assert starts(server) == each_once(6)


def test_a_start_without_a_worker_was_not_sent(
    server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no person is asked to look for its run, and the next try sends it."""
    store = Store()
    fail_once(monkeypatch, "promptlayer-work", number=0)
    ending = run(numbered(3), store=store)
    assert (ending.kind, "No thread can be started" in ending.message) == ("failed", True)
    assert not starts(server)
    assert run(numbered(3), retry(), store).value == answers(0, 1, 2)
    assert starts(server) == each_once(3)


def test_a_request_without_a_thread_was_not_sent(
    server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_once(monkeypatch, "promptlayer-request", number=0)
    assert run(numbered(3), store=Store()).value == answers(0, 1, 2)
    assert starts(server) == each_once(3)
