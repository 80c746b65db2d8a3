# SPDX-License-Identifier: Apache-2.0
"""A worker process that is new, and what it does before its first request."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import requests

from airflow_provider_promptlayer import transport
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.transport import blocking

_SEND = requests.Session.send
_GET_CONNECTION = PromptLayerHook.get_connection


def noting(happened: list[str], what: str, function: Any) -> Any:
    """Return the function, which then also notes that it was called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        happened.append(what)
        return function(*args, **kwargs)

    return call


def in_new_process(monkeypatch: pytest.MonkeyPatch, happened: list[str]) -> None:
    """Go on as a process that has not imported what sends requests.

    :param happened: gets "connection" and "sent", whenever the one is read or a request is sent.
    """
    monkeypatch.setattr(transport, "blocking", blocking)  # comes back with the module
    monkeypatch.setitem(sys.modules, blocking.__name__, blocking)
    del sys.modules[blocking.__name__]
    connection = staticmethod(noting(happened, "connection", _GET_CONNECTION))
    monkeypatch.setattr(PromptLayerHook, "get_connection", connection)
    monkeypatch.setattr(requests.Session, "send", noting(happened, "sent", _SEND))
