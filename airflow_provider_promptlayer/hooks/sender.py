# SPDX-License-Identifier: Apache-2.0
"""How the requests of one wait go out from an event loop, over a pool that all its waits share."""

from __future__ import annotations

import asyncio
import math
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_promptlayer.api.errors import (
    PromptLayerAnswerTooLargeError,
    PromptLayerAuthError,
    PromptLayerUnreachableError,
)
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.polling.poller import Poller

if TYPE_CHECKING:
    from airflow_provider_promptlayer.hooks.base import PromptLayerConnectionHook
    from airflow_provider_promptlayer.transport.aio import AsyncTransport

T = TypeVar("T")

_aio: ModuleType | None = None
"""The asynchronous transport, once it is imported."""


class Sender:
    """Sends the calls of one wait, one at a time: ``async with`` it.

    Holds the pool of connections that all waits of an event loop share, and takes another one when
    the Airflow connection has changed. No generator and no closure, as thousands of waits hold one
    each.
    """

    __slots__ = ("_poller", "_shared", "_transport", "hook")

    def __init__(self, hook: PromptLayerConnectionHook, poller: Poller | None) -> None:
        self.hook = hook
        self._poller = poller

    async def __aenter__(self) -> Sender:
        global _aio
        if _aio is None:  # aiohttp takes tenths of a second to import: not on the event loop
            _aio = await asyncio.to_thread(
                import_module, "airflow_provider_promptlayer.transport.aio"
            )
        shared = _aio.SharedTransport.of(await self.hook.aget_settings())
        self._transport: AsyncTransport = await shared.__aenter__()
        self._shared = shared
        if self._poller is not None:
            self._poller.throttle = self.hook._throttle()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._shared.__aexit__()

    async def __call__(self, call: Call[T]) -> T:
        """Do what :meth:`.PromptLayerConnectionHook.call` does, without blocking the event loop.

        The call ends no later than the connection's ``timeout`` after the poller's deadline,
        however many other calls queue.
        """
        hook, used = self.hook, self._transport.settings
        if used is not hook.settings and used != hook.settings:
            await self._change_pool()
        try:
            return await self._send(call)
        except (PromptLayerAuthError, PromptLayerUnreachableError) as error:
            if not await hook._ahas_changed(error, self._transport.settings):
                raise
        await self._change_pool()
        return await self._send(call)

    async def _change_pool(self) -> None:
        before = self._shared
        await self.__aenter__()
        await before.__aexit__()

    async def _send(self, call: Call[T]) -> T:
        hook, transport, poller = self.hook, self._transport, self._poller
        hook._refuse_if_stopping(call)
        try:
            response = await transport.send(
                call.request,
                hook._origin(transport.settings),
                wanted_until=math.inf if poller is None else poller.last_deadline,
            )
        except (PromptLayerUnreachableError, PromptLayerAnswerTooLargeError) as error:
            raise call.unanswered(error) from None
        if response.is_slow_to_parse:
            return await asyncio.to_thread(hook._read, call, response)
        return hook._read(call, response)
