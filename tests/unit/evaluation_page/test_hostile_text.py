# SPDX-License-Identifier: Apache-2.0
"""Text of models and users does nothing on the page about an evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.connections import connect
from support.evaluation_pages import (
    CARD,
    DASHBOARD,
    HISTORY,
    KEPT,
    SHEET,
    TABLE,
    URL,
    USAGE,
    Page,
    judge,
    report,
    save,
)
from support.modes import FakeTaskInstance

from airflow_provider_promptlayer.testing import (
    Column,
    Criterion,
    LocalPromptLayer,
    Scorecard,
    ScoredRow,
    Sheet,
    Table,
)

HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)><a href='javascript:alert(1)'>",
    "javascript:alert(1)",
    "'; } </style></title></svg><svg/onload=alert(1)>",
    "{{ 7 * 191 }}{% raw %}${1337}",
    "<!--<iframe src=//evil.example>-->]]>&lt;b&gt;",
    "\u202etxt.exe\u2066\x00\x1b[31m\x07\u200f\ud800",
    "y" * 100_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_text_does_nothing(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    title = text[:200]
    sheet = Sheet(
        title.encode(errors="replace").decode().replace("\0", "") or "?",
        [Column(title, type="TEXT", id=SHEET.columns[0].id)],
        id=SHEET.id,
        rows=[{title: text}],
        scorecard=CARD,
    )
    card = Scorecard(
        title,
        [Criterion(title, verdict="fail", error_summary=text)],
        [ScoredRow("fail", 0.1, error_summary=text, reasons={title: text})],
        verdict="fail",
        score=0.1,
    )
    with LocalPromptLayer(tables=[Table(TABLE.title, [sheet], id=TABLE.id)]) as server:
        connect(server, monkeypatch, extra={"timeout": 60, "dashboard_url": DASHBOARD})
        judge(server, card)
        evil = {"score": 0.3, "at": text, "verdict": text}
        history = {HISTORY: {**KEPT, "scores": [evil, evil]}}
        _, page = report(
            tmp_path,
            ti=FakeTaskInstance(earlier_xcoms=history),
            sheet=sheet,
        )
    check_harmless(page)
    assert "y" * 301 not in page.source
    assert page.source.isprintable() or all(
        character.isprintable() or character == "\n" for character in page.source
    )
    assert "1337" not in page.text.replace("${1337}", "")


def check_harmless(page: Page) -> None:
    """Check that a page has elements of the template alone, and refers to the dashboard alone."""
    allowed = "html head meta title style body div h1 h2 p span strong bdi br a table tr th td"
    drawn = "svg g line text circle path"
    assert {tag for tag, _ in page.elements} <= set(f"{allowed} {drawn}".split())
    names = {name for _, attributes in page.elements for name in attributes}
    assert not {name for name in names if name.startswith("on")}
    assert not names & {"src", "srcset", "xlink:href", "action", "background", "formaction"}
    assert page.values("href") <= {URL}
    assert "url(" not in page.source
    assert "@import" not in page.source
    assert page.source.count("<style>") == page.source.count("</style>") == 1
    policy = page.values("content")
    assert any(text and text.startswith("default-src 'none'") for text in policy)


def test_the_page_needs_nothing_from_elsewhere(server: LocalPromptLayer, tmp_path: Path) -> None:
    judge(server)
    save("monday")
    judge(server)
    check_harmless(report(tmp_path, usage=USAGE)[1])
