# SPDX-License-Identifier: Apache-2.0
"""What the example DAG that tells failures apart does about each, on the real errors of tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout
from support.modes import Ending, Store
from support.needs import needs_retry_policies
from support.starts import RUN_SCORECARD, RUN_WORKFLOW

from airflow_provider_promptlayer.testing import Close, LocalPromptLayer, Reply

EXAMPLE = Path(__file__).parents[2] / "example_dags" / "tell_failures_apart.py"

FOR_GOOD = (AirflowFailException, AirflowSensorTimeout)
"""Airflow asks no policy about these."""


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "example_dag", "__file__": str(EXAMPLE)}
    exec(compile(EXAMPLE.read_text("utf-8"), str(EXAMPLE), "exec"), scope)
    return scope


def run_failed(server: LocalPromptLayer) -> Ending:
    return RUN_WORKFLOW.run(fate="bad")


def gate_failed(server: LocalPromptLayer) -> Ending:
    return RUN_SCORECARD.run(fate="bad")


def outage(server: LocalPromptLayer) -> Ending:
    server.script(Reply(502), method="GET", times=None)
    return RUN_WORKFLOW.run(max_outage=0.05, deferrable=False)


def uncertain(server: LocalPromptLayer) -> Ending:
    server.script(Close(), method="POST", acted_on=True)
    return RUN_WORKFLOW.run()


def late(server: LocalPromptLayer) -> Ending:
    return RUN_WORKFLOW.run(fate="never", timeout=0.05)


def refused_key(server: LocalPromptLayer) -> Ending:
    server.script(Reply(401, '{"message": "no"}'), times=None)
    return RUN_WORKFLOW.run()


FAILURES: dict[str, tuple[Callable[[LocalPromptLayer], Ending], str, str]] = {
    "run failed": (run_failed, "has failed: correct", "fail"),
    "gate failed": (gate_failed, "does not pass", "for good"),
    "outage": (outage, "out of reach", "for good"),
    "uncertain": (uncertain, "may have been started", "for good"),
    "late": (late, "is late, and goes on", "for good"),
    "key refused": (refused_key, "the task has failed: Could not", "fail"),
}
"""Failure → how to have it, what the alert says, and what the policy decides.

Without the task state store, as here, an outage is not retried: a retry would start another run.
"""


@pytest.mark.parametrize(("have", "alert", "decision"), FAILURES.values(), ids=FAILURES)
def test_callback_and_policy_tell_them_apart(
    have: Callable[[LocalPromptLayer], Ending],
    alert: str,
    decision: str,
    example: dict[str, Any],
    server: LocalPromptLayer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = have(server).error
    capsys.readouterr()
    example["tell"]({"exception": error})
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith("ALERT: ")
    assert alert in said
    if (policy := example["POLICY"].get("retry_policy")) is not None:
        is_final = isinstance(error, FOR_GOOD)
        found = "for good" if is_final else policy.evaluate(error, 1, 2).action.value
        assert found == decision


@needs_retry_policies
def test_an_outage_is_retried_later(example: dict[str, Any], server: LocalPromptLayer) -> None:
    server.script(Reply(502), method="GET", times=None)
    error = RUN_WORKFLOW.run(Store(), max_outage=0.05, deferrable=False).error
    assert not isinstance(error, FOR_GOOD)
    found = example["POLICY"]["retry_policy"].evaluate(error, 1, 2)
    assert (found.action.value, found.retry_delay.total_seconds()) == ("retry", 1800)


@needs_retry_policies
def test_the_policy_survives_the_serialization_of_the_dag(example: dict[str, Any]) -> None:
    policy = example["POLICY"]["retry_policy"]
    read = type(policy).deserialize(policy.serialize())
    assert [rule.exception_path for rule in read.rules] == [
        rule.exception_path for rule in policy.rules
    ]
