# SPDX-License-Identifier: Apache-2.0
"""A PromptLayer with one sheet: takes imports, and hands out rows, each answer 50 ms late.

It does far less than :class:`LocalPromptLayer`, which leaves most of a core to the client: it drops
the bytes of an import as they come, and its rows differ in their number alone. Run as
``python -m benchmarks.sheet_server``: prints its port, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from benchmarks.child import server_process
from benchmarks.server import API_KEY, message

if TYPE_CHECKING:
    from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook

LATENCY_SECONDS: Final = 0.05
ROWS: Final = 100_000
PAGE_ROWS: Final = 100

TABLE: Final = "5c0a1e00-0000-4000-8000-0000000000b0"
SHEET: Final = "5c0a1e00-0000-4000-8000-0000000000b1"
SHEETS_PATH: Final = f"/api/public/v2/tables/{TABLE}/sheets"
ROWS_PATH: Final = f"{SHEETS_PATH}/{SHEET}/rows"
IMPORT_PATH: Final = f"{SHEETS_PATH}/{SHEET}/imports/file"
_OPERATIONS_PATH: Final = f"{SHEETS_PATH}/operations/"

_HOST: Final = "127.0.0.1"
_PROSE: Final = 'The customer asks for her money back: "it came late", she writes.\n'
_COLUMNS: Final = {
    title: {"id": f"5c0a1e00-0000-4000-8000-0000000000c{number}", "title": title, "type": kind}
    for number, (title, kind) in enumerate(
        {
            "Question": "TEXT",
            "Expected": "TEXT",
            "Answer": "PROMPT_TEMPLATE",
            "Is polite": "LLM_ASSERTION",
        }.items()
    )
}


@contextlib.contextmanager
def running_sheet() -> Iterator[str]:
    """Run the server in a process of its own; return its base URL."""
    with server_process(__name__) as line:
        yield f"http://{_HOST}:{int(line)}"


def hook(url: str) -> PromptLayerHook:
    """Return a hook that sends its requests to the server."""
    connection = {"conn_type": "promptlayer", "host": url, "password": API_KEY}
    os.environ["AIRFLOW_CONN_SHEET"] = json.dumps(connection)
    from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook

    return PromptLayerHook("sheet")


def _cell(title: str, value: Any, **more: Any) -> dict[str, Any]:
    column = _COLUMNS[title]["id"]
    return {
        "id": f"{column}:0",
        "sheet_id": SHEET,
        "column_id": column,
        "status": "completed",
        "display_value": value if isinstance(value, str) else json.dumps(value),
        "value": value if isinstance(value, str) else {"value": value},
        "error": None,
        "updated_at": "2026-08-01T02:00:00Z",
        **more,
    }


_METRICS: Final = {
    "request_ids": [123456789],
    "latency_ms": 1834,
    "price": 0.00123,
    "input_tokens": 412,
    "output_tokens": 96,
}
_CELLS: Final = json.dumps(
    {
        cell["column_id"]: cell
        for cell in (
            _cell("Question", _PROSE * 3),
            _cell("Expected", _PROSE),
            _cell("Answer", _PROSE * 8, request_metrics=_METRICS),
            _cell("Is polite", True, request_metrics=_METRICS),
        )
    }
)


def _page(first: int, order: str) -> bytes:
    after = first + PAGE_ROWS
    numbers = range(ROWS)[:: 1 if order == "asc" else -1][first:after]
    rows = ",".join(f'{{"row_index":{index},"cells":{_CELLS}}}' for index in numbers)
    rest = {
        "next_cursor": str(after) if after < ROWS else None,
        "has_more": after < ROWS,
        "row_count": ROWS,
        "version": 7,
        "columns": list(_COLUMNS.values()),
    }
    return f'{{"success":true,"data":[{rows}],{json.dumps(rest)[1:]}'.encode()


class _Sheet(asyncio.Protocol):
    """One connection. Knows as much of HTTP as the contenders send."""

    def __init__(self, operations: dict[str, int]) -> None:
        self._operations = operations
        self._head = b""
        self._left = 0
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._left:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._request = head.decode()
            self._head = b""
            self._start = data[:200]
            found = [
                line for line in self._request.lower().split("\r\n") if "content-length" in line
            ]
            self._left = int(found[0].partition(":")[2]) if found else 0
        self._left -= len(data)
        self._tail = (self._tail + data)[-200:]
        if not self._left:
            answer = self._answer()
            asyncio.get_running_loop().call_later(LATENCY_SECONDS, self._transport.write, answer)

    def _answer(self) -> bytes:
        method, target, _ = self._request.split(" ", 2)
        url = urlsplit(target)
        if url.path == ROWS_PATH:
            query = {name: found[-1] for name, found in parse_qs(url.query).items()}
            page = _page(int(query.get("cursor", "0")), query.get("order", "asc"))
            return message(200, page)
        if method == "POST" and url.path == IMPORT_PATH:
            self._operations.setdefault(self._operation_id(), ROWS)
            return message(202, self._operation(self._operation_id()))
        operation_id = url.path.removeprefix(_OPERATIONS_PATH)
        if operation_id in self._operations:
            return message(200, self._operation(operation_id))
        return message(404, b'{"success": false, "message": "Sheet operation not found"}')

    def _operation_id(self) -> str:
        """Return the id in the body, which is in its beginning or in its end."""
        text = (self._start + self._tail).decode(errors="replace")
        return text.partition('"operation_id": "')[2].partition('"')[0]

    def _operation(self, operation_id: str) -> bytes:
        operation = {
            "operation_id": operation_id,
            "source": "file",
            "status": "completed",
            "progress": 100,
            "message": None,
            "rows_added": self._operations[operation_id],
            "row_count": self._operations[operation_id],
            "file_name": "cases.csv",
            "error_message": None,
            "created_at": "2026-08-01T02:00:00Z",
            "updated_at": "2026-08-01T02:00:01Z",
        }
        found = {"success": True, "operation_id": operation_id, "operation": operation}
        return json.dumps(found).encode()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    operations: dict[str, int] = {}
    server = await loop.create_server(lambda: _Sheet(operations), _HOST, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve())
