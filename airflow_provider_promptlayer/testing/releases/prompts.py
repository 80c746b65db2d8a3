# SPDX-License-Identifier: Apache-2.0
"""Prompt templates: their versions, which are numbered from 1 on, and their release labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial

from ..evaluations.request_logs import RequestLog, prompt_number
from ..workflows.labels import Labels


@dataclass(frozen=True)
class Prompt:
    """A prompt template with versions 1, 2, … up to the latest.

    :param name: any text.
    :param latest_version: the number of its latest version.
    :param labels: release labels, and the numbers of the versions that they lead to.
    :param protected_labels: labels that a request does not move until it is approved.
    """

    name: str
    _: KW_ONLY
    latest_version: int = 1
    labels: Mapping[str, int] | None = None
    protected_labels: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise ValueError(f"a prompt needs a name, not {self.name!r}")
        if self.latest_version < 1:
            raise ValueError(f"prompt {self.name!r}: latest_version must be >= 1")
        if isinstance(self.protected_labels, str):
            raise ValueError(f"prompt {self.name!r}: protected_labels is a list, not one label")
        for label, number in (self.labels or {}).items():
            if not 1 <= number <= self.latest_version:
                raise ValueError(f"prompt {self.name!r}: {label!r} leads to no version: {number}")


class PromptState:
    """A prompt template as it is now."""

    def __init__(self, prompt: Prompt) -> None:
        self.id = prompt_number(prompt.name)
        self.name = prompt.name
        self.latest = prompt.latest_version
        self.labels = Labels(
            prompt.labels or {},
            partial(prompt_number, prompt.name, "label"),
            prompt.protected_labels,
        )

    def version_id(self, number: int) -> int:
        """Return the id of a version."""
        return prompt_number(self.name, "version", number)

    def has(self, number: int) -> bool:
        """Return whether there is a version of that number."""
        return 1 <= number <= self.latest

    def add_version(self) -> int:
        """Add a version; return its number."""
        self.latest += 1
        return self.latest


class Prompts:
    """The prompt templates of a server: those that are defined, and those of its request logs.

    Of the latter, a label leads to the newest version that a log was requested with by that label.
    """

    def __init__(self, prompts: Iterable[Prompt], logs: Iterable[RequestLog]) -> None:
        self._by_name: dict[str, PromptState] = {}
        for prompt in prompts:
            if prompt.name in self._by_name:
                raise ValueError(f"two prompts are called {prompt.name!r}")
            self._by_name[prompt.name] = PromptState(prompt)
        defined = set(self._by_name)
        for log in logs:
            if log.prompt in defined:
                continue
            state = self._by_name.setdefault(log.prompt, PromptState(Prompt(log.prompt)))
            state.latest = max(state.latest, log.version)
            if log.label is not None:
                led_to = state.labels.numbers.get(log.label, 0)
                state.labels.move(log.label, max(log.version, led_to))

    @property
    def names(self) -> list[str]:
        """The names of the prompt templates, in the order of their definitions."""
        return list(self._by_name)

    def find(self, id_or_name: str) -> PromptState | None:
        """Return the prompt template of that name or id, if there is one."""
        by_id = (state for state in self._by_name.values() if str(state.id) == id_or_name)
        return self._by_name.get(id_or_name) or next(by_id, None)

    def with_label(self, label_id: int) -> tuple[PromptState, str] | None:
        """Return the label of that id, after the prompt template that has it."""
        for state in self._by_name.values():
            for label, its_id in state.labels.ids.items():
                if its_id == label_id:
                    return state, label
        return None
