# SPDX-License-Identifier: Apache-2.0
"""Promotions that take long, or several tries: the label is read again before each request."""

from __future__ import annotations

from typing import Any

import pytest
from support.kinds import Serve
from support.modes import Store
from support.promotions import (
    PROMPT,
    WORKFLOW,
    after_request,
    changes,
    moved_to,
    new_server,
    promote,
)

from airflow_provider_promptlayer.exceptions import PromptLayerLabelMovedError
from airflow_provider_promptlayer.testing import LocalPromptLayer, Reply


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    return serve(new_server())


@pytest.fixture(params=[PROMPT, WORKFLOW], ids=["prompt", "workflow"])
def which(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Whose label is promoted."""
    found: dict[str, Any] = request.param
    return found


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("to", [1, None, 5], ids=["moved", "not moved", "moved there"])
def test_moved_while_a_request_was_refused(
    server: LocalPromptLayer, which: dict[str, Any], status: int, to: int | None
) -> None:
    """The label is read again before the request is sent again, however often."""
    server.script(Reply(status, "{}", {"Retry-After": "0"}), method="PATCH", times=2)
    if to is not None:
        after_request(server, lambda: server.move_label("prod", to, **which))
    ending = promote(expected_version=3, **which)
    if to == 1:
        assert isinstance(ending.error, PromptLayerLabelMovedError)
        assert "leads to version 1, so it was moved since this task has read it" in (ending.message)
        assert server.labels(**which)["prod"] == 1
        assert server.count("PATCH") == 1
    else:
        version = 5 if to == 5 else moved_to(which)
        assert ending.value == {"label": "prod", "version": version, "previous_version": 3}
        assert server.labels(**which)["prod"] == version
        assert server.count("PATCH") == (1 if to == 5 else 3)


def test_moved_while_the_task_state_was_written(
    server: LocalPromptLayer, which: dict[str, Any]
) -> None:
    class SlowStore(Store):
        def set(self, key: str, value: Any) -> None:
            super().set(key, value)
            server.move_label("prod", 1, **which)

    ending = promote(SlowStore(), **which)
    assert isinstance(ending.error, PromptLayerLabelMovedError)
    assert server.labels(**which)["prod"] == 1
    assert changes(server) == 0
