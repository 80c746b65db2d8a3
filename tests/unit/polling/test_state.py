# SPDX-License-Identifier: Apache-2.0
"""The state that a task leaves for the process that continues its wait."""

from __future__ import annotations

import pytest

from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.exceptions import PromptLayerEventError
from airflow_provider_promptlayer.polling.state import PollState

LEFT = 1_000.0
"""When the worker deferred, and could not ask."""


@pytest.mark.parametrize("poke_interval", [10.0, 7_200.0])
@pytest.mark.parametrize(("polled_for", "goes_on"), [(5.0, True), (3_600.0, False)])
def test_a_workers_outage_ends_where_the_triggerer_was_answered_for_long(
    poke_interval: float, polled_for: float, goes_on: bool
) -> None:
    state = PollState(
        WorkflowRun(7),
        LEFT,
        LEFT + 86_400.0,
        fetch_outage_since=LEFT,
        next_poll_at=LEFT + poke_interval,
    )
    found = state.worker_outage(now=LEFT + poke_interval + polled_for)
    assert found == (LEFT if goes_on else None)


@pytest.mark.parametrize("run_id", ["x", 0, None, "../7", [7]])
def test_an_invalid_id_that_was_kept_is_not_read(run_id: object) -> None:
    kept = PollState(WorkflowRun(7), LEFT, LEFT).payload()
    kept["job"] = {"workflow_version_execution_id": run_id}
    with pytest.raises(PromptLayerEventError, match="has a value that is unknown"):
        PollState.read(kept, WorkflowRun)
