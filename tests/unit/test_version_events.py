# SPDX-License-Identifier: Apache-2.0
"""PromptLayerVersionEventTrigger in Airflow's own triggerer loop: which events reach Airflow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, TypeAlias

import pytest
from support.kinds import Serve, workflow
from support.modes import rebuilt
from support.triggerer import Triggerer, until

from airflow_provider_promptlayer.exceptions import (
    PromptLayerInvalidInputError,
)
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.testing import LocalPromptLayer, Prompt, Reply
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


class AssetState(dict[str, Any]):
    """The state of an asset: what is in it has been through JSON."""

    fails = 0

    async def aget(self, key: str, default: Any = None) -> Any:
        await self._pause()
        return self.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        await self._pause()
        self[key] = json.loads(json.dumps(value))

    async def _pause(self) -> None:
        await asyncio.sleep(0)
        if self.fails:
            self.fails -= 1
            raise RuntimeError("no answer")


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    """A prompt and a workflow with the versions 1 to 3, of which 2 is in production."""
    prompt = Prompt("Reply", latest_version=3, labels={"prod": 2, "dev": 3})
    server = serve(LocalPromptLayer([workflow("good")], prompts=[prompt]))
    for _ in range(2):
        server.add_version(workflow="good")
    server.move_label("prod", 2, workflow="good")
    return server


@pytest.fixture(autouse=True)
def brief_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "CLAIM_SETTLES", 0.02)
    monkeypatch.setattr(seen, "STORED_AFTER", 0.02)


def watcher(state: AssetState | None = None, **arguments: Any) -> Any:
    """Return a watcher as another process would make it from the database."""
    trigger = rebuilt(PromptLayerVersionEventTrigger(**{"poke_interval": 0.02, **arguments}))
    trigger.asset_state_store = state
    return trigger


class Running:
    """Watchers that run in Airflow's loop."""

    def __init__(self, server: LocalPromptLayer, *watchers: Any) -> None:
        self._server, self._watchers = server, watchers
        self.triggerer = Triggerer()

    async def __aenter__(self) -> Running:
        self.triggerer.run(*self._watchers)
        await self.polls()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.triggerer.kill()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The payloads of the events so far."""
        return self.triggerer.payloads

    async def polls(self, number: int = 3) -> None:
        """Wait for so many more polls, so that what the ones before have found is known."""
        wanted = self._server.count("GET") + number
        await until(lambda: self._server.count("GET") >= wanted)
        await asyncio.sleep(0.1)

    async def versions(self, *expected: int) -> None:
        """Wait until events have come, and see that no others do."""
        await until(lambda: len(self.events) >= len(expected))
        await self.polls()
        assert [event["version"] for event in self.events] == list(expected)


Scenario: TypeAlias = Callable[[], Awaitable[None]]


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


PROD: dict[str, Any] = {"prompt": "Reply", "release_label": "prod"}


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


@pytest.mark.parametrize("ignore_own", [True, False])
def test_a_promotion_of_our_own(ignore_own: bool, server: LocalPromptLayer) -> None:
    """It is not reported, though it makes a new version; one of a person after it is."""

    async def scenario() -> None:
        own = {"workflow": "good", "release_label": "prod", "ignore_own": ignore_own}
        async with Running(server, watcher(AssetState(), **own)) as running:
            made = await PromptLayerHook().apromote(
                workflow="good", version=3, release_label="prod"
            )
            await running.versions(*([] if ignore_own else [made.version]))
            server.move_label("prod", 1, workflow="good")
            await running.versions(*([] if ignore_own else [made.version]), 1)
            assert running.events[-1]["previous_version"] == made.version

    asyncio.run(scenario())


@pytest.mark.parametrize("has_state", [True, False])
def test_a_person_moves_a_label_to_a_copy_of_our_own(
    has_state: bool, server: LocalPromptLayer
) -> None:
    """One that was promoted before, and one that was made for another label, are reported."""

    async def scenario() -> None:
        hook, state = PromptLayerHook(), AssetState() if has_state else None
        watched = {"workflow": "good", "release_label": "prod"}
        async with Running(server, watcher(state, **watched)) as running:
            for _ in range(2):  # the second one promotes a copy of a copy
                made = await hook.apromote(workflow="good", version=3, release_label="prod")
                await running.versions()
                made = await hook.apromote(workflow="good", version=1, release_label="prod")
                await running.versions()
            server.move_label("prod", made.version - 1, workflow="good")
            await running.versions(made.version - 1)
            server.move_label("prod", made.version, workflow="good")
            await running.versions(made.version - 1, made.version)
            other = await hook.apromote(workflow="good", version=2, release_label="canary")
            server.move_label("prod", other.version, workflow="good")
            await running.versions(made.version - 1, made.version, other.version)

    asyncio.run(scenario())


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_version_below_a_copy_of_our_own(is_deleted: bool, server: LocalPromptLayer) -> None:
    """A person saved version 4, promotions made copies 5 and 6 (or one is gone since): 4 counts."""

    def deleted(request: Any) -> Reply | None:
        is_it = is_deleted and request.query.get("version") == "5"
        return Reply(404, '{"success": false, "message": "not found"}') if is_it else None

    async def scenario() -> None:
        state = AssetState()
        async with Running(server, watcher(state, workflow="good")):
            pass
        server.add_version(workflow="good")
        for label in ("prod", "canary"):
            made = await PromptLayerHook().apromote(workflow="good", version=1, release_label=label)
        assert made.version == 6
        server.script(deleted, times=None)
        async with Running(server, watcher(state, workflow="good")) as running:
            await running.versions(4)
            assert running.events[0]["previous_version"] == 3
        async with Running(server, watcher(state, workflow="good")) as running:
            await running.versions()

    asyncio.run(scenario())


def test_an_asset_with_watchers_that_differ_in_their_connection(
    server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one has seen is not what the other has: two workspaces with a prompt of one name."""

    async def scenario() -> None:
        state = AssetState()
        labels = {"prod": 3}
        with LocalPromptLayer(prompts=[Prompt("Reply", latest_version=3, labels=labels)]) as other:
            monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEV", other.airflow_connection_json)
            for where, polled in (("dev", other), ("default", server), ("dev", other)):
                it = watcher(state, **PROD, promptlayer_conn_id=f"promptlayer_{where}")
                async with Running(polled, it) as running:
                    await running.versions()

    asyncio.run(scenario())


def test_an_asset_with_watchers_that_differ_in_ignore_own(server: LocalPromptLayer) -> None:
    """The one that ignores a copy of our own takes no event from the other."""

    async def scenario() -> None:
        state = AssetState()
        watched = {"workflow": "good", "release_label": "prod"}
        async with Running(server, watcher(state, **watched, ignore_own=False)):
            pass
        async with Running(server, watcher(state, **watched)) as running:
            made = await PromptLayerHook().apromote(
                workflow="good", version=3, release_label="prod"
            )
            await running.versions()
        async with Running(server, watcher(state, **watched, ignore_own=False)) as running:
            await running.versions(made.version)

    asyncio.run(scenario())


# Before 3.3 a triggerer has nothing that several triggers share, so each watcher polls.
@pytest.mark.skipif(
    not hasattr(PromptLayerVersionEventTrigger.__base__, "shared_stream_key"),
    reason="no triggers share a stream before Airflow 3.3",
)
def test_watchers_share_a_poll(server: LocalPromptLayer) -> None:
    async def scenario() -> None:
        labels = [f"label {number}" for number in range(20)]
        watchers = [
            watcher(AssetState(), prompt="Reply", release_label=label, poke_interval=0.1)
            for label in labels
        ]
        async with Running(server, *watchers) as running:
            polls = server.count("GET")
            for label in labels:
                server.move_label(label, 1, prompt="Reply")
            await until(lambda: len(running.events) == len(labels))
            assert {event["label"] for event in running.events} == set(labels)
            assert server.count("GET") - polls < len(labels)

    asyncio.run(scenario())


def test_a_poll_that_finds_nothing_new_reaches_no_watcher(server: LocalPromptLayer) -> None:
    """Airflow wakes each watcher for each item of the shared stream."""

    async def scenario() -> None:
        kwargs = watcher(**PROD).serialize()[1]
        stream: Any = PromptLayerVersionEventTrigger.open_shared_stream(kwargs)
        assert (await anext(stream))["prod"] == 2
        following = asyncio.create_task(anext(stream))
        polls = server.count("GET")
        await until(lambda: server.count("GET") >= polls + 5)
        assert not following.done()
        server.move_label("prod", 3, prompt="Reply")
        assert (await following)["prod"] == 3
        await stream.aclose()

    asyncio.run(scenario())


def test_a_watcher_that_joins_the_others_later(server: LocalPromptLayer) -> None:
    """It gets what they have seen with the next poll, though nothing has moved since."""

    async def scenario() -> None:
        state = AssetState()
        async with Running(server, watcher(state, **PROD)):
            pass
        server.move_label("prod", 3, prompt="Reply")
        dev = watcher(AssetState(), prompt="Reply", release_label="dev")
        async with Running(server, dev) as running:
            running.triggerer.run(watcher(state, **PROD))
            await running.versions(3)

    asyncio.run(scenario())


def test_watchers_keep_their_connections_between_polls(server: LocalPromptLayer) -> None:
    async def scenario() -> None:
        async with Running(server, watcher(AssetState(), **PROD)) as running:
            made = server.connections_made
            await running.polls(5)
            assert server.connections_made == made

    asyncio.run(scenario())


def test_trouble_never_ends_a_watcher(server: LocalPromptLayer) -> None:
    async def scenario() -> None:
        state = AssetState()
        server.script(Reply(503), Reply(401), Reply(404), Reply(429), Reply(200, "<html>"))
        async with Running(server, watcher(state, **PROD)) as running:
            await running.polls(6)
            state.fails = 2
            server.move_label("prod", 3, prompt="Reply")
            await running.versions(3)

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
