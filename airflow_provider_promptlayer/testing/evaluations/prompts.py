# SPDX-License-Identifier: Apache-2.0
"""``/prompt-templates``: the prompt templates that the request logs were made with.

They are what a filter of request logs needs ids of; nothing else is served about them. A label
leads to the newest version that a log was requested with by that label.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from ..http.app import answer, get, refusal
from ..http.validation import WhichVersion, read_query
from .request_logs import RequestLog, prompt_number


class _GetPrompt(WhichVersion):
    resolve_snippets: bool = True
    include_llm_kwargs: bool = False


class PromptEndpoints:
    """Prompt templates by name or id, and their release labels."""

    def __init__(self, logs: Sequence[RequestLog]) -> None:
        self._logs = logs

    @property
    def routes(self) -> list[web.RouteDef]:
        """The endpoints."""
        prompt = "/prompt-templates/{identifier:[^/]+}"
        return [get(prompt, self.get_prompt), get(f"{prompt}/labels", self.get_labels)]

    async def get_prompt(self, request: web.Request) -> web.Response:
        """Describe a version of a prompt template: by number, by label, or the latest."""
        logs = self._find(request)
        query = read_query(request, _GetPrompt)
        versions = [
            log.version
            for log in logs
            if query.version in (None, log.version) and query.label in (None, log.label)
        ]
        if not versions:
            raise refusal(404, "Prompt template version not found")
        return answer(
            200,
            {
                "success": True,
                "id": logs[0].prompt_id,
                "prompt_name": logs[0].prompt,
                "version": max(versions),
                "workspace_id": 1,
                "prompt_template": {"type": "completion", "content": []},
                "snippets": [],
            },
        )

    async def get_labels(self, request: web.Request) -> web.Response:
        """List the release labels of a prompt template with the versions they lead to."""
        logs = self._find(request)
        versions: dict[str, int] = {}
        for log in logs:
            if log.label is not None:
                versions[log.label] = max(log.version, versions.get(log.label, 0))
        return answer(
            200,
            {
                "success": True,
                "release_labels": [
                    {
                        "prompt_version_id": prompt_number(logs[0].prompt, "version", version),
                        "prompt_version_number": version,
                        "release_label": label,
                        "release_label_id": prompt_number(logs[0].prompt, "label", label),
                    }
                    for label, version in versions.items()
                ],
            },
        )

    def _find(self, request: web.Request) -> list[RequestLog]:
        identifier = request.match_info["identifier"]
        found = [log for log in self._logs if identifier in (log.prompt, str(log.prompt_id))]
        if not found:
            raise refusal(404, "Prompt template not found")
        return found
