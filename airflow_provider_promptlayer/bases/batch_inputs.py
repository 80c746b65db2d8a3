# SPDX-License-Identifier: Apache-2.0
"""The inputs of a batch, as the task has them now, and the request for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from airflow_provider_promptlayer.api.arguments import canonical, items, mapping
from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.text import listed
from airflow_provider_promptlayer.api.workflows import StartedRun, run_workflow
from airflow_provider_promptlayer.outcomes.batches import needed
from airflow_provider_promptlayer.submission.batch import Batch, fingerprint
from airflow_provider_promptlayer.submission.batch_input import Stage

_RUNS_NAMED: Final = 20


@dataclass
class BatchInputs:
    """A list of inputs for one workflow.

    :param rendered: the list as it was rendered; parsed when it is first needed.
    :param workflow_id_or_name: name or numeric id of the workflow.
    :param metadata: what is sent with each input, as it was rendered.
    :param origin: metadata to add under keys that ``metadata`` does not have.
    :param others: the other arguments of :func:`.run_workflow`.
    :param log: logs where the list differs from that of earlier tries.
    """

    rendered: Any
    workflow_id_or_name: int | str
    metadata: Any
    origin: Mapping[str, str]
    others: Mapping[str, Any]
    log: Any

    @property
    def fingerprints(self) -> list[str]:
        """A fingerprint of each input and the workflow; empty if the input cannot be sent.

        :raises PromptLayerInvalidInputError: if the inputs are not a list of mappings.
        """
        return self._fingerprints_and_unfit[0]

    def check(self, min_success_rate: float) -> None:
        """Refuse arguments that cannot be sent.

        :raises PromptLayerInvalidInputError: if too few of the inputs can be sent, or any other
            argument cannot.
        """
        run_workflow(self.workflow_id_or_name, **self._arguments({}, {}))
        fingerprints, unfit = self._fingerprints_and_unfit
        total = len(fingerprints)
        if total - len(unfit) < needed(total, min_success_rate):
            raise PromptLayerInvalidInputError(
                f"{len(unfit)} of {total} inputs cannot be sent, so nothing was started: "
                f"{next(iter(unfit.values()))}"
            )

    def call(self, place: int, index: int) -> Call[StartedRun]:
        """Return the request that starts the input at a place of the list.

        :param index: goes into the metadata, so that a person can find the run.
        """
        first = {"airflow_batch_index": str(index)}
        return run_workflow(self.workflow_id_or_name, **self._arguments(self._inputs[place], first))

    def match(self, batch: Batch) -> None:
        """Refuse inputs that cannot be sent; log the runs of earlier tries."""
        if batch.going:
            self.log.info("Going back to %s runs of an earlier try.", len(batch.going))
            known = [batch.inputs[index] for index in batch.order]
            others = [
                place
                for place, (each, now) in enumerate(zip(known, self.fingerprints, strict=True))
                if each.stage is Stage.RUNNING and each.fingerprint != now
            ]
            if others:
                self.log.warning(
                    "%s of them were started for inputs that have changed since, the first for "
                    "inputs[%s]. A retry keeps them; clear the task to start new ones.",
                    len(others),
                    others[0],
                )
        self._refuse_unfit(batch)
        self._log_dropped(batch)

    def arrange(self, batch: Batch) -> None:
        """Give a batch the order of the list; keep the old order if the list is gone."""
        dropped = batch.dropped
        try:
            batch.arrange(self.fingerprints)
        except PromptLayerInvalidInputError as error:  # such as an XCom that was deleted
            self.log.warning("%s Keeping the order of the inputs before the deferral.", error)
            return
        self._refuse_unfit(batch)
        if batch.dropped != dropped:
            self._log_dropped(batch)

    def _refuse_unfit(self, batch: Batch) -> None:
        for place, problem in self._fingerprints_and_unfit[1].items():
            if batch.inputs[batch.order[place]].stage is Stage.PENDING:
                batch.refused(batch.order[place], problem)

    def _log_dropped(self, batch: Batch) -> None:
        if dropped := batch.dropped:
            self.log.warning(
                "%s runs were started for inputs that are no longer in the list. The task does not "
                "wait for them: %s.",
                len(dropped),
                first_of(dropped),
            )

    def _arguments(self, variables: dict[str, Any], first: dict[str, str]) -> dict[str, Any]:
        metadata = {**first, **self.origin, **mapping("metadata", self.metadata)}
        return {**self.others, "metadata": metadata, "input_variables": variables}

    @cached_property
    def _inputs(self) -> list[dict[str, Any]]:
        found = items("inputs", self.rendered)
        if found is None:
            raise PromptLayerInvalidInputError("inputs must be a list of mappings, not None.")
        return [
            {} if each is None else mapping(f"inputs[{place}]", each)
            for place, each in enumerate(found)
        ]

    @cached_property
    def _fingerprints_and_unfit(self) -> tuple[list[str], dict[int, str]]:
        """The fingerprints; and place → reason for each input that cannot be sent."""
        fingerprints, unfit = [], {}
        others, workflow = self.others, self.workflow_id_or_name
        version = others["workflow_label_name"], others["workflow_version_number"]
        of = [None if one is None else str(one) for one in (workflow, *version)]
        for place, each in enumerate(self._inputs):
            try:
                body = canonical(f"inputs[{place}]", {"of": of, "inputs": each})
                fingerprints.append(fingerprint(body))
            except PromptLayerInvalidInputError as error:
                fingerprints.append("")
                unfit[place] = str(error)
        return fingerprints, unfit


def first_of(run_ids: Sequence[int]) -> str:
    """Return the first ids, and how many more there are, for a message."""
    return listed(map(str, run_ids), len(run_ids), _RUNS_NAMED, ", ")


def check_limits(max_active_runs: Any, start_concurrency: Any, min_success_rate: Any) -> None:
    """Check the arguments of the batch that are numbers.

    :raises PromptLayerInvalidInputError: for one that is not in its range.
    """
    if not (max_active_runs is None or _is_positive(max_active_runs)):
        raise PromptLayerInvalidInputError(
            f"max_active_runs must be a positive integer or None, not {max_active_runs!r}."
        )
    if not _is_positive(start_concurrency):
        raise PromptLayerInvalidInputError(
            f"start_concurrency must be a positive integer, not {start_concurrency!r}."
        )
    is_number = isinstance(min_success_rate, int | float) and not isinstance(min_success_rate, bool)
    if not (is_number and 0 <= min_success_rate <= 1):
        raise PromptLayerInvalidInputError(
            f"min_success_rate must be a number from 0 to 1, not {min_success_rate!r}."
        )


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
