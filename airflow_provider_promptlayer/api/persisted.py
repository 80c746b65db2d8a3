# SPDX-License-Identifier: Apache-2.0
"""What one process keeps for another: task state, the state of a deferral, the triggerer's event.

Each has a version, because another release may have written it (a rolling upgrade); and a worker
without the state backend of the others finds only a reference to it. So a reader tells three cases
apart: nothing is there (None), it can be read, and it cannot (:class:`UnreadableError`). The last
is never taken for the first: a run may be going on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from airflow_provider_promptlayer.api.errors import PromptLayerEventError
from airflow_provider_promptlayer.api.fields import FieldError, Fields
from airflow_provider_promptlayer.api.text import one_line, shown

T = TypeVar("T")

VERSION: Final = 1

_STATE_REFERENCE: Final = "__airflow_state_ref__"
"""Where Airflow's task state store has the reference to a value that a state backend keeps."""


class UnreadableError(ValueError):
    """What another process has kept cannot be read here.

    :param found: why; a phrase that goes on after its name, such as "is no JSON object".
    :param remedy: a sentence that says how to make it readable, or empty.
    :param is_elsewhere: whether a state backend keeps it that this process does not use.
    """

    def __init__(self, found: str, remedy: str = "", *, is_elsewhere: bool = False) -> None:
        super().__init__(found)
        self.found = found
        self.remedy = remedy
        self.is_elsewhere = is_elsewhere

    def about(self, name: str) -> str:
        """Return the sentences that say why what has this name cannot be read, and the remedy."""
        return f"{name} {self.found}. {self.remedy}".rstrip()


def versioned(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with the version."""
    return {"version": VERSION, **fields}


def read_persisted(kept: Any, build: Callable[[Fields], T]) -> T | None:
    """Return what ``build`` makes of the fields that were kept; None stays None.

    :param build: raises :class:`ValueError` for fields that it does not understand.
    :raises UnreadableError: if this release cannot read what was kept.
    """
    if kept is None:
        return None
    try:
        fields = Fields(kept)
        if fields.get(_STATE_REFERENCE) is not None:
            raise UnreadableError(
                "is in a state backend that this worker does not use",
                "Configure the same [workers] state_store_backend on this worker.",
                is_elsewhere=True,
            )
        version = fields.get("version")
        if type(version) is not int or version != VERSION:
            raise UnreadableError(
                f"has version {one_line(shown(version), 40)}, and this process reads version "
                f"{VERSION}",
                "Install the same release of airflow-provider-promptlayer on all workers and "
                "triggerers.",
            )
        return build(fields)
    except UnreadableError:
        raise
    except FieldError as error:
        raise UnreadableError(str(error)) from None
    except ValueError as error:
        raise UnreadableError(f"has a value that is unknown ({one_line(str(error), 80)})") from None


def read_deferred(kept: Any, build: Callable[[Fields], T], *, name: str, missing: str) -> T:
    """Do what :func:`read_persisted` does for what a task that was deferred needs to go on.

    :param name: of what was kept, to begin a sentence with.
    :param missing: the message where nothing was kept.
    :raises PromptLayerEventError: if this release cannot read it, or nothing was kept.
    """
    try:
        found = read_persisted(kept, build)
    except UnreadableError as error:
        raise PromptLayerEventError(error.about(name)) from None
    if found is None:
        raise PromptLayerEventError(missing)
    return found
