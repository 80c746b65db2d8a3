# SPDX-License-Identifier: Apache-2.0
"""Which Airflow a test needs. Where it is another one, what the test is about does not exist."""

from __future__ import annotations

from typing import Final

import pytest

from airflow_provider_promptlayer.version_compat import (
    HAS_ASSET_WATCHERS,
    STARTS_IN_TRIGGERER,
    TRIGGERS_HAVE_ON_KILL,
)
from dev.airflow_config import AIRFLOW_VERSION

HAS_TASK_STATE: Final = AIRFLOW_VERSION >= (3, 3)
HAS_RETRY_POLICIES: Final = AIRFLOW_VERSION >= (3, 3)

# docs/ending-and-clearing.md says what a user has to do on these versions: cancel in PromptLayer.
needs_on_kill = pytest.mark.skipif(
    not TRIGGERS_HAVE_ON_KILL,
    reason="before 3.3, Airflow does not tell a trigger that its task is ended",
)

# The tests of what a retry or a clear does without it run on every version.
needs_task_state = pytest.mark.skipif(
    not HAS_TASK_STATE, reason="before 3.3, Airflow keeps nothing from one try to the next"
)

# The sensor then warns and defers from a worker, which is tested on every version.
needs_start_in_triggerer = pytest.mark.skipif(
    not STARTS_IN_TRIGGERER, reason="before 3.3, Airflow starts no task in the triggerer"
)

# The provider refuses a watcher there when the DAG is parsed: watchers/test_events.py.
needs_watchers = pytest.mark.skipif(
    not HAS_ASSET_WATCHERS, reason="before 3.0, Airflow has no asset watchers"
)

# The operators decide alone there what is retried, which is tested on every version.
needs_retry_policies = pytest.mark.skipif(
    not HAS_RETRY_POLICIES, reason="before 3.3, Airflow has no retry policies"
)
