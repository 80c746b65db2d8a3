# SPDX-License-Identifier: Apache-2.0
"""The body of ``POST /workflows/{workflow_name}/run``: ``RunWorkflow`` in the description.

The rule here: what is declared is checked, type by type; fields that are not declared are ignored,
as FastAPI ignores them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_promptlayer.testing.http.body_fields import BodyFields, json_object
from airflow_provider_promptlayer.testing.http.messages import Request
from airflow_provider_promptlayer.testing.workflows.model import JsonValue


@dataclass(frozen=True)
class RunBody:
    """A valid body. Label and version number are never both given."""

    workflow_label_name: str | None
    workflow_version_number: int | None
    metadata: Mapping[str, str]
    input_variables: Mapping[str, JsonValue]
    return_all_outputs: bool
    callback_url: str | None


def read_run_body(request: Request) -> RunBody:
    """Read and validate the body.

    Raises:
        RefusalError: 422 with every mistake in it.

    """
    fields = BodyFields(json_object(request))
    body = RunBody(
        workflow_label_name=fields.text("workflow_label_name"),
        workflow_version_number=fields.integer("workflow_version_number"),
        metadata=fields.texts("metadata"),
        input_variables=fields.object("input_variables"),
        return_all_outputs=fields.boolean("return_all_outputs", default=False),
        callback_url=fields.url("callback_url"),
    )
    if body.workflow_label_name is not None and body.workflow_version_number is not None:
        message = (
            "Value error, workflow_label_name and workflow_version_number are mutually exclusive"
        )
        fields.errors.add("value_error", message)
    fields.errors.check()
    return body
