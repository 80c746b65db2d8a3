# SPDX-License-Identifier: Apache-2.0
"""The version of a prompt template that a column of a sheet uses.

Facts are those of PromptLayer's published API description ("List Table Sheet Columns", "Update
Column") and of its MCP server: the configuration of a column is replaced as a whole, and that of a
``PROMPT_TEMPLATE`` column has ``template: {name, version_number | label}``, without either for the
latest version. So all of it is read and sent, with one key changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

from airflow_provider_promptlayer.api.arguments import (
    encode,
    exactly_one,
    mapping,
    positive,
    title_text,
)
from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.fields import Fields, object_call
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.job import CallFlow
from airflow_provider_promptlayer.api.names import columns_among, read_id
from airflow_provider_promptlayer.api.pages import PAGE_SIZE, Page, read_page, visit_items
from airflow_provider_promptlayer.api.tables import Sheet
from airflow_provider_promptlayer.api.text import one_line

_VERSION_KEYS: Final = ("version_number", "label")


@dataclass(frozen=True, slots=True)
class PointedColumn:
    """A column, and its configuration before and after it is pointed at another version."""

    column_id: str
    title: str
    before: Mapping[str, Any] = field(repr=False)
    after: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"column {one_line(repr(self.title), 80)}"


@dataclass(frozen=True, slots=True)
class _ColumnConfig:
    column_id: str
    title: str
    config: Mapping[str, Any] = field(repr=False)


def version_keys(name: str, value: Any) -> dict[str, Any]:
    """Return what a template is to have in place of its version, of ``{"label": …}`` or such.

    :raises PromptLayerInvalidInputError: unless it is a mapping of ``version`` or ``label`` alone.
    """
    given = mapping(name, value)
    if unknown := given.keys() - {"version", "label"}:
        raise PromptLayerInvalidInputError(
            f"{name} has {one_line(repr(sorted(unknown)[0]), 80)}: give a version or a label."
        )
    version, label = given.get("version"), given.get("label")
    exactly_one(f"of {name}", version=version, label=label)
    if version is None:
        return {"label": title_text(f"{name}.label", label)}
    return {"version_number": positive(f"{name}.version", version)}


def pointed_columns(sheet: Sheet, versions: Mapping[str, Any]) -> CallFlow[list[PointedColumn]]:
    """Return the columns that are to be pointed at versions; nothing is changed yet.

    :param versions: title or UUID of a column → see :func:`version_keys`.
    :raises PromptLayerNotFoundError: if the sheet has no such column.
    :raises PromptLayerInvalidInputError: if a column uses no prompt template.
    """
    wanted = {
        title: version_keys(f"column_versions[{title!r}]", versions[title]) for title in versions
    }
    configs = yield from _configs(sheet)
    titles = {column_id: column.title for column_id, column in configs.items()}
    pointed = []
    for column_id, keys in zip(
        columns_among(titles, list(wanted), sheet), wanted.values(), strict=True
    ):
        column = configs[column_id]
        template = column.config.get("template")
        if not isinstance(template, Mapping):
            raise PromptLayerInvalidInputError(
                f"Column {one_line(repr(column.title), 80)} uses no prompt template, so it cannot "
                "be pointed at a version of one."
            )
        rest = {key: value for key, value in template.items() if key not in _VERSION_KEYS}
        after = {**column.config, "template": {**rest, **keys}}
        pointed.append(PointedColumn(column_id, column.title, column.config, after))
    return pointed


def replace_configs(
    sheet: Sheet, columns: Iterable[PointedColumn], *, back: bool
) -> CallFlow[list[PointedColumn]]:
    """Point columns at their versions, or back; return those that somebody else has changed.

    Each configuration is read before one is replaced. A column that has another one than expected
    is left alone, and then no column is pointed at its version; the others are pointed back.

    :param back: whether to restore what was there before.
    """
    configs = yield from _configs(sheet)
    changed, replaced = [], []
    for column in columns:
        expected, wanted = (column.after, column.before) if back else (column.before, column.after)
        found = configs.get(column.column_id)
        if found is None or found.config not in (expected, wanted):
            changed.append(column)
        elif found.config != wanted:
            replaced.append((column, wanted))
    if back or not changed:
        for column, wanted in replaced:
            yield _set_config(sheet, column, wanted, starts=not back)
    return changed


def _configs(sheet: Sheet) -> CallFlow[dict[str, _ColumnConfig]]:
    found: list[_ColumnConfig] = []
    yield from visit_items(partial(_page, sheet), found.append)
    return {column.column_id: column for column in found}


def _page(sheet: Sheet, cursor: str | None) -> Call[Page[_ColumnConfig]]:
    query = {"limit": str(PAGE_SIZE), **({} if cursor is None else {"cursor": cursor})}

    def read(item: Fields) -> _ColumnConfig:
        config = item.mapping_or_none("config") or {}
        return _ColumnConfig(read_id(item), item.text_if_any("title") or "", config)

    purpose = f"list the columns of sheet {sheet.sheet_id}"
    return object_call(
        sheet.request("GET", f"columns?{urlencode(query)}", purpose),
        lambda answer: read_page(answer, read),
    )


def _set_config(
    sheet: Sheet, column: PointedColumn, config: Mapping[str, Any], *, starts: bool
) -> Call[None]:
    """``PATCH …/columns/{id}``: replace a configuration; may be sent again without harm.

    :param starts: whether it prepares a start, so that a task that is being stopped sends none.
    """
    call = object_call(
        sheet.request(
            "PATCH",
            f"columns/{column.column_id}",
            f"replace the configuration of {column.name}",
            encode("column_versions", {"config": config}),
        ),
        lambda _: None,
    )
    return replace(call, starts=starts)
