# SPDX-License-Identifier: Apache-2.0
"""The endpoints below ``/workflows`` and ``/workflow-version-execution-results``.

The rule here: statuses, fields and messages are those of PromptLayer's description; where it is
silent, the docstring says what was chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import NAMESPACE_URL, uuid5

from airflow_provider_promptlayer.testing.http.messages import Answer, Request, refusal
from airflow_provider_promptlayer.testing.http.routing import Route
from airflow_provider_promptlayer.testing.http.run_body import read_run_body
from airflow_provider_promptlayer.testing.http.validation import QueryFields
from airflow_provider_promptlayer.testing.workflows import engine
from airflow_provider_promptlayer.testing.workflows.catalog import (
    Catalog,
    CatalogEntry,
    UnknownWorkflowError,
    Version,
)
from airflow_provider_promptlayer.testing.workflows.executions import Executions
from airflow_provider_promptlayer.testing.workflows.model import JsonValue

_TIME_FILTERS = ("created_after", "created_before", "updated_after", "updated_before")
_SORT_FIELDS = ("created_at", "updated_at", "name", "id")


class WorkflowEndpoints:
    """Runs, results and listings of the workflows in a catalog."""

    def __init__(self, catalog: Catalog, executions: Executions, no_output_status: int) -> None:
        self._catalog = catalog
        self._executions = executions
        self._no_output_status = no_output_status

    @property
    def routes(self) -> list[Route]:
        """The endpoints with their methods and paths."""
        return [
            Route("POST", "/workflows/{workflow_name}/run", self.run),
            Route("GET", "/workflow-version-execution-results", self.results),
            Route("GET", "/workflows", self.list_workflows),
            Route("GET", "/workflows/{workflow_id_or_name}", self.get_workflow),
            Route("GET", "/workflows/{workflow_id_or_name}/labels", self.get_labels),
            Route("POST", "/ws-token-request-library", self.refuse_stream),
        ]

    def run(self, request: Request, workflow_name: str) -> Answer:
        """Start an execution: 201, or 202 if a ``callback_url`` was given.

        The callback itself is never sent: this server makes no requests of its own.
        """
        body = read_run_body(request)
        _, version = self._find(
            workflow_name, body.workflow_version_number, body.workflow_label_name
        )
        execution = self._executions.start(
            version.workflow,
            input_variables=body.input_variables,
            metadata=body.metadata,
            return_all_outputs=body.return_all_outputs,
            callback_url=body.callback_url,
            was_posted=True,
        )
        has_callback = body.callback_url is not None
        return Answer(
            202 if has_callback else 201,
            {
                "success": True,
                "message": f"Workflow execution {'accepted' if has_callback else 'started'}",
                "warning": _warning(
                    version.workflow.required_input_variables, body.input_variables
                ),
                "workflow_version_execution_id": execution.id,
            },
        )

    def results(self, request: Request) -> Answer:
        """Give the nodes, or the main output once all have ended.

        An ending without a successful output node has no main output: the answer is then the node
        map, also where the main output was asked for, which is how PromptLayer's own libraries
        learn of such an ending. Unless ``no_output_status`` says otherwise it is a 200 like any
        other; ``output`` then is what the 200 would have carried.
        """
        fields = QueryFields(request.query)
        execution_id = fields.required_integer("workflow_version_execution_id")
        return_all_outputs = fields.boolean("return_all_outputs", default=False)
        fields.check()
        execution = self._executions.get(execution_id)
        if execution is None:
            raise refusal(404, f"Workflow version execution {execution_id} not found")

        nodes = self._executions.nodes_now(execution)
        if not engine.is_finished(nodes):
            return Answer(202, nodes)
        outputs = engine.successful_outputs(nodes)
        output = nodes if return_all_outputs or not outputs else outputs[0]
        status = execution.workflow.no_output_status or self._no_output_status
        if outputs or status == 200:
            return Answer(200, output)
        message = "Workflow execution ended and no output node succeeded"
        return Answer(status, {"success": False, "message": message, "output": output})

    def list_workflows(self, request: Request) -> Answer:
        """List workflows by page. Filters are validated and then ignored.

        Nothing here has a creation time, so sorting by one is sorting by id, the default.
        """
        fields = QueryFields(request.query)
        page = fields.integer("page", minimum=1) or 1
        per_page = fields.integer("per_page", minimum=1, maximum=100) or 30
        sort_by = fields.choice("sort_by", _SORT_FIELDS, default="id")
        descending = fields.choice("sort_order", ("asc", "desc"), default="desc") == "desc"
        for name in _TIME_FILTERS:
            fields.timestamp(name)
        if (fields.text("external_source") is None) != (fields.text("external_id") is None):
            message = "Value error, external_source and external_id must be provided together"
            fields.errors.add("value_error", message)
        fields.check()

        entries = sorted(
            self._catalog,
            key=lambda entry: (entry.name if sort_by == "name" else "", entry.id),
            reverse=descending,
        )
        pages = -(-len(entries) // per_page)
        return Answer(
            200,
            {
                "items": [
                    _list_item(entry) for entry in entries[(page - 1) * per_page : page * per_page]
                ],
                "page": page,
                "per_page": per_page,
                "total": len(entries),
                "pages": pages,
                "has_next": page < pages,
                "has_prev": page > 1,
                "next_num": page + 1 if page < pages else None,
                "prev_num": page - 1 if page > 1 else None,
            },
        )

    def get_workflow(self, request: Request, workflow_id_or_name: str) -> Answer:
        """Describe one version of a workflow: by number, by label, or the latest.

        The fields of PromptLayer's description are flat. Beside them is the ``workflow`` that its
        recorded answers have, and that its Python library reads.
        """
        fields = QueryFields(request.query)
        number = fields.integer("version", minimum=1)
        label = fields.text("label")
        if number is not None and label is not None:
            fields.errors.add(
                "value_error", "Value error, version and label are mutually exclusive"
            )
        fields.check()
        entry, version = self._find(workflow_id_or_name, number, label)
        return Answer(200, _description(entry, version))

    def get_labels(self, _request: Request, workflow_id_or_name: str) -> Answer:
        """List a workflow's release labels with the versions they point to."""
        entry, _ = self._find(workflow_id_or_name)
        return Answer(
            200,
            {
                "success": True,
                "release_labels": [
                    {
                        "release_label": label,
                        "release_label_id": version.label_ids[label],
                        "workflow_version_id": version.id,
                        "workflow_version_number": version.workflow.version,
                    }
                    for label, version in entry.labels.items()
                ],
            },
        )

    def refuse_stream(self, _request: Request) -> Answer:
        """Say that no stream is served: 404.

        PromptLayer's Python library asks for a token of a stream before it runs a workflow. To a
        501 it would repeat the request.
        """
        raise refusal(
            404,
            "The local PromptLayer serves no stream: start the workflow with POST "
            "/workflows/{workflow_name}/run and poll GET /workflow-version-execution-results",
        )

    def _find(
        self, id_or_name: str, number: int | None = None, label: str | None = None
    ) -> tuple[CatalogEntry, Version]:
        try:
            entry = self._catalog.find(id_or_name)
            return entry, entry.version(number, label)
        except UnknownWorkflowError as error:
            raise refusal(404, str(error)) from None


def _warning(required: Mapping[str, str] | None, given: Iterable[str]) -> str | None:
    """Name missing and unused input variables: the run starts all the same."""
    if required is None:
        return None
    given = list(given)
    missing = [name for name in required if name not in given]
    unused = [name for name in given if name not in required]
    sentences = [
        f"{what} input variables: {', '.join(names)}."
        for what, names in (("Missing", missing), ("Unused", unused))
        if names
    ]
    return " ".join(sentences) or None


def _list_item(entry: CatalogEntry) -> dict[str, JsonValue]:
    return {
        "id": entry.id,
        "workspace_id": 1,
        "user_id": None,
        "name": entry.name,
        "is_deleted": False,
        "latest_version_number": entry.latest.workflow.version,
        "release_labels": list(entry.labels),
        "external_ids": [],
    }


def _description(entry: CatalogEntry, version: Version) -> dict[str, JsonValue]:
    workflow = version.workflow
    required = workflow.required_input_variables

    def uuid(*parts: str) -> str:
        # The same at every start, so that a test may rely on it.
        text = "/".join((str(version.id), *parts))
        # Names may hold lone surrogates, which UTF-8 cannot.
        return str(uuid5(NAMESPACE_URL, text.encode(errors="backslashreplace").decode()))

    return {
        "success": True,
        "workflow": {"id": entry.id, "name": entry.name},
        "workflow_id": entry.id,
        "workflow_name": entry.name,
        "version": workflow.version,
        "workflow_version_id": version.id,
        "commit_message": workflow.commit_message,
        "required_input_variables": None if required is None else dict(required),
        "release_labels": list(workflow.labels),
        "created_at": None,
        "nodes": [
            {
                "id": uuid(node.name),
                "workflow_version_id": version.id,
                "name": node.name,
                "node_type": node.node_type,
                "is_output_node": bool(node.is_output_node),
                "configuration": {},
                "dependencies": list(node.dependencies),
            }
            for node in workflow.nodes
        ],
        "edges": [
            {
                "id": uuid(source, node.name),
                "source_node_name": source,
                "target_node_name": node.name,
                "is_and": True,
                "conditionals": [
                    {"operator": "equals", "value": condition.equals}
                    for condition in [node.only_if]
                    if condition is not None and condition.node == source
                ],
            }
            for node in workflow.nodes
            for source in node.dependencies
        ],
    }
