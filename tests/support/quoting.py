# SPDX-License-Identifier: Apache-2.0
"""A PromptLayer, and a proxy before it, that quote a request's headers back in every answer.

The error pages of real gateways do, so an error that quotes an answer may quote the API key, or the
password of the proxy. The workflow's name or the run's id chooses the trouble.
"""

from __future__ import annotations

import base64
import json
import re
import socketserver
import threading
from collections import Counter
from typing import Self
from urllib.parse import quote

HELD = 10.0
"""Seconds for which a request is left without an answer."""

TROUBLES = (
    "fine",
    "401",
    "404",
    "422",
    "500",
    "html",
    "slashes",
    "junk",
    "status-line",
    "redirect",
    "reset",
    "no-answer",
    "failed-node",
)
"""Each is the name of a workflow; its place in this list, from 1, is a run that fares so."""

LATER = 1000
"""Added to a run's id: the first poll with a key finds it running, then the trouble begins."""


def forms(secret: str, user: str | None = None) -> dict[str, str]:
    """Return what to look for: how a secret is written, by a name that may be printed.

    :param user: whose password it is, for what a proxy is sent.
    """
    found = {"as it is": secret, "percent-encoded": quote(secret, safe="")}
    if user is not None:
        found["base64"] = base64.b64encode(f"{user}:{secret}".encode()).decode()
    return found


class QuotingServer:
    """Listens on loopback for the length of a `with` block."""

    def __enter__(self) -> Self:
        self._looks: Counter[tuple[int, str]] = Counter()
        self._closing = threading.Event()
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            timeout = HELD

            def handle(self) -> None:
                lines = []
                while (line := self.rfile.readline().decode("latin-1").strip()) != "":
                    lines.append(line)
                if not lines:
                    return
                length = re.search(r"(?im)^content-length: *(\d+)", "\n".join(lines))
                self.rfile.read(int(length[1]) if length else 0)
                answer = outer._answer(lines[0], "; ".join(lines[1:]))
                self.wfile.write(answer.encode("latin-1"))

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 100

            def handle_error(self, request: object, client_address: object) -> None:
                """Let a client go away as it likes."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it listens, as a server and as a proxy."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def _answer(self, request_line: str, headers: str) -> str:
        if request_line.startswith("CONNECT "):
            return _http(f"407 You sent {headers}", headers)
        if name := re.search(r"/workflows/([^/]+)/run", request_line):
            trouble = name[1]
        elif number := re.search(r"workflow_version_execution_id=(\d+)", request_line):
            run = int(number[1])
            key = re.search(r"(?i)x-api-key: *(\w+)", headers)
            self._looks[asked := (run, key[1] if key else "")] += 1
            if run > LATER and self._looks[asked] == 1:
                return _http("202 Accepted", "{}")
            trouble = TROUBLES[run % LATER - 1]
        else:
            trouble = "404"
        return self._misbehave(trouble, headers)

    def _misbehave(self, trouble: str, headers: str) -> str:
        message = json.dumps({"success": False, "message": f"You sent {headers}"})
        if trouble.isdigit():
            return _http(f"{trouble} You sent {headers}", message, f"X-Echo: {headers}")
        if trouble == "fine":
            started = {"success": True, "workflow_version_execution_id": 1, "message": "started"}
            node = {"status": "SUCCESS", "value": "v", "is_output_node": True}
            return _http("200 OK", json.dumps({"n": node, **started, "warning": headers}))
        if trouble == "failed-node":
            node = {"status": "FAILED", "error_message": headers, "raw_error_message": headers}
            return _http("200 OK", json.dumps({"n": {**node, "is_output_node": True}}))
        if trouble == "html":
            return _http("502 Bad Gateway", f"<html><pre>{headers}</pre></html>")
        if trouble == "slashes":  # as PHP writes JSON
            return _http("500 Oops", message.replace("/", "\\/"))
        if trouble == "junk":
            return _http("200 OK", headers)
        if trouble == "status-line":
            return f"You sent {headers}\r\n\r\n"
        if trouble == "redirect":
            return _http("302 Found", message, f"Location: {self.url}/?{headers}")
        if trouble == "no-answer":
            self._closing.wait(HELD)
        return ""


def _http(status: str, body: str, *headers: str) -> str:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*head, "", body])
