# SPDX-License-Identifier: Apache-2.0
"""The operator that saves a version of a sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Unpack

from airflow_provider_promptlayer.api.arguments import title_text
from airflow_provider_promptlayer.bases.caller import PromptLayerCaller
from airflow_provider_promptlayer.bases.lineage import Lineage
from airflow_provider_promptlayer.bases.sheet import SHEET_FIELDS, SheetArguments
from airflow_provider_promptlayer.xcom.storable import storable

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_promptlayer.bases.arguments import SheetKwargs


class PromptLayerSnapshotSheetOperator(SheetArguments, PromptLayerCaller):
    """Save the sheet as it is: its cells, its columns and its score, under a name.

    A name is saved once. If the sheet has a version of that name, the task returns that one; so a
    retry and a cleared task save nothing twice. Give each DAG run a name of its own, such as
    ``"{{ run_id }}"``. If the answer is lost, the task looks for the version before it sends the
    request again.

    Saved after a gate, versions are what ``max_drop`` of :class:`.PromptLayerRunScorecardOperator`
    compares with: the scores that have passed.

    :param table: title or UUID of the table. Templated.
    :param sheet: title or UUID of the sheet. Templated.
    :param table_id: UUID of the table, in place of ``table``. Templated.
    :param sheet_id: UUID of the sheet, in place of ``sheet``. Templated.
    :param name: of the version, 1 to 255 characters. Templated.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param max_outage: seconds (or a ``timedelta``) for which PromptLayer may be out of reach.
    :returns: ``version_id``, ``version_number``, ``name``, and ``score`` where the sheet has one.
    """

    counted_as = "snapshot"

    template_fields: Sequence[str] = (*SHEET_FIELDS, "name", "promptlayer_conn_id")

    def __init__(self, *, name: str | XComArg, **kwargs: Unpack[SheetKwargs]) -> None:
        super().__init__(**kwargs)
        self.name: Any = name
        self.refuse_constants(name=title_text)

    def perform(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Save the version, unless the sheet has it."""
        sheet = self.found_sheet
        version = self.hook.save_version(
            sheet.table_id, sheet.sheet_id, self.name, max_outage=self.max_outage
        )
        self.note_lineage(lambda: Lineage([self.dataset()]))
        self.outcome = f"Sheet {sheet.sheet_id} is saved as {version}."
        values = asdict(version)
        names = ("version_id", "version_number", "name", "score")
        result: dict[str, Any] = storable({name: values[name] for name in names}).value
        return result
