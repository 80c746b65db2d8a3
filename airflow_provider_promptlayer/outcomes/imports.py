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


def raise_for_import(ending: ImportStatus) -> None:
    """Raise if an import has failed.

    :raises PromptLayerImportFailedError: with PromptLayer's reason.
    """
    if not ending.has_succeeded:
        reason = one_line(ending.error_message or "") or "PromptLayer does not say why."
        raise PromptLayerImportFailedError(
            f"Import {one_line(ending.operation_id, 80)} has failed: {reason}", outcome=ending
        )
