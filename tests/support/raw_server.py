# SPDX-License-Identifier: Apache-2.0
"""A PromptLayer that answers with bytes of the test's choosing.

The local PromptLayer of the package makes its answers from valid workflows; what a test of hostile
data sends is not always one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class RawPromptLayer:
    """Workflows are names with the body of their results; every run of one has ended at once.

    :param results: workflow name → body of a 200 to who asks for the results of a run.
    """

    def __init__(self, results: Mapping[str, bytes]) -> None:
        self.results = dict(results)
        self.started: list[str] = []  # a run's id is its place, counted from 1
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def airflow_connection_json(self) -> str:
        """A connection that leads here."""
        return json.dumps(
            {
                "conn_type": "promptlayer",
                "host": f"http://127.0.0.1:{self._server.server_port}",
                "password": "pl_raw",
            }
        )

    def __enter__(self) -> RawPromptLayer:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        promptlayer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                promptlayer.started.append(unquote(self.path.split("/")[-2]))
                run = {
                    "success": True,
                    "message": "started",
                    "workflow_version_execution_id": len(promptlayer.started),
                }
                self.answer(201, json.dumps(run).encode())

            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                run_id = int(query["workflow_version_execution_id"][0])
                self.answer(200, promptlayer.results[promptlayer.started[run_id - 1]])

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
