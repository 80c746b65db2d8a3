# SPDX-License-Identifier: Apache-2.0
"""The inputs of a batch, as the task has them now: what is sent for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from airflow_provider_promptlayer.api.arguments import canonical, items, mapping
from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.workflows import StartedRun, run_workflow
from airflow_provider_promptlayer.outcomes.batches import needed
from airflow_provider_promptlayer.submission.batch import fingerprint


class BatchInputs:
    """A list of inputs for one workflow.

    :param inputs: the list as it was rendered.
    :param workflow_id_or_name: name or numeric id of the workflow.
    :param metadata: what is sent with all of them, as it was rendered.
    :param origin: metadata that is added where it is not given.
    :param others: the other arguments of :func:`.run_workflow`.
    """

    def __init__(
        self,
        inputs: Any,
        workflow_id_or_name: int | str,
        *,
        metadata: Any,
        origin: Mapping[str, str],
        **others: Any,
    ) -> None:
        self._rendered = inputs
        self._workflow = workflow_id_or_name
        self._metadata = metadata
        self._origin = origin
        self._others = others

    @cached_property
    def fingerprints(self) -> list[str]:
        """What tells each input, for this workflow, from others; empty for one of :attr:`unfit`.

        :raises PromptLayerInvalidInputError: if the inputs are no list of mappings.
        """
        return self._fingerprints_and_unfit[0]

    @cached_property
    def unfit(self) -> dict[int, str]:
        """The places of the inputs that cannot be sent, and why."""
        return self._fingerprints_and_unfit[1]

    def check(self, min_success_rate: float) -> None:
        """Refuse what cannot be sent.

        :raises PromptLayerInvalidInputError: if too few of the inputs can be sent, or another
            argument cannot be.
        """
        run_workflow(self._workflow, **self._arguments({}, {}))
        total, unfit = len(self.fingerprints), self.unfit
        if total - len(unfit) < needed(total, min_success_rate):
            raise PromptLayerInvalidInputError(
                f"{len(unfit)} of {total} inputs cannot be sent, so nothing was started: "
                f"{next(iter(unfit.values()))}"
            )

    def call(self, place: int, index: int) -> Call[StartedRun]:
        """Return the start of the input at a place.

        :param index: by which its run is found in PromptLayer.
        """
        first = {"airflow_batch_index": str(index)}
        return run_workflow(self._workflow, **self._arguments(self._inputs[place], first))

    def _arguments(self, variables: dict[str, Any], first: dict[str, str]) -> dict[str, Any]:
        metadata = {**first, **self._origin, **mapping("metadata", self._metadata)}
        return {**self._others, "metadata": metadata, "input_variables": variables}

    @cached_property
    def _inputs(self) -> list[dict[str, Any]]:
        found = items("inputs", self._rendered)
        if found is None:
            raise PromptLayerInvalidInputError("inputs must be a list of mappings, not None.")
        return [
            {} if each is None else mapping(f"inputs[{index}]", each)
            for index, each in enumerate(found)
        ]

    @cached_property
    def _fingerprints_and_unfit(self) -> tuple[list[str], dict[int, str]]:
        fingerprints, unfit = [], {}
        version = self._others["workflow_label_name"], self._others["workflow_version_number"]
        of = [None if one is None else str(one) for one in (self._workflow, *version)]
        for place, each in enumerate(self._inputs):
            try:
                body = canonical(f"inputs[{place}]", {"of": of, "inputs": each})
                fingerprints.append(fingerprint(body))
            except PromptLayerInvalidInputError as error:
                fingerprints.append("")
                unfit[place] = str(error)
        return fingerprints, unfit
