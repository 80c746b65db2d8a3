# SPDX-License-Identifier: Apache-2.0
"""What a test sees and does of versions and release labels without HTTP."""

from __future__ import annotations

from collections.abc import Callable

from ..workflows.catalog import Catalog, CatalogEntry
from ..workflows.labels import Labels
from .prompts import Prompts, PromptState


class ReleaseControl:
    """The part of ``LocalPromptLayer`` that is about versions and release labels.

    Each method takes the name or the id of a ``prompt`` or of a ``workflow``, and raises
    ``LookupError`` if there is none.
    """

    def __init__(
        self, catalog: Catalog, prompts: Prompts, announce_change: Callable[[], None]
    ) -> None:
        self._workflows = catalog
        self._prompts = prompts
        self._announce = announce_change

    @property
    def prompt_names(self) -> list[str]:
        """The names of the prompt templates, in the order of their definitions."""
        return self._prompts.names

    def labels(self, *, prompt: str | None = None, workflow: str | None = None) -> dict[str, int]:
        """Return the release labels, and the numbers of the versions that they lead to."""
        return dict(self._labels(prompt, workflow).numbers)

    def add_version(self, *, prompt: str | None = None, workflow: str | None = None) -> int:
        """Add a version, of a workflow a copy of its latest one; return its number."""
        found = self._find(prompt, workflow)
        if isinstance(found, PromptState):
            number = found.add_version()
        else:
            number = self._workflows.copy(found, found.latest, "").workflow.version
        self._announce()
        return number

    def move_label(
        self, label: str, version: int, *, prompt: str | None = None, workflow: str | None = None
    ) -> None:
        """Have a label, protected or not, lead to a version; create it if there is none."""
        self._labels(prompt, workflow).move(label, version)
        self._announce()

    def protect_label(
        self, label: str, *, prompt: str | None = None, workflow: str | None = None
    ) -> None:
        """Have requests not move a label from now on until they are approved."""
        self._labels(prompt, workflow).protected.add(label)

    def approve_label(
        self, label: str, *, prompt: str | None = None, workflow: str | None = None
    ) -> None:
        """Grant the request to move a protected label; ``LookupError`` if there is none."""
        self._labels(prompt, workflow).approve(label)
        self._announce()

    def _labels(self, prompt: str | None, workflow: str | None) -> Labels:
        return self._find(prompt, workflow).labels

    def _find(self, prompt: str | None, workflow: str | None) -> PromptState | CatalogEntry:
        if (prompt is None) == (workflow is None):
            raise ValueError("give a prompt or a workflow")
        if workflow is not None:
            return self._workflows.find(workflow)
        found = self._prompts.find(prompt or "")
        if found is None:
            raise LookupError(f"there is no prompt {prompt!r}")
        return found
