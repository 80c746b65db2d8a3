# SPDX-License-Identifier: Apache-2.0
"""Everything that this provider raises on purpose: the public face of the errors."""

from __future__ import annotations

from airflow_provider_promptlayer.api.errors import (
    PromptLayerAnswerTooLargeError,
    PromptLayerApprovalNeededError,
    PromptLayerAuthError,
    PromptLayerConfigurationError,
    PromptLayerConfirmationNeededError,
    PromptLayerError,
    PromptLayerEventError,
    PromptLayerFileError,
    PromptLayerInvalidInputError,
    PromptLayerLabelMovedError,
    PromptLayerNotFoundError,
    PromptLayerOutageError,
    PromptLayerOutcomeError,
    PromptLayerRateLimitError,
    PromptLayerRefusedError,
    PromptLayerServerError,
    PromptLayerSheetChangedError,
    PromptLayerStartUncertainError,
    PromptLayerTransientError,
    PromptLayerUnexpectedAnswerError,
    PromptLayerUnknownConnectionError,
    PromptLayerUnreachableError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.outcomes.batches import PromptLayerBatchFailedError
from airflow_provider_promptlayer.outcomes.evaluations import PromptLayerEvaluationFailedError
from airflow_provider_promptlayer.outcomes.imports import PromptLayerImportFailedError
from airflow_provider_promptlayer.outcomes.workflows import PromptLayerRunFailedError

__all__ = [
    "PromptLayerAnswerTooLargeError",
    "PromptLayerApprovalNeededError",
    "PromptLayerAuthError",
    "PromptLayerBatchFailedError",
    "PromptLayerConfigurationError",
    "PromptLayerConfirmationNeededError",
    "PromptLayerError",
    "PromptLayerEvaluationFailedError",
    "PromptLayerEventError",
    "PromptLayerFileError",
    "PromptLayerImportFailedError",
    "PromptLayerInvalidInputError",
    "PromptLayerLabelMovedError",
    "PromptLayerNotFoundError",
    "PromptLayerOutageError",
    "PromptLayerOutcomeError",
    "PromptLayerRateLimitError",
    "PromptLayerRefusedError",
    "PromptLayerRunFailedError",
    "PromptLayerServerError",
    "PromptLayerSheetChangedError",
    "PromptLayerStartUncertainError",
    "PromptLayerTransientError",
    "PromptLayerUnexpectedAnswerError",
    "PromptLayerUnknownConnectionError",
    "PromptLayerUnreachableError",
    "PromptLayerWaitTimeoutError",
]
