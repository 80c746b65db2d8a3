# SPDX-License-Identifier: Apache-2.0
"""The fields of a JSON object, each as the type that it should have.

A field that a decision depends on must be there and of its type: one of another type means that the
answer was not understood, never a zero. A field that decides nothing is read with a method
``…_if_any``, which takes a field of another type for absent too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeGuard, TypeVar

from airflow_provider_promptlayer.api.http import (
    Call,
    Request,
    Response,
    decode_json,
    error_for,
    unexpected,
)

T = TypeVar("T")


class FieldError(ValueError):
    """A field is missing or of another type. The text ends "the answer (HTTP 200) …"."""


class Fields:
    """Reads a JSON object.

    :raises FieldError: from each method, if the field is not as its name says.
    """

    def __init__(self, value: Any) -> None:
        if not isinstance(value, dict):
            raise FieldError("is not a JSON object")
        self._value: dict[str, Any] = value

    def get(self, name: str) -> Any:
        """Return the field as it is, or None where it is missing."""
        return self._value.get(name)

    def text(self, name: str) -> str:
        """Return a text that is not empty."""
        value = self._value.get(name)
        if not isinstance(value, str) or not value:
            raise FieldError(f"has no {name}")
        return value

    def text_or_none(self, name: str) -> str | None:
        """Return a text, or None where it is null or missing."""
        value = self._value.get(name)
        if value is not None and not isinstance(value, str):
            raise FieldError(f"has a {name} that is no text")
        return value

    def text_if_any(self, name: str) -> str | None:
        """Return a text, or None for anything else."""
        value = self._value.get(name)
        return value if isinstance(value, str) else None

    def count(self, name: str) -> int:
        """Return an integer of 0 or more."""
        value = self._value.get(name)
        if not _is_count(value):
            raise FieldError(f"has no {name}")
        return value

    def count_if_any(self, name: str) -> int | None:
        """Return an integer of 0 or more, or None for anything else."""
        value = self._value.get(name)
        return value if _is_count(value) else None

    def number_or_none(self, name: str) -> float | None:
        """Return a number, or None where it is null, missing, NaN or ±Infinity."""
        value = self._value.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise FieldError(f"has a {name} that is no number")
        return None if isinstance(value, float) and not math.isfinite(value) else value

    def number_if_any(self, name: str) -> float | None:
        """Return a finite number, or None for anything else."""
        try:
            return self.number_or_none(name)
        except FieldError:
            return None

    def flag(self, name: str) -> bool:
        """Return whether the field is true."""
        return self._value.get(name) is True

    def object(self, name: str) -> Fields:
        """Return the reader of an object inside."""
        value = self._value.get(name)
        if not isinstance(value, dict):
            raise FieldError(f"has no {name}")
        return Fields(value)

    def object_or_none(self, name: str) -> Fields | None:
        """Return the reader of an object inside, or None where it is null or missing."""
        return None if self._value.get(name) is None else self.object(name)

    def object_if_any(self, name: str) -> Fields:
        """Return the reader of an object inside, or of an empty one for anything else."""
        value = self._value.get(name)
        return Fields(value if isinstance(value, dict) else {})

    def mapping_or_none(self, name: str) -> dict[str, Any] | None:
        """Return an object as it is, or None where it is null or missing."""
        fields = self.object_or_none(name)
        return None if fields is None else fields._value

    def counts_if_any(self, name: str) -> dict[str, int]:
        """Return the integers in an object inside, by their names; empty for anything else."""
        found = self.object_if_any(name)._value
        return {key: value for key, value in found.items() if _is_count(value)}

    def counts(self, name: str) -> dict[str, int]:
        """Return an object of integers of 0 or more."""
        fields = self.object(name)
        return {key: fields.count(key) for key in fields._value}

    def objects(self, name: str) -> Iterator[Fields]:
        """Return the readers of a list of objects."""
        value = self._value.get(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise FieldError(f"has no list of {name}")
        return map(Fields, value)

    def objects_if_any(self, name: str) -> Iterator[Fields]:
        """Return the readers of the objects in a list; none for anything else."""
        value = self._value.get(name)
        found = value if isinstance(value, list) else []
        return (Fields(item) for item in found if isinstance(item, dict))


def object_call(
    request: Request,
    build: Callable[[Fields], T],
    hints: Mapping[int, str] | None = None,
) -> Call[T]:
    """Return the call of a request that is answered with a JSON object.

    :param build: turns the object in an answer of 2xx into the result. A :class:`FieldError` of its
        makes a :class:`PromptLayerUnexpectedAnswerError`.
    :param hints: see :func:`.error_for`.
    """

    def read(response: Response, now: float) -> T:
        if not response.is_success:
            raise error_for(request, response, now=now, hints=hints)
        payload = decode_json(request, response)
        try:
            return build(Fields(payload))
        except FieldError as error:
            raise unexpected(request, response, str(error)) from None

    return Call(request, read)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
