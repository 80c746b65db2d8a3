# SPDX-License-Identifier: Apache-2.0
"""Request logs, and which of them an import asks for.

No source says which columns an import makes. Here they are the input variables that were asked for
(all, unless ``variables_to_parse`` has any), ``output``, and ``include_fields``.
"""

from __future__ import annotations

import operator
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ..http.validation import Body, Int64
from ..json_text import JsonValue, dumps
from .cases import Cases, RejectedImportError

NOTHING_FOUND = "No requests found for the given criteria"
_TIMES = ("request_start_time", "request_end_time")
_NESTED = ("metadata", "output", "input_variables")


@dataclass(frozen=True)
class RequestLog:
    """A request that PromptLayer has logged.

    :param id: a number, unlike that of any other log.
    :param prompt: the name of its prompt template.
    :param label: the release label that it was requested by.
    :param version: the version number of the prompt template.
    :param tags: any texts.
    :param metadata: any texts by name.
    :param scores: name -> 0 to 100.
    :param start_time: when it was sent, with a time zone.
    :param latency_ms: how many milliseconds it took.
    :param input_variables: name -> value.
    :param output: the text of the answer.
    :param engine: the model.
    :param input_tokens: tokens of the prompt.
    :param output_tokens: tokens of the answer.
    :param price: US dollars.
    :param status: ``SUCCESS``, ``WARNING`` or ``ERROR``.
    """

    id: int
    prompt: str = "Support answer"
    _: KW_ONLY
    label: str | None = None
    version: int = 1
    tags: Sequence[str] = ()
    metadata: Mapping[str, str] | None = None
    scores: Mapping[str, int] | None = None
    start_time: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    latency_ms: int = 800
    input_variables: Mapping[str, JsonValue] | None = None
    output: str = ""
    engine: str = "gpt-4o"
    input_tokens: int = 100
    output_tokens: int = 20
    price: float = 0.001
    status: str = "SUCCESS"

    def __post_init__(self) -> None:
        if self.id < 1:
            raise ValueError(f"request log {self.id}: the id must be >= 1")
        if self.start_time.tzinfo is None:
            raise ValueError(f"request log {self.id}: start_time needs a time zone")

    @property
    def prompt_id(self) -> int:
        """The id of its prompt template, always the same for one name."""
        return prompt_number(self.prompt)

    @property
    def fields(self) -> dict[str, JsonValue]:
        """Its fields by the names that filters have for them."""
        metadata, variables = dict(self.metadata or {}), dict(self.input_variables or {})
        return {
            "pl_id": self.id,
            "prompt_id": self.prompt_id,
            "prompt_name": self.prompt,
            "prompt_version_number": self.version,
            "engine": self.engine,
            "provider_type": "openai",
            "input_text": dumps(variables),
            "output_text": self.output,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost": self.price,
            "latency_ms": self.latency_ms,
            "request_start_time": self.start_time,
            "request_end_time": self.start_time + timedelta(milliseconds=self.latency_ms),
            "status": self.status,
            "is_json": False,
            "is_tool_call": False,
            "is_plain_text": True,
            "tags": list(self.tags),
            "metadata": metadata,
            "metadata_keys": list(metadata),
            "tool_names": [],
            "output": {},
            "output_keys": [],
            "input_variables": variables,
            "input_variable_keys": list(variables),
            "scores": dict(self.scores or {}),
        }


def prompt_number(*parts: object) -> int:
    """Return the id of a prompt template, or of a version or a label of one."""
    return zlib.crc32("/".join(map(str, parts)).encode(errors="backslashreplace")) or 1


def _is(found: Any, wanted: Any) -> bool:
    return bool(wanted in found if isinstance(found, list) else found == wanted)


def _is_in(found: Any, wanted: Any) -> bool:
    return any(each in wanted for each in (found if isinstance(found, list) else [found]))


def _contains(found: Any, wanted: Any) -> bool:
    if isinstance(found, list):
        return wanted in found
    return str(wanted).lower() in str(found).lower()


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "is": _is,
    "eq": _is,
    "in": _is_in,
    "contains": _contains,
    "starts_with": lambda found, wanted: str(found).startswith(str(wanted)),
    "ends_with": lambda found, wanted: str(found).endswith(str(wanted)),
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "after": operator.gt,
    "before": operator.lt,
    "between": lambda found, wanted: wanted[0] <= found <= wanted[1],
    "is_true": lambda found, _: found is True,
    "is_empty": lambda found, _: not found,
    "is_null": lambda found, _: found is None,
}
_OPPOSITES = {
    "is_not": "is",
    "neq": "eq",
    "not_in": "in",
    "not_contains": "contains",
    "is_false": "is_true",
    "is_not_empty": "is_empty",
    "is_not_null": "is_null",
}
_OF_KEYS = {"key_equals": "eq", "key_not_equals": "neq", "key_contains": "contains"}


def _time(value: Any) -> datetime:
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Filter(Body):
    """One condition on a field."""

    field: Literal[
        "pl_id",
        "prompt_id",
        "engine",
        "provider_type",
        "input_text",
        "output_text",
        "prompt_version_number",
        "input_tokens",
        "output_tokens",
        "cost",
        "latency_ms",
        "request_start_time",
        "request_end_time",
        "status",
        "is_json",
        "is_tool_call",
        "is_plain_text",
        "tags",
        "metadata_keys",
        "metadata",
        "tool_names",
        "output",
        "output_keys",
        "input_variables",
        "input_variable_keys",
    ]
    operator: str
    value: str | int | float | bool | list[Any] | None = None
    nested_key: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.operator not in (*_OPERATORS, *_OPPOSITES, *_OF_KEYS):
            raise ValueError("unknown operator")
        if (self.operator in _OF_KEYS) != (self.field in _NESTED and self.nested_key is not None):
            raise ValueError("nested_key belongs to a nested field and an operator of keys")
        if self.field in _TIMES:
            if self.operator not in ("is", "before", "after", "between"):
                raise ValueError("no operator for times")
            self._wanted()
        elif self.operator in ("in", "not_in", "between") and not isinstance(self.value, list):
            raise ValueError("the value is not a list")
        if self.operator == "between" and len(self._wanted()) != 2:
            raise ValueError("between takes two values")
        return self

    def _wanted(self) -> Any:
        if self.field not in _TIMES:
            return self.value
        if self.operator == "between":
            return [_time(each) for each in self.value or ()]  # type: ignore[union-attr]
        return _time(self.value)

    def fits(self, log: RequestLog) -> bool:
        """Return whether a log meets the condition."""
        found = log.fields[self.field]
        named = _OF_KEYS.get(self.operator, self.operator)
        if self.nested_key is not None:
            found = found.get(self.nested_key)
        try:
            fits = _OPERATORS[_OPPOSITES.get(named, named)](found, self._wanted())
        except TypeError:  # such as a text compared with a number
            return False
        return fits != (named in _OPPOSITES)


class FilterGroup(Body):
    """Conditions, of which all or any have to be met."""

    logic: Literal["AND", "OR"] = "AND"
    filters: list[Filter | FilterGroup]

    def fits(self, log: RequestLog) -> bool:
        """Return whether a log meets the conditions."""
        fits = (each.fits(log) for each in self.filters)
        return all(fits) if self.logic == "AND" else any(fits)


class LogQuery(Body):
    """Which request logs an import asks for, and which columns it makes of them."""

    request_log_ids: (
        Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=50_000)] | None
    ) = None
    filter_group: FilterGroup | None = None
    q: str | None = None
    sort_by: (
        Literal[
            "request_start_time", "input_tokens", "output_tokens", "cost", "latency_ms", "status"
        ]
        | None
    ) = None
    sort_order: Literal["asc", "desc"] | None = None
    metadata_cost_breakdown_key: str | None = None
    variables_to_parse: list[str] = Field(default_factory=list)
    include_fields: list[str] | None = None
    limit: Annotated[int, Field(ge=1, le=50_000)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.sort_by is None) != (self.sort_order is None):
            raise ValueError("sort_by and sort_order belong together")
        return self

    def fits(self, log: RequestLog) -> bool:
        """Return whether the import asks for a log."""
        found = (log.fields["input_text"] + log.output).lower()
        return (
            (self.request_log_ids is None or log.id in self.request_log_ids)
            and (self.filter_group is None or self.filter_group.fits(log))
            and (self.q or "").lower() in found
        )

    def cases(self, logs: Iterable[RequestLog]) -> Cases:
        """Return what is imported."""
        found = [log for log in logs if self.fits(log)]
        if self.sort_by is not None:
            by = self.sort_by
            found.sort(key=lambda log: log.fields[by], reverse=self.sort_order == "desc")
        found = found[: self.limit]
        if not found:
            raise RejectedImportError(NOTHING_FOUND)
        variables = self.variables_to_parse or list(
            dict.fromkeys(name for log in found for name in log.input_variables or ())
        )
        extra = self.include_fields or []
        for name in extra:
            if name not in found[0].fields:
                raise RejectedImportError(f"Request logs have no field {name!r}")
        return Cases(
            list(dict.fromkeys((*variables, "output", *extra))),
            [
                list(
                    {**_values(log, variables), "output": log.output, **_extra(log, extra)}.values()
                )
                for log in found
            ],
        )


class SheetLogQuery(LogQuery):
    """The same for a new sheet, with what the description alone has for it."""

    prompt_id: Int64 | None = None
    prompt_version_id: Int64 | None = None
    prompt_label_id: Int64 | None = None
    start_time: Annotated[datetime | None, BeforeValidator(lambda text: text and _time(text))] = (
        None
    )
    end_time: Annotated[datetime | None, BeforeValidator(lambda text: text and _time(text))] = None

    def fits(self, log: RequestLog) -> bool:
        """Return whether the import asks for a log; both ends of the time belong to it."""
        return (
            super().fits(log)
            and self.prompt_id in (None, log.prompt_id)
            and self.prompt_version_id in (None, prompt_number(log.prompt, "version", log.version))
            and self.prompt_label_id in (None, prompt_number(log.prompt, "label", log.label))
            and (self.start_time is None or self.start_time <= log.start_time)
            and (self.end_time is None or log.start_time <= self.end_time)
        )


def _values(log: RequestLog, variables: Iterable[str]) -> dict[str, JsonValue]:
    return {name: (log.input_variables or {}).get(name, "") for name in variables}


def _extra(log: RequestLog, names: Iterable[str]) -> dict[str, JsonValue]:
    found = {name: log.fields[name] for name in names}
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in found.items()
    }
