# SPDX-License-Identifier: Apache-2.0
"""Whether an import that has ended is a success. No other module decides it."""

from __future__ import annotations

from airflow_provider_promptlayer.api.errors import PromptLayerOutcomeError
from airflow_provider_promptlayer.api.imports import ImportStatus
from airflow_provider_promptlayer.api.text import one_line


class PromptLayerImportFailedError(PromptLayerOutcomeError):
    """An import into a sheet has failed. Polling it again never helps.

    :param outcome: the last status of the import.
    """

    outcome: ImportStatus


def raise_for_import(ending: ImportStatus, *, allow_empty: bool = True) -> None:
    """Raise if an import has failed.

    :param allow_empty: whether an import that has found no request logs is a success. PromptLayer
        calls it failed.
    :raises PromptLayerImportFailedError: with PromptLayer's reason.
    """
    if allow_empty if ending.found_nothing else ending.has_succeeded:
        return
    no_reason = "no row was added." if ending.found_nothing else "PromptLayer does not say why."
    reason = one_line(ending.error_message or "") or no_reason
    raise PromptLayerImportFailedError(
        f"Import {one_line(ending.operation_id, 80)} has failed: {reason}", outcome=ending
    )
