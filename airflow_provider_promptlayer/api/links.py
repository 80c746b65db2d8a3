# SPDX-License-Identifier: Apache-2.0
"""Web pages of PromptLayer, where a person looks at what a task has started.

PromptLayer's own Python and JavaScript libraries link to sheets (``build_table_dashboard_url``).
From them come the address of a sheet's page and the rule that the dashboard of ``api.X`` is at
``dashboard.X``. The addresses of other pages are not published, so the Airflow connection may have
a template for each. Where an address is not known there is no link.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from string import Formatter
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote, urlsplit

from airflow_provider_promptlayer.api.fields import Fields, object_call
from airflow_provider_promptlayer.api.http import Call, Request
from airflow_provider_promptlayer.api.job import CallFlow

PageKind: TypeAlias = Literal["sheet", "run", "prompt", "workflow", "report"]

_NAMES: Final[dict[PageKind, tuple[str, ...]]] = {
    "sheet": ("table_id", "sheet_id"),
    "run": ("workflow_version_execution_id",),
    "prompt": ("prompt",),
    "workflow": ("workflow",),
    "report": ("report_id",),
}
"""What a template may name besides :data:`_WORKSPACE`, in the order of :attr:`Page.ids`."""

_WORKSPACE: Final = "workspace_id"

_HOST: Final = re.compile(r"https?://[^/?#{}@\s]+(?:[/?#]|\Z)")
_API_HOST: Final = re.compile(r"https://api\.(?=[^/:]+\.)[^/:]+\Z")


@dataclass(frozen=True, slots=True)
class Page:
    """What a web page of PromptLayer is about.

    :param ids: the ids or names of it, in the order in which a template of the kind names them.
    """

    kind: PageKind
    ids: tuple[int | str, ...]

    @property
    def values(self) -> dict[str, str]:
        """What the names in a template stand for, encoded for a URL."""
        ids = zip(_NAMES[self.kind], self.ids, strict=True)
        return {name: quote(str(value).replace("\0", ""), safe="") for name, value in ids}

    def workspace(self) -> Call[int | None]:
        """Return the call that tells the workspace, which is a part of the address."""
        if self.kind == "sheet":
            request = Request("GET", f"/api/public/v2/tables/{self.ids[0]}", "find the workspace")
            return object_call(request, lambda answer: _workspace_of([answer.object("table")]))
        # Any workflow will do: a key belongs to one workspace.
        request = Request("GET", "/workflows?page=1&per_page=1", "find the workspace")
        return object_call(request, lambda answer: _workspace_of(answer.objects("items")))


@dataclass(frozen=True, slots=True)
class Dashboard:
    """The addresses of PromptLayer's web pages, as far as they are known.

    A template is a URL, or a path below ``dashboard_url``, with names in braces: ``{workspace_id}``
    and the ids of the page.

    :param dashboard_url: without a slash at the end; None if it is not known.
    """

    dashboard_url: str | None = None
    run_url: str | None = None
    prompt_url: str | None = None
    workflow_url: str | None = None
    report_url: str | None = None
    sheet_url: str = "/workspace/{workspace_id}/smart-tables/{table_id}?sheet={sheet_id}"

    def find_url(self, page: Page) -> CallFlow[str | None]:
        """Return the URL of a page, or None if it is not known; asks for the workspace if needed.

        :raises PromptLayerError: if PromptLayer does not tell the workspace.
        """
        template: str | None = getattr(self, f"{page.kind}_url")
        if template is not None and template.startswith("/"):
            template = None if self.dashboard_url is None else f"{self.dashboard_url}{template}"
        if template is None:
            return None
        values = page.values
        if f"{{{_WORKSPACE}}}" in template:
            workspace_id = yield page.workspace()
            if workspace_id is None:
                return None
            values[_WORKSPACE] = str(workspace_id)
        return template.format_map(values)


TEMPLATES: Final[dict[str, PageKind]] = {
    "run_url": "run",
    "prompt_url": "prompt",
    "workflow_url": "workflow",
    "report_url": "report",
}
"""The templates that a connection may have → the kind of page."""


def template_problem(kind: PageKind, template: Any) -> str | None:
    """Return what a template must be if it cannot be used, as a phrase; None if it can be."""
    names = (_WORKSPACE, *_NAMES[kind])
    allowed = ", ".join(f"{{{name}}}" for name in names)
    must = f"a URL, or a path that begins with /, in which these stand for values: {allowed}"
    if not isinstance(template, str) or not (template.startswith("/") or is_web_url(template)):
        return must
    try:
        parts = list(Formatter().parse(template))
    except ValueError:  # a brace without its partner
        return must
    is_plain = all(
        name is None or (name in names and not spec and not conversion)
        for _, name, spec, conversion in parts
    )
    return None if is_plain and template.isprintable() and " " not in template else must


def is_web_url(text: Any) -> bool:
    """Return whether a text is a URL of a web page: http(s), with a host and without a user."""
    if not isinstance(text, str) or not text.isprintable() or not _HOST.match(text):
        return False
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def dashboard_of(base_url: str) -> str | None:
    """Return the address of the dashboard that belongs to an API; None if it is not known.

    :param base_url: of the API, in its normal form.
    """
    if not _API_HOST.match(base_url):
        return None
    return base_url.replace("://api.", "://dashboard.", 1)


def _workspace_of(found: Iterable[Fields]) -> int | None:
    return next((item.count_if_any(_WORKSPACE) for item in found), None)
