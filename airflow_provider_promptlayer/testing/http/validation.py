# SPDX-License-Identifier: Apache-2.0
"""Requests as pydantic models, and the two forms in which PromptLayer refuses one.

Most endpoints are FastAPI's: a 422 lists every mistake as ``{"loc", "msg", "type"}``. Most of those
below ``/api/public/v2`` have no 422 in the description: each mistake is a 400 in PromptLayer's own
words, and so is a field that is not declared (``additionalProperties: false``).

Bodies are strict, since JSON has types of its own. A query is text; of an integer only the plain
form is taken where pydantic would be lenient (``3.0``, ``1_000``): a client should not depend on
leniency.

Every ``read_`` function raises ``RefusalError`` for a request that the model refuses.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Self, TypeVar

from aiohttp import web
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from ..json_text import JsonValue
from .app import RefusalError, answer, refusal

ModelT = TypeVar("ModelT", bound=BaseModel)

_UUID = r"(?i)^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
# Far beyond 64 bits, and within the 4300 digits that int() takes.
_INTEGER = re.compile(r"[+-]?[0-9]{1,4000}")


def _plain(text: Any) -> Any:
    # In place of another form comes one that pydantic refuses.
    return text if _INTEGER.fullmatch(str(text).strip()) else ""


Integer = Annotated[int, BeforeValidator(_plain)]
"""An integer of a query or a path."""
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Row = Annotated[int, Field(ge=0)]
Uuid = Annotated[str, StringConstraints(pattern=_UUID, to_lower=True)]
_HTTP_URL = TypeAdapter(HttpUrl)


def _check_url(text: str) -> str:
    _HTTP_URL.validate_python(text)
    return text


Url = Annotated[str, AfterValidator(_check_url)]
"""An HTTP URL, as it was written."""


class Body(BaseModel):
    """A JSON object; fields that are not declared are ignored."""

    model_config = ConfigDict(strict=True)


class TableBody(Body):
    """A JSON object of declared fields alone."""

    model_config = ConfigDict(extra="forbid")


class WhichVersion(BaseModel):
    """The part of a query that asks for a version of a workflow or a prompt template."""

    version: Annotated[Integer, Field(ge=1)] | None = None
    label: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.version is not None and self.label is not None:
            raise ValueError("version and label are mutually exclusive")
        return self


async def read_body(request: web.Request, model: type[ModelT], *, required: bool = True) -> ModelT:
    """Read a body as FastAPI does; unless ``required`` it may be absent."""
    body = await request.read()
    if not body:
        if not required:
            return model()
        raise _unprocessable("body", {"loc": (), "msg": "Field required", "type": "missing"})
    document: Any = body
    # A body of another type is handed to the model as bytes, which are no object.
    if re.fullmatch(r"application/(.+\+)?json", request.content_type):
        try:
            document = json.loads(body)
        # Also text that is not UTF-8, too many digits for int(), or too deep.
        except (ValueError, RecursionError) as error:
            place = error.pos if isinstance(error, json.JSONDecodeError) else 0
            mistake = {"loc": (place,), "msg": "JSON decode error", "type": "json_invalid"}
            raise _unprocessable("body", mistake) from None
    return _validated("body", document, model)


def read_query(request: web.Request, model: type[ModelT]) -> ModelT:
    """Read a query as FastAPI does."""
    return _validated("query", dict(request.query.items()), model)


def read_path(request: web.Request, model: type[ModelT]) -> ModelT:
    """Read the parameters of a path as FastAPI does."""
    return _validated("path", dict(request.match_info), model)


async def read_table_body(request: web.Request, model: type[ModelT], *, required: bool) -> ModelT:
    """Read a body of such an endpoint without 422; unless ``required`` it may be absent."""
    body = await request.read()
    if not body and required:
        raise refusal(400, "A JSON body is required")
    try:
        if body and request.content_type != "application/json":
            raise ValueError(request.content_type)
        document = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise refusal(400, "The body is not valid JSON") from None
    if not isinstance(document, dict):
        raise refusal(400, "The body is not a JSON object")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        mistakes = dict.fromkeys(map(_mistake, _errors(error)))
        raise refusal(400, f"Invalid request: {', '.join(mistakes)}") from None


def read_table_query(request: web.Request, model: type[ModelT], **path_parameters: str) -> ModelT:
    """Read a query of such an endpoint without 422, and some parameters of the path."""
    try:
        return model.model_validate({**dict(request.query.items()), **path_parameters})
    except ValidationError as error:
        raise refusal(400, f"Invalid query parameter {_errors(error)[0]['loc'][0]}") from None


def read_uuid(request: web.Request, name: str) -> str:
    """Read a UUID of a path, in lower case. The description does not say how others are refused."""
    if not re.fullmatch(_UUID, request.match_info[name]):
        raise refusal(400, f"{name} is not a valid UUID")
    return request.match_info[name].lower()


def _validated(part: str, document: JsonValue, model: type[ModelT]) -> ModelT:
    try:
        return model.model_validate(document, from_attributes=True)
    except ValidationError as error:
        raise _unprocessable(part, *_errors(error)) from None


def _mistake(error: Any) -> str:
    if not error["loc"]:  # the fields do not go together
        return str(error["msg"]).removeprefix("Value error, ")
    field = error["loc"][0]
    return f"unknown field {field!r}" if error["type"] == "extra_forbidden" else f"invalid {field}"


def _errors(error: ValidationError) -> list[Any]:
    return error.errors(include_url=False, include_context=False, include_input=False)


def _unprocessable(part: str, *mistakes: dict[str, Any]) -> RefusalError:
    detail = [{**mistake, "loc": [part, *mistake["loc"]]} for mistake in mistakes]
    return RefusalError(answer(422, {"detail": detail}))
