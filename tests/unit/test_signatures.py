# SPDX-License-Identifier: Apache-2.0
"""What editors and type checkers know about the arguments is what the classes take."""

from __future__ import annotations

import datetime
import inspect
import re
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator, BaseSensorOperator
from support.arguments import NEEDED, every_class

from airflow_provider_promptlayer.bases import arguments
from airflow_provider_promptlayer.decorators import promptlayer as decorators
from airflow_provider_promptlayer.operators import promptlayer as operators
from airflow_provider_promptlayer.triggers.base import PromptLayerTrigger, TriggerKwargs

DEFAULTS: dict[str, Any] = {
    "baseline": "approved",
    "cancel_on_kill": False,
    "cancel_on_timeout": True,
    "column_versions": {"Answer": {"version": 5}},
    "deferrable": False,
    "defer_after": 5.0,
    "durable": False,
    "ensure": True,
    "exponential_backoff": True,
    "fail_on": "never",
    "fail_on_verdict": ["fail"],
    "max_active_runs": 7,
    "max_drop": 0.1,
    "max_outage": 5.0,
    "max_wait": 90,
    "min_score": 0.5,
    "min_success_rate": 0.5,
    "mode": "reschedule",
    "never_fail": True,
    "newer_than": 3,
    "nodes": ["Summarize"],
    "poke_interval": 7.0,
    "prompt": "Reply",
    "promptlayer_conn_id": "other",
    "push_node_xcoms": False,
    "reattach": False,
    "release_label": "prod",
    "report_id": 2,
    "restore": True,
    "return_all_outputs": False,
    "sheet": "Hard questions",
    "sheet_id": "33333333-3333-4333-8333-333333333333",
    "soft_fail": True,
    "start_concurrency": 3,
    "table": "Other answers",
    "table_id": "44444444-4444-4444-8444-444444444444",
    "timeout": 60.0,
    "title": "Monday",
    "wait_for_completion": False,
    "workflow": "Article pipeline",
}
"""A value for every argument that a signature leaves to the base classes."""

NEEDS = {"baseline": "max_drop"}
"""An argument → another one without which it is refused."""

INSTEAD_OF = {"table_id": "table", "sheet_id": "sheet", "workflow": "prompt"}
"""An argument → the one that it excludes."""

NOT_TYPED = {"silent_fail", "task_concurrency"}
"""Airflow's, without a use here: about errors of ``poke()``, and a name from Airflow 1."""


def handled(cls: Any, *, ours: bool) -> dict[str, str]:
    """Return what the bases of a class take, by their signatures: name → type."""
    return {
        name: parameter.annotation
        for base in reversed(cls.mro()[1:])
        if issubclass(base, BaseOperator) and "__init__" in vars(base)
        if base.__module__.startswith("airflow_provider_promptlayer.") is ours
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if name not in ("self", "args", "kwargs")
    }


def typed(function: Any) -> dict[str, str]:
    """Return what a signature says of the arguments that it does not name: name → type."""
    (kwargs,) = re.findall(
        r"^Unpack\[(\w+)\]$", inspect.signature(function).parameters["kwargs"].annotation
    )
    types = getattr(arguments, kwargs).__annotations__
    return {
        name: re.sub(r"^Required\[(.*)\]$", r"\1", of.__forward_arg__) for name, of in types.items()
    }


@every_class
def test_the_types_are_those_of_the_base_classes(cls: Any) -> None:
    named = inspect.signature(cls.__init__).parameters
    expected = {
        name: str(annotation).replace(" | NotSet", "")
        for name, annotation in handled(cls, ours=True).items()
        if name not in named
    }
    found = typed(cls.__init__)
    of_airflow = found.keys() - expected.keys()
    assert {name: found.get(name) for name in expected} == expected
    assert handled(cls, ours=False).keys() - NOT_TYPED <= found.keys()
    assert of_airflow - arguments.NamedKwargs.__annotations__.keys() <= {
        *inspect.signature(BaseSensorOperator.__init__).parameters
    }


@every_class
def test_help_shows_every_argument_but_those_of_all_operators(cls: Any) -> None:
    shown = inspect.signature(cls).parameters
    own = inspect.signature(cls.__init__).parameters.keys() - {"self"}
    of_bases = typed(cls.__init__).keys() - arguments.NamedKwargs.__annotations__.keys()
    assert shown.keys() - NOT_TYPED == own | of_bases
    assert shown["max_outage"].default is None


@every_class
def test_default_args_reach_every_argument(cls: Any) -> None:
    """Airflow fills in those that are named in a signature, and types are no names."""
    names = typed(cls.__init__).keys() - arguments.NamedKwargs.__annotations__.keys()
    for name in sorted(names):
        without = {name, INSTEAD_OF.get(name)}
        needed = {each: value for each, value in NEEDED[cls].items() if each not in without}
        defaults = {each: DEFAULTS[each] for each in (name, NEEDS.get(name, name))}
        with DAG("d", schedule=None, default_args=defaults):
            task = cls(task_id="task", **needed)
        found = getattr(task, {"durable": "reattach"}.get(name, name))
        if isinstance(found, datetime.timedelta):
            found = found.total_seconds()
        assert (name, found) == (name, DEFAULTS[name])


@pytest.mark.parametrize(
    ("decorator", "operator", "returned"),
    [
        (
            decorators.promptlayer_workflow_task,
            operators.PromptLayerRunWorkflowOperator,
            "input_variables",
        ),
        (
            decorators.promptlayer_batch_task,
            operators.PromptLayerRunWorkflowBatchOperator,
            "inputs",
        ),
    ],
)
def test_a_decorator_takes_what_its_operator_takes(
    decorator: Any, operator: Any, returned: str
) -> None:
    own = inspect.signature(operator.__init__).parameters
    expected = {name: each.annotation for name, each in own.items()} | typed(operator.__init__)
    for not_taken in ("self", "kwargs", returned):
        del expected[not_taken]
    assert typed(decorator) == expected


def test_the_types_of_triggers_are_those_of_their_base() -> None:
    named = inspect.signature(PromptLayerTrigger.__init__).parameters
    types = {name: of.__forward_arg__ for name, of in TriggerKwargs.__annotations__.items()}
    assert types == {name: each.annotation for name, each in named.items() if name != "self"}
