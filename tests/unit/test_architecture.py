# SPDX-License-Identifier: Apache-2.0
"""What docs/architecture.md and CONTRIBUTING.md say, held against the code."""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_promptlayer.exceptions import (
    PromptLayerAuthError,
    PromptLayerError,
    PromptLayerServerError,
)
from airflow_provider_promptlayer.polling.poller import PollDecision, Poller
from airflow_provider_promptlayer.polling.schedule import PollSchedule
from airflow_provider_promptlayer.submission.batch import Batch
from airflow_provider_promptlayer.submission.batch_input import Input, Stage, Starter
from airflow_provider_promptlayer.submission.reattach import (
    Plan,
    SubmissionPhase,
    SubmissionRecord,
    plan,
)

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_promptlayer"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def table(first_column: str) -> list[dict[str, str]]:
    """Return the rows of the document's table that begins with this column."""
    head, _, *rows = re.search(
        rf"^\| {re.escape(first_column)} \|(?:.*\n\|)+.*$", ARCHITECTURE, re.MULTILINE
    )[0].splitlines()  # type: ignore[index]
    names, *cells = ([cell.strip() for cell in row.strip("|").split("|")] for row in (head, *rows))
    return [dict(zip(names, row, strict=True)) for row in cells]


@pytest.mark.parametrize("document", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_file_that_is_named_is_there(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/.]+\.(?:py|md|cfg|toml|txt))`", text))
    linked = {link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link}
    assert named
    assert {name for name in named if not any((at / name).is_file() for at in (ROOT, PACKAGE))} == (
        set()
    )
    assert {link for link in linked if not (ROOT / document).parent.joinpath(link).exists()} == (
        set()
    )


def test_layers_are_drawn_as_they_are_checked() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    checked = settings["importlinter:contract:layers"]["layers"].strip().splitlines()
    drawn = re.findall(r"subgraph .*\n\s*(.*)\n\s*end", ARCHITECTURE)
    assert [set(layer.split(" ~~~ ")) for layer in drawn] == [
        {name.strip() for name in layer.split("|")} for layer in checked
    ]


def test_what_a_try_does_about_an_earlier_one() -> None:
    rows = table("record")
    used = set[int]()
    for phase, since, input_, host in product(
        (None, *SubmissionPhase), ("retry", "clear"), ("same", "other"), ("same", "other")
    ):
        case = {
            "record": phase.name if phase else "none",
            "since then": since,
            "input": input_,
            "host": host,
        }
        number, row = next(
            (number, row)
            for number, row in enumerate(rows)
            if all(row[key] == "any" or case[key] in row[key].split(", ") for key in case)
        )
        used.add(number)
        record = phase and SubmissionRecord(
            phase,
            "epoch",
            1,
            "https://same",
            external_id=None if phase is SubmissionPhase.INTENT else 7,
            input_fingerprint="same",
        )
        epoch = "epoch" if since == "retry" else "epoch after a clear"
        assert plan(record, epoch, f"https://{host}", input_).name == row["plan"], case
    assert used == {*range(len(rows))}
    assert {row["plan"] for row in rows} == {*Plan.__members__}


ARGUMENTS: dict[str, dict[str, Any]] = {
    "started": {"index": 0, "run_id": 7},
    "refused": {"index": 0, "problem": "no"},
    "uncertain": {"index": 0, "problem": "lost"},
    "failed": {"index": 0, "retry_helps": True},
    "withhold": {"problem": "late"},
    "end_all": {},
}
HAS_RUN = (Stage.RUNNING, Stage.ENDED, Stage.SUCCEEDED, Stage.FAILED)


@pytest.mark.parametrize("row", table("step"), ids=lambda row: f"{row['step']}-{row['to']}")
def test_steps_of_one_input_of_a_batch(row: dict[str, str]) -> None:
    starter = Starter.EARLIER_TRY if "an earlier try" in row["when"] else Starter.THIS_TRY
    for name in row["from"].split(", "):
        stage = Stage[name]
        batch = Batch([Input("input", stage, 5 if stage in HAS_RUN else None, starter=starter)])
        getattr(batch, row["step"])(**ARGUMENTS.get(row["step"], {"index": 0}))
        assert batch.inputs[0].stage is Stage[row["to"]]


def test_steps_lead_to_every_stage() -> None:
    reached = {"PENDING"}
    for _ in Stage:
        reached |= {row["to"] for row in table("step") if reached & {*row["from"].split(", ")}}
    assert reached == {*Stage.__members__}


def test_what_the_next_try_makes_of_an_input() -> None:
    rows = table("stage")
    for row in rows:
        name, _, reported = row["stage"].partition(",")
        stage = Stage[name]
        left = Input("input", stage, 5 if stage in HAS_RUN else None, is_reported=bool(reported))
        for since, is_retry in (("after a retry", True), ("after a clear", False)):
            found = Input.of_note(0, "input", left.note, is_retry=is_retry)
            assert found.stage is Stage[row[since]], row
    assert {row["stage"].partition(",")[0] for row in rows} == {*Stage.__members__}


SERVER_ERROR = PromptLayerServerError("HTTP 503")
KEY_REFUSED = PromptLayerAuthError("HTTP 401")
POLLS: dict[str, Callable[[Poller, float], PollDecision]] = {
    "the job has ended": lambda poller, now: poller.on_status(
        SimpleNamespace(is_complete=True, progress="4 of 4 nodes done"), now=now
    ),
    "the job goes on": lambda poller, now: poller.on_status(
        SimpleNamespace(is_complete=False, progress="2 of 4 nodes done"), now=now
    ),
    "an error that a retry can help": lambda poller, now: poller.on_error(SERVER_ERROR, now=now),
    "such errors for `max_outage`": lambda poller, now: (
        poller.on_error(SERVER_ERROR, now=now - 60.0),
        poller.on_error(SERVER_ERROR, now=now),
    )[1],
    "an error that no retry can help": lambda poller, now: poller.on_error(KEY_REFUSED, now=now),
}


@pytest.mark.parametrize("row", table("the poll shows"), ids=lambda row: row["the poll shows"])
def test_what_follows_from_a_poll(row: dict[str, str]) -> None:
    for column, now in (("time is left", 500.0), ("time is up", 1000.0)):
        poller = Poller("job 1", PollSchedule(10.0), began_at=0.0, deadline=1000.0, max_outage=60.0)
        try:
            decision = POLLS[row["the poll shows"]](poller, now)
        except (PromptLayerServerError, PromptLayerAuthError):
            found = "the error itself"
        except PromptLayerError as error:
            found = type(error).__name__
        else:
            found = "done" if decision.is_done else "poll again"
        assert found == row[column], column


def test_every_poll_is_in_the_table() -> None:
    assert [row["the poll shows"] for row in table("the poll shows")] == [*POLLS]
