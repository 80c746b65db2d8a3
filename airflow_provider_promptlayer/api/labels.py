# SPDX-License-Identifier: Apache-2.0
"""Release labels of prompt templates and workflows: the requests that read and move them.

Facts are those of PromptLayer's published API description ("Get Prompt Template Labels", "Create a
new label for a prompt", "Move Prompt Template Labels", "Get Agent Labels", "Patch Workflow"). A
prompt template's label is moved where it is. No request moves a workflow's label: "Patch Workflow"
makes a new version, here an unchanged copy, and moves the label to the copy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, TypeAlias

from airflow_provider_promptlayer.api.arguments import encode, exactly_one, path_segment
from airflow_provider_promptlayer.api.errors import PromptLayerNotFoundError
from airflow_provider_promptlayer.api.fields import FieldError, Fields, object_call
from airflow_provider_promptlayer.api.http import Call, Request
from airflow_provider_promptlayer.api.links import Page
from airflow_provider_promptlayer.api.submit import submit_call
from airflow_provider_promptlayer.api.text import listed, quoted

MAX_MESSAGE: Final = 72
"""The most characters of a commit message."""

NAMES: Final = "a name or an id"
"""What the arguments of :func:`released` are."""

_LABELS_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class ReleaseLabel:
    """A release label, and the number of the version that it leads to."""

    name: str
    label_id: int
    version: int


Labels: TypeAlias = dict[str, ReleaseLabel]
"""The release labels of a prompt template or a workflow, by name."""


def names_of(labels: Labels) -> str:
    """Return the first names of labels for a message, or "none"."""
    return listed(map(quoted, labels), len(labels), _LABELS_NAMED, ", ") or "none"


@dataclass(frozen=True, slots=True)
class ReleasedVersion:
    """A version of a prompt template or a workflow.

    :param owner_id: the number of the prompt template or the workflow; None where it is not said.
    :param commit_message: None where there is none.
    """

    number: int
    owner_id: int | None = None
    commit_message: str | None = None


class Released(ABC):
    """A prompt template or a workflow, whose versions have release labels.

    :param id_or_name: its id or its name.
    :raises PromptLayerInvalidInputError: if that cannot be sent.
    """

    noun: ClassVar[Literal["prompt", "workflow"]]
    """What messages and arguments call it."""

    is_copied: ClassVar[bool] = False
    """Whether a label moves to a copy of the version."""

    _label_path: ClassVar[str]
    _version_fields: ClassVar[str]

    def __init__(self, id_or_name: Any) -> None:
        self._segment = path_segment(id_or_name, self.noun, self.noun)
        self.id_or_name = str(id_or_name)

    @property
    def name(self) -> str:
        """What messages call it: ``prompt 'Reply'``."""
        return f"{self.noun} {quoted(self.id_or_name)}"

    @property
    def page(self) -> Page:
        """Its web page."""
        return Page(self.noun, (self.id_or_name,))

    @property
    def path(self) -> str:
        """The path of its requests."""
        return f"{self._label_path}/{self._segment}"

    def labels(self) -> Call[Labels]:
        """``GET …/labels``: return its release labels."""
        number = f"{self._version_fields}_version_number"

        def read(answer: Fields) -> Labels:
            found = (
                ReleaseLabel(
                    each.text("release_label"), each.count("release_label_id"), each.count(number)
                )
                for each in answer.objects("release_labels")
            )
            return {label.name: label for label in found}

        purpose = f"read the release labels of {self.name}"
        return object_call(Request("GET", f"{self.path}/labels", purpose, is_fresh=True), read)

    def version(self, number: int | None = None) -> Call[ReleasedVersion]:
        """``GET …``: return a version, the latest one unless a number is given."""
        if number is None:
            request, hints = Request("GET", self.path, f"find {self.name}", is_fresh=True), None
        else:
            purpose = f"read version {number} of {self.name}"
            path = f"{self.path}?version={number}"
            request = Request("GET", path, purpose, is_fresh=True)
            hints = {404: f"Check whether {self.name} has such a version, and the workspace."}
        return object_call(request, lambda answer: self._read_version(answer, number), hints)

    def label_among(self, labels: Labels, label: str) -> ReleaseLabel:
        """Return a label.

        :raises PromptLayerNotFoundError: if there is none of that name; names those that there are.
        """
        if label in labels:
            return labels[label]
        raise PromptLayerNotFoundError(
            f"{self.name[:1].upper()}{self.name[1:]} has no label {quoted(label)}; "
            f"it has: {names_of(labels)}."
        )

    @abstractmethod
    def move(
        self, label: str, current: ReleaseLabel | None, to: ReleasedVersion, message: str
    ) -> Call[int]:
        """Return the call that has a label lead to a version, or to a copy of it.

        Its result is the number of the version that the label leads to then. A protected label
        stays where it is until the move is approved, and the answer does not say so.

        :param current: the label as it is; None to create it.
        :param message: the commit message of a copy.
        """

    @abstractmethod
    def _read_version(self, answer: Fields, number: int | None) -> ReleasedVersion: ...


class ReleasedPrompt(Released):
    """A prompt template."""

    noun = "prompt"
    _label_path = "/prompt-templates"
    _version_fields = "prompt"

    def move(
        self,
        label: str,
        current: ReleaseLabel | None,
        to: ReleasedVersion,
        message: str,  # noqa: ARG002  # a prompt is not copied
    ) -> Call[int]:
        """``PATCH /prompt-labels/{id}``, or ``POST /prompts/{id}/label`` to create the label."""
        body: dict[str, Any] = {"prompt_version_number": to.number}
        purpose = _moving(self, label, to)
        if current is None:
            body["name"] = label
            path = f"/prompts/{to.owner_id}/label"
            request = Request("POST", path, purpose, encode("label", body))
        else:
            path = f"/prompt-labels/{current.label_id}"
            request = Request("PATCH", path, purpose, encode("label", body))
        return submit_call(
            request,
            lambda _: to.number,
            id_field="prompt_version_id",
            advice=_ADVICE,
        )

    def _read_version(self, answer: Fields, number: int | None) -> ReleasedVersion:
        found = answer.count("version") if number is None else number
        return ReleasedVersion(found, answer.count("id"), answer.text_if_any("commit_message"))


class ReleasedWorkflow(Released):
    """A workflow. PromptLayer describes it in one of two forms, see ``GET /workflows/{x}``."""

    noun = "workflow"
    is_copied = True
    _label_path = "/workflows"
    _version_fields = "workflow"

    def move(
        self,
        label: str,
        current: ReleaseLabel | None,  # noqa: ARG002  # it makes no difference here
        to: ReleasedVersion,
        message: str,
    ) -> Call[int]:
        """``PATCH /rest/workflows/{x}``: copy a version, and move the label to the copy."""
        body = {"base_version": to.number, "release_labels": [label], "commit_message": message}
        return submit_call(
            Request("PATCH", f"/rest{self.path}", _moving(self, label, to), encode("label", body)),
            lambda answer: answer.count("version_number"),
            id_field="workflow_version_id",
            advice=_ADVICE,
        )

    def _read_version(self, answer: Fields, number: int | None) -> ReleasedVersion:
        # All fields are at the top, or all in an object, or some in both.
        places = answer, answer.object_if_any("workflow")
        numbers = (number, *(place.count_if_any("version") for place in places))
        found = next((each for each in numbers if each is not None), None)
        if found is None:
            raise FieldError("has no version")
        messages = (place.text_if_any("commit_message") for place in places)
        return ReleasedVersion(found, None, next(filter(None, messages), None))


_ADVICE: Final = "The label may have been moved all the same: look in PromptLayer."


def released(prompt: Any = None, workflow: Any = None) -> Released:
    """Return the prompt template or the workflow that two arguments name.

    :raises PromptLayerInvalidInputError: unless exactly one is given, and can be sent.
    """
    exactly_one(NAMES, prompt=prompt, workflow=workflow)
    return ReleasedPrompt(prompt) if workflow is None else ReleasedWorkflow(workflow)


def version_numbers(labels: Mapping[str, ReleaseLabel]) -> dict[str, int]:
    """Return the numbers of the versions that labels lead to."""
    return {name: label.version for name, label in labels.items()}


def _moving(of: Released, label: str, to: ReleasedVersion) -> str:
    return f"move label {quoted(label)} of {of.name} to version {to.number}"
