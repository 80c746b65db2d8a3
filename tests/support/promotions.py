# SPDX-License-Identifier: Apache-2.0
"""A prompt and a workflow with release labels, and a task that promotes a version of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerPromoteOperator
from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Prompt, Workflow
from airflow_provider_promptlayer.testing.http.dialect import Dialect
from support.modes import Ending, FakeTaskInstance, Store, run_task

PROMPT: dict[str, Any] = {"prompt": "a/b Reply"}
WORKFLOW: dict[str, Any] = {"workflow": "Greet"}
NODES = [Node("Hello", "hi", is_output_node=True)]
LABELS = {"prod": 3, "staging": 5, "legal": 2}
COPY = 7
"""The number that a copy of a version of the workflow gets."""


def new_server(dialect: Dialect = "description") -> LocalPromptLayer:
    workflows = [
        Workflow(
            "Greet",
            NODES,
            version=number,
            labels=[label for label, its_number in LABELS.items() if its_number == number],
        )
        for number in range(1, COPY)
    ]
    prompt = Prompt(PROMPT["prompt"], latest_version=6, labels=LABELS)
    served = LocalPromptLayer(workflows, prompts=[prompt], dialect=dialect)
    for which in (PROMPT, WORKFLOW):
        served.protect_label("legal", **which)
    return served


def make(**arguments: Any) -> PromptLayerPromoteOperator:
    given = {"task_id": "task", "retries": 2, "poke_interval": 0.02, **arguments}
    if "from_label" not in given:
        given.setdefault("version", 5)
    return PromptLayerPromoteOperator(**given)


def promote(
    store: Store | None = None, *, number: int = 1, max_tries: int = 2, **arguments: Any
) -> Ending:
    """Run a try of the task."""
    return run_task(
        lambda: make(**arguments),
        FakeTaskInstance(try_number=number, max_tries=max_tries),
        **({} if store is None else {"task_state_store": store}),
    )


def changes(server: LocalPromptLayer) -> int:
    """Return how many requests arrived that would change anything."""
    return server.count("PATCH") + server.count("POST")


def moved_to(which: dict[str, Any]) -> int:
    return 5 if which is PROMPT else COPY


def after_request(server: LocalPromptLayer, act: Callable[[], None]) -> None:
    """Act once, at the first GET after a request that would change anything."""

    def fault(_: Any) -> None:
        if changes(server) and not acted:
            acted.append(True)
            act()

    acted: list[bool] = []
    server.script(fault, method="GET", times=None)
