# SPDX-License-Identifier: Apache-2.0
"""The default connection of a test."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_promptlayer.testing import LocalPromptLayer


def connect(
    server: LocalPromptLayer,
    monkeypatch: pytest.MonkeyPatch,
    timeout: float = 60.0,
    **changes: Any,
) -> None:
    """Make the default connection lead to a server.

    :param timeout: seconds that a request may take; by default more than any takes here.
    :param changes: other fields of the connection.
    """
    connection = json.loads(server.airflow_connection_json)
    connection["extra"] = {**connection.get("extra", {}), "timeout": timeout}
    monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", json.dumps({**connection, **changes}))
