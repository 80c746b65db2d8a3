# SPDX-License-Identifier: Apache-2.0
"""Legacy reports: running an evaluation pipeline, and what the answers say.

An evaluation pipeline is a *blueprint*: it can be run, and has no score of its own. Each run makes
a *final report* with an id of its own, which has cells and a score, and cannot be run.

Facts are those of PromptLayer's published API description ("Run Full Evaluation", "Get
Evaluation", "Get Evaluation Score"); what it leaves open is noted where it matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar, Final

from airflow_provider_promptlayer.api.arguments import encode, positive, title_text
from airflow_provider_promptlayer.api.errors import (
    PromptLayerAuthError,
    PromptLayerInvalidInputError,
    PromptLayerRefusedError,
)
from airflow_provider_promptlayer.api.fields import FieldError, Fields, object_call
from airflow_provider_promptlayer.api.http import Call, Request, Response, error_text
from airflow_provider_promptlayer.api.job import IdParsers, RemoteJob
from airflow_provider_promptlayer.api.links import Page
from airflow_provider_promptlayer.api.submit import submit_call
from airflow_provider_promptlayer.api.tables import progress_of_cells
from airflow_provider_promptlayer.api.text import one_line, quoted, says_no_requests

MAX_SCORE: Final = 100.0
"""The highest ``overall_score``."""

_CELL_STATUSES: Final = ("COMPLETED", "FAILED", "QUEUED", "RUNNING")
"""The statuses of a report's cells, of which the description has counts."""


class ReportStatus(StrEnum):
    """The statuses of a report that PromptLayer documents."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"


@dataclass(frozen=True, slots=True)
class Report:
    """What a poll of a final report has found.

    :param status: as PromptLayer wrote it; :class:`ReportStatus` has the documented ones. An
        unknown one counts as final, and not as a success.
    :param status_counts: status of a cell (``COMPLETED``, ``FAILED``, ``QUEUED``, ``RUNNING``, and
        whatever else PromptLayer counts) → number of cells.
    :param score_calculation_error: why there is no score: text or an object, or None.
    """

    report_id: int
    status: str
    name: str = field(default="", repr=False)
    status_counts: Mapping[str, int] = field(default_factory=dict)
    score_calculation_error: Any = field(default=None, repr=False)

    @property
    def is_complete(self) -> bool:
        """Whether the report has ended, well or badly.

        A report that calls itself completed while cells are queued or running has not: else a run
        would be called a success too early.
        """
        if self.status == ReportStatus.COMPLETED:
            return self.pending_count == 0
        return self.status != ReportStatus.RUNNING

    @property
    def completed_count(self) -> int:
        """The cells that have a value."""
        return self.status_counts.get("COMPLETED", 0)

    @property
    def failed_count(self) -> int:
        """The cells that ended badly."""
        return self.status_counts.get("FAILED", 0)

    @property
    def pending_count(self) -> int:
        """The cells that have not ended."""
        return self.status_counts.get("QUEUED", 0) + self.status_counts.get("RUNNING", 0)

    @property
    def other_count(self) -> int:
        """The cells with an undocumented status: nothing says that they have a value."""
        known = sum(self.status_counts.get(status, 0) for status in _CELL_STATUSES)
        return sum(self.status_counts.values()) - known

    @property
    def progress(self) -> str:
        """One line for people: ``"37 of 120 cells done, 2 failed"``."""
        done = self.completed_count + self.failed_count
        total = done + self.pending_count + self.other_count
        if not total or total >= 10**18:
            return one_line(self.status, 40).lower()
        return progress_of_cells(done, total, self.failed_count)


@dataclass(frozen=True, slots=True)
class ReportScore:
    """The score of a final report.

    :param overall_score: 0 to 100, or None.
    :param score_type: ``single_column``, ``multi_column``, ``custom`` or ``none``.
    :param details: of any shape; an object that depends on ``score_type``, in the description.
    """

    overall_score: float | None
    score_type: str
    has_custom_scoring: bool
    details: Any = field(default_factory=dict, repr=False)


def run_report(
    report_id: int | str,
    name: object,
    *,
    dataset_id: int | str | None = None,
    refresh_dataset: bool | None = None,
) -> Call[int]:
    """``POST /reports/{report_id}/run``: run an evaluation pipeline; returns its report's id.

    Arguments: :meth:`.PromptLayerHook.run_report`; ``report_id`` is a blueprint.

    A repeat does harm: it is a second, billed report, of the same name.

    :raises PromptLayerInvalidInputError: for an argument that cannot be sent.
    """
    pipeline = positive("report_id", report_id)
    wanted = title_text("name", name)
    body: dict[str, Any] = {"name": wanted}
    if dataset_id is not None:
        body["dataset_id"] = positive("dataset_id", dataset_id)
    if refresh_dataset is not None:
        if not isinstance(refresh_dataset, bool):
            raise PromptLayerInvalidInputError(
                f"refresh_dataset must be True or False, not {quoted(refresh_dataset)}."
            )
        body["refresh_dataset"] = refresh_dataset
    request = Request(
        "POST", f"/reports/{pipeline}/run", f"run report {pipeline}", encode("name", body)
    )
    call = submit_call(
        request,
        _report_id,
        id_field="report_id",
        advice=(
            "A report may have been started all the same, so it was not asked for again: look "
            f"in PromptLayer for one named {one_line(wanted, 80)!r} before you clear this task."
        ),
        hints={
            403: (
                "Only an evaluation pipeline can be run: give its id, not that of a report that "
                "a run has made. Where refresh_dataset is set, the dataset may not allow it."
            ),
            404: "Check report_id and dataset_id, and the workspace of the key.",
        },
        sent_id=pipeline,
    )

    def read(response: Response, now: float) -> int:
        try:
            return call.read(response, now)
        except PromptLayerAuthError as error:
            said = error_text(response) or ""
            if error.status != 401 or not says_no_requests(said):
                raise
            raise PromptLayerRefusedError(
                f"Could not run report {pipeline}: PromptLayer has no requests for it (HTTP 401): "
                f"{said.rstrip('.')}. Check the dataset, and by what it chooses its requests.",
                status=error.status,
            ) from None

    return replace(call, read=read)


def report_score(report_id: int | str) -> Call[ReportScore]:
    """``GET /reports/{report_id}/score``: the score of a final report.

    :raises PromptLayerInvalidInputError: for an id that is not a positive integer.
    """
    number = positive("report_id", report_id)

    def build(answer: Fields) -> ReportScore:
        score = answer.object("score")
        return ReportScore(
            overall_score=score.number_or_none("overall_score"),
            score_type=score.text_if_any("score_type") or "none",
            has_custom_scoring=score.flag("has_custom_scoring"),
            details=score.get("details") or {},
        )

    return object_call(
        Request("GET", f"/reports/{number}/score", f"read the score of report {number}"),
        build,
        hints={
            400: "A blueprint has no score: give the id of a report that a run of it has made.",
            403: "The report belongs to another workspace than the key.",
        },
    )


@dataclass(frozen=True)
class FinalReport(RemoteJob[Report]):
    """A report that a run has made, as a job to wait for."""

    report_id: int

    id_parsers: ClassVar[IdParsers] = {"report_id": positive}
    noun = "report"
    counted_as = "report"
    abandoned_phrase = "goes on at PromptLayer, which cannot cancel it"

    @property
    def page(self) -> Page:
        """The web page of the report."""
        return Page("report", (self.report_id,))

    def fetch_call(self) -> Call[Report]:
        """``GET /reports/{report_id}``: ask for the status, and for the counts of the cells.

        The result is an error for a blueprint, which never ends as it never runs.
        """
        request = Request("GET", f"/reports/{self.report_id}", f"poll report {self.report_id}")
        return object_call(request, self._read)

    def _read(self, answer: Fields) -> Report:
        fields = answer.object_or_none("report") or Fields({})
        if fields.flag("is_blueprint"):
            raise PromptLayerInvalidInputError(
                f"Report {self.report_id} is a blueprint, which has no result of its own: give the "
                "id of a report that a run of it has made."
            )
        status = answer.text("status")
        if status == ReportStatus.COMPLETED:  # which the counts have to bear out
            counts = _counts(answer.object("stats"))
        else:
            counts = answer.object_if_any("stats").counts_if_any("status_counts")
        return Report(
            report_id=self.report_id,
            status=status,
            name=fields.text_if_any("name") or "",
            status_counts=counts,
            score_calculation_error=fields.get("score_calculation_error"),
        )


def _counts(stats: Fields) -> dict[str, int]:
    fields = stats.object("status_counts")
    if not [fields.count(name) for name in _CELL_STATUSES if fields.get(name) is not None]:
        raise FieldError("has no status_counts")
    return stats.counts_if_any("status_counts")


def _report_id(answer: Fields) -> int:
    try:  # digits as text are a number too: the id of what is billed already is never thrown away
        return positive("report_id", answer.get("report_id"))
    except PromptLayerInvalidInputError:
        raise FieldError("has no report_id") from None
