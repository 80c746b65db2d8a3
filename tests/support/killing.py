# SPDX-License-Identifier: Apache-2.0
"""A worker that dies at one of its requests."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_promptlayer.hooks.base import PromptLayerConnectionHook


class Killed(BaseException):
    """The worker is gone."""


def kill_at(patch: pytest.MonkeyPatch, number: int, *, after: bool) -> None:
    """Kill the worker at its nth request: before it is sent, or once it is answered."""
    send, sent = PromptLayerConnectionHook._call_once, [0]

    def dying(hook: Any, call: Any, over: Any) -> Any:
        sent[0] += 1
        if sent[0] >= number + after:
            raise Killed
        answer = send(hook, call, over)
        if sent[0] >= number:
            raise Killed
        return answer

    patch.setattr(PromptLayerConnectionHook, "_call_once", dying)
