# SPDX-License-Identifier: Apache-2.0
"""Prompt templates, and the requests that create and move their release labels.

PromptLayer's description has no status for a version or a prompt template that does not exist, and
none for a label that is created a second time. Here these are 404 and 400. A request to move a
protected label is answered like any other, and the label stays where it is.
"""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel

from ..http.app import answer, get, refusal
from ..http.validation import Body, Int64, Integer, WhichVersion, read_body, read_path, read_query
from ..json_text import JsonValue
from .prompts import Prompts, PromptState


class _GetPrompt(WhichVersion):
    resolve_snippets: bool = True
    include_llm_kwargs: bool = False


class _PromptId(BaseModel):
    prompt_id: Integer


class _LabelId(BaseModel):
    prompt_label_id: Integer


class _MoveLabel(Body):
    prompt_version_number: Int64


class _CreateLabel(_MoveLabel):
    name: str


class PromptEndpoints:
    """Prompt templates by name or id, and their release labels."""

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts

    @property
    def routes(self) -> list[web.RouteDef]:
        """The endpoints."""
        prompt = "/prompt-templates/{identifier:[^/]+}"
        return [
            get(prompt, self.get_prompt),
            get(f"{prompt}/labels", self.get_labels),
            web.post("/prompts/{prompt_id}/label", self.create_label),
            web.patch("/prompt-labels/{prompt_label_id}", self.move_label),
        ]

    async def get_prompt(self, request: web.Request) -> web.Response:
        """Describe a version of a prompt template: by number, by label, or the latest."""
        prompt = self._find(request.match_info["identifier"])
        query = read_query(request, _GetPrompt)
        number = prompt.latest
        if query.version is not None:
            number = query.version
        elif query.label is not None:
            number = prompt.labels.numbers.get(query.label, 0)
        if not prompt.has(number):
            raise refusal(404, "Prompt template version not found")
        return answer(
            200,
            {
                "success": True,
                "id": prompt.id,
                "prompt_name": prompt.name,
                "version": number,
                "workspace_id": 1,
                "prompt_template": {"type": "completion", "content": []},
                "commit_message": None,
                "snippets": [],
            },
        )

    async def get_labels(self, request: web.Request) -> web.Response:
        """List the release labels of a prompt template with the versions they lead to."""
        prompt = self._find(request.match_info["identifier"])
        return answer(
            200,
            {
                "success": True,
                "release_labels": [
                    {
                        "prompt_version_id": prompt.version_id(number),
                        "prompt_version_number": number,
                        "release_label": label,
                        "release_label_id": prompt.labels.ids[label],
                    }
                    for label, number in prompt.labels.numbers.items()
                ],
            },
        )

    async def create_label(self, request: web.Request) -> web.Response:
        """Create a label that leads to a version."""
        prompt = self._find(str(read_path(request, _PromptId).prompt_id))
        body = await read_body(request, _CreateLabel)
        if body.name in prompt.labels.numbers:
            raise refusal(400, f"The release label {body.name!r} exists")
        return self._move(prompt, body.name, body.prompt_version_number)

    async def move_label(self, request: web.Request) -> web.Response:
        """Have a label lead to another version, or ask for that if the label is protected."""
        found = self._prompts.with_label(read_path(request, _LabelId).prompt_label_id)
        body = await read_body(request, _MoveLabel)
        if found is None:
            raise refusal(404, "Release label not found")
        return self._move(*found, body.prompt_version_number)

    def _move(self, prompt: PromptState, label: str, number: int) -> web.Response:
        if not prompt.has(number):
            raise refusal(404, "Prompt template version not found")
        prompt.labels.ask_to_move(label, number)
        led_to = prompt.labels.numbers.get(label, number)
        return answer(200, _described(prompt, label, led_to))

    def _find(self, identifier: str) -> PromptState:
        found = self._prompts.find(identifier)
        if found is None:
            raise refusal(404, "Prompt template not found")
        return found


def _described(prompt: PromptState, label: str, number: int) -> dict[str, JsonValue]:
    return {
        "id": prompt.labels.ids.get(label, 0),
        "name": label,
        "prompt_id": prompt.id,
        "prompt_version_id": prompt.version_id(number),
        "created_at": "2026-01-01T00:00:00Z",
    }
