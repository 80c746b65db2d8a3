# SPDX-License-Identifier: Apache-2.0
"""PromptLayerVersionEventTrigger in Airflow's own triggerer loop: which events reach Airflow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from support.modes import rebuilt
from support.triggerer import until
from support.watchers import PROD, AssetState, Running, watcher

from airflow_provider_promptlayer.exceptions import (
    PromptLayerInvalidInputError,
)
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.polling.poller import DEFAULT_MAX_OUTAGE
from airflow_provider_promptlayer.testing import LocalPromptLayer, Reply
from airflow_provider_promptlayer.triggers import seen
from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerVersionEventTrigger
from airflow_provider_promptlayer.version_compat import (
    HAS_ASSET_WATCHERS,
    HAS_TASK_STATE,
    asset_state,
)

pytestmark = pytest.mark.skipif(not HAS_ASSET_WATCHERS, reason="Airflow 2 has no watchers")

TARGETS: list[dict[str, Any]] = [{"prompt": "Reply"}, {"workflow": "good"}]
either = pytest.mark.parametrize("target", TARGETS, ids=["prompt", "workflow"])


@either
@pytest.mark.parametrize("state", [AssetState(), None], ids=["state", "no state"])
class TestEvents:
    def test_a_move_of_a_label(
        self, state: AssetState | None, target: dict[str, Any], server: LocalPromptLayer
    ) -> None:
        async def scenario() -> None:
            it = watcher(None if state is None else AssetState(), **target, release_label="prod")
            async with Running(server, it) as running:
                assert running.events == []
                server.move_label("prod", 3, **target)
                await running.versions(3)
                server.move_label("prod", 1, **target)
                await running.versions(3, 1)
                first, second = running.events
                more = {**target, "label": "prod"}
                assert first == {"version": 3, "previous_version": 2, **more}
                assert second == {"version": 1, "previous_version": 3, **more}

        asyncio.run(scenario())

    def test_a_newer_version(
        self, state: AssetState | None, target: dict[str, Any], server: LocalPromptLayer
    ) -> None:
        async def scenario() -> None:
            it = watcher(None if state is None else AssetState(), **target)
            async with Running(server, it) as running:
                server.add_version(**target)
                await running.versions(4)

        asyncio.run(scenario())

    def test_a_new_label(
        self, state: AssetState | None, target: dict[str, Any], server: LocalPromptLayer
    ) -> None:
        async def scenario() -> None:
            store = None if state is None else AssetState()
            it = watcher(store, **target, release_label="canary")
            async with Running(server, it) as running:
                server.move_label("canary", 2, **target)
                await running.versions(2)
                assert running.events[0]["previous_version"] is None

        asyncio.run(scenario())


def test_ten_moves_while_no_triggerer_runs(server: LocalPromptLayer) -> None:
    async def scenario() -> None:
        state = AssetState()
        async with Running(server, watcher(state, **PROD)) as running:
            server.move_label("prod", 3, prompt="Reply")
            await running.versions(3)
        for number in range(10):
            server.add_version(prompt="Reply")
            server.move_label("prod", 4 + number, prompt="Reply")
        async with Running(server, watcher(state, **PROD)) as running:
            await running.versions(13)
            assert running.events[0]["previous_version"] == 3
        async with Running(server, watcher(state, **PROD)) as running:
            await running.versions()  # no event is reported again

    asyncio.run(scenario())


def test_a_state_that_airflow_forgets_while_the_watcher_runs(server: LocalPromptLayer) -> None:
    """Airflow does so where no DAG file mentions the asset for a while, such as during a deploy."""

    async def scenario() -> None:
        state = AssetState()
        async with Running(server, watcher(state, **PROD)) as running:
            state.clear()
            server.move_label("prod", 3, prompt="Reply")
            await running.versions(3)
            assert running.events[0]["previous_version"] == 2

    asyncio.run(scenario())


def test_without_a_state_a_restart_watches_from_then_on(server: LocalPromptLayer) -> None:
    async def scenario() -> None:
        async with Running(server, watcher(**PROD)):
            pass
        server.move_label("prod", 3, prompt="Reply")
        async with Running(server, watcher(**PROD)) as running:
            await running.versions()

    asyncio.run(scenario())


def test_two_triggerers_with_the_same_watcher(server: LocalPromptLayer) -> None:
    async def scenario() -> None:
        state = AssetState()
        async with (
            Running(server, watcher(state, **PROD)) as one,
            Running(server, watcher(state, **PROD)) as other,
        ):
            for version in (3, 1, 2):
                server.move_label("prod", version, prompt="Reply")
                await one.polls(6)
            events = [event["version"] for event in (*one.events, *other.events)]
            assert sorted(events) == [1, 2, 3]

    asyncio.run(scenario())


def test_two_triggerers_that_claim_an_event_at_once(server: LocalPromptLayer) -> None:
    """Both read that there is no claim before either writes its own."""

    class Together(AssetState):
        reads = 2  # as both note what is there when they begin

        async def aget(self, key: str, default: Any = None) -> Any:
            found = await super().aget(key, default)
            if self.reads < 2:
                self.reads += 1
                await until(lambda: self.reads == 2)
            return found

    async def scenario() -> None:
        state = Together()
        async with (
            Running(server, watcher(state, **PROD)) as one,
            Running(server, watcher(state, **PROD)) as other,
        ):
            state.reads = 0
            server.move_label("prod", 3, prompt="Reply")
            await until(lambda: state.reads == 2)
            await one.polls(6)
            assert [event["version"] for event in (*one.events, *other.events)] == [3]

    asyncio.run(scenario())


def test_a_move_that_another_triggerer_sees_while_an_event_is_stored(
    server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported once, after the event before it, and says so."""

    async def scenario() -> None:
        state = AssetState()
        monkeypatch.setattr(seen, "STORED_AFTER", 1.0)
        async with (
            Running(server, watcher(state, **PROD)) as one,
            Running(server, watcher(state, **PROD)) as other,
        ):
            server.move_label("prod", 3, prompt="Reply")
            await until(lambda: len(one.events + other.events) == 1)
            server.move_label("prod", 1, prompt="Reply")
            await until(lambda: len(one.events + other.events) == 2)
            await asyncio.sleep(2.5)  # both triggerers have noted what they have reported
            events = sorted(one.events + other.events, key=lambda event: event["version"])
            versions = [(event["previous_version"], event["version"]) for event in events]
            assert versions == [(3, 1), (2, 3)]

    asyncio.run(scenario())


def test_a_triggerer_that_dies_before_airflow_has_stored_the_event(
    server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event is reported again, once the claim of the one that died counts no more."""

    async def scenario() -> None:
        state = AssetState()
        monkeypatch.setattr(seen, "STORED_AFTER", 60.0)
        async with Running(server, watcher(state, **PROD)) as running:
            server.move_label("prod", 3, prompt="Reply")
            await until(lambda: len(running.events) == 1)
        monkeypatch.setattr(seen, "STORED_AFTER", 0.0)
        async with Running(server, watcher(state, **PROD)) as running:
            await running.versions()
            monkeypatch.setattr(seen, "CLAIM_HOLDS", 0.0)
            await running.versions(3)

    asyncio.run(scenario())


@pytest.mark.parametrize("pause", ["CLAIM_SETTLES", "STORED_AFTER"], ids=["before", "after"])
def test_a_watcher_that_is_handed_over_right_before_or_after_its_event(
    pause: str, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other triggerer need not wait until the claim counts no more, and repeats no event."""

    async def scenario() -> None:
        state = AssetState()

        def is_claimed() -> bool:
            (record,) = state.values()
            return record["claimed"] is not None

        with monkeypatch.context() as patch:
            patch.setattr(seen, pause, 2.0)
            async with Running(server, watcher(state, **PROD)) as one:
                server.move_label("prod", 3, prompt="Reply")
                await until(lambda: is_claimed() and bool(one.events) == (pause == "STORED_AFTER"))
        async with Running(server, watcher(state, **PROD)) as other:
            await until(lambda: bool(one.events + other.events) and not is_claimed())
            server.move_label("prod", 1, prompt="Reply")
            await until(lambda: len(one.events + other.events) == 2)
            await other.polls()
            events = one.events + other.events
            assert [(each["previous_version"], each["version"]) for each in events] == [
                (2, 3),
                (3, 1),
            ]

    asyncio.run(scenario())


def test_trouble_never_ends_a_watcher(server: LocalPromptLayer, log: Callable[[], str]) -> None:
    async def scenario() -> None:
        state = AssetState()
        server.script(Reply(503), Reply(401), Reply(404), Reply(429), Reply(200, "<html>"))
        async with Running(server, watcher(state, **PROD)) as running:
            await running.polls(6)
            state.fails = 2
            server.move_label("prod", 3, prompt="Reply")
            await running.versions(3)
        assert log().count("The asset's state cannot be used") == 1

    asyncio.run(scenario())


def test_a_watcher_holds_up_no_wait_for_longer_than_an_outage(server: LocalPromptLayer) -> None:
    """All waits of a triggerer on one connection share the pause after a 429."""

    async def scenario() -> None:
        server.script(Reply(429, headers={"Retry-After": "86400"}), after=3, method="GET")
        async with Running(server, watcher(AssetState(), **PROD)):
            hook = PromptLayerHook()
            await hook.aget_settings()
            await until(lambda: hook.throttle.remaining(now=time.time()) > 0)
            assert hook.throttle.remaining(now=time.time()) <= DEFAULT_MAX_OUTAGE

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "Give one of prompt and workflow"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": "Reply", "release_label": ""}, "release_label must be a text"),
        ({"prompt": "Reply", "poke_interval": 0}, "poke_interval must be a number of seconds"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match=says):
        PromptLayerVersionEventTrigger(**arguments)


def test_in_a_dag(server: LocalPromptLayer) -> None:
    """Airflow stores the watcher, and makes it anew from what it has stored."""
    from airflow.sdk import Asset, AssetWatcher

    try:
        from airflow.serialization.encoders import encode_trigger
    except ImportError:  # Airflow 3.0
        module = import_module("airflow.serialization.serialized_objects")
        encode_trigger = module._encode_trigger

    trigger = PromptLayerVersionEventTrigger(**PROD)
    Asset("promptlayer_prod", watchers=[AssetWatcher(name="prod", trigger=trigger)])
    stored = encode_trigger(trigger)
    assert stored["classpath"].endswith(".PromptLayerVersionEventTrigger")
    assert rebuilt(trigger).serialize() == trigger.serialize()


@pytest.mark.skipif(not HAS_TASK_STATE, reason="Airflow keeps no state of assets")
def test_the_state_of_the_asset_that_airflow_hands_over() -> None:
    """Where several assets have the same watcher, Airflow's shortcut to the state refuses."""
    from airflow.sdk import Asset
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

    it = watcher(**PROD)
    assert asset_state(it) is None
    it.asset_state_store = AssetStateStoreAccessors(inlets=[Asset("b"), Asset("a")])
    assert asset_state(it) == it.asset_state_store[Asset("a")]
