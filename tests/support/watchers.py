# SPDX-License-Identifier: Apache-2.0
"""Watchers in Airflow's own triggerer loop, and the state of an asset."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from airflow_provider_promptlayer.testing import LocalPromptLayer
from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerVersionEventTrigger
from support.modes import rebuilt
from support.triggerer import Triggerer, until

PROD: dict[str, Any] = {"prompt": "Reply", "release_label": "prod"}


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
