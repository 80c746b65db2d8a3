# SPDX-License-Identifier: Apache-2.0
"""A PromptLayer whose prompt and workflow have release labels."""

from __future__ import annotations

from typing import Any

import pytest
from support.kinds import Serve
from support.promotions import PROMPT, WORKFLOW, new_server

from airflow_provider_promptlayer.testing import LocalPromptLayer


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    return serve(new_server())


@pytest.fixture(params=[PROMPT, WORKFLOW], ids=["prompt", "workflow"])
def which(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Whose label is promoted."""
    found: dict[str, Any] = request.param
    return found
