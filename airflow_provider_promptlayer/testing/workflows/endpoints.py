# SPDX-License-Identifier: Apache-2.0
"""The endpoints below ``/workflows`` and ``/workflow-version-execution-results``.

Statuses, fields and messages are those of PromptLayer's description; where it is silent, the
docstring says what was chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from aiohttp import web
from pydantic import BaseModel, Field, model_validator

from ..http.app import answer, get, refusal
from ..http.dialect import Dialect
from ..http.validation import Body, Int64, Integer, Url, WhichVersion, read_body, read_query
from ..json_text import JsonValue
from . import engine
from .catalog import Catalog, CatalogEntry, UnknownWorkflowError, Version
from .model import derived_id

_Number = Annotated[Integer, Field(ge=1)]


class _RunWorkflow(Body):
    workflow_label_name: str | None = None
    workflow_version_number: Int64 | None = None
    metadata: dict[str, str] | None = None
    # Not dict[str, Any]: pydantic refuses names with lone surrogates.
    input_variables: dict[Any, Any] = Field(default_factory=dict)
    return_all_outputs: bool = False
    callback_url: Url | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.workflow_label_name is not None and self.workflow_version_number is not None:
            raise ValueError(
                "workflow_label_name and workflow_version_number are mutually exclusive"
            )
        return self


class _Results(BaseModel):
    workflow_version_execution_id: Annotated[Integer, Field(ge=-(2**63), le=2**63 - 1)]
    return_all_outputs: bool = False


class _Listing(BaseModel):
    page: _Number = 1
    per_page: Annotated[_Number, Field(le=100)] = 30
    sort_by: Literal["created_at", "updated_at", "name", "id"] = "id"
    sort_order: Literal["asc", "desc"] = "desc"
    created_after: datetime | None = None
    created_before: datetime | None = None
    updated_after: datetime | None = None
    updated_before: datetime | None = None
    external_source: str | None = None
    external_id: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.external_source is None) != (self.external_id is None):
            raise ValueError("external_source and external_id must be provided together")
        return self


class _PatchWorkflow(Body):
    base_version: Int64 | None = None
    # No length is in the description; 72 is the most for prompt templates.
    commit_message: Annotated[str, Field(max_length=72)] | None = None
    release_labels: list[str] | None = None
    nodes: dict[str, Any] | None = None
    edges: list[Any] | None = None
    required_input_variables: dict[str, str] | None = None


class WorkflowEndpoints:
    """Runs, results and listings of the workflows in a catalog."""

    def __init__(
        self,
        catalog: Catalog,
        executions: engine.Executions,
        no_output_status: int,
        dialect: Dialect,
    ) -> None:
        self._catalog = catalog
        self._executions = executions
        self._no_output_status = no_output_status
        self._dialect = dialect

    @property
    def routes(self) -> list[web.RouteDef]:
        """The endpoints. A name is always one segment of the path: ``a/b`` comes as ``a%2Fb``."""
        workflow = "/workflows/{workflow:[^/]+}"
        return [
            web.post(f"{workflow}/run", self.run),
            get("/workflow-version-execution-results", self.results),
            get("/workflows", self.list_workflows),
            get(workflow, self.get_workflow),
            get(f"{workflow}/labels", self.get_labels),
            web.patch(f"/rest{workflow}", self.copy_workflow),
            web.post("/ws-token-request-library", self.refuse_stream),
        ]

    async def run(self, request: web.Request) -> web.Response:
        """Start an execution: 201, or 202 if a ``callback_url`` was given.

        The callback itself is never sent: this server makes no requests of its own.
        """
        body = await read_body(request, _RunWorkflow)
        _, version = self._find(request, body.workflow_version_number, body.workflow_label_name)
        execution = self._executions.start(
            version.workflow,
            input_variables=body.input_variables,
            metadata=body.metadata or {},
            return_all_outputs=body.return_all_outputs,
            callback_url=body.callback_url,
            was_posted=True,
        )
        has_callback = body.callback_url is not None
        required = version.workflow.required_input_variables
        return answer(
            202 if has_callback else 201,
            {
                "success": True,
                "message": f"Workflow execution {'accepted' if has_callback else 'started'}",
                "warning": _warning(required, body.input_variables),
                "workflow_version_execution_id": execution.id,
            },
        )

    async def results(self, request: web.Request) -> web.Response:
        """Return the nodes, or the main output once all have ended.

        A run that ended without a successful output node has no main output: the answer is the
        node map then, even if the main output was asked for, as PromptLayer's own libraries
        expect. Unless ``no_output_status`` says otherwise, it is a 200 like any other; otherwise
        ``output`` is what the 200 would have carried.
        """
        query = read_query(request, _Results)
        execution = self._executions.get(query.workflow_version_execution_id)
        if execution is None:
            unknown = query.workflow_version_execution_id
            raise refusal(404, f"Workflow version execution {unknown} not found")

        nodes = self._executions.nodes_now(execution)
        if not engine.is_finished(nodes):
            return answer(202, nodes)
        outputs = engine.successful_outputs(nodes)
        output = nodes if query.return_all_outputs or not outputs else outputs[0]
        status = execution.workflow.no_output_status or self._no_output_status
        if outputs or status == 200:
            return answer(200, output)
        message = "Workflow execution ended and no output node succeeded"
        return answer(status, {"success": False, "message": message, "output": output})

    async def list_workflows(self, request: web.Request) -> web.Response:
        """List workflows by page. Filters are validated and then ignored.

        Workflows have no creation time here, so sorting by it is sorting by id, the default.
        """
        query = read_query(request, _Listing)
        page, per_page = query.page, query.per_page
        entries = sorted(
            self._catalog,
            key=lambda entry: (entry.name if query.sort_by == "name" else "", entry.id),
            reverse=query.sort_order == "desc",
        )
        pages = -(-len(entries) // per_page)
        return answer(
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

    async def get_workflow(self, request: web.Request) -> web.Response:
        """Describe one version of a workflow: by number, by label, or the latest.

        The fields of PromptLayer's description are flat. The ``workflow`` beside them is in its
        recorded answers, and its Python library reads it. In the form of the libraries it has all.
        """
        query = read_query(request, WhichVersion)
        entry, version = self._find(request, query.version, query.label)
        described = _description(entry, version)
        nested: dict[str, JsonValue] = {"id": entry.id, "name": entry.name}
        if self._dialect == "libraries":
            return answer(200, {"success": True, "workflow": {**described, **nested}})
        nested["required_input_variables"] = described["required_input_variables"]
        return answer(200, {"success": True, "workflow": nested, **described})

    async def get_labels(self, request: web.Request) -> web.Response:
        """List a workflow's release labels with the versions they point to."""
        entry, _ = self._find(request)
        return answer(
            200,
            {
                "success": True,
                "release_labels": [
                    {
                        "release_label": label,
                        "release_label_id": entry.labels.ids[label],
                        "workflow_version_id": entry.versions[number].id,
                        "workflow_version_number": number,
                    }
                    for label, number in entry.labels.numbers.items()
                ],
            },
        )

    async def copy_workflow(self, request: web.Request) -> web.Response:
        """Make a new version, a copy of another one, and move labels to it: 201.

        Changes to nodes, edges and input variables are refused, as nothing here needs them.
        """
        body = await read_body(request, _PatchWorkflow)
        entry, base = self._find(request, body.base_version)
        if (body.nodes, body.edges, body.required_input_variables) != (None, None, None):
            raise refusal(400, "The local PromptLayer copies a version and changes nothing in it")
        labels = body.release_labels or []
        copy = self._catalog.copy(entry, base, body.commit_message, labels)
        described = _description(entry, copy)
        return answer(
            201,
            {
                "success": True,
                "workflow_id": entry.id,
                "workflow_name": entry.name,
                "workflow_version_id": copy.id,
                "version_number": copy.workflow.version,
                "base_version": base.workflow.version,
                "release_labels": described["release_labels"],
                "nodes": described["nodes"],
                "required_input_variables": described["required_input_variables"] or {},
                "external_ids": [],
            },
        )

    async def refuse_stream(self, _request: web.Request) -> web.Response:
        """Answer 404: no stream is served.

        PromptLayer's Python library asks for a token of a stream before it runs a workflow. It
        would repeat the request after a 501.
        """
        raise refusal(
            404,
            "The local PromptLayer serves no stream: start the workflow with POST "
            "/workflows/{workflow_name}/run and poll GET /workflow-version-execution-results",
        )

    def _find(
        self, request: web.Request, number: int | None = None, label: str | None = None
    ) -> tuple[CatalogEntry, Version]:
        try:
            entry = self._catalog.find(request.match_info["workflow"])
            return entry, entry.version(number, label)
        except UnknownWorkflowError as error:
            raise refusal(404, str(error)) from None


def _warning(required: Mapping[str, str] | None, given: Iterable[str]) -> str | None:
    """Name missing and unused input variables; they do not keep a run from starting."""
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
        "release_labels": list(entry.labels.numbers),
        "external_ids": [],
    }


def _description(entry: CatalogEntry, version: Version) -> dict[str, JsonValue]:
    workflow = version.workflow
    required = workflow.required_input_variables
    return {
        "workflow_id": entry.id,
        "workflow_name": entry.name,
        "version": workflow.version,
        "workflow_version_id": version.id,
        "commit_message": workflow.commit_message,
        "required_input_variables": None if required is None else dict(required),
        "release_labels": list(entry.labels.at(workflow.version)),
        "created_at": None,
        "nodes": [
            {
                "id": derived_id("node", version.id, node.name),
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
                "id": derived_id("edge", version.id, source, node.name),
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
