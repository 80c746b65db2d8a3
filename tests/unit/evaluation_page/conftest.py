# SPDX-License-Identifier: Apache-2.0
"""A local PromptLayer with what is judged."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.connections import connect
from support.evaluation_pages import (
    DASHBOARD,
    TABLE,
)

from airflow_provider_promptlayer.testing import (
    LocalPromptLayer,
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPromptLayer]:
    with LocalPromptLayer(tables=[TABLE]) as server:
        connect(server, monkeypatch, extra={"timeout": 60, "dashboard_url": DASHBOARD})
        yield server
