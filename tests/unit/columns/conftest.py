# SPDX-License-Identifier: Apache-2.0
"""A PromptLayer with a sheet whose column uses a prompt."""

from __future__ import annotations

import pytest
from support.clocks import timed_by_polls
from support.columns import TABLE
from support.kinds import Serve

from airflow_provider_promptlayer.testing import LocalPromptLayer


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    return serve(timed_by_polls([], tables=[TABLE]))
