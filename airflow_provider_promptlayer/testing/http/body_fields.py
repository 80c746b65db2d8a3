# SPDX-License-Identifier: Apache-2.0
"""A JSON object as body, read as FastAPI reads it.

The rule here: what is declared is checked, type by type, and every mistake is reported at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_promptlayer.testing.http.messages import Request
from airflow_provider_promptlayer.testing.http.validation import INT64_MAX, INT64_MIN, Errors

_NOT_AN_OBJECT = (
    "model_attributes_type",
    "Input should be a valid dictionary or object to extract fields from",
)


def json_object(request: Request) -> dict[str, Any]:
    """Read the body as a JSON object.

    Raises:
        RefusalError: 422, it is none.

    """
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


class BodyFields:
    """Reads the fields of a JSON object; JSON has types of its own, so nothing is converted."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self.errors = Errors("body")

    def required_text(self, name: str, *, longest: int) -> str:
        """Read a text that must be there, with at least one character."""
        if name not in self._document:
            self.errors.add("missing", "Field required", name)
            return ""
        value = self._document[name]
        if not isinstance(value, str):
            self.errors.add("string_type", "Input should be a valid string", name)
            return ""
        if not value:
            message = "String should have at least 1 character"
            self.errors.add("string_too_short", message, name)
        elif len(value) > longest:
            message = f"String should have at most {longest} characters"
            self.errors.add("string_too_long", message, name)
        return value

    def text(self, name: str) -> str | None:
        """Read a text that may be null."""
        value = self._document.get(name)
        if value is None or isinstance(value, str):
            return value
        self.errors.add("string_type", "Input should be a valid string", name)
        return None

    def integer(self, name: str) -> int | None:
        """Read an int64 that may be null."""
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

    def boolean(self, name: str, *, default: bool) -> bool:
        """Read a boolean; null is none."""
        value = self._document.get(name, default)
        if not isinstance(value, bool):
            self.errors.add("bool_type", "Input should be a valid boolean", name)
        return bool(value)

    def boolean_or_null(self, name: str) -> bool | None:
        """Read a boolean that may be null."""
        return None if self._document.get(name) is None else self.boolean(name, default=False)

    def object(self, name: str) -> dict[str, Any]:
        """Read an object; null is none."""
        value = self._document.get(name, {})
        if isinstance(value, dict):
            return value
        self.errors.add("dict_type", "Input should be a valid dictionary", name)
        return {}

    def texts(self, name: str) -> dict[str, str]:
        """Read an object of texts that may be null."""
        if self._document.get(name) is None:
            return {}
        values = self.object(name)
        for key, value in values.items():
            if not isinstance(value, str):
                self.errors.add("string_type", "Input should be a valid string", name, key)
        return values

    def url(self, name: str) -> str | None:
        """Read an HTTP URL that may be null."""
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
