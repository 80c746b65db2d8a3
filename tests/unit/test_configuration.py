# SPDX-License-Identifier: Apache-2.0
"""The section ``[promptlayer]`` of Airflow's configuration."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, conf
from support.kinds import Serve
from support.modes import run_task

from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError
from airflow_provider_promptlayer.get_provider_info import get_provider_info
from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerExportSheetOperator,
    PromptLayerPromoteOperator,
    PromptLayerRunScorecardOperator,
    PromptLayerRunWorkflowBatchOperator,
    PromptLayerRunWorkflowOperator,
)
from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerWorkflowSensor
from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Workflow

OPTIONS = get_provider_info()["config"]["promptlayer"]["options"]
WAITING: dict[str, tuple[type, dict[str, Any]]] = {
    "sensor": (PromptLayerWorkflowSensor, {"workflow_version_execution_id": 1}),
    "run": (PromptLayerRunWorkflowOperator, {"workflow_id_or_name": "Digest"}),
    "batch": (
        PromptLayerRunWorkflowBatchOperator,
        {"workflow_id_or_name": "Digest", "inputs": [{}]},
    ),
    "scorecard": (PromptLayerRunScorecardOperator, {"table": "Answers", "sheet": "Today"}),
}
OTHERS: dict[str, tuple[type, dict[str, Any]]] = {
    "promotion": (PromptLayerPromoteOperator, {"prompt": "Greeting", "version": 1}),
    "export": (
        PromptLayerExportSheetOperator,
        {"table": "Answers", "sheet": "Today", "to": "file:///tmp/rows.csv"},
    ),
}
TASKS = WAITING | OTHERS

CASES: list[tuple[str, str, Any, Any, Any]] = [
    ("default_deferrable", "False", False, True, True),
    ("default_deferrable", "", True, False, False),
    ("defer_after", "0", 0.0, 5, 5.0),
    ("defer_after", "", 10.0, datetime.timedelta(minutes=1), 60.0),
    ("poke_interval", "30", 30.0, 5, 5.0),
    ("poke_interval", "", None, datetime.timedelta(minutes=2), 120.0),
    ("max_outage", "7200", 7200.0, 60, 60.0),
    ("max_outage", "0", 0.0, datetime.timedelta(seconds=1), 1.0),
    ("max_outage", "", 1800.0, 0, 0.0),
    ("timeout", "86400", 86400.0, 60, 60.0),
    ("timeout", "", 604800.0, datetime.timedelta(hours=1), 3600.0),
]
"""Option, its text in the configuration, what a task makes of that; an argument, and what of it."""


def new(name: str, **arguments: Any) -> Any:
    operator, needed = TASKS[name]
    return operator(task_id="task", **{**needed, **arguments})


def effective(task: Any, option: str) -> Any:
    if option == "poke_interval" and hasattr(task, "_schedule"):
        return task._schedule().poke_interval
    return getattr(task, option.removeprefix("default_"))


def configure(monkeypatch: pytest.MonkeyPatch, **options: str) -> None:
    for option, text in options.items():
        monkeypatch.setenv(f"AIRFLOW__PROMPTLAYER__{option.upper()}", text)


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not what makes the other tests fast."""
    monkeypatch.delenv("AIRFLOW__PROMPTLAYER__DEFER_AFTER")


class TestDefaults:
    @pytest.mark.parametrize("name", WAITING)
    @pytest.mark.parametrize(("option", "text", "expected", "argument", "given"), CASES)
    def test_of_a_task_that_waits(
        self,
        name: str,
        option: str,
        text: str,
        expected: Any,
        argument: Any,
        given: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        configure(monkeypatch, **{option: text})
        assert effective(new(name), option) == expected
        parameter = option.removeprefix("default_")
        assert effective(new(name, **{parameter: argument}), option) == given
        with DAG("dag", schedule=None, default_args={parameter: argument}):
            assert effective(new(name), option) == given

    @pytest.mark.parametrize(
        ("name", "option", "text", "expected", "otherwise"),
        [
            ("promotion", "default_deferrable", "f", False, True),
            ("promotion", "poke_interval", "30", 30.0, 60.0),
            ("promotion", "max_outage", "7200", 7200.0, 1800.0),
            ("promotion", "timeout", "5", None, None),  # a person approves within approval_timeout
            ("export", "max_outage", "7200", 7200.0, 1800.0),
        ],
    )
    def test_of_other_tasks(
        self,
        name: str,
        option: str,
        text: str,
        expected: Any,
        otherwise: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if option == "timeout":
            before = new(name).approval_timeout
            configure(monkeypatch, timeout=text)
            assert new(name).approval_timeout == before
            return
        assert effective(new(name), option) == otherwise
        configure(monkeypatch, **{option: text})
        assert effective(new(name), option) == expected

    def test_intervals_that_grow_can_be_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        configure(monkeypatch, poke_interval="30")
        assert effective(new("sensor", poke_interval=None), "poke_interval") is None

    def test_airflows_own_default_deferrable_is_not_read(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "False")
        assert new("run").deferrable

    def test_a_site_without_a_triggerer_waits_in_workers(
        self, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        serve(LocalPromptLayer([Workflow("Digest", [Node("Answer", 1, is_output_node=True)])]))
        configure(monkeypatch, default_deferrable="False", poke_interval="0.02")
        ending = run_task(lambda: new("run"))
        assert (ending.kind, ending.value, ending.worker_visits) == ("success", {"Answer": 1}, 1)


@pytest.mark.parametrize(
    ("option", "text", "error", "says"),
    [
        ("default_deferrable", "perhaps", Exception, "default_deferrable"),
        ("defer_after", "-1", PromptLayerInvalidInputError, r"\[promptlayer\] defer_after"),
        ("poke_interval", "often", Exception, "poke_interval"),
        ("poke_interval", "0", PromptLayerInvalidInputError, r"\[promptlayer\] poke_interval"),
        ("max_outage", "-1", PromptLayerInvalidInputError, r"\[promptlayer\] max_outage"),
        ("max_outage", "inf", PromptLayerInvalidInputError, "max_outage must be finite"),
        ("timeout", "nan", PromptLayerInvalidInputError, r"\[promptlayer\] timeout"),
    ],
)
def test_what_makes_no_sense_is_refused_when_the_dag_is_parsed(
    option: str, text: str, error: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, **{option: text})
    with pytest.raises(error, match=says):
        new("run")


class TestDescription:
    """What ``airflow config list`` shows, and Airflow's pages about a provider."""

    @pytest.mark.parametrize("option", OPTIONS)
    def test_has_what_airflow_shows_of_an_option(self, option: str) -> None:
        told = OPTIONS[option]
        assert set(told) == {"description", "version_added", "type", "example", "default"}
        parse = {"boolean": conf.getboolean, "float": conf.getfloat}[told["type"]]
        assert told["default"] is None or parse("promptlayer", option, fallback=told["default"])

    @pytest.mark.parametrize("option", OPTIONS)
    def test_says_the_default_that_a_task_has(
        self, option: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        without = effective(new("run"), option)
        configure(monkeypatch, **{option: OPTIONS[option]["default"] or ""})
        assert effective(new("run"), option) == without
