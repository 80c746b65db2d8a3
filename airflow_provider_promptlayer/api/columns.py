# SPDX-License-Identifier: Apache-2.0
"""The version of a prompt template or a workflow that a column of a sheet uses.

Facts are those of PromptLayer's published API description ("List Table Sheet Columns", "Update
Column"), of its MCP server (the configuration of a column is replaced as a whole) and of its page
"Node & Column Types": a ``PROMPT_TEMPLATE`` column has ``template: {name, version_number | label}``
and a ``WORKFLOW`` column ``workflow_id`` and ``workflow_version_number | workflow_label``, each
without a version or a label for the latest version.

So all of the configuration is read and sent, with one key changed. Whether somebody else has
changed a column is told by this key, and by the name or id before it: PromptLayer may add defaults
to the rest, and what others change there is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from urllib.parse import urlencode

from airflow_provider_promptlayer.api.arguments import (
    encode,
    exactly_one,
    mapping,
    positive,
    title_text,
)
from airflow_provider_promptlayer.api.errors import (
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
)
from airflow_provider_promptlayer.api.fields import Fields, object_call
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.job import CallFlow
from airflow_provider_promptlayer.api.names import columns_among, read_id
from airflow_provider_promptlayer.api.pages import PAGE_SIZE, Page, read_page, visit_items
from airflow_provider_promptlayer.api.tables import Sheet
from airflow_provider_promptlayer.api.text import quoted


@dataclass(frozen=True, slots=True)
class PointedColumn:
    """A column, and the version that it uses before and after it is pointed at another one.

    :param of: the name of its prompt template, or the id of its workflow.
    :param before: ``{"label": …}`` or ``{"version": …}``; empty for the latest version. Both, if
        PromptLayer also says which version the label leads to: the label counts.
    :param after: one of them.
    """

    column_id: str
    title: str
    of: Any
    before: Mapping[str, Any]
    after: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"column {quoted(self.title)}"

    @property
    def stays(self) -> bool:
        """Whether it is at the wanted version, or label, already."""
        return _counts(self.before) == _counts(self.after)


def _counts(version: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"label": version["label"]} if "label" in version else version


def shown_version(version: Mapping[str, Any]) -> str:
    """Return how a log names a version as in :attr:`PointedColumn.before`."""
    for name, value in _counts(version).items():
        return f"{name} {quoted(value)}"
    return "the latest version"


@dataclass(frozen=True, slots=True)
class _ColumnConfig:
    """A column's configuration, if that names a prompt template or a workflow.

    :param where: the key of the object that has the version; None for the configuration itself.
    :param keys: what that object calls the name or id, the version and the label.
    """

    column_id: str
    title: str
    config: Mapping[str, Any] = field(repr=False)
    where: str | None
    keys: tuple[str, str, str] | None

    @classmethod
    def read(cls, item: Fields) -> _ColumnConfig:
        config = item.mapping_or_none("config") or {}
        where, keys = None, None
        if isinstance(config.get("template"), Mapping):
            where, keys = "template", ("name", "version_number", "label")
        elif "workflow_id" in config:
            keys = ("workflow_id", "workflow_version_number", "workflow_label")
        return cls(read_id(item), item.text_if_any("title") or "", config, where, keys)

    @property
    def _object(self) -> Mapping[str, Any]:
        return self.config if self.where is None else self.config[self.where]

    def pointed(self, after: Mapping[str, Any]) -> PointedColumn | None:
        """Return the column, to be pointed at a version; None if it uses none of anything."""
        if self.keys is None:
            return None
        of, *names = (self._object.get(key) for key in self.keys)
        found = zip(("version", "label"), names, strict=True)
        before = {name: value for name, value in found if value is not None}
        return PointedColumn(self.column_id, self.title, of, before, after)

    def with_version(self, version: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the configuration with another version."""
        if self.keys is None:
            return self.config
        names = dict(zip(("version", "label"), self.keys[1:], strict=True))
        rest = {key: value for key, value in self._object.items() if key not in names.values()}
        changed = {**rest, **{names[name]: value for name, value in version.items()}}
        return changed if self.where is None else {**self.config, self.where: changed}


def wanted_version(name: str, value: Any) -> dict[str, Any]:
    """Return the version that a column is to use, as :attr:`PointedColumn.after`.

    :raises PromptLayerInvalidInputError: unless it is a mapping of ``version`` or ``label`` alone.
    """
    given = mapping(name, value)
    if unknown := given.keys() - {"version", "label"}:
        raise PromptLayerInvalidInputError(
            f"{name} has {quoted(sorted(unknown)[0])}: give a version or a label."
        )
    version, label = given.get("version"), given.get("label")
    exactly_one(f"of {name}", version=version, label=label)
    if version is None:
        return {"label": title_text(f"{name}.label", label)}
    return {"version": positive(f"{name}.version", version)}


def check_column_versions(name: str, value: Any) -> dict[str, dict[str, Any]]:
    """Return for each column which version it is to use, see :func:`wanted_version`."""
    return {
        title: wanted_version(f"{name}[{title!r}]", given)
        for title, given in mapping(name, value).items()
    }


def pointed_columns(sheet: Sheet, versions: Mapping[str, Any]) -> CallFlow[list[PointedColumn]]:
    """Return the columns that are to be pointed at versions; nothing is changed yet.

    :param versions: title or UUID of a column → see :func:`wanted_version`.
    :raises PromptLayerNotFoundError: if the sheet has no such column.
    :raises PromptLayerInvalidInputError: if a column uses no prompt template and no workflow, or is
        there twice.
    """
    wanted = check_column_versions("column_versions", versions)
    configs = yield from _configs(sheet)
    titles = {column_id: column.title for column_id, column in configs.items()}
    pointed: list[PointedColumn] = []
    for column_id, version in zip(
        columns_among(titles, list(wanted), sheet), wanted.values(), strict=True
    ):
        if column_id not in configs:
            raise PromptLayerNotFoundError(f"Sheet {sheet.sheet_id} has no column {column_id}.")
        if column_id in {each.column_id for each in pointed}:
            raise PromptLayerInvalidInputError(
                f"column_versions has column {quoted(configs[column_id].title)} twice, "
                "by its title and by its UUID."
            )
        column = configs[column_id].pointed(version)
        if column is None:
            raise PromptLayerInvalidInputError(
                f"Column {quoted(configs[column_id].title)} uses no prompt template "
                "and no workflow, so it cannot be pointed at a version of one."
            )
        pointed.append(column)
    return pointed


def replace_configs(
    sheet: Sheet, columns: Iterable[PointedColumn], *, back: bool
) -> CallFlow[list[PointedColumn]]:
    """Point columns at their versions, or back; return those that somebody else has changed.

    Each configuration is read before one is replaced. A column that uses another version than
    expected is left alone, and then no column is pointed at its version; the others are pointed
    back.

    :param back: whether to restore the version that was there before.
    """
    configs = yield from _configs(sheet)
    changed: list[PointedColumn] = []
    replaced: list[tuple[PointedColumn, Mapping[str, Any]]] = []
    for column in columns:
        expected, wanted = (column.after, column.before) if back else (column.before, column.after)
        config = configs.get(column.column_id)
        found = None if config is None else config.pointed(wanted)
        if config is None or found is None or found.of != column.of:
            changed.append(column)
        elif not found.stays:
            if _counts(found.before) == _counts(expected):
                replaced.append((column, config.with_version(wanted)))
            else:
                changed.append(column)
    if back or not changed:
        for column, new in replaced:
            yield _set_config(sheet, column, new, starts=not back)
    return changed


def _configs(sheet: Sheet) -> CallFlow[dict[str, _ColumnConfig]]:
    found: list[_ColumnConfig] = []
    yield from visit_items(partial(_page, sheet), found.append)
    return {column.column_id: column for column in found}


def _page(sheet: Sheet, cursor: str | None) -> Call[Page[_ColumnConfig]]:
    query = {"limit": str(PAGE_SIZE), **({} if cursor is None else {"cursor": cursor})}

    purpose = f"list the columns of sheet {sheet.sheet_id}"
    return object_call(
        sheet.request("GET", f"columns?{urlencode(query)}", purpose),
        lambda answer: read_page(answer, _ColumnConfig.read),
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
