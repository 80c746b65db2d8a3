# SPDX-License-Identifier: Apache-2.0
"""What a task remembers of the release label that it has moved."""

from __future__ import annotations

from typing import ClassVar

from airflow_provider_promptlayer.api.fields import Fields
from airflow_provider_promptlayer.api.persisted import UnreadableError, read_persisted, versioned
from airflow_provider_promptlayer.api.promotions import EarlierTry
from airflow_provider_promptlayer.submission.task_state import TaskState


class PromotionState(TaskState):
    """How far the tries of a task have come with the promotion of one label.

    :param url: that of the prompt template or the workflow in the API, in each method.
    """

    KEY: ClassVar[str] = "promptlayer_promotion"

    def write(self, url: str, label: str, now: EarlierTry) -> None:
        """Note how far this try has come."""
        fields = {
            "url": url,
            "label": label,
            "target": now.target,
            "previous": now.previous,
            "stage": now.stage,
            "clear_epoch": self.clear_epoch,
        }
        self._store.set(self.KEY, versioned(fields))

    def earlier(self, url: str, label: str) -> EarlierTry | None:
        """Return what an earlier try since the last clear has noted about the label, or None."""

        def read(fields: Fields) -> EarlierTry | None:
            noted = fields.text("url"), fields.text("label"), fields.text_or_none("clear_epoch")
            if noted != (url, label, self.clear_epoch):
                return None
            previous, stage = fields.count_if_any("previous"), fields.text_or_none("stage")
            return EarlierTry(fields.count("target"), previous, stage or "sending")

        try:
            return read_persisted(self._kept(self.KEY), read)
        except UnreadableError:
            return None

    def previous(self, url: str, label: str, version: int) -> int | None:
        """Return where the label led before this task moved it to the version.

        The version itself, if this task has not moved it there. None if that is not known: what a
        try has noted cannot be read, could not be written, or was dropped by a clear (Airflow 3.4).
        """

        def read(fields: Fields) -> int | None:
            noted = fields.text("url"), fields.text("label"), fields.count("target")
            is_it = noted == (url, label, version)
            return fields.count_if_any("previous") if is_it else version

        try:
            return read_persisted(self._kept(self.KEY), read)
        except UnreadableError:
            return None
