# SPDX-License-Identifier: Apache-2.0
"""The body of ``POST /workflows/{workflow_name}/run``: ``RunWorkflow`` in the description.

The rule here: what is declared is checked, type by type; fields that are not declared are ignored,
as FastAPI ignores them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_promptlayer.testing.messages import Request
from airflow_provider_promptlayer.testing.validation import INT64_MAX, INT64_MIN, Errors
from airflow_provider_promptlayer.testing.workflows import JsonValue

_NOT_AN_OBJECT = (
    "model_attributes_type",
    "Input should be a valid dictionary or object to extract fields from",
)


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
    fields = _BodyFields(_json_object(request))
    body = RunBody(
        workflow_label_name=fields.text("workflow_label_name"),
        workflow_version_number=fields.integer("workflow_version_number"),
        metadata=fields.texts("metadata"),
        input_variables=fields.object("input_variables"),
        return_all_outputs=fields.boolean("return_all_outputs"),
        callback_url=fields.url("callback_url"),
    )
    if body.workflow_label_name is not None and body.workflow_version_number is not None:
        message = (
            "Value error, workflow_label_name and workflow_version_number are mutually exclusive"
        )
        fields.errors.add("value_error", message)
    fields.errors.check()
    return body


def _json_object(request: Request) -> dict[str, Any]:
    errors = Errors("body")
    if not request.body:
        errors.add("missing", "Field required")
    elif not _is_json(request.headers.get("content-type", "")):
        # FastAPI then hands the bytes themselves to the model, which wants an object.
        errors.add(*_NOT_AN_OBJECT)
    else:
        try:
            document = json.loads(request.body)
        except json.JSONDecodeError as error:
            errors.add("json_invalid", "JSON decode error", error.pos)
        # Not UTF-8, an integer of more digits than Python parses, or nested too deeply.
        except (ValueError, RecursionError):
            errors.add("json_invalid", "JSON decode error", 0)
        else:
            if isinstance(document, dict):
                return document
            errors.add(*_NOT_AN_OBJECT)
    raise errors.refusal()


def _is_json(content_type: str) -> bool:
    main, _, sub = content_type.partition(";")[0].strip().lower().partition("/")
    return main == "application" and (sub == "json" or sub.endswith("+json"))


class _BodyFields:
    """Reads the fields of a JSON object; JSON has types of its own, so nothing is converted."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self.errors = Errors("body")

    def text(self, name: str) -> str | None:
        value = self._document.get(name)
        if value is None or isinstance(value, str):
            return value
        self.errors.add("string_type", "Input should be a valid string", name)
        return None

    def integer(self, name: str) -> int | None:
        value = self._document.get(name)
        if value is None:
            return None
        # In Python True is an int; in JSON it is not.
        if not isinstance(value, int) or isinstance(value, bool):
            self.errors.add("int_type", "Input should be a valid integer", name)
            return None
        if not INT64_MIN <= value <= INT64_MAX:
            self.errors.add("int_parsing_size", "Unable to parse input as a 64-bit integer", name)
        return value

    def boolean(self, name: str) -> bool:
        value = self._document.get(name, False)
        if not isinstance(value, bool):
            self.errors.add("bool_type", "Input should be a valid boolean", name)
        return bool(value)

    def object(self, name: str) -> dict[str, Any]:
        value = self._document.get(name, {})
        if isinstance(value, dict):
            return value
        self.errors.add("dict_type", "Input should be a valid dictionary", name)
        return {}

    def texts(self, name: str) -> dict[str, str]:
        if self._document.get(name) is None:
            return {}
        values = self.object(name)
        for key, value in values.items():
            if not isinstance(value, str):
                self.errors.add("string_type", "Input should be a valid string", name, key)
        return values

    def url(self, name: str) -> str | None:
        value = self.text(name)
        if value is not None and not _is_http_url(value):
            self.errors.add("url_parsing", "Input should be a valid URL", name)
        return value


def _is_http_url(text: str) -> bool:
    try:
        url = urlsplit(text)
    except ValueError:
        return False
    return url.scheme in ("http", "https") and bool(url.hostname)
