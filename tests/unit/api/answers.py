# SPDX-License-Identifier: Apache-2.0
"""Answers made by hand, for the tests of what they mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_promptlayer.api.http import Call, Response
from airflow_provider_promptlayer.exceptions import (
    PromptLayerRateLimitError,
    PromptLayerRefusedError,
    PromptLayerServerError,
    PromptLayerStartUncertainError,
    PromptLayerUnreachableError,
)

NOW = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC
TABLE = "11111111-1111-4111-8111-111111111111"
SHEET = "22222222-2222-4222-8222-222222222222"
OTHER = "33333333-3333-4333-8333-33333333333a"


def answer(status: int, body: Any = b"", **headers: str) -> Response:
    return Response(
        status,
        {name.replace("_", "-"): value for name, value in headers.items()},
        body if isinstance(body, bytes) else json.dumps(body).encode(),
    )


def body_of(call: Call[Any]) -> Any:
    assert isinstance(call.request.body, bytes)
    return json.loads(call.request.body)


def check_start_rules(call: Call[Any], id_field: str, readable: dict[str, Any]) -> None:
    """Assert which answers leave open whether a job was started, and which do not."""
    its_id = readable[id_field]
    for status in (429, 503):
        error = PromptLayerRateLimitError if status == 429 else PromptLayerServerError
        with pytest.raises(error):
            call.read(answer(status, {"success": False, "message": "no"}), NOW)
        with pytest.raises(PromptLayerStartUncertainError, match="may have"):
            call.read(answer(status, {id_field: its_id}), NOW)
    for response in (
        *(answer(status, b"<html>") for status in (202, 408, 500, 502, 503, 504, 520)),
        answer(503, {"message": "Service Unavailable"}),
        answer(200),
        answer(200, []),
        answer(201, {**readable, id_field: None}),
        answer(202, {"success": True}),
        answer(202, b"[" * 100_000),
    ):
        with pytest.raises(PromptLayerStartUncertainError, match="before you clear") as caught:
            call.read(response, NOW)
        assert caught.value.status == response.status
        assert not caught.value.retry_helps
    named: tuple[Any, ...] = (
        {"message": "no", id_field: its_id},
        {"detail": {"running": {id_field: str(its_id)}}},
    )
    plain: tuple[Any, ...] = (
        {"message": "no"},
        {"message": f"{id_field} is wrong", id_field: None},
        {"detail": [{"loc": ["body", id_field], "msg": "no"}]},
        f"<html>{id_field} {its_id}".encode(),
    )
    for status in (302, 400, 401, 403, 404, 409, 422):
        for body in named:
            with pytest.raises(PromptLayerStartUncertainError, match="before you clear") as caught:
                call.read(answer(status, body), NOW)
            assert f"has the {id_field} {str(its_id)!r} all the same" in str(caught.value)
            assert caught.value.status == status
        for body in plain:
            with pytest.raises(PromptLayerRefusedError):
                call.read(answer(status, body), NOW)
    lost = PromptLayerUnreachableError("lost", arrived=True)
    assert isinstance(call.unanswered(lost), PromptLayerStartUncertainError)
    assert "lost" in str(call.unanswered(lost))
    never = PromptLayerUnreachableError("refused", arrived=False)
    assert call.unanswered(never) is never
