# SPDX-License-Identifier: Apache-2.0
"""Arguments as they are sent, and what is refused before a request is sent."""

from __future__ import annotations

import math
from collections import UserList
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import pendulum
import pytest
from support.hostile import Lazy
from unit.api.answers import OTHER, SHEET, TABLE, body_of

from airflow_provider_promptlayer.api.arguments import execution_id, seconds
from airflow_provider_promptlayer.api.cells import SheetCells
from airflow_provider_promptlayer.api.scorecards import recalculate_scorecard
from airflow_provider_promptlayer.api.tables import (
    Sheet,
    SheetOperation,
    recalculate_cells,
)
from airflow_provider_promptlayer.api.workflows import WorkflowRun, run_workflow
from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError


def sent(**arguments: Any) -> Any:
    return body_of(run_workflow("Digest", **arguments))


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("Digest", "Digest"),
        (17, "17"),
        ("a/b", "a%2Fb"),
        ("a?b#c", "a%3Fb%23c"),
        ("100%", "100%25"),
        ("%2F", "%252F"),
        ("a b+c", "a%20b%2Bc"),
        ("a\\b", "a%5Cb"),
        ("größe 🎉", "gr%C3%B6%C3%9Fe%20%F0%9F%8E%89"),
        ("a\nb\x00", "a%0Ab%00"),
        ("../../reports", "..%2F..%2Freports"),
        ("...", "..."),
        ("x;y=1&z@h:1", "x%3By%3D1%26z%40h%3A1"),
        ("~tilde-._", "~tilde-._"),
    ],
)
def test_a_name_is_one_segment_of_the_path(name: int | str, segment: str) -> None:
    request = run_workflow(name).request
    assert (request.method, request.path) == ("POST", f"/workflows/{segment}/run")
    assert unquote(segment) == str(name)


@pytest.mark.parametrize(
    "name", ["", " \n", ".", "..", "\ud800", None, True, 1.5, ["a"], b"a", 10**5000], ids=type
)
def test_a_name_that_no_url_can_carry(name: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match=r"named|workflow_id_or_name"):
        run_workflow(name)


def test_the_purpose_is_one_line() -> None:
    purpose = run_workflow("a\nb\x1b[2J" + "x" * 500).request.purpose
    assert purpose.isprintable()
    assert len(purpose) < 120


def test_the_body_of_a_start() -> None:
    assert sent() == {"input_variables": {}, "return_all_outputs": True}
    assert sent(
        input_variables={"a": [1, None, {"b": "ü"}]},
        metadata={"run": "x", "try": 2},
        workflow_label_name="prod",
        return_all_outputs=False,
    ) == {
        "input_variables": {"a": [1, None, {"b": "ü"}]},
        "metadata": {"run": "x", "try": "2"},
        "workflow_label_name": "prod",
        "return_all_outputs": False,
    }


@pytest.mark.parametrize("number", [3, "3", " 3 "])
def test_a_version_is_sent_as_a_number(number: int | str) -> None:
    body = sent(workflow_version_number=number)
    assert body["workflow_version_number"] == 3
    assert "workflow_label_name" not in body


@pytest.mark.parametrize("number", [0, -1, "x", "", 1.0, True])
def test_an_invalid_version(number: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="workflow_version_number"):
        sent(workflow_version_number=number)


@pytest.mark.parametrize(("label", "number"), [("prod", 3), ("", 1), ("prod", 0), ("prod", "x")])
def test_label_and_version_exclude_each_other(label: str, number: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="exclude each other"):
        sent(workflow_label_name=label, workflow_version_number=number)


class View(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        return {"a": 1, "b": Lazy(2)}[key]

    def __iter__(self) -> Iterator[str]:
        return iter("ab")

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        pytest.param(Lazy("a", Lazy(1), {"x": Lazy()}), ["a", [1], {"x": []}], id="lazy-sequence"),
        pytest.param(View(), {"a": 1, "b": [2]}, id="mapping"),
        pytest.param((1, 2), [1, 2], id="tuple"),
        pytest.param(date(2027, 1, 2), "2027-01-02", id="date"),
        pytest.param(
            datetime(2027, 1, 2, 3, tzinfo=UTC), "2027-01-02T03:00:00+00:00", id="datetime"
        ),
        pytest.param(2**70, 2**70, id="big-integer"),
        pytest.param("\x00\ud800🎉", "\x00\ud800🎉", id="odd-text"),
    ],
)
def test_input_variables_may_be_what_airflow_hands_over(value: Any, becomes: Any) -> None:
    assert sent(input_variables={"v": value})["input_variables"] == {"v": becomes}


@pytest.mark.parametrize("given", [View(), '{"a": 1, "b": [2]}', "{'a': 1, 'b': [2]}"], ids=type)
def test_a_mapping_may_be_text(given: Any) -> None:
    """As JSON, or as a template renders a dict."""
    assert sent(input_variables=given)["input_variables"] == {"a": 1, "b": [2]}


def test_the_body_is_ascii_json() -> None:
    body = run_workflow("Digest", input_variables={"v": "\ud800ü"}).request.body
    assert isinstance(body, bytes)
    assert body.isascii()


class Endless(Lazy):
    def __getitem__(self, index: Any) -> Any:
        if index:
            raise IndexError
        return Endless()

    def __len__(self) -> int:
        return 1


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(math.nan, id="nan"),
        pytest.param([math.inf], id="infinity"),
        pytest.param({1, 2}, id="set"),
        pytest.param(object(), id="object"),
        pytest.param(CIRCLE, id="circle"),
        pytest.param(DEEP, id="deep"),
        pytest.param(Endless(), id="endless"),
        pytest.param({(1, 2): 3}, id="tuple-as-key"),
        pytest.param(10**5000, id="5000-digits"),
        pytest.param(b"bytes", id="bytes"),
        pytest.param(bytearray(b"bytes"), id="bytearray"),
    ],
)
def test_input_variables_that_json_cannot_hold(value: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="input_variables") as caught:
        sent(input_variables={"v": value})
    assert " at 0x" not in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    "value", ["text", "null", "{1: 2}", [1], 5, {1: 2}, {None: 1}, Lazy(1)], ids=type
)
@pytest.mark.parametrize("argument", ["input_variables", "metadata"])
def test_an_invalid_mapping(argument: str, value: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match=f"{argument} must be a mapping"):
        sent(**{argument: value})


@pytest.mark.parametrize(
    ("value", "text"),
    [("x", "x"), (5, "5"), (1.5, "1.5"), (True, "True"), (date(2027, 1, 2), "2027-01-02")],
)
def test_metadata_is_sent_as_strings(value: Any, text: str) -> None:
    assert sent(metadata={"key": value})["metadata"] == {"key": text}


@pytest.mark.parametrize("value", [None, [], {}, b"x", object(), 10**5000], ids=type)
def test_invalid_metadata(value: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="metadata"):
        sent(metadata={"key": value})


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1),
        (" 007 ", 7),
        ("0" * 30 + "12345", 12345),
        (2**63 - 1, 2**63 - 1),
        (str(2**63 - 1), 2**63 - 1),
    ],
)
def test_an_execution_id(value: Any, number: int) -> None:
    assert execution_id(value) == WorkflowRun(value).id == number


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, 2**63, 10**5000, -(10**5000), 1.0, math.nan, True, False, None, [1]),
        *("", " ", "x", "0", "-1", "1.0", "1_0", "0x1", "٣", "²", str(2**63), "9" * 5000),
    ],
    ids=type,
)
def test_an_invalid_execution_id(value: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="be a positive integer") as caught:
        WorkflowRun.of(value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        ({"column_ids": [OTHER.upper(), UUID(TABLE)]}, {"column_ids": [OTHER, TABLE]}),
        ({"column_ids": f'["{OTHER}"]'}, {"column_ids": [OTHER]}),
        ({"column_ids": UserList([OTHER])}, {"column_ids": [OTHER]}),
        ({"row_ids": [0, "7"]}, {"row_ids": [0, 7]}),
        ({"row_ids": "[0, 7]"}, {"row_ids": [0, 7]}),
        ({"row_ids": range(3)}, {"row_ids": [0, 1, 2]}),
        ({"row_ids": (1,)}, {"row_ids": [1]}),
        ({"row_ids": {3}}, {"row_ids": [3]}),
        ({"statuses": ["stale", " FAILED "]}, {"statuses": ["STALE", "FAILED"]}),
        ({"statuses": '["FAILED"]'}, {"statuses": ["FAILED"]}),
        ({"statuses": []}, {"statuses": []}),
        ({"statuses": "[]"}, {"statuses": []}),
    ],
)
def test_a_list(arguments: dict[str, Any], body: dict[str, Any]) -> None:
    found = body_of(recalculate_cells(TABLE, SHEET, **arguments))
    assert found == {"operation": "recalculate", **body}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"column_ids": ["x"]}, r"column_ids\[0\] must be a UUID such as .*, not 'x'"),
        ({"column_ids": OTHER}, "column_ids must be a list, or a list as JSON, not '3333"),
        ({"column_ids": f"['{OTHER}']"}, "a list as JSON, not .* '{{ … | tojson }}', or set rend"),
        ({"column_ids": [OTHER, None]}, r"column_ids\[1\] must be a UUID"),
        ({"column_ids": []}, "column_ids is empty"),
        ({"column_ids": "None"}, "column_ids must be a list, .* not 'None'"),
        ({"column_ids": "null"}, "column_ids must be a list, .* not 'null'"),
        ({"column_ids": ""}, "column_ids must be a list"),
        ({"column_ids": {"a": 1}}, "column_ids must be a list"),
        ({"column_ids": b"[]"}, "column_ids must be a list"),
        ({"row_ids": [-1]}, r"row_ids\[0\] must be a row number, 0 for the first row, not -1"),
        ({"row_ids": [1, True]}, r"row_ids\[1\] must be a row number"),
        ({"row_ids": [1.0]}, r"row_ids\[0\]"),
        ({"row_ids": [2**63]}, r"row_ids\[0\]"),
        ({"row_ids": ["9" * 5000]}, r"row_ids\[0\]"),
        ({"row_ids": "[" * 10_000}, "row_ids must be a list"),
        ({"row_ids": 3}, r"row_ids must be a list, or a list as JSON, not 3\.$"),
        ({"row_ids": "[]"}, "row_ids is empty"),
        ({"statuses": ["DONE"]}, "list of STALE, QUEUED, .*, or \"all\"; 'DONE' is none of them"),
        ({"statuses": [None]}, "None is none of them"),
        ({"statuses": "STALE"}, 'statuses must be a list, or a list as JSON, or "all"'),
    ],
)
def test_an_invalid_list(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match=named) as caught:
        recalculate_cells(TABLE, SHEET, **arguments)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "bad", ["", "x", TABLE[:-1], TABLE.replace("-", ""), f"{{{TABLE}}}", 5, None, ["a"], "None"]
)
def test_invalid_uuids(bad: Any) -> None:
    calls: list[Callable[[Any, Any], object]] = [
        recalculate_cells,
        recalculate_scorecard,
        Sheet,
        SheetCells,
        lambda table, sheet: SheetOperation(table, sheet, "op"),
    ]
    for call in calls:
        with pytest.raises(PromptLayerInvalidInputError, match="table_id must be a UUID"):
            call(bad, SHEET)
        with pytest.raises(PromptLayerInvalidInputError, match="sheet_id must be a UUID"):
            call(TABLE, bad)


@pytest.mark.parametrize("bad", ["", " ", "..", None, -5, True, 1.5, "\ud800"])
def test_an_invalid_operation_id(bad: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="operation_id must be an id as text"):
        SheetOperation(TABLE, SHEET, bad)


def test_times_may_be_durations_of_pendulum() -> None:
    assert seconds("timeout", pendulum.duration(hours=3)) == 3 * 3600.0
