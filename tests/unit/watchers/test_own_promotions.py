# SPDX-License-Identifier: Apache-2.0
"""Which versions a watcher reports where a promotion of our own has made copies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.watchers import PROD, AssetState, Running, watcher

from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.testing import LocalPromptLayer, Prompt, Reply
from airflow_provider_promptlayer.version_compat import (
    HAS_ASSET_WATCHERS,
)

pytestmark = pytest.mark.skipif(not HAS_ASSET_WATCHERS, reason="Airflow 2 has no watchers")


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
