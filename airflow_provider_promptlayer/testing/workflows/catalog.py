# SPDX-License-Identifier: Apache-2.0
"""Which workflow, and which version of it, a request means.

The ids that the API shows (of workflows, versions and labels) are counted in the order of the
definitions, so that the same definitions always get the same ids.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

from .labels import Labels
from .model import Workflow


class UnknownWorkflowError(LookupError):
    """No workflow, version or label of that name: the API answers 404."""


@dataclass(frozen=True)
class Version:
    """One version of a workflow with the numbers the API gives it."""

    id: int
    workflow: Workflow


@dataclass(frozen=True)
class CatalogEntry:
    """A workflow with all its versions, by version number."""

    id: int
    name: str
    versions: dict[int, Version]
    labels: Labels

    @property
    def latest(self) -> Version:
        """The version with the highest number."""
        return self.versions[max(self.versions)]

    def version(self, number: int | None = None, label: str | None = None) -> Version:
        """Return a version: by number, by label, or the latest."""
        if number is not None:
            found = self.versions.get(number)
            wanted = f"version {number}"
        elif label is not None:
            found = self.versions.get(self.labels.numbers.get(label, 0))
            wanted = f"release label {label!r}"
        else:
            return self.latest
        if found is None:
            raise UnknownWorkflowError(f"Workflow {self.name!r} has no {wanted}")
        return found


class Catalog:
    """The workflows of a server; ``ValueError`` if two claim the same version, label or id."""

    def __init__(self, workflows: Iterable[Workflow]) -> None:
        by_name: dict[str, list[Workflow]] = {}
        for workflow in workflows:
            by_name.setdefault(workflow.name, []).append(workflow)
        given = {name: _given_id(versions) for name, versions in by_name.items()}
        ids = [number for number in given.values() if number is not None]
        if len(ids) != len(set(ids)):
            raise ValueError("two workflows have the same id")
        # An id that is also another workflow's name would take its requests: see find().
        free_ids = (
            number for number in count(1) if number not in ids and str(number) not in by_name
        )
        self._version_ids, label_ids = count(1), count(1)
        self._lock = threading.Lock()
        self._by_name: dict[str, CatalogEntry] = {}
        # The keys are text, as in a path: a name may have more digits than int() takes.
        self._by_id: dict[str, CatalogEntry] = {}
        for name, versions in by_name.items():
            given_id = given[name]
            entry = CatalogEntry(
                id=next(free_ids) if given_id is None else given_id,
                name=name,
                versions={
                    workflow.version: Version(next(self._version_ids), workflow)
                    for workflow in versions
                },
                labels=Labels(
                    {label: workflow.version for workflow in versions for label in workflow.labels},
                    lambda _: next(label_ids),
                ),
            )
            self._by_name[name] = self._by_id[str(entry.id)] = entry

    def __iter__(self) -> Iterator[CatalogEntry]:
        return iter(self._by_name.values())

    def find(self, id_or_name: str) -> CatalogEntry:
        """Return the workflow of that id or, if there is none, of that name.

        The id comes first, because PromptLayer's Python library looks up the id of a name and runs
        that: otherwise it would run a workflow that happens to be named like the id.
        """
        entry = self._by_id.get(id_or_name) or self._by_name.get(id_or_name)
        if entry is None:
            raise UnknownWorkflowError(f"Workflow {id_or_name!r} not found")
        return entry

    def copy(
        self,
        entry: CatalogEntry,
        base: Version,
        commit_message: str | None,
        labels: Sequence[str] = (),
    ) -> Version:
        """Copy a version of a workflow to a new one, and move labels to the copy."""
        with self._lock:
            number = entry.latest.workflow.version + 1
            workflow = replace(base.workflow, version=number, commit_message=commit_message)
            copy = entry.versions[number] = Version(next(self._version_ids), workflow)
        for label in labels:
            entry.labels.ask_to_move(label, number)
        return copy


def _given_id(versions: list[Workflow]) -> int | None:
    """Check the versions of one workflow against each other; return the id they state, if any."""
    name = versions[0].name
    numbers = [workflow.version for workflow in versions]
    if len(numbers) != len(set(numbers)):
        raise ValueError(f"workflow {name!r}: a version number is defined twice")
    labels = [label for workflow in versions for label in workflow.labels]
    if len(labels) != len(set(labels)):
        raise ValueError(f"workflow {name!r}: a release label is defined twice")
    ids = {workflow.id for workflow in versions} - {None}
    if len(ids) > 1:
        raise ValueError(f"workflow {name!r}: its versions have different ids")
    return ids.pop() if ids else None
