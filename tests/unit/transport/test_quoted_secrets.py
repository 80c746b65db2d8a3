# SPDX-License-Identifier: Apache-2.0
"""No error or log line tells the API key or a proxy's password, whatever a server quotes."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from support.quoting import TROUBLES, QuotingServer, forms

from airflow_provider_promptlayer.exceptions import PromptLayerError
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.polling import retries

# Both are sent with a slash in them, which some servers write differently in JSON.
KEY = "pl_geheim/0123456789"
PROXY_PASSWORD = "???_geheim_9876543210"
PROXY_TOKEN = "tok_geheim_5555555555"
FORBIDDEN = {
    **{f"key {name}": text for name, text in forms(KEY).items()},
    **{f"proxy password {name}": text for name, text in forms(PROXY_PASSWORD, "me").items()},
    **{f"proxy token {name}": text for name, text in forms("", PROXY_TOKEN).items() if text},
    "proxy token": PROXY_TOKEN,
}


@pytest.fixture(scope="module")
def server() -> Iterator[QuotingServer]:
    with QuotingServer() as running:
        yield running


@pytest.fixture(params=["direct", "proxy", "tunnel", "token"])
def connection(
    request: pytest.FixtureRequest, server: QuotingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = server.url.replace("://", f"://me:{quote(PROXY_PASSWORD)}@")
    host, extra = {
        "direct": (server.url, {}),
        "proxy": ("http://promptlayer.invalid", {"proxy": proxy}),
        "tunnel": ("https://promptlayer.invalid", {"proxy": proxy}),
        "token": (
            "http://promptlayer.invalid",
            {"proxy": server.url.replace("://", f"://{PROXY_TOKEN}@")},
        ),
    }[request.param]
    fields = {"host": host, "password": KEY, "extra": {"timeout": 0.3, **extra}}
    # Sending a start again, after a pause, would test nothing more.
    monkeypatch.setattr(retries, "SUBMITTING", replace(retries.SUBMITTING, attempts=1))
    monkeypatch.setenv("AIRFLOW_CONN_QUOTING", json.dumps({"conn_type": "promptlayer", **fields}))


def blocking(method: str, *arguments: Any) -> Any:
    hook = PromptLayerHook("quoting")
    try:
        return getattr(hook, method)(*arguments)
    finally:
        hook.close()


def coroutine(method: str, *arguments: Any) -> Any:
    return asyncio.run(getattr(PromptLayerHook("quoting"), f"a{method}")(*arguments))


@pytest.mark.usefixtures("connection")
@pytest.mark.parametrize("call", [blocking, coroutine], ids=["blocking", "coroutine"])
@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("method", ["run_workflow", "get_workflow_results"])
def test_errors_and_logs_quote_no_secret(
    call: Callable[..., Any],
    method: str,
    trouble: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    argument = trouble if method == "run_workflow" else TROUBLES.index(trouble) + 1
    said = []
    try:
        said.append(repr(call(method, argument)))
    except PromptLayerError as error:
        said += [repr(error), str(error.__dict__), *traceback.format_exception(error)]
    said.append(capsys.readouterr().out + caplog.text)
    text = "\n".join(said)
    assert [name for name, secret in FORBIDDEN.items() if secret in text] == []


@pytest.mark.parametrize("call", [blocking, coroutine], ids=["blocking", "coroutine"])
@pytest.mark.parametrize(
    ("status", "warned"), [(200, True), (202, False), (404, False)], ids=["ended", "running", "no"]
)
def test_a_warning_names_outputs_that_held_the_key(
    call: Callable[..., Any],
    status: int,
    warned: bool,
    serve: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    node = {"status": "SUCCESS" if status == 200 else "RUNNING", "is_output_node": True}
    sent = json.dumps({"Echo": {**node, "value": f"{KEY}, once more {KEY}"}})
    server = serve(lambda exchange: exchange.answer(status, sent.encode()))
    fields = {"conn_type": "promptlayer", "host": server.url, "password": KEY}
    monkeypatch.setenv("AIRFLOW_CONN_QUOTING", json.dumps(fields))
    if status == 404:
        with pytest.raises(PromptLayerError):
            call("get_workflow_results", 7)
    else:
        results = call("get_workflow_results", 7)
        assert [node.value for node in results.nodes.values()] == ["***, once more ***"]
    told = capsys.readouterr().out + caplog.text
    assert ("2 place(s) of the answer to the request to read the results" in told) == warned
