# SPDX-License-Identifier: Apache-2.0
"""Promotions: which version a release label is to lead to, and whether it does so already.

The label is read before each request that would move it. So a request whose answer was lost, and
one of a worker that has died, is never repeated where it has taken effect. A copy of a workflow's
version is known by its commit message, :class:`CopyMark`.
"""

from __future__ import annotations

import re
from base64 import b32encode
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Self
from uuid import uuid4

from airflow_provider_promptlayer.api.arguments import exactly_one, positive, title_text
from airflow_provider_promptlayer.api.errors import (
    PromptLayerInvalidInputError,
    PromptLayerLabelMovedError,
    PromptLayerNotFoundError,
)
from airflow_provider_promptlayer.api.job import CallFlow
from airflow_provider_promptlayer.api.labels import (
    MAX_MESSAGE,
    Labels,
    Released,
    ReleasedVersion,
    ReleaseLabel,
)
from airflow_provider_promptlayer.api.text import one_line, quoted

VERSIONS: Final = "a version's number, and a label that leads to it"
"""What the arguments ``version`` and ``from_label`` are."""

_COPY: Final = re.compile(
    r"Copy of (\d+)(?:, was (\d+))? \[([a-z2-7]{6})-([a-z2-7]{3})-([a-z2-7]{3})\]"
)

_VERSIONS_SEARCHED: Final = 30
"""How many of the latest versions are searched for the copy of an earlier request."""


@dataclass(frozen=True, slots=True)
class CopyMark:
    """Tells the copies of one task instance from those of others.

    :param task: digest of the task instance.
    :param epoch: digest of its tries since it was cleared last.
    :param who: who made the copy, for people.
    """

    task: str
    epoch: str
    who: str = ""

    @classmethod
    def of(cls, who: str, *task: object, clear_epoch: str) -> Self:
        """Return the mark that is the same for the same task and epoch."""
        return cls(_digest(task, 6), _digest(clear_epoch, 3), who)

    @classmethod
    def new(cls) -> Self:
        """Return a mark unlike any other."""
        return cls.of("by PromptLayerHook", uuid4().hex, clear_epoch="")

    def message(self, label: str, base: int, previous: int | None) -> str:
        """Return the commit message of a copy.

        :param label: the label that is moved to it.
        :param base: the version that is copied.
        :param previous: the version that the label led to before; None if there was no label.
        """
        was = "" if previous is None else f", was {previous}"
        mark = f"{self.task}-{self.epoch}-{_digest(label, 3)}"
        return one_line(f"Copy of {base}{was} [{mark}] {self.who}", MAX_MESSAGE)


def _digest(value: object, length: int) -> str:
    return b32encode(blake2b(repr(value).encode()).digest()).decode()[:length].lower()


@dataclass(frozen=True, slots=True)
class _Copy:
    """What the commit message of a copy says."""

    base: int
    previous: int | None
    task: str
    epoch: str
    label: str

    @classmethod
    def read(cls, version: ReleasedVersion) -> Self | None:
        found = _COPY.match(version.commit_message or "")
        if found is None:
            return None
        base, previous, *mark = found.groups()
        return cls(int(base), None if previous is None else int(previous), *mark)


def is_own_copy(version: ReleasedVersion, label: str | None = None) -> bool:
    """Return whether a promotion has made this version of a workflow.

    :param label: whether it was one of this label; None for one of any label.
    """
    copy = _Copy.read(version)
    return copy is not None and (label is None or copy.label == _digest(label, 3))


@dataclass(frozen=True, slots=True)
class Promotion:
    """What has become of a promotion.

    :param label: the release label.
    :param version: the number of the version that it leads to now, or will once that is approved;
        of a workflow mostly a copy of the one that was asked for.
    :param previous_version: the number of the version that it led to before; None for a new label.
        The same as ``version`` where the label led there already.
    :param was_there: whether nothing had to be sent.
    :param is_pending: whether the label is protected and the move waits for approval.
    """

    label: str
    version: int
    previous_version: int | None
    was_there: bool = False
    is_pending: bool = False


@dataclass(frozen=True, slots=True)
class EarlierTry:
    """How far an earlier try of the same task has come with a promotion.

    :param target: the number of the version that it has promoted.
    :param previous: where the label led before; None for a new label.
    :param stage: ``"sending"``; ``"sent"``, once the request was answered; ``"moved"``, once the
        label was seen to have moved.
    """

    target: int
    previous: int | None
    stage: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a promotion is.

    :param base: the version to promote; its number alone where the label leads there.
    :param current: the label as it is; None if there is none.
    :param arrived: the number of the version that the label leads to, or is to lead to: the base
        itself, or a copy of it. None as long as the request has to be sent.
    :param previous: where the label led before, see :class:`Promotion`.
    """

    base: ReleasedVersion
    current: ReleaseLabel | None
    arrived: int | None
    previous: int | None

    @property
    def is_done(self) -> bool:
        """Whether the label leads where it should."""
        return self.current is not None and self.current.version == self.arrived


class PromotionOrder:
    """The wish that a release label lead to a version.

    :param target: the prompt template or the workflow.
    :param label: the release label; created if there is none.
    :param version: the number of the version; exactly one of this and ``from_label``.
    :param from_label: the label that leads to the version.
    :param expected_version: the number of the version that the label has to lead to before; None
        for any.
    :raises PromptLayerInvalidInputError: for what cannot be sent.
    """

    def __init__(
        self,
        target: Released,
        label: Any,
        *,
        version: Any = None,
        from_label: Any = None,
        expected_version: Any = None,
    ) -> None:
        exactly_one(VERSIONS, version=version, from_label=from_label)
        self.target = target
        self.label = title_text("release_label", label)
        self._version = None if version is None else positive("version", version)
        self._from_label = None if from_label is None else title_text("from_label", from_label)
        self._expected = (
            None if expected_version is None else positive("expected_version", expected_version)
        )

    @property
    def changes_nothing(self) -> bool:
        """Whether the version to promote is the one that the label has to lead to before."""
        return self._version is not None and self._version == self._expected

    def look(self, mark: CopyMark, *, may_have_copied: bool) -> CallFlow[Standing]:
        """Return how far the promotion is.

        :param mark: that of the copies of this task.
        :param may_have_copied: whether an earlier request may have made one.
        :raises PromptLayerNotFoundError: if there is no such version, label, or target.
        """
        labels: Labels = yield self.target.labels()
        number = self._version
        if number is None:
            number = self.target.label_among(labels, self._from_label or "").version
        current = labels.get(self.label)
        led_to = None if current is None else current.version
        if led_to == number:
            return Standing(ReleasedVersion(number), current, number, led_to)
        base: ReleasedVersion = yield self.target.version(number)
        if not self.target.is_copied:
            return Standing(base, current, None, led_to)
        # An earlier try may have copied what from_label led to then.
        oldest = number if self._from_label is None else 0
        if led_to is not None and led_to > oldest:
            copy = yield from self._copy(led_to)
            if copy is not None and self._is_own(copy, number, mark):
                return Standing(base, current, led_to, copy.previous)
            if copy is not None and copy.base == number:
                # One of this task before it was cleared tells where the label led before it.
                previous = copy.previous if copy.task == mark.task else led_to
                return Standing(base, current, led_to, previous)
        if may_have_copied:
            latest: ReleasedVersion = yield self.target.version()
            copy = _Copy.read(latest)
            for each in range(latest.number, max(oldest, latest.number - _VERSIONS_SEARCHED), -1):
                if each != latest.number:
                    copy = yield from self._copy(each)
                if copy is not None and self._is_own(copy, number, mark):
                    return Standing(base, current, each, copy.previous)
        return Standing(base, current, None, led_to)

    def _copy(self, number: int) -> CallFlow[_Copy | None]:
        """Return what a version says of its copying; None if it is no copy, or was deleted."""
        try:
            version: ReleasedVersion = yield self.target.version(number)
        except PromptLayerNotFoundError:
            return None
        return _Copy.read(version)

    def _is_own(self, copy: _Copy, number: int, mark: CopyMark) -> bool:
        """Return whether this task has made a copy for this promotion."""
        is_own = (copy.task, copy.epoch) == (mark.task, mark.epoch)
        return is_own and (copy.base == number or self._from_label is not None)

    def keeps_to(self, earlier: EarlierTry) -> bool:
        """Keep to the version that an earlier try has promoted, wherever ``from_label`` leads now.

        :returns: whether it was a try of this promotion, and not of another version.
        """
        if self._from_label is None and self._version != earlier.target:
            return False
        self._version = earlier.target
        return True

    def refuse_if_moved_after(self, earlier: EarlierTry, standing: Standing) -> None:
        """Raise if somebody has moved the label since an earlier try.

        :param standing: how far the promotion is, with a label that does not lead to the version.
        :raises PromptLayerLabelMovedError: says where it leads.
        """
        current = standing.current and standing.current.version
        if earlier.stage == "moved" or current != earlier.previous:
            had = "moved" if earlier.stage == "moved" else "read"
            clause = f"so it was moved after an earlier try of this task had {had} it"
            raise self._moved(standing.current, clause)

    def refuse_if_moved(self, standing: Standing) -> None:
        """Raise if the label does not lead where it is expected to.

        :raises PromptLayerLabelMovedError: says where it leads.
        """
        if self._expected is not None and standing.previous != self._expected:
            raise self._moved(standing.current, f"and not to version {self._expected} as expected")

    def refuse_if_moved_since(self, before: Standing, now: Standing) -> None:
        """Raise if the label was moved between two looks.

        :raises PromptLayerLabelMovedError: says where it leads.
        """
        if now.previous != before.previous:
            raise self._moved(now.current, "so it was moved since this task has read it")

    def refuse_new_label_with_spaces(self) -> None:
        """Raise if the label, which is still to be created, has a space that a reader may miss.

        :raises PromptLayerInvalidInputError: says so.
        """
        if any(map(str.isspace, self.label)):
            raise PromptLayerInvalidInputError(
                f"There is no label {quoted(self.label)} of {self.target.name}, and no "
                "label with a space in its name is created."
            )

    def settled(self, labels: Labels, standing: Standing, arrived: int) -> Promotion | None:
        """Return what has become of the promotion, or None if the label is where it was.

        :param labels: as they are after the request.
        :param standing: how far the promotion was before.
        :param arrived: the number of the version that the label should lead to.
        :raises PromptLayerLabelMovedError: if it leads to a third version.
        """
        current = labels.get(self.label)
        if current is not None and current.version == arrived:
            return Promotion(self.label, arrived, standing.previous)
        if (current and current.version) == standing.previous:
            return None
        raise self._moved(current, f"so it was moved since the request for version {arrived}")

    def _moved(self, current: ReleaseLabel | None, clause: str) -> PromptLayerLabelMovedError:
        leads = "does not exist" if current is None else f"leads to version {current.version}"
        return PromptLayerLabelMovedError(
            f"Label {quoted(self.label)} of {self.target.name} {leads}, {clause}. "
            "Look in PromptLayer at who has moved it."
        )
