# SPDX-License-Identifier: Apache-2.0
"""Watching a release label, or the latest version, of a prompt template or a workflow.

PromptLayer has no webhook for a workflow's versions and labels, so they are polled. A watch is a
job like any other to the poll loop: it has ended when there is another version than before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from airflow_provider_promptlayer.api.arguments import one_of, title_text, version_number
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.job import IdParsers, RemoteJob
from airflow_provider_promptlayer.api.labels import Labels, Released, names_of, released
from airflow_provider_promptlayer.api.links import Page
from airflow_provider_promptlayer.api.text import quoted

_NOUNS: Final = ("prompt", "workflow")


@dataclass(frozen=True, slots=True)
class SeenVersion:
    """What a poll of a :class:`VersionWatch` has found.

    :param version: the number of the version; None where there is no such label.
    :param is_complete: whether it is what was waited for.
    """

    version: int | None
    is_complete: bool
    progress: str


@dataclass(frozen=True)
class VersionWatch(RemoteJob[SeenVersion]):
    """The wait for another version of a prompt template or a workflow.

    :param kind: ``"prompt"`` or ``"workflow"``.
    :param release_label: the label to watch; None for the latest version.
    :param newer_than: the number of a version: ends when there is one with a higher number. None to
        end when there is any other version than ``previous_version``, such as an older one that
        the label was moved back to.
    :param previous_version: the version before; None if there was no such label.
    :param id_or_name: of the prompt template or the workflow.
    """

    noun = "version"
    counted_as = "version"
    abandoned_phrase = "is not watched any more"
    pending_phrase = "did not change"
    id_parsers: ClassVar[IdParsers] = {
        "kind": lambda name, value: one_of(name, value, _NOUNS),
        "release_label": lambda name, value: None if value is None else title_text(name, value),
        "newer_than": lambda name, value: None if value is None else version_number(name, value),
        "previous_version": lambda _, value: value,
        "id_or_name": lambda _, value: str(value),
    }

    kind: str
    release_label: str | None
    newer_than: int | None
    previous_version: int | None
    id_or_name: str

    @property
    def remote_ids(self) -> tuple[()]:
        """Nothing, as PromptLayer does not know who watches a version."""
        return ()

    @classmethod
    def on(
        cls, target: Released, release_label: Any = None, newer_than: Any = None
    ) -> VersionWatch:
        """Return the watch of a label, or of the latest version, from the arguments of a task.

        :raises PromptLayerInvalidInputError: for what cannot be sent.
        """
        watch = cls(target.noun, release_label, newer_than, None, target.id_or_name)
        return watch if newer_than is None else watch.since(watch.newer_than)

    def since(self, version: int | None) -> VersionWatch:
        """Return the same watch with another version before."""
        return VersionWatch(
            self.kind, self.release_label, self.newer_than, version, self.id_or_name
        )

    @property
    def target(self) -> Released:
        """The prompt template or the workflow."""
        return released(**{self.kind: self.id_or_name})

    @property
    def name(self) -> str:
        """What messages call it: ``label 'prod' of prompt 'Reply'``."""
        what = (
            "the latest version"
            if self.release_label is None
            else f"label {quoted(self.release_label)}"
        )
        return f"{what} of {self.target.name}"

    @property
    def page(self) -> Page:
        """The web page of the prompt template or the workflow."""
        return self.target.page

    def fetch_call(self) -> Call[SeenVersion]:
        """Return the call that reads the labels, or else the latest version."""
        label = self.release_label
        if label is None:
            return self.target.version().then(lambda latest: self._seen(latest.number))

        def read(labels: Labels) -> SeenVersion:
            if label in labels:
                return self._seen(labels[label].version)
            progress = f"there is none; labels: {names_of(labels)}"
            return SeenVersion(None, is_complete=False, progress=progress)

        return self.target.labels().then(read)

    def _seen(self, version: int) -> SeenVersion:
        if self.newer_than is None:
            is_complete = version != self.previous_version
        else:
            is_complete = version > self.newer_than
        return SeenVersion(version, is_complete, f"version {version}")
