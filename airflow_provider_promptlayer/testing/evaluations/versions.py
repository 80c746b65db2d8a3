# SPDX-License-Identifier: Apache-2.0
"""Saved versions (snapshots) of a sheet: ``…/sheets/{sheet_id}/versions``.

The description leaves open what is in a version's score and in a point of the history. Here the
score has the fields of the calculation that was the latest when the version was saved, and a point
is a version with its score.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from aiohttp import web
from pydantic import BaseModel, Field, StringConstraints, model_validator

from ..http.app import answer, get, refusal
from ..http.validation import Integer, TableBody, Uuid, read_table_body, read_table_query, read_uuid
from ..json_text import JsonValue
from .paging import SHEET_PATH, Endpoints, Paging, find_sheet, page_of, paging_fields
from .rows import columns_of, rows_of
from .runs import Calculation
from .sheet import SavedVersion, SheetState


class _ListVersions(Paging):
    sort: Literal["version_number"] = "version_number"
    order: Literal["asc", "desc"] = "desc"


class _CreateVersion(TableBody):
    name: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = None
    source_version_id: Uuid | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name is None and self.source_version_id is None:
            raise ValueError("a name is required")
        return self


class _ScoreHistory(BaseModel):
    max_points: Annotated[Integer, Field(ge=50, le=5000)] = 1200
    range: Literal["all", "last_25", "last_50", "last_100", "last_250"] = "all"
    resolution: Literal["auto", "raw", "min_max_bucket"] = "auto"


class VersionEndpoints(Endpoints):
    """Versions: listed, saved, restored, and the scores that they had."""

    @property
    def routes(self) -> list[web.RouteDef]:
        """The endpoints."""
        versions = f"{SHEET_PATH}/versions"
        return [
            get(versions, self.list_versions),
            web.post(versions, self.create_version),
            get(f"{versions}/score-history", self.get_score_history),
            get(f"{versions}/{{version_id:[^/]+}}", self.get_version),
        ]

    async def list_versions(self, request: web.Request) -> web.Response:
        """List the versions by page, the newest first, without what they hold."""
        sheet = find_sheet(self._workspace, request)
        query = read_table_query(request, _ListVersions)
        versions, next_cursor = page_of(sheet.versions, query)
        pagination = paging_fields(next_cursor, query, "libraries")
        return answer(
            200,
            {
                "success": True,
                "data": [_version(sheet, each) for each in versions],
                **pagination,
                "filters": {},
                "count": len(versions),
            },
        )

    async def create_version(self, request: web.Request) -> web.Response:
        """Save a version: 201, also of a name that there is; or restore one and save that."""
        sheet = find_sheet(self._workspace, request)
        body = await read_table_body(request, _CreateVersion, required=True)
        if body.source_version_id is not None:
            sheet.restore(_find(sheet, body.source_version_id))
        saved = sheet.save_version(body.name, self._workspace.timestamp(), self._snapshot(sheet))
        return answer(201, {"success": True, "version": _whole(sheet, saved)})

    async def get_version(self, request: web.Request) -> web.Response:
        """Return a version with all that it holds."""
        sheet = find_sheet(self._workspace, request)
        saved = _find(sheet, read_uuid(request, "version_id"))
        return answer(200, {"success": True, "version": _whole(sheet, saved)})

    async def get_score_history(self, request: web.Request) -> web.Response:
        """Return the versions that have a score, the oldest first; of too many, every nth one."""
        sheet = find_sheet(self._workspace, request)
        query = read_table_query(request, _ScoreHistory)
        scored = [
            _point(each, each.calculation)
            for each in sheet.versions
            if each.calculation is not None
        ]
        if query.range != "all":
            scored = scored[-int(query.range.removeprefix("last_")) :]
        step = -(-len(scored) // query.max_points) or 1
        points = scored[::-step][::-1]
        return answer(
            200,
            {
                "success": True,
                "score_history": {
                    "points": points,
                    "total_points": len(scored),
                    "returned_points": len(points),
                    "resolution": query.resolution,
                    "range": query.range,
                    "max_points": query.max_points,
                    "is_sampled": step > 1,
                },
            },
        )

    def _snapshot(self, sheet: SheetState) -> JsonValue:
        return {
            "columns": columns_of(sheet, sheet.columns),
            "rows": rows_of(sheet, range(sheet.row_count), self._workspace.dialect),
            "row_count": sheet.row_count,
        }


def _find(sheet: SheetState, version_id: str) -> SavedVersion:
    for saved in sheet.versions:
        if saved.id == version_id:
            return saved
    raise refusal(404, "Version not found")


def _version(sheet: SheetState, saved: SavedVersion) -> dict[str, JsonValue]:
    calculation = saved.calculation
    return {
        "id": saved.id,
        "sheet_id": sheet.id,
        "version_number": saved.number,
        "name": saved.name,
        "created_by": None,
        "created_at": saved.created_at,
        "metadata": {},
        "deltas": [],
        "score": {}
        if calculation is None
        else {
            "aggregate_score": calculation.scorecard.score,
            "aggregate_verdict": calculation.scorecard.verdict,
            "calculation_id": calculation.id,
            "config_hash": calculation.config_hash,
        },
        "score_configuration": None,
    }


def _whole(sheet: SheetState, saved: SavedVersion) -> JsonValue:
    return {**_version(sheet, saved), "snapshot": saved.snapshot}


def _point(saved: SavedVersion, calculation: Calculation) -> JsonValue:
    return {
        "version_id": saved.id,
        "version_number": saved.number,
        "name": saved.name,
        "created_at": saved.created_at,
        "score": calculation.scorecard.score,
        "config_hash": calculation.config_hash,
    }
