# SPDX-License-Identifier: Apache-2.0
"""PromptLayerVersionSensor: what ends the wait, in every mode, and what the wait rides out."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    TaskDeferred,
)
from support.clocks import passing_asleep
from support.kinds import Serve, workflow
from support.modes import Ending, FakeTaskInstance, Store, first_event, rebuilt, run_task

from airflow_provider_promptlayer.api.http import LARGE
from airflow_provider_promptlayer.exceptions import (
    PromptLayerConfigurationError,
    PromptLayerInvalidInputError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerVersionSensor
from airflow_provider_promptlayer.testing import Close, LocalPromptLayer, Prompt, Reply
from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerVersionEventTrigger
from airflow_provider_promptlayer.version_compat import HAS_TASK_STATE

MODES: dict[str, dict[str, Any]] = {
    "poke": {"deferrable": False, "mode": "poke"},
    "deferred": {"deferrable": True},
}
if HAS_TASK_STATE:
    MODES["reschedule"] = {"deferrable": False, "mode": "reschedule"}

every_mode = pytest.mark.parametrize("mode", MODES)
TARGETS: list[dict[str, Any]] = [{"prompt": "Reply"}, {"workflow": "good"}]
either = pytest.mark.parametrize("target", TARGETS, ids=["prompt", "workflow"])


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    """A prompt and a workflow with the versions 1 to 3, of which 2 is in production."""
    prompt = Prompt("Reply", latest_version=3, labels={"prod": 2, "dev": 3})
    server = serve(LocalPromptLayer([workflow("good")], prompts=[prompt]))
    server.add_version(workflow="good")
    server.add_version(workflow="good")
    server.move_label("prod", 2, workflow="good")
    return server


def wait(mode: str, store: Store | None = None, **arguments: Any) -> Ending:
    how = {"poke_interval": 0.02, "timeout": 20.0, **MODES[mode], **arguments}
    store = Store() if store is None and mode == "reschedule" else store
    context: dict[str, Any] = {} if store is None else {"task_state_store": store}
    return run_task(lambda: PromptLayerVersionSensor(task_id="task", **how), **context)


def at_poll(server: LocalPromptLayer, number: int, change: Callable[[], Any]) -> None:
    """Have a change come about right before the answer to a GET; the first has number 1."""
    polls = iter(range(1, 1_000_000))

    def answer(_: Any) -> None:
        if next(polls) == number:
            change()

    server.script(answer, times=None)


def test_defers_at_once(server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Airflow 3.3, a retry would begin with the version that it finds itself."""
    monkeypatch.delenv("AIRFLOW__PROMPTLAYER__DEFER_AFTER")
    passing_asleep(monkeypatch)
    began_at = time.time()
    task = PromptLayerVersionSensor(
        task_id="task", prompt="Reply", release_label="prod", poke_interval=2
    )
    with pytest.raises(TaskDeferred):
        task.execute({"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]
    assert time.time() == pytest.approx(began_at, abs=1e-3)


@every_mode
@either
class TestEveryMode:
    def test_until_a_label_moves(
        self, mode: str, target: dict[str, Any], server: LocalPromptLayer
    ) -> None:
        at_poll(server, 4, lambda: server.move_label("prod", 1, **target))
        ending = wait(mode, **target, release_label="prod")
        assert ending.kind == "success", ending
        assert ending.value == {"version": 1, "label": "prod", "previous_version": 2}
        assert server.count("GET") >= 4
        assert server.count() == server.count("GET")

    def test_until_there_is_a_newer_version(
        self, mode: str, target: dict[str, Any], server: LocalPromptLayer
    ) -> None:
        at_poll(server, 3, lambda: server.add_version(**target))
        ending = wait(mode, **target)
        assert ending.value == {"version": 4, "label": None, "previous_version": 3}, ending

    def test_newer_than(self, mode: str, target: dict[str, Any], server: LocalPromptLayer) -> None:
        at_poll(server, 2, lambda: server.move_label("prod", 1, **target))
        at_poll(server, 4, lambda: server.move_label("prod", 3, **target))
        ending = wait(mode, **target, release_label="prod", newer_than="2")
        assert ending.value == {"version": 3, "label": "prod", "previous_version": 2}, ending

    def test_what_is_newer_already_ends_the_wait_at_once(
        self, mode: str, target: dict[str, Any], server: LocalPromptLayer
    ) -> None:
        ending = wait(mode, **target, newer_than=0)
        assert ending.value == {"version": 3, "label": None, "previous_version": 0}, ending
        assert (server.count(), ending.worker_visits) == (1, 1)

    def test_a_new_label(self, mode: str, target: dict[str, Any], server: LocalPromptLayer) -> None:
        at_poll(server, 3, lambda: server.move_label("canary", 1, **target))
        ending = wait(mode, **target, release_label="canary")
        assert ending.value == {"version": 1, "label": "canary", "previous_version": None}, ending

    def test_time_is_up(self, mode: str, target: dict[str, Any], server: LocalPromptLayer) -> None:
        ending = wait(mode, **target, release_label="canary", timeout=0.1)
        assert ending.kind == "timeout", ending
        ((noun, name),) = target.items()
        assert f"Label 'canary' of {noun} {name!r} did not change within" in ending.message
        assert "there is none; labels: 'prod'" in ending.message
        assert "It is not watched any more." in ending.message

    def test_trouble_is_ridden_out(
        self, mode: str, target: dict[str, Any], server: LocalPromptLayer
    ) -> None:
        trouble = (
            Close(),
            Close(),  # as aiohttp sends a GET that got no answer a second time by itself
            Reply(429, "{}", {"Retry-After": "0"}),
            Reply(502, "<html>"),
            Reply(200, "<html>"),
            Reply(200, '{"success": true}'),
        )
        script = server.script(*trouble)
        ending = wait(mode, **target, release_label="prod", newer_than=1)
        assert ending.value == {"version": 2, "label": "prod", "previous_version": 1}, ending
        assert script.used == len(trouble)

    def test_every_request_asks_for_a_fresh_answer(
        self, mode: str, target: dict[str, Any], server: LocalPromptLayer
    ) -> None:
        at_poll(server, 3, lambda: server.add_version(**target))
        wait(mode, **target)
        assert {each.headers.get("cache-control") for each in server.requests} == {"no-cache"}

    def test_what_is_not_there_is_an_error_at_once(
        self, mode: str, target: dict[str, Any], server: LocalPromptLayer
    ) -> None:
        nothing: dict[str, Any] = dict.fromkeys(target, "Nothing")
        ending = wait(mode, **nothing, release_label="prod", newer_than=1)
        assert ending.kind == "failed for good", ending
        assert "'Nothing'" in ending.message
        assert "404" in ending.message
        assert server.count() == 1


@either
def test_an_outage_has_an_end(target: dict[str, Any], server: LocalPromptLayer) -> None:
    server.script(Reply(503), times=None)
    assert wait("poke", **target, max_outage=0.1).kind == "failed"


@every_mode
def test_a_large_answer_is_read_in_the_triggerer(mode: str, server: LocalPromptLayer) -> None:
    """Else the wait would go to a worker and back at each poll."""

    def grown(request: Any) -> Reply | None:
        version = 3 if len(polls) < 6 else 4
        polls.append(request)
        described = {"id": 1, "version": version, "prompt_template": "x" * LARGE}
        return Reply.of_json({"success": True, **described})

    polls: list[Any] = []
    server.script(grown, times=None)
    ending = wait(mode, prompt="Reply")
    assert ending.value == {"version": 4, "label": None, "previous_version": 3}, ending
    assert ending.worker_visits == {"poke": 1, "deferred": 2, "reschedule": 6}[mode]


@pytest.mark.skipif(not HAS_TASK_STATE, reason="Airflow has no task state store")
class TestTries:
    def begin(self, store: Store, ti: FakeTaskInstance | None = None) -> Ending:
        sensor: dict[str, Any] = {
            "prompt": "Reply",
            "release_label": "prod",
            "poke_interval": 0.02,
            "timeout": 0.05,
        }
        return run_task(
            lambda: PromptLayerVersionSensor(task_id="task", deferrable=False, **sensor),
            ti,
            task_state_store=store,
        )

    def test_a_retry_goes_on_with_the_version_before(self, server: LocalPromptLayer) -> None:
        store = Store()
        assert self.begin(store).kind == "timeout"
        server.move_label("prod", 3, prompt="Reply")
        ending = self.begin(store, FakeTaskInstance(try_number=2))
        assert ending.value == {"version": 3, "label": "prod", "previous_version": 2}, ending

    def test_a_retry_at_another_promptlayer(self, server: LocalPromptLayer, serve: Serve) -> None:
        """There the label of the same name leads to another version, and was not moved."""
        store = Store()
        self.begin(store)
        prompt = Prompt("Reply", latest_version=9, labels={"prod": 9})
        serve(LocalPromptLayer([], prompts=[prompt]))
        ending = self.begin(store, FakeTaskInstance(try_number=2))
        assert isinstance(ending.error, PromptLayerConfigurationError)
        assert f"was started at {server.url}" in ending.message

    def test_a_clear_begins_anew(self, server: LocalPromptLayer) -> None:
        store = Store()
        self.begin(store)
        server.move_label("prod", 3, prompt="Reply")
        cleared = FakeTaskInstance(try_number=2, max_tries=1)
        assert self.begin(store, cleared).kind == "timeout"

    def test_another_label_begins_anew(self, server: LocalPromptLayer) -> None:
        store = Store()
        self.begin(store)
        assert (
            wait("poke", store, prompt="Reply", release_label="dev", timeout=0.05).kind == "timeout"
        )


@either
class TestHook:
    def test_until_a_label_moves(
        self, target: dict[str, Any], server: LocalPromptLayer, ask: Callable[..., Any]
    ) -> None:
        at_poll(server, 4, lambda: server.move_label("prod", 1, **target))
        how: dict[str, Any] = {"release_label": "prod", "timeout": 20.0, "poke_interval": 0.02}
        assert ask("wait_for_version", **target, **how).version == 1
        assert server.count("GET") == 4

    def test_newer_than(
        self, target: dict[str, Any], server: LocalPromptLayer, ask: Callable[..., Any]
    ) -> None:
        assert ask("wait_for_version", **target, newer_than=2, timeout=20.0).version == 3
        with pytest.raises(PromptLayerWaitTimeoutError, match="did not change within"):
            ask("wait_for_version", **target, timeout=0.05, poke_interval=0.02)


def test_resumed_with_the_event_alone(server: LocalPromptLayer) -> None:
    """As ``dag.test()`` resumes a task: the version before is in XCom."""
    ti = FakeTaskInstance()
    context: Any = {"ti": ti, "run_id": ti.run_id}
    sensor = PromptLayerVersionSensor(task_id="task", prompt="Reply", poke_interval=0.02)
    with pytest.raises(BaseException) as deferral:  # noqa: PT011  # another class in each Airflow
        sensor.execute(context)
    server.add_version(prompt="Reply")
    event = asyncio.run(first_event(rebuilt(deferral.value.trigger)))  # type: ignore[attr-defined]
    sensor = PromptLayerVersionSensor(task_id="task", prompt="Reply", poke_interval=0.02)
    result = sensor.execute_complete(context, json.loads(json.dumps(event.payload)))
    assert result == {"version": 4, "label": None, "previous_version": 3}


def test_poked_by_hand(server: LocalPromptLayer) -> None:
    context: Any = {"ti": FakeTaskInstance()}
    sensor = PromptLayerVersionSensor(task_id="task", prompt="Reply", release_label="prod")
    assert not sensor.poke(context).is_done
    server.move_label("prod", 3, prompt="Reply")
    poked = sensor.poke(context)
    assert poked.is_done
    assert poked.xcom_value == {"version": 3, "label": "prod", "previous_version": 2}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "Give one of prompt and workflow"),
        ({"prompt": "Reply", "workflow": "good"}, "not both"),
        ({"prompt": " "}, "prompt is empty: give a prompt's name or id"),
        ({"workflow": "good", "release_label": ""}, "release_label must be a text"),
        ({"workflow": "good", "newer_than": "new"}, "newer_than must be the number of a version"),
        ({"workflow": "good", "newer_than": True}, "newer_than must be the number of a version"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], says: str, server: LocalPromptLayer) -> None:
    context: Any = {"ti": FakeTaskInstance()}
    with pytest.raises((PromptLayerInvalidInputError, AirflowFailException), match=says):
        PromptLayerVersionSensor(task_id="task", **arguments).execute(context)
    assert server.count() == 0


@pytest.mark.parametrize("name", ["prompt", "release_label", "newer_than"])
def test_an_argument_without_a_value(name: str, server: LocalPromptLayer) -> None:
    """Rendered from an output that is missing, it must not count as left out."""
    given: dict[str, Any] = {"prompt": "Reply", "release_label": "prod", "newer_than": "1"}
    sensor = PromptLayerVersionSensor(task_id="task", **given)
    setattr(sensor, name, None)
    context: Any = {"ti": FakeTaskInstance()}
    with pytest.raises(AirflowException, match=f"{name} is None"):
        sensor.execute(context)
    assert server.count() == 0


def test_reschedule_needs_a_version_where_there_is_no_task_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("airflow_provider_promptlayer.version_compat.HAS_TASK_STATE", False)
    how: Any = {"task_id": "task", "prompt": "Reply", "deferrable": False, "mode": "reschedule"}
    with pytest.raises(PromptLayerInvalidInputError, match="give newer_than"):
        PromptLayerVersionSensor(**how)
    PromptLayerVersionSensor(**how, newer_than=0)


def test_airflow_2_has_no_watchers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_promptlayer.version_compat.HAS_ASSET_WATCHERS", False)
    with pytest.raises(PromptLayerConfigurationError, match="Use PromptLayerVersionSensor here"):
        PromptLayerVersionEventTrigger(prompt="Reply")
