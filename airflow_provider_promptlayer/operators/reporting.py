# SPDX-License-Identifier: Apache-2.0
"""The operator that writes a page about an evaluation, for people to look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Unpack

from airflow_provider_promptlayer.api.arguments import NOTSET, NotSet, mapping, uuid
from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.fields import Fields
from airflow_provider_promptlayer.api.persisted import UnreadableError
from airflow_provider_promptlayer.api.tables import Sheet
from airflow_provider_promptlayer.api.usage import Usage
from airflow_provider_promptlayer.bases.caller import PromptLayerCaller
from airflow_provider_promptlayer.bases.evaluation import given_field, optional_field
from airflow_provider_promptlayer.bases.lineage import Lineage, file_dataset
from airflow_provider_promptlayer.bases.sheet import SHEET_FIELDS, SheetArguments
from airflow_provider_promptlayer.files.evaluation_page import render_page
from airflow_provider_promptlayer.outcomes.evaluations import check_min_score
from airflow_provider_promptlayer.outcomes.summary import (
    EvaluationSummary,
    PastScore,
    kept_scores,
    merged_scores,
    read_scores,
)
from airflow_provider_promptlayer.xcom import outputs as xcom
from airflow_provider_promptlayer.xcom.storable import storable

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath, XComArg

    from airflow_provider_promptlayer.bases.arguments import SheetKwargs

_ENDINGS: Final = (".html", ".htm")

_HISTORY_KEYS: Final = (
    xcom.SCORE_HISTORY_KEY,
    xcom.UNSCHEDULED_SCORE_HISTORY_KEY,
    xcom.BACKFILL_SCORE_HISTORY_KEY,
    xcom.UNDATED_SCORE_HISTORY_KEY,
)


class PromptLayerEvaluationReportOperator(SheetArguments, PromptLayerCaller):
    """Write an HTML page about an evaluation of a sheet: scores over time, criteria, worst rows.

    The page needs nothing else: no script, no style sheet, no picture. It can be opened from where
    it is, and sent as an e-mail. Text of models and users is escaped, and its beginning shown.

    Earlier scores are those of the saved versions of the sheet, or those that this task has
    reported in earlier DAG runs (the XCom ``promptlayer_score_history``, with ``_unscheduled``
    after it where a DAG run is not of the schedule, ``_backfill`` where it is of a backfill, and
    ``_undated`` where it has no logical date), whichever are more.

    Airflow judges a DAG run by its last tasks. With ``trigger_rule="all_done"`` this task succeeds
    also after a gate that has failed, so beside it there has to be a last task that does not run
    then, such as a :class:`.PromptLayerSnapshotSheetOperator`.

    :param table: title or UUID of the table. Templated.
    :param sheet: title or UUID of the sheet. Templated.
    :param table_id: UUID of the table, in place of ``table``. Templated.
    :param sheet_id: UUID of the sheet, in place of ``sheet``. Templated.
    :param to: a path of Airflow's object storage, or of a local file, in a folder that exists, with
        the ending ``.html``, such as ``s3://aws_default@bucket/{{ run_id }}.html``. A file that is
        there is replaced. Templated.
    :param calculation_id: UUID of the calculation of the scorecard; left out for the latest. If it
        is empty, as an XCom of a task that has failed may be, the page says that there is none:
        ``"{{ ti.xcom_pull(task_ids='gate', key='promptlayer_calculation_id') or '' }}"``. With
        ``gate.output["promptlayer_calculation_id"]`` Airflow fails this task where the gate was not
        reached. Templated.
    :param min_score: the score that is needed, for a line in the chart; left out for none. It
        decides nothing here. Templated.
    :param usage: what the recalculation has cost, the XCom ``promptlayer_usage`` of
        :class:`.PromptLayerRunTableOperator`; left out to say nothing about it. If it is empty, the
        page says that the cost is not known:
        ``"{{ ti.xcom_pull(task_ids='recalculate', key='promptlayer_usage') | tojson }}"``.
        Templated.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param max_outage: seconds (or a ``timedelta``) for which PromptLayer may be out of reach.
    :returns: ``path``, ``score``, ``verdict``, ``change`` since the evaluation before,
        ``calculation_id``, ``criteria`` (``title``, ``verdict``, ``score``, ``pass_rate``,
        ``change``), ``verdict_counts`` of the rows, ``worst_rows`` (numbers), ``price`` in US
        dollars, and ``url`` of the sheet. None stands for what is not known.
    """

    template_fields: Sequence[str] = (
        *SHEET_FIELDS,
        "to",
        "calculation_id",
        "min_score",
        "usage",
        "promptlayer_conn_id",
    )

    def __init__(
        self,
        *,
        to: str | ObjectStoragePath | XComArg,
        calculation_id: str | XComArg | NotSet = NOTSET,
        min_score: float | str | XComArg | NotSet = NOTSET,
        usage: Mapping[str, Any] | str | XComArg | NotSet = NOTSET,
        **kwargs: Unpack[SheetKwargs],
    ) -> None:
        super().__init__(**kwargs)
        self.to: Any = to
        self.calculation_id, self._has_calculation = optional_field(calculation_id)
        self.min_score, self._has_min_score = optional_field(min_score)
        self.usage, self._has_usage = optional_field(usage)
        self.refuse_constants(
            to=_check_ending,
            calculation_id=_uuid_if_any,
            min_score=lambda _, value: check_min_score(value, highest=math.inf),
            usage=_usage,
        )

    def perform(self, context: Context) -> dict[str, Any]:
        """Read the evaluation, and write the page."""
        _check_ending("to", self.to)
        calculation_id = given_field(self.calculation_id, is_given=self._has_calculation)
        if calculation_id is not NOTSET:
            calculation_id = _uuid_if_any("calculation_id", calculation_id)
        min_score = check_min_score(
            given_field(self.min_score, is_given=self._has_min_score), highest=math.inf
        )
        usage = _usage("usage", self.usage)
        sheet = self.found_sheet
        summary = self.hook.summarize_evaluation(
            sheet.table_id,
            sheet.sheet_id,
            calculation_id=calculation_id,
            known=self._known_scores(context, sheet),
            max_outage=self.max_outage,
        )
        self.show_link(context)
        page = render_page(
            summary,
            table=str(self.table or self.table_id),
            sheet=str(self.sheet or self.sheet_id),
            url=self.known_url,
            min_score=min_score,
            usage=usage,
            shows_usage=self._has_usage,
        )
        path = self.hook.write_file(
            self.to,
            page.encode(errors="replace"),
            key=self.file_key(context),
            attempt=context["ti"].try_number,
        )
        self.note_lineage(lambda: Lineage([self.dataset()], [file_dataset(path)]))
        for sentence in summary.missing:
            self.log.warning("The report is not complete. %s", sentence)
        kept = kept_scores(summary.history, sheet)
        self._push(context, _history_key(context), storable(kept).value)
        found = summary.calculation
        said = "no evaluation" if found is None else found.progress
        self.outcome = f"Reported sheet {sheet.sheet_id} ({said}) in {path}."
        result: dict[str, Any] = storable(self._result(summary, path, usage)).value
        return result

    def _result(self, summary: EvaluationSummary, path: str, usage: Usage | None) -> dict[str, Any]:
        found = summary.calculation
        return {
            "path": path,
            "score": summary.current and summary.current.score,
            "verdict": found and found.verdict,
            "change": summary.change,
            "calculation_id": found and found.calculation_id,
            "criteria": [
                {
                    "title": each.criterion.title,
                    "verdict": each.criterion.verdict,
                    "score": each.criterion.score,
                    "pass_rate": each.pass_rate,
                    "change": each.change,
                }
                for each in summary.criteria
            ],
            "verdict_counts": dict(summary.verdict_counts),
            "worst_rows": [each.row.row_index for each in summary.worst],
            "price": usage and usage.price,
            "url": self.known_url,
        }

    def _known_scores(self, context: Context, sheet: Sheet) -> Sequence[PastScore]:
        """Return the scores of the sheet that this task has reported in earlier DAG runs."""
        found = list[Sequence[PastScore]]()
        for key in _HISTORY_KEYS:
            try:
                found.append(read_scores(xcom.pull_earlier(context, key), sheet))
            except UnreadableError as error:
                name = f"The XCom {key} of an earlier DAG run"
                self.log.warning("%s The report is without its scores.", error.about(name))
        return merged_scores(found)


def _history_key(context: Context) -> str:
    """Return the key of the scores in this DAG run: Airflow finds the last run for each key."""
    if context.get("logical_date") is None:
        return xcom.UNDATED_SCORE_HISTORY_KEY
    of_type: dict[Any, str] = {
        "scheduled": xcom.SCORE_HISTORY_KEY,
        "backfill": xcom.BACKFILL_SCORE_HISTORY_KEY,
    }
    run_type = getattr(context.get("dag_run"), "run_type", None)
    return of_type.get(run_type, xcom.UNSCHEDULED_SCORE_HISTORY_KEY)


def _check_ending(name: str, path: Any) -> None:
    if not str(path).lower().endswith(_ENDINGS):
        raise PromptLayerInvalidInputError(f"{name} must be a path that ends with .html.")


def _uuid_if_any(name: str, value: Any) -> str | None:
    return None if value in (None, "") else uuid(name, value)


def _usage(name: str, value: Any) -> Usage | None:
    found = mapping(name, None if value in ("", "null", "None") else value)
    if not found:
        return None
    fields = Fields(found)
    return Usage(
        fields.number_if_any("price"),
        fields.count_if_any("input_tokens"),
        fields.count_if_any("output_tokens"),
        fields.count_if_any("requests"),
    )
