# SPDX-License-Identifier: Apache-2.0
"""What a task has read, written and checked, for OpenLineage.

A task notes its :class:`Lineage` as plain values, whether OpenLineage is there or not: Airflow's
provider of OpenLineage asks for it in a process that it forks off, where nothing may be sent.
docs/monitoring.md says what is in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_promptlayer.api.scorecards import ScorecardCalculation, show_score
from airflow_provider_promptlayer.api.tables import Sheet
from airflow_provider_promptlayer.outcomes.evaluations import (
    DEFAULT_FAIL_ON_VERDICT,
    Criterion,
    criteria,
)

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

REQUEST_LOGS: Final = "request-logs"
"""The name of PromptLayer's request logs, which are one dataset."""


@dataclass(frozen=True, slots=True)
class Assertion:
    """Whether a sheet has passed a check.

    :param assertion: what was checked.
    :param expected: what it takes to pass, in words.
    :param actual: what was found.
    """

    assertion: str
    success: bool
    expected: str | None = None
    actual: str | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A sheet or a file.

    :param row_count: how many rows were written; None if unknown, or if it was read.
    :param assertions: what was checked, of a dataset that was read.
    """

    namespace: str
    name: str
    row_count: int | None = None
    assertions: Sequence[Assertion] = ()


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a task has read and written, as far as it has come.

    :param job_ids: the ids of the jobs, None for one that is unknown; empty for those of the job
        that the task has waited for.
    """

    inputs: Sequence[Dataset] = ()
    outputs: Sequence[Dataset] = ()
    job_ids: Sequence[int | str | None] = ()


def promptlayer_namespace(base_url: str) -> str:
    """Return the namespace of what is at a PromptLayer."""
    return f"promptlayer://{base_url.partition('://')[2]}"


def sheet_dataset(base_url: str, sheet: Sheet, **facts: Any) -> Dataset:
    """Return a sheet as a dataset. Its name has UUIDs, as titles change."""
    name = f"tables/{sheet.table_id}/sheets/{sheet.sheet_id}"
    return Dataset(promptlayer_namespace(base_url), name, **facts)


def file_dataset(path: Any, **facts: Any) -> Dataset:
    """Return a file as a dataset, named as Airflow's providers name the assets of files.

    :param path: of Airflow's object storage; the id of a connection in it is left out.
    """
    text = str(path)
    scheme, rest = text.split("://", 1) if "://" in text else ("file", text)
    if scheme == "file":
        return Dataset(scheme, str(Path(rest).absolute()), **facts)
    scheme = scheme.lower()
    if scheme in ("http", "https"):  # elsewhere, ? and # are parts of a name
        rest = re.split("[?#]", rest)[0]  # what follows may hold a signature
    place, _, name = rest.partition("/")
    return Dataset(f"{scheme}://{place.rpartition('@')[2]}", name.strip("/"), **facts)


def scorecard_assertions(
    ending: ScorecardCalculation, *, passed: bool, expected: str, fail_on_verdict: Sequence[str]
) -> list[Assertion]:
    """Return an assertion for the gate, and one for each criterion.

    :param expected: what the gate asks for.
    """
    blamed = {*DEFAULT_FAIL_ON_VERDICT, *fail_on_verdict}
    gate = Assertion("gate", passed, expected or None, ending.progress)
    return [
        gate,
        *(
            Assertion(each.title, not each.fails(blamed), actual=_found(each))
            for each in criteria(ending)
        ),
    ]


def _found(criterion: Criterion) -> str | None:
    score = None if criterion.score is None else f"score {show_score(criterion.score)}"
    return ", ".join(filter(None, [criterion.verdict, score])) or None


def operator_lineage(lineage: Lineage, source: str | None) -> OperatorLineage[Any, Any]:
    """Return the facets and datasets for Airflow's provider of OpenLineage.

    :param source: where the jobs are: the URL of a page, or the namespace of PromptLayer.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.facet_v2 import external_query_run

    ids = ",".join(str(each) for each in lineage.job_ids if each is not None)
    run_facets = {}
    if ids and source is not None:
        run_facets["externalQuery"] = external_query_run.ExternalQueryRunFacet(ids, source)
    return OperatorLineage(
        inputs=[_input(each) for each in lineage.inputs],
        outputs=[_output(each) for each in lineage.outputs],
        run_facets=run_facets,
    )


def _input(dataset: Dataset) -> Any:
    import attr
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import data_quality_assertions_dataset as quality

    # Clients of before 2026 have no field for what was expected and found.
    known = attr.fields_dict(quality.Assertion)
    found = [
        quality.Assertion(**{name: value for name, value in asdict(each).items() if name in known})
        for each in dataset.assertions
    ]
    facet = quality.DataQualityAssertionsDatasetFacet(found)
    facets: dict[str, Any] = {"dataQualityAssertions": facet} if found else {}
    return InputDataset(dataset.namespace, dataset.name, inputFacets=facets)


def _output(dataset: Dataset) -> Any:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    rows = dataset.row_count
    facet = statistics.OutputStatisticsOutputDatasetFacet(rowCount=rows)
    facets: dict[str, Any] = {} if rows is None else {"outputStatistics": facet}
    return OutputDataset(dataset.namespace, dataset.name, outputFacets=facets)
