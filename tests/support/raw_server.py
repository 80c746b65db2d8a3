# SPDX-License-Identifier: Apache-2.0
"""A PromptLayer whose results are bytes of the test's choosing, which need not be valid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Reply, Workflow


class RawPromptLayer(LocalPromptLayer):
    """Every run has ended at once.

    :param results: workflow name → body of the 200 that answers a request for a run's results.
    """

    def __init__(self, results: Mapping[str, bytes]) -> None:
        super().__init__([Workflow(name, [Node("Only")]) for name in results])
        self.results = dict(results)
        self.script(self._answer, method="GET", times=None)

    @property
    def started(self) -> list[str]:
        """The names of the workflows that were run."""
        return [run.workflow_name for run in self.executions.values()]

    def _answer(self, request: Any) -> Reply:
        run = self.executions[int(request.query["workflow_version_execution_id"])]
        return Reply(200, self.results[run.workflow_name])
