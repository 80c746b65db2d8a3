# SPDX-License-Identifier: Apache-2.0
"""A PromptLayer whose prompt and workflow have release labels, and watchers that pause briefly."""

from __future__ import annotations

import pytest
from support.kinds import Serve, workflow

from airflow_provider_promptlayer.testing import LocalPromptLayer, Prompt
from airflow_provider_promptlayer.triggers import seen


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
