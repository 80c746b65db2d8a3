# SPDX-License-Identifier: Apache-2.0
"""How watchers of one prompt or workflow share the polls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.triggerer import until
from support.watchers import PROD, AssetState, Running, watcher

from airflow_provider_promptlayer.testing import LocalPromptLayer
from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerVersionEventTrigger
from airflow_provider_promptlayer.version_compat import (
    HAS_ASSET_WATCHERS,
)

pytestmark = pytest.mark.skipif(not HAS_ASSET_WATCHERS, reason="Airflow 2 has no watchers")


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
