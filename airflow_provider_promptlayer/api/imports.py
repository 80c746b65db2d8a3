# SPDX-License-Identifier: Apache-2.0
"""Imports: rows that PromptLayer takes from a file, or from request logs, into a sheet.

An import is the one job of PromptLayer's that has an idempotency key: its ``operation_id`` is
chosen by the client, and PromptLayer says what has become of it, or that it was never started
(404). What PromptLayer makes of a repeated ``operation_id`` is not documented, so
:meth:`ImportOrder.find_call` is sent before :meth:`ImportOrder.start_call`.

Facts are those of PromptLayer's published API description ("Create Sheet", "Import File Into Table
Sheet", "Import Request Logs Into Table Sheet", "Get Sheet Import Operation"). Older pages call the
statuses queued and succeeded.
"""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, BinaryIO, ClassVar, Final, Literal, TypeAlias
from urllib.parse import quote, urlencode
from uuid import UUID, uuid5

from airflow_provider_promptlayer.api.arguments import (
    encode,
    opaque_text,
    title_text,
    uuid,
)
from airflow_provider_promptlayer.api.errors import (
    PromptLayerInvalidInputError,
    PromptLayerTransientError,
    PromptLayerUnexpectedAnswerError,
)
from airflow_provider_promptlayer.api.fields import Fields, object_call
from airflow_provider_promptlayer.api.http import (
    BodyStream,
    Call,
    Request,
    Response,
    error_for,
    error_text,
)
from airflow_provider_promptlayer.api.job import CallFlow, IdParsers, RemoteJob
from airflow_provider_promptlayer.api.names import read_id
from airflow_provider_promptlayer.api.pages import PAGE_SIZE, Page, read_page, visit_items
from airflow_provider_promptlayer.api.tables import Sheet
from airflow_provider_promptlayer.api.text import listed, one_line, quoted, says_no_requests
from airflow_provider_promptlayer.api.times import seconds_between, timestamp

_COMPLETED: Final = frozenset({"completed", "succeeded"})
_FAILED: Final = frozenset({"failed"})

_NAMESPACE: Final = UUID("0f6a6f0e-6a4b-5f0e-9c39-6d8ed4c1b7a2")
"""Keeps the ids of :func:`operation_id_of` apart from those of other programs."""

_MADE_WITH_IMPORT: Final = 60.0
"""Seconds that may lie between the start of an import and the making of its sheet."""

_CHUNK: Final = 3 * 128 * 1024
"""Bytes of a file that are encoded at once: base64 turns three bytes into four."""

_CONTENT: Final = "file_content_base64"


@dataclass(frozen=True, slots=True)
class ImportStatus:
    """What a poll of an import has found.

    :param status: as PromptLayer wrote it; any text.
    :param rows_added: None where the answer does not say.
    :param row_count: rows of the sheet; None where the answer does not say.
    :param error_message: why the import has failed.
    :param created_at: when the import was started, as PromptLayer wrote it.
    :param updated_at: when it was last changed: of one that has ended, when it has.
    """

    operation_id: str
    status: str
    rows_added: int | None = None
    row_count: int | None = None
    error_message: str | None = None
    created_at: str | None = None
    updated_at: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the import has ended, well or badly; an unknown status goes on."""
        return self.has_succeeded or self.has_failed

    @property
    def has_succeeded(self) -> bool:
        """Whether the rows are in the sheet."""
        return self.status.strip().lower() in _COMPLETED

    @property
    def has_failed(self) -> bool:
        """Whether PromptLayer calls the import failed, for whatever reason."""
        return self.status.strip().lower() in _FAILED

    @property
    def found_nothing(self) -> bool:
        """Whether there was no row to add: PromptLayer calls that failed for request logs."""
        if self.has_failed:
            return says_no_requests(self.error_message or "")
        return self.has_succeeded and self.rows_added == 0

    @property
    def seconds(self) -> float | None:
        """How long the import has taken, as far as PromptLayer says."""
        return seconds_between(self.created_at, self.updated_at)

    @property
    def progress(self) -> str:
        """One line for people: ``"completed, 120 rows added"``."""
        count = self.rows_added
        rows = "" if count is None else f", {count} row{'' if count == 1 else 's'} added"
        return one_line(self.status, 40) + rows


@dataclass(frozen=True)
class SheetImport(Sheet, RemoteJob[ImportStatus]):
    """An import into a sheet, as a job to wait for. PromptLayer cannot cancel one."""

    operation_id: str

    id_parsers: ClassVar[IdParsers] = {**Sheet.id_parsers, "operation_id": opaque_text}
    noun = "import"
    counted_as = "import"

    def fetch_call(self) -> Call[ImportStatus]:
        """``GET …/sheets/operations/{operation_id}``: ask how far the import is."""
        return _operation_call(self.table_id, self.operation_id, "poll")


ImportType: TypeAlias = Literal["file", "request_logs"]


@dataclass(frozen=True)
class ImportSource:
    """Where the rows of an import come from.

    :param fields: what the request says of the source.
    :param digest: the same for the same content of a file, or for the same conditions.
    :param file: the rows as CSV, on disk; None for request logs.
    :param row_count: how many rows there are; None for request logs.
    :param fields_of_new_sheet: what the request says besides where the sheet is a new one.
    """

    type: ImportType
    fields: Mapping[str, Any]
    digest: str
    file: BinaryIO | None = field(default=None, repr=False)
    row_count: int | None = None
    fields_of_new_sheet: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImportOrder:
    """An import to be started once, however often that is tried.

    :param table_id: a UUID.
    :param sheet_id: the sheet that gets the rows, a UUID; None for a new one.
    :param title: of the new sheet.
    """

    table_id: str
    source: ImportSource
    operation_id: str
    sheet_id: str | None = None
    title: str | None = None

    def __post_init__(self) -> None:
        if (self.sheet_id is None) == (self.title is None):
            raise PromptLayerInvalidInputError(
                "Give one of sheet_id and title, which is that of a new sheet; not "
                f"{'none' if self.title is None else 'both'}."
            )
        set_field = partial(object.__setattr__, self)
        set_field("operation_id", opaque_text("operation_id", self.operation_id))
        if self.title is not None:
            set_field("title", title_text("title", self.title))

    @property
    def name(self) -> str:
        """What messages call the import."""
        return f"{SheetImport.noun} {one_line(self.operation_id, 80)}"

    @property
    def where(self) -> str:
        """What messages call the sheet."""
        if self.sheet_id is not None:
            return f"sheet {self.sheet_id}"
        return f"a new sheet {quoted(self.title)} of table {self.table_id}"

    def find_call(self) -> Call[ImportStatus | None]:
        """Return the call that tells how far the import is; None if it was never started."""
        found = _operation_call(self.table_id, self.operation_id, "look up")

        def read(response: Response, now: float) -> ImportStatus | None:
            # A 404 of another server says nothing about the import.
            is_unknown = response.status == 404 and error_text(response) is not None
            return None if is_unknown else found.read(response, now)

        return Call(found.request, read)

    def start_call(self) -> Call[str | None]:
        """Return the call that starts the import; its result is the id of the sheet, if it says so.

        Where the import goes on although the answer was lost, :meth:`find_call` finds it.
        """
        path, source = _sheets_path(self.table_id), self.source
        body: dict[str, Any] = {"operation_id": self.operation_id}
        if self.sheet_id is None:
            whole = {"type": source.type, **source.fields_of_new_sheet, **source.fields}
            body |= {"title": self.title, "source": whole}
        else:
            path += f"/{uuid('sheet_id', self.sheet_id)}/imports/{source.type.replace('_', '-')}"
            body |= source.fields
        call = object_call(
            Request("POST", path, f"import rows into {self.where}", _body(body, source.file)),
            lambda answer: self.sheet_id or answer.object_if_any("sheet").text_if_any("id"),
            {404: "Check the table and the sheet, and the workspace of the key."},
        )

        def read(response: Response, now: float) -> str | None:
            if response.status != 409:
                return call.read(response, now)
            # Another import into the sheet is going on. The description has no status for that.
            error = error_for(call.request, response, now=now)
            raise PromptLayerTransientError(str(error), status=409)

        return replace(call, read=read, starts=True)

    def find_sheet(self, created_at: str | None) -> CallFlow[str]:
        """Return the id of the new sheet, where the answer that had it was lost.

        No answer about an import names its sheet, so it is found by its title, and by the time at
        which PromptLayer has made it.

        :param created_at: of the import, see :class:`ImportStatus`.
        :raises PromptLayerInvalidInputError: if several sheets may be the one.
        :raises PromptLayerUnexpectedAnswerError: if none may be.
        """
        if self.sheet_id is not None:
            return self.sheet_id
        titled: dict[str, float | None] = {}

        def visit(sheet: tuple[str, Any, float | None]) -> None:
            sheet_id, title, made = sheet
            if title == self.title:
                titled[sheet_id] = made

        def page(cursor: str | None) -> Call[Page[tuple[str, Any, float | None]]]:
            query = {"limit": str(PAGE_SIZE), **({} if cursor is None else {"cursor": cursor})}
            path = f"{_sheets_path(self.table_id)}?{urlencode(query)}"
            purpose = f"find the sheet that {self.name} has made"
            return object_call(
                Request("GET", path, purpose), lambda answer: read_page(answer, _read_sheet)
            )

        yield from visit_items(page, visit)
        began = timestamp(created_at)
        ids = [
            sheet_id
            for sheet_id, made in titled.items()
            if None in (made, began) or abs(made - began) < _MADE_WITH_IMPORT  # type: ignore[operator]
        ]
        if len(ids) == 1:
            return ids[0]
        title = quoted(self.title)
        if ids:
            raise PromptLayerInvalidInputError(
                f"{len(ids)} sheets of table {self.table_id} are titled {title} and may be the one "
                f"that {self.name} has made: {listed(ids, len(ids), 5, ', ')}. Give each sheet a "
                "title of its own."
            )
        raise PromptLayerUnexpectedAnswerError(
            f"Could not find the sheet that {self.name} has made: table {self.table_id} has none "
            f"titled {title} from that time."
        )


def operation_id_of(*parts: object) -> str:
    """Return the id of an import that is the same for the same parts, which JSON can hold."""
    return str(uuid5(_NAMESPACE, json.dumps(parts, sort_keys=True, ensure_ascii=True)))


def file_source(file_name: str, file: BinaryIO, digest: str, row_count: int) -> ImportSource:
    """Return a source of rows as CSV, in a file that stays open until the import is started.

    :param file_name: must end with ``.csv``.
    """
    fields = {"file_name": file_name[-255:], _CONTENT: ""}
    return ImportSource("file", fields, digest, file, row_count)


def read_import(fields: Fields) -> ImportStatus:
    """Return the import that an object of an answer describes.

    :raises FieldError: if it is not as documented.
    """
    return ImportStatus(
        operation_id=fields.text("operation_id"),
        status=fields.text("status"),
        rows_added=fields.count_if_any("rows_added"),
        row_count=fields.count_if_any("row_count"),
        error_message=fields.text_if_any("error_message"),
        created_at=fields.text_if_any("created_at"),
        updated_at=fields.text_if_any("updated_at"),
    )


class _BodyWithFile:
    """A JSON body with a file in it as base64, which is read and encoded while it is sent."""

    def __init__(self, before: bytes, file: BinaryIO, after: bytes) -> None:
        self._before, self._after = before, after
        self._file = file.fileno()
        self._size = os.fstat(self._file).st_size

    @property
    def length(self) -> int:
        """How many bytes there are."""
        return len(self._before) + 4 * math.ceil(self._size / 3) + len(self._after)

    def chunks(self) -> Iterator[bytes]:
        """Return the bytes from the first one on."""
        yield self._before
        for offset in range(0, self._size, _CHUNK):
            # Not read(): a request that was given up may still be reading in another thread.
            yield base64.b64encode(os.pread(self._file, _CHUNK, offset))
        yield self._after


def _body(body: dict[str, Any], file: BinaryIO | None) -> bytes | BodyStream:
    whole = encode("title", body)
    if file is None:
        return whole
    # No title can hold this, as JSON escapes the quotes in a text.
    before, mark, after = whole.rpartition(f'"{_CONTENT}": "'.encode())
    return _BodyWithFile(before + mark, file, after)


def _operation_call(table_id: str, operation_id: str, action: str) -> Call[ImportStatus]:
    path = f"{_sheets_path(table_id)}/operations/{quote(operation_id, safe='')}"
    request = Request("GET", path, f"{action} import {one_line(operation_id, 80)}")
    return object_call(request, lambda answer: read_import(answer.object("operation")))


def _read_sheet(item: Fields) -> tuple[str, Any, float | None]:
    """Return the id of a sheet in a list, its title, and when it was made."""
    return read_id(item), item.get("title"), timestamp(item.get("created_at"))


def _sheets_path(table_id: str) -> str:
    return f"/api/public/v2/tables/{uuid('table_id', table_id)}/sheets"
