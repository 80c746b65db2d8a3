# SPDX-License-Identifier: Apache-2.0
"""Has the score of a scorecard dropped? Against which earlier score, and by how much it may.

PromptLayer has no list of the calculations of a scorecard. So an earlier score is that of a saved
version of the sheet; where no version has one, that of the calculation before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from airflow_provider_promptlayer.api.arguments import NOTSET, score, title_text
from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.fields import Fields
from airflow_provider_promptlayer.api.job import CallFlow
from airflow_provider_promptlayer.api.scorecards import (
    ScorecardCalculation,
    scorecard,
    show_score,
)
from airflow_provider_promptlayer.api.tables import Sheet
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.times import is_after
from airflow_provider_promptlayer.api.versions import (
    SheetVersion,
    find_version,
    list_versions,
    score_history,
    version_of,
)

PREVIOUS: Final = "previous"
"""The ``baseline`` that is the last score before the one that is judged."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """An earlier score.

    :param source: whose score it is, for messages: ``"version 12 'nightly'"``.
    :param config_hash: see :class:`.ScorecardCalculation`.
    """

    score: float
    source: str
    config_hash: str | None = None

    def payload(self) -> dict[str, Any]:
        """Return the score as plain JSON, for another process."""
        return asdict(self)

    @classmethod
    def read(cls, fields: Fields) -> Baseline | None:
        """Return what :meth:`payload` has made; None where it has no score."""
        found = fields.number_or_none("score")
        if found is None:
            return None
        return cls(found, fields.text("source"), fields.text_or_none("config_hash"))


@dataclass(frozen=True, slots=True)
class DropGate:
    """How far a score may be below an earlier one.

    :param max_drop: on the scorecard's own scale.
    :param baseline: :data:`PREVIOUS`, or the name of a saved version.
    """

    max_drop: float
    baseline: str = PREVIOUS

    @classmethod
    def of(cls, max_drop: Any, baseline: Any) -> DropGate | None:
        """Return the gate that arguments ask for, or None where ``max_drop`` was left out.

        :raises PromptLayerInvalidInputError: for an invalid argument, and for None: a missing XCom
            must not open the gate.
        """
        if max_drop is NOTSET:
            if baseline != PREVIOUS:
                raise PromptLayerInvalidInputError("baseline needs max_drop: give both.")
            return None
        if max_drop is None:
            raise PromptLayerInvalidInputError(
                "max_drop must be a number, not None, which a template or an XCom without a value "
                "gives: leave max_drop out where a score may drop."
            )
        return cls(score("max_drop", max_drop), title_text("baseline", baseline))

    def find(
        self, sheet: Sheet, judged: ScorecardCalculation | None = None
    ) -> CallFlow[Baseline | None]:
        """Return the score to compare with, or None where there is none yet.

        :param judged: the calculation to compare; None where it has not been started.
        :raises PromptLayerNotFoundError: if no version has the name.
        :raises PromptLayerInvalidInputError: if that version has no score.
        """
        if self.baseline == PREVIOUS:
            return (yield from _previous(sheet, judged))
        return (yield from _named(sheet, self.baseline))

    def compare(self, calculation: ScorecardCalculation, baseline: Baseline | None) -> Comparison:
        """Return whether the score of a calculation has dropped, and what to say about it."""
        if calculation.score is None:
            return Comparison("the calculation has no score to compare", "", is_compared=False)
        if baseline is None:
            return Comparison(
                "",
                "There is no earlier score to compare with yet: no saved version of the sheet has "
                "one, and no calculation before this one is known. So max_drop did not apply.",
                is_compared=False,
            )
        ours, theirs = calculation.config_hash, baseline.config_hash
        if ours and theirs and ours != theirs:
            return Comparison(
                "",
                f"The score {show_score(calculation.score)} was not compared with the "
                f"{show_score(baseline.score)} of {baseline.source}, because the scorecard was "
                f"configured otherwise then (config_hash {one_line(theirs, 40)}, now "
                f"{one_line(ours, 40)}). So max_drop did not apply.",
                is_compared=False,
            )
        drop = _difference(baseline.score, calculation.score)
        is_within = drop <= self.max_drop or math.isclose(drop, self.max_drop, rel_tol=1e-9)
        by = f"{abs(drop):.6g} {'below' if drop > 0 else 'above'}" if drop else "the same as"
        found = (
            f"the score {show_score(calculation.score)} is {by} the {show_score(baseline.score)} "
            f"of {baseline.source}"
        )
        note = f"{found[:1].upper()}{found[1:]}; max_drop is {show_score(self.max_drop)}."
        if not (ours and theirs):
            note += " PromptLayer does not say whether the scorecard was configured alike."
        return Comparison(
            "" if is_within else f"{found}, more than max_drop={show_score(self.max_drop)}", note
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """What comparing two scores has found.

    :param problem: why the gate fails, as a phrase; empty if it passes.
    :param note: a sentence for the log.
    :param is_compared: False if there was nothing to compare with.
    """

    problem: str
    note: str
    is_compared: bool = True


def _difference(score: float, other: float) -> float:
    try:
        return score - float(other)
    except OverflowError:  # Python's integers may have thousands of digits
        return math.inf if score > other else -math.inf


def _named(sheet: Sheet, name: str) -> CallFlow[Baseline]:
    version = yield from find_version(sheet, name)
    if version.score is None and version.version_id:  # the list may leave the score out
        version = yield version_of(sheet, version.version_id)
    if version.score is None:
        raise PromptLayerInvalidInputError(
            f"The {version} of sheet {sheet.sheet_id} has no score to compare with."
        )
    return Baseline(version.score, str(version), version.config_hash)


def _previous(sheet: Sheet, judged: ScorecardCalculation | None) -> CallFlow[Baseline | None]:
    page = yield list_versions(sheet)
    if found := _latest(page.items, judged):
        return found
    if page.items and (found := _latest(reversed((yield score_history(sheet))), judged)):
        return found
    card = yield scorecard(sheet)
    last = card and card.last_scored
    if last is None or (
        judged
        and (
            last.calculation_id == judged.calculation_id
            or is_after(last.started_at, judged.started_at)
        )
    ):
        return None
    return Baseline(last.score, f"calculation {last.calculation_id}", last.config_hash)


def _latest(
    versions: Iterable[SheetVersion], judged: ScorecardCalculation | None
) -> Baseline | None:
    """Return the score of the first version that has one, and was saved before a calculation."""
    for version in versions:
        if version.score is not None and not (
            judged and is_after(version.created_at, judged.started_at)
        ):
            return Baseline(version.score, str(version), version.config_hash)
    return None
