# SPDX-License-Identifier: Apache-2.0
"""Which outcome of a workflow run is a success."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_promptlayer.api.workflows import NodeResult, WorkflowResults
from airflow_provider_promptlayer.exceptions import (
    PromptLayerInvalidInputError,
    PromptLayerRunFailedError,
)
from airflow_provider_promptlayer.outcomes.workflows import FailOn, check_fail_on, raise_for_outcome


def results(nodes: str = "", message: str | None = None, **more: NodeResult) -> WorkflowResults:
    """Return an ending; ``nodes`` is like ``"SUCCESS* FAILED"``, with ``*`` at output nodes."""
    named = {
        f"n{index}": NodeResult(word.strip("*?"), is_output_node=output_mark(word))
        for index, word in enumerate(nodes.split())
    }
    return WorkflowResults(42, True, {**named, **more}, message=message)


def output_mark(word: str) -> bool | None:
    return None if word.endswith("?") else word.endswith("*")


@pytest.mark.parametrize(
    ("nodes", "no_output", "any_node"),
    [
        ("", False, False),
        ("SUCCESS*", True, True),
        ("SUCCESS SUCCESS*", True, True),
        ("SUCCESS", False, False),
        ("SUCCESS?", False, False),
        ("FAILED*", False, False),
        ("SKIPPED*", False, False),
        ("FAILED SKIPPED*", False, False),
        ("FAILED SUCCESS*", True, False),
        ("FAILED? SUCCESS*", True, False),
        ("SKIPPED SUCCESS*", True, True),
        ("SKIPPED* SUCCESS*", True, True),
        ("FAILED* SUCCESS*", True, False),
        ("CANCELLED SUCCESS*", True, False),
        ("CANCELLED*", False, False),
        ("success*", False, False),
    ],
)
def test_fail_on(nodes: str, no_output: bool, any_node: bool) -> None:
    for fail_on, expected in (("no_output", no_output), ("any_node", any_node), ("never", True)):
        assert passes(results(nodes), fail_on) is expected, fail_on


def passes(ended: WorkflowResults, fail_on: Any) -> bool:
    try:
        raise_for_outcome(ended, fail_on)
    except PromptLayerRunFailedError:
        return False
    return True


def text_of(ending: WorkflowResults, fail_on: FailOn = "no_output") -> str:
    with pytest.raises(PromptLayerRunFailedError, match=r"^Workflow run 42 has failed: ") as caught:
        raise_for_outcome(ending, fail_on)
    assert caught.value.results is ending
    assert not caught.value.retry_helps
    return str(caught.value)


def test_each_failed_node_is_named_with_its_error_and_no_other() -> None:
    text = text_of(
        results(
            message="No output.",
            fetch=NodeResult("FAILED", error_message="no page", raw_error_message="HTTP 404"),
            parse=NodeResult("FAILED", raw_error_message="Traceback"),
            guess=NodeResult("FAILED"),
            odd=NodeResult("EXPLODED", error_message="boom"),
            fine=NodeResult("SUCCESS", value="private answer"),
            dull=NodeResult("SKIPPED", error_message="private reason", value="private too"),
            main=NodeResult("SKIPPED", is_output_node=True),
        )
    )
    for part in ("no output node succeeded", "No output.", "'fetch' (FAILED): no page"):
        assert part in text
    assert "'parse' (FAILED): Traceback" in text
    assert "'guess' (FAILED): no reason given" in text
    assert "'odd' (EXPLODED): boom" in text
    assert "(skipped: 'main')" in text
    for part in ("private", "fine", "dull", "HTTP 404"):
        assert part not in text


def test_an_error_of_a_failed_node_is_told_although_there_is_output() -> None:
    ending = results(
        bad=NodeResult("FAILED", error_message="why"),
        good=NodeResult("SUCCESS", value="private", is_output_node=True),
    )
    text = text_of(ending, "any_node")
    assert "1 of its nodes failed" in text
    assert "'bad' (FAILED): why" in text
    assert "private" not in text


def test_a_message_is_one_line_and_cut() -> None:
    nasty = NodeResult(
        "FAI\x1bLED\n" * 50, error_message="a\nb\x1b[2J\u202e" * 10_000, is_output_node=True
    )
    text = text_of(
        WorkflowResults(42, True, {f"no\nde{i}\x1b{'x' * 500}": nasty for i in range(40)})
    )
    assert text.isprintable()
    assert len(text) < 10_000
    assert "and 30 more" in text


@pytest.mark.parametrize("blank", ["", "  \n"])
def test_a_blank_error_gives_way_to_the_raw_one(blank: str) -> None:
    node = NodeResult("FAILED", error_message=blank, raw_error_message="the cause")
    assert "the cause" in text_of(results(node=node))


@pytest.mark.parametrize("fail_on", ["", "always", None, 0, ["never"], "NEVER"], ids=repr)
def test_an_unknown_fail_on(fail_on: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="'no_output', 'any_node', 'never'"):
        check_fail_on(fail_on)
    with pytest.raises(PromptLayerInvalidInputError, match="'no_output', 'any_node', 'never'"):
        raise_for_outcome(results("SUCCESS*"), fail_on)
