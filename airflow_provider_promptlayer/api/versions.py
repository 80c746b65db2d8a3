# SPDX-License-Identifier: Apache-2.0
"""Saved versions (snapshots) of a sheet, and their scores.

Facts are those of PromptLayer's published API description ("List Table Sheet Versions", "Create
Table Sheet Version", "Get Table Sheet Version", "Get Table Sheet Score History"). It leaves the
shape of a version's score and of a point of the history open: fields of known names are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from airflow_provider_promptlayer.api.arguments import encode, title_text, uuid
from airflow_provider_promptlayer.api.errors import (
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
)
from airflow_provider_promptlayer.api.fields import FieldError, Fields, object_call
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.job import CallFlow
from airflow_provider_promptlayer.api.pages import PAGE_SIZE, Page, read_page, visit_items
from airflow_provider_promptlayer.api.submit import submit_call
from airflow_provider_promptlayer.api.tables import Sheet, show_count
from airflow_provider_promptlayer.api.text import listed, one_line, quoted

_SCORES: Final = ("aggregate_score", "overall_score", "score")
"""What PromptLayer calls the one score of a scorecard, of a sheet and of a column."""

_VERDICTS: Final = ("aggregate_verdict", "verdict")

_NAMES_LISTED: Final = 5


@dataclass(frozen=True, slots=True)
class SheetVersion:
    """A saved version of a sheet.

    :param version_id: a UUID; None for a point of the score history that has none.
    :param version_number: rises with each saved version; None as above.
    :param name: not unique; None for a version without one.
    :param created_at: as PromptLayer wrote it, or None.
    :param score: of the scorecard when the version was saved; None where PromptLayer has none, or
        shows it in another answer alone.
    :param config_hash: see :class:`.ScorecardCalculation`.
    :param verdict: of the scorecard, as the score.
    :param calculation_id: that of the calculation which has made the score, where PromptLayer says.
    """

    version_id: str | None
    version_number: int | None
    name: str | None = None
    created_at: str | None = None
    score: float | None = None
    config_hash: str | None = None
    verdict: str | None = None
    calculation_id: str | None = None

    def __str__(self) -> str:
        number = "" if self.version_number is None else f" {show_count(self.version_number)}"
        name = f" {one_line(self.name, 80)!r}" if self.name else ""
        return f"version{number}{name}"


def list_versions(
    sheet: Sheet, *, cursor: str | None = None, limit: int = PAGE_SIZE
) -> Call[Page[SheetVersion]]:
    """``GET …/versions``: a page of the saved versions of a sheet, the newest first.

    :param cursor: ``next_cursor`` of the page before, of the same limit.
    """
    query = {"limit": limit, "order": "desc"} | ({} if cursor is None else {"cursor": cursor})
    purpose = f"list the versions of sheet {sheet.sheet_id}"
    return object_call(
        sheet.request("GET", f"versions?{urlencode(query)}", purpose),
        lambda answer: read_page(answer, _saved, size=limit),
    )


def version_of(sheet: Sheet, version_id: str) -> Call[SheetVersion]:
    """``GET …/versions/{version_id}``: one version; the answer also has the whole snapshot."""
    wanted = uuid("version_id", version_id)
    return object_call(
        sheet.request("GET", f"versions/{wanted}", f"read version {wanted}"),
        lambda answer: _saved(answer.object("version")),
    )


def create_version(sheet: Sheet, name: str) -> Call[SheetVersion]:
    """``POST …/versions``: save the sheet as it is under a name; a repeat saves another version.

    :raises PromptLayerInvalidInputError: for a name that cannot be sent.
    """
    wanted = title_text("name", name)
    return submit_call(
        sheet.request(
            "POST",
            "versions",
            f"save a version of sheet {sheet.sheet_id}",
            encode("name", {"name": wanted}),
        ),
        lambda answer: _saved(answer.object("version")),
        id_field="version",
        advice="The version may have been saved all the same: look at the sheet in PromptLayer.",
        hints={404: "Check table_id and sheet_id, and the workspace of the key."},
    )


def score_history(sheet: Sheet) -> Call[tuple[SheetVersion, ...]]:
    """``GET …/versions/score-history``: the last versions that have a score, the oldest first."""

    def build(answer: Fields) -> tuple[SheetVersion, ...]:
        points = map(_point, answer.object("score_history").objects("points"))
        scored = [point for point in points if point.score is not None]
        return tuple(sorted(scored, key=lambda point: point.version_number or 0))

    purpose = f"read the score history of sheet {sheet.sheet_id}"
    query = urlencode({"range": "last_25", "resolution": "raw"})
    return object_call(sheet.request("GET", f"versions/score-history?{query}", purpose), build)


def find_version(sheet: Sheet, name: str) -> CallFlow[SheetVersion]:
    """Return the newest version that has exactly this name.

    :raises PromptLayerNotFoundError: if none has it; names some that there are.
    """
    found: list[SheetVersion] = []
    others = dict[str, None]()

    def visit(version: SheetVersion) -> bool:
        if version.name == name:
            found.append(version)
        elif version.name:
            others[version.name] = None
        return bool(found)

    yield from visit_items(lambda cursor: list_versions(sheet, cursor=cursor), visit)
    if found:
        return found[0]
    shown = (quoted(other) for other in others)
    there = listed(shown, len(others), _NAMES_LISTED, ", ") or "none with a name"
    raise PromptLayerNotFoundError(
        f"Sheet {sheet.sheet_id} has no saved version named {quoted(name)}, and names "
        f"are matched exactly. It has: {there}."
    )


def _saved(fields: Fields) -> SheetVersion:
    try:
        version_id = uuid("id", fields.text("id"))
    except PromptLayerInvalidInputError:
        raise FieldError("has a version whose id is no UUID") from None
    return _version(fields, version_id, fields.count("version_number"))


def _point(fields: Fields) -> SheetVersion:
    return _version(fields, fields.text_if_any("version_id"), fields.count_if_any("version_number"))


def _version(fields: Fields, version_id: str | None, version_number: int | None) -> SheetVersion:
    # The score is a field of its own, or in an object together with its configuration.
    places = (
        fields,
        fields.object_if_any("score"),
        fields.object_if_any("score_configuration"),
    )
    scores = (place.number_if_any(name) for place in places for name in _SCORES)
    hashes = (place.text_if_any("config_hash") for place in places)
    ids = (place.text_if_any("calculation_id") for place in places)
    verdicts = (place.text_if_any(name) for place in places for name in _VERDICTS)
    return SheetVersion(
        version_id,
        version_number,
        fields.text_if_any("name"),
        fields.text_if_any("created_at"),
        next((score for score in scores if score is not None), None),
        next(filter(None, hashes), None),
        next(filter(None, verdicts), None),
        next(filter(None, ids), None),
    )
