# SPDX-License-Identifier: Apache-2.0
"""A live run writes neither the API key nor a proxy's password anywhere, at debug level.

The server provokes errors, and quotes the request's headers in all of its answers. The tests search
the logs of all components and tasks, every row of the metadata database (at the end; the rows of
waiting tasks also while they wait), and the command lines of all processes.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.quoting import LATER, TROUBLES, QuotingServer, forms

from dev.airflow_stack import AirflowStack
from dev.postgres import PostgresServer
from dev.watchdog import members

DAG_ID = "live_quoting"
SECONDS = 900.0
FERNET_PREFIX = "gAAAA"
PROXY_USER = "proxy-user"


@dataclass
class Account:
    """One connection and its two secrets, which no other connection has."""

    conn_id: str
    host: str
    proxy: str = ""
    key: str = field(default_factory=lambda: f"pl_key_{secrets.token_hex(16)}")
    proxy_password: str = field(default_factory=lambda: f"pw_{secrets.token_hex(16)}")

    def connection(self) -> dict[str, Any]:
        extra: dict[str, Any] = {"timeout": 1}
        if self.proxy:
            extra["proxy"] = self.proxy.replace("://", f"://{PROXY_USER}:{self.proxy_password}@")
        return {
            "conn_type": "promptlayer",
            "host": self.host,
            "password": self.key,
            "extra": json.dumps(extra),
        }

    def forbidden(self) -> dict[str, str]:
        """Return what must not be found, by a name that may be printed."""
        key, password = forms(self.key), forms(self.proxy_password, PROXY_USER)
        return {
            **{f"key of {self.conn_id}, {name}": text for name, text in key.items()},
            **{f"proxy of {self.conn_id}, {name}": text for name, text in password.items()},
        }


class Traces:
    """All that was written, by where it was."""

    def __init__(self) -> None:
        self.logs: dict[str, str] = {}
        self.tables: dict[str, str] = {}
        self.waiting: dict[str, str] = {}
        self.command_lines: dict[str, str] = {}

    def collect_present_state(self, stack: AirflowStack) -> None:
        """Collect the rows and command lines that may be gone soon."""
        for table in ("trigger", "task_instance"):
            for row in _dump(stack, table):
                self.waiting.setdefault(f"{table} {len(self.waiting)}: {row[:60]}", row)
        for component in stack.components.running():
            for process in members(component.pid):
                with contextlib.suppress(psutil.Error):
                    line = " ".join(process.cmdline())
                    self.command_lines[f"{component.name}: {line[:60]}"] = line

    def collect(self, stack: AirflowStack) -> None:
        for path in stack.home.rglob("*"):
            if path.is_file():
                name = str(path.relative_to(stack.home))
                self.logs[name] = path.read_bytes().decode(errors="replace")
        tables = stack.db.rows(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        )
        for row in tables:
            name = row["table_name"]
            self.tables[name] = "\n".join(_dump(stack, name))


def _dump(stack: AirflowStack, table: str) -> list[str]:
    return [
        "\t".join(_text(value) for value in row.values())
        for row in stack.db.rows(f'SELECT * FROM "{table}"')
    ]


def _text(value: Any) -> str:
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).decode(errors="replace")
    # JSON without escapes, as the secrets are plain ASCII.
    return value if isinstance(value, str) else json.dumps(value, default=str)


@pytest.fixture(scope="module")
def server() -> Iterator[QuotingServer]:
    with QuotingServer() as running:
        yield running


@pytest.fixture(scope="module")
def accounts(server: QuotingServer) -> dict[str, Account]:
    """Three in the environment and one in the database."""
    cleartext, no_server = "http://promptlayer.invalid", "http://127.0.0.1:1"
    return {
        "direct": Account("direct", server.url),
        "proxied": Account("proxied", cleartext, server.url),
        "tunnelled": Account("tunnelled", "https://promptlayer.invalid", server.url),
        "refused": Account("refused", cleartext, no_server),
        "row": Account("row", cleartext, server.url),
    }


@pytest.fixture(scope="module")
def traces(
    server: QuotingServer,
    accounts: dict[str, Account],
    postgres: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Traces:
    env = {"AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG", "AIRFLOW__PROMPTLAYER__DEFER_AFTER": "0"}
    for account in accounts.values():
        if account.conn_id != "row":
            env[f"AIRFLOW_CONN_{account.conn_id.upper()}"] = json.dumps(account.connection())
    stack = AirflowStack(
        Path(__file__).parent / "dags",
        env=env,
        home=tmp_path_factory.mktemp("airflow"),
        database_url=postgres.new_database("secrets"),
    )
    found = Traces()
    with stack:
        row = {"connection_id": "row", **accounts["row"].connection()}
        stack.api("POST", "/api/v2/connections", row)
        numbers = {name: number for number, name in enumerate(TROUBLES, start=1)}
        in_worker = ["500", "status-line", "no-answer"]
        short = {"starts": ["401"], "polls": [], "waits": [LATER + numbers["401"]]}
        runs = {
            "direct": {
                "starts": list(TROUBLES),
                "polls": [numbers[name] for name in in_worker],
                "waits": [LATER + number for name, number in numbers.items() if name != "fine"],
            },
            "proxied": short,
            "tunnelled": {"starts": ["fine"], "polls": [1], "waits": []},
            "refused": {"starts": ["fine"], "polls": [1], "waits": []},
            "row": short,
        }
        started = [
            stack.trigger_dag(DAG_ID, {"connection": name, **conf}) for name, conf in runs.items()
        ]

        def all_ended() -> bool:
            found.collect_present_state(stack)
            ends = [stack.db.dag_run_state(DAG_ID, run) for run in started]
            return all(end in ("success", "failed") for end in ends)

        stack.wait_for(all_ended, SECONDS, "all runs to end")
        found.collect(stack)
    return found


@pytest.mark.parametrize("place", ["logs", "tables", "waiting", "command_lines"])
@pytest.mark.parametrize("conn_id", ["direct", "proxied", "tunnelled", "refused", "row"])
def test_secrets_are_nowhere(
    traces: Traces,
    accounts: dict[str, Account],
    conn_id: str,
    place: str,
) -> None:
    found = [
        f"{name} in {place} {where}"
        for name, secret in accounts[conn_id].forbidden().items()
        for where, text in getattr(traces, place).items()
        if secret in text
    ]
    assert found == []


def test_the_errors_were_provoked_and_are_in_the_logs(traces: Traces) -> None:
    """Otherwise nothing found means nothing."""
    logs = "\n".join(traces.logs.values())
    for expected in (
        "refused the API key (HTTP 401)",
        "has trouble (HTTP 500)",
        "no whole answer within 1 second",
        "is not followed",
        "X-API-KEY: ***",
        "User-Agent: airflow-provider-promptlayer/",
        "Still waiting for workflow run",
    ):
        assert expected in logs, expected
    kinds = {name.split("/")[0] for name in traces.logs}
    assert {"component-logs", "logs"} <= kinds
    for component in ("scheduler", "triggerer-1", "dag-processor", "api-server"):
        assert traces.logs[f"component-logs/{component}.log"]
    assert '"level":"debug"' in logs
    assert "PromptLayerWorkflowTrigger" in "\n".join(traces.waiting.values())
    assert "HTTP 401" in "\n".join(traces.waiting.values())  # an event on its way to the worker
    assert "promptlayer.invalid" in traces.tables["connection"]


def test_a_connection_in_the_database_is_encrypted(traces: Traces) -> None:
    row = traces.tables["connection"]
    assert row.count(FERNET_PREFIX) == 2
