# SPDX-License-Identifier: Apache-2.0
"""Which request logs an import takes, in the words of PromptLayer's filters.

Facts are those of PromptLayer's published API description ("Import Request Logs Into Table Sheet",
"Search Request Logs"). It has no filter for scores, and none for release labels: a label is looked
up, and stands for the version that it leads to at that moment.

For a new sheet, the description knows a prompt and a time alone, and other pages a filter. Both
are sent, so that either reader finds the time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from airflow_provider_promptlayer.api.arguments import (
    canonical,
    items,
    list_of,
    mapping,
    opaque_text,
    positive,
    text_values,
    texts,
)
from airflow_provider_promptlayer.api.errors import (
    PromptLayerInvalidInputError,
)
from airflow_provider_promptlayer.api.imports import ImportSource
from airflow_provider_promptlayer.api.job import CallFlow
from airflow_provider_promptlayer.api.labels import Labels, ReleasedPrompt, ReleasedVersion
from airflow_provider_promptlayer.api.text import quoted

MAX_LOGS: Final = 50_000
"""The most request logs that PromptLayer imports at once."""

_CONDITIONS: Final = (
    "start",
    "end",
    "prompt",
    "release_label",
    "tags",
    "metadata",
    "filter_group",
)


def _time(name: str, value: Any) -> str:
    """Return a moment as ISO 8601, in UTC."""
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(value.strip())
    except (AttributeError, ValueError):
        raise PromptLayerInvalidInputError(
            f"{name} must be a datetime, or one in ISO 8601, not {quoted(value)}."
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


PARSERS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "start": _time,
    "end": _time,
    "prompt": opaque_text,
    "release_label": opaque_text,
    "tags": texts,
    "metadata": lambda _, value: text_values(value),
    "filter_group": mapping,
    "request_ids": lambda name, value: list_of(positive, name, items(name, value) or None),
    "limit": positive,
    "variables": texts,
    "fields": texts,
}
"""Condition → what parses it as a template renders it."""


@dataclass(frozen=True)
class LogSelection:
    """The request logs that meet all of these conditions, of which there must be one.

    Every argument may come as a template renders it.

    :param start: logs of requests that were sent then or later: a ``datetime`` or ISO 8601, UTC
        where it has no time zone.
    :param end: logs of requests that were sent before then.
    :param prompt: name or id of the prompt template.
    :param release_label: logs of the version that this release label of ``prompt`` leads to now.
    :param tags: logs that have all of these.
    :param metadata: logs that have all of these values.
    :param filter_group: a filter in PromptLayer's own words, ``{"logic": …, "filters": […]}``.
    :param request_ids: these logs, and no conditions.
    :param limit: the most logs to import, 50,000 at most.
    :param variables: the input variables that become columns; all if left out.
    :param fields: further fields of a log that become columns, such as ``"cost"``.
    """

    start: Any = None
    end: Any = None
    prompt: Any = None
    release_label: Any = None
    tags: Any = None
    metadata: Any = None
    filter_group: Any = None
    request_ids: Any = None
    limit: Any = None
    variables: Any = None
    fields: Any = None

    def __post_init__(self) -> None:
        for name, parse in PARSERS.items():
            value = getattr(self, name)
            object.__setattr__(self, name, None if value in (None, "") else parse(name, value))
        self._check()

    def _check(self) -> None:
        given = [name for name in _CONDITIONS if getattr(self, name)]
        if self.request_ids and given:
            raise PromptLayerInvalidInputError(
                f"request_ids name the logs, so leave out {', '.join(given)}."
            )
        if not self.request_ids and not given:
            raise PromptLayerInvalidInputError(
                f"Give at least one of {', '.join(_CONDITIONS)} and request_ids: without any, all "
                "request logs of the workspace would be imported."
            )
        if self.release_label and not self.prompt:
            raise PromptLayerInvalidInputError(
                "release_label is one of a prompt: give prompt as well."
            )
        if self.limit and self.limit > MAX_LOGS:
            raise PromptLayerInvalidInputError(
                f"limit must be at most {MAX_LOGS}, as PromptLayer imports no more at once."
            )
        if self.start and self.end and self.start >= self.end:
            raise PromptLayerInvalidInputError(
                f"start must be before end, but is {self.start}, and end {self.end}. The data "
                "interval of a CronTriggerTimetable, which Airflow 3 makes of a cron expression, "
                "is empty: use a CronDataIntervalTimetable."
            )

    @property
    def asked_for(self) -> str:
        """All conditions as JSON; the same for the same ones, however they are written."""
        found = {name: value for name, value in asdict(self).items() if value not in (None, [], {})}
        return canonical("filter_group", found).decode()

    def source(self) -> CallFlow[ImportSource]:
        """Look the prompt and its label up, and return the logs as the source of an import.

        :raises PromptLayerNotFoundError: if there is no such prompt or label.
        """
        filters = list[Any]()
        of_new_sheet = dict[str, Any]()
        if self.start:
            # Whether "after" takes the moment itself is not documented.
            filters.append(
                {
                    "logic": "OR",
                    "filters": [
                        _filter("request_start_time", "after", self.start),
                        _filter("request_start_time", "is", self.start),
                    ],
                }
            )
            of_new_sheet["start_time"] = self.start
        if self.end:
            filters.append(_filter("request_start_time", "before", self.end))
            of_new_sheet["end_time"] = self.end
        if self.prompt:
            prompt_id = yield from _prompt_id(self.prompt)
            filters.append(_filter("prompt_id", "eq", prompt_id))
            of_new_sheet["prompt_id"] = prompt_id
        if self.release_label:
            version = yield from _version_of(self.prompt, self.release_label)
            filters.append(_filter("prompt_version_number", "eq", version))
        filters += [_filter("tags", "in", [tag]) for tag in self.tags or ()]
        filters += [
            _filter("metadata", "key_equals", value, nested_key=key)
            for key, value in (self.metadata or {}).items()
        ]
        if self.filter_group:
            filters.append(self.filter_group)
        how = {
            "filter_group": {"logic": "AND", "filters": filters} if filters else None,
            "request_log_ids": self.request_ids,
            "limit": self.limit,
            "variables_to_parse": self.variables,
            "include_fields": self.fields,
        }
        fields = {name: value for name, value in how.items() if value is not None}
        return ImportSource(
            "request_logs", fields, self.asked_for, fields_of_new_sheet=of_new_sheet
        )


def _filter(name: str, operator: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"field": name, "operator": operator, "value": value, **more}


def _prompt_id(prompt: str) -> CallFlow[int]:
    if prompt.isdecimal():
        return positive("prompt", prompt)
    found: ReleasedVersion = yield ReleasedPrompt(prompt).version()
    return positive("prompt", found.owner_id)


def _version_of(prompt: str, label: str) -> CallFlow[int]:
    """Return the number of the version that a release label leads to."""
    target = ReleasedPrompt(prompt)
    labels: Labels = yield target.labels()
    return target.label_among(labels, label).version
