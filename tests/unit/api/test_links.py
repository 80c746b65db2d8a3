# SPDX-License-Identifier: Apache-2.0
"""Which URL a page of PromptLayer has, and which requests that takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_promptlayer.api.http import Call, Response
from airflow_provider_promptlayer.api.links import (
    Dashboard,
    Page,
    PageKind,
    dashboard_of,
    is_web_url,
    template_problem,
)

SHEET = Page("sheet", ("11111111-1111-4111-8111-111111111111", "s"))
RUN = Page("run", (123,))
HOST = "https://dashboard.example.com"
TABLE_PATH = "/api/public/v2/tables/11111111-1111-4111-8111-111111111111"
WORKFLOWS_PATH = "/workflows?page=1&per_page=1"


def url_of(dashboard: Dashboard, page: Page, answer: Any = None) -> tuple[str | None, list[str]]:
    """Return the URL of a page, and the paths of the requests that it took."""
    paths: list[str] = []
    flow = dashboard.find_url(page)
    try:
        call = next(flow)
        while True:
            assert isinstance(call, Call)
            paths.append(call.request.path)
            body = json.dumps(answer).encode()
            call = flow.send(call.read(Response(200, {}, body), 0.0))
    except StopIteration as end:
        return end.value, paths


@pytest.mark.parametrize(
    ("base_url", "dashboard"),
    [
        ("https://api.promptlayer.com", "https://dashboard.promptlayer.com"),
        ("https://api.eu.promptlayer.com", "https://dashboard.eu.promptlayer.com"),
        ("https://api.llm.example.com", "https://dashboard.llm.example.com"),
        ("https://promptlayer.example.com", None),
        ("https://api.example.com/promptlayer", None),
        ("https://api.example.com:8443", None),
        ("http://api.example.com", None),
        ("http://127.0.0.1:8000", None),
        ("http://localhost:8000", None),
        ("https://api.localhost", None),
        ("https://apis.example.com", None),
        ("https://[::1]", None),
    ],
)
def test_which_dashboard_belongs_to_an_api(base_url: str, dashboard: str | None) -> None:
    assert dashboard_of(base_url) == dashboard


WITH_TEMPLATES = Dashboard(
    HOST,
    run_url="/runs/{workflow_version_execution_id}",
    prompt_url="/workspace/{workspace_id}/prompts/{prompt}",
    workflow_url="https://other.example.com/w?name={workflow}&of={workspace_id}",
    report_url="/r/{{{report_id}}}",
)


@pytest.mark.parametrize(
    ("dashboard", "page", "answer", "url", "paths"),
    [
        (
            Dashboard(HOST),
            SHEET,
            {"table": {"workspace_id": 7}},
            f"{HOST}/workspace/7/smart-tables/{SHEET.ids[0]}?sheet=s",
            [TABLE_PATH],
        ),
        (Dashboard(HOST), SHEET, {"table": {}}, None, [TABLE_PATH]),
        (Dashboard(HOST), SHEET, {"table": {"workspace_id": "evil/../"}}, None, [TABLE_PATH]),
        (Dashboard(), SHEET, None, None, []),
        (Dashboard(HOST), RUN, None, None, []),
        (Dashboard(run_url="/runs/{workflow_version_execution_id}"), RUN, None, None, []),
        (WITH_TEMPLATES, RUN, None, f"{HOST}/runs/123", []),
        (
            WITH_TEMPLATES,
            Page("prompt", ("a/b c?\u00e9#",)),
            {"items": [{"workspace_id": 7}]},
            f"{HOST}/workspace/7/prompts/a%2Fb%20c%3F%C3%A9%23",
            [WORKFLOWS_PATH],
        ),
        (WITH_TEMPLATES, Page("prompt", ("p",)), {"items": []}, None, [WORKFLOWS_PATH]),
        (
            WITH_TEMPLATES,
            Page("workflow", ("{workspace_id}&x=1",)),
            {"items": [{"workspace_id": 7}]},
            "https://other.example.com/w?name=%7Bworkspace_id%7D%26x%3D1&of=7",
            [WORKFLOWS_PATH],
        ),
        (WITH_TEMPLATES, Page("report", (5,)), None, f"{HOST}/r/{{5}}", []),
    ],
)
def test_which_url_a_page_has(
    dashboard: Dashboard, page: Page, answer: Any, url: str | None, paths: list[str]
) -> None:
    assert url_of(dashboard, page, answer) == (url, paths)


@pytest.mark.parametrize(
    ("kind", "template", "is_fit"),
    [
        ("run", "/runs/{workflow_version_execution_id}", True),
        ("run", "https://pl.example.com:8443/runs?id={workflow_version_execution_id}", True),
        ("prompt", "/workspace/{workspace_id}/{prompt}", True),
        ("prompt", "/home", True),
        ("run", "/runs/{run_id}", False),
        ("run", "/runs/{workspace_id.real}", False),
        ("run", "/runs/{workspace_id[0]}", False),
        ("run", "/runs/{workspace_id!r}", False),
        ("run", "/runs/{workspace_id:>99}", False),
        ("run", "/runs/{}", False),
        ("run", "/runs/{", False),
        ("run", "javascript:alert({workspace_id})", False),
        ("run", "https://{workspace_id}.example.com/", False),
        ("run", "https://user:secret@example.com/", False),
        ("run", "runs/{workspace_id}", False),
        ("run", "/runs/\n", False),
        ("run", "/my runs", False),
        ("run", 5, False),
    ],
)
def test_which_templates_are_fit(kind: PageKind, template: Any, is_fit: bool) -> None:
    problem = template_problem(kind, template)
    assert (problem is None) == is_fit
    assert is_fit or "{workspace_id}" in str(problem)


@pytest.mark.parametrize(
    ("text", "is_url"),
    [
        ("https://dashboard.promptlayer.com/x?y#z", True),
        ("http://127.0.0.1:8000", True),
        ("https://", False),
        ("https:///x", False),
        ("ftp://example.com", False),
        ("javascript:alert(1)", False),
        ("https://user@example.com", False),
        ("https://example.com:0", False),
        ("https://example.com:x", False),
        ("https://exa\nmple.com", False),
        ("https://[::1", False),
        (None, False),
    ],
)
def test_what_is_a_url_of_a_web_page(text: Any, is_url: bool) -> None:
    assert is_web_url(text) == is_url
