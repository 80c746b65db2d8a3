# SPDX-License-Identifier: Apache-2.0
"""Reading fields as FastAPI does, whose errors PromptLayer's description declares.

The rule here: every mistake of a request is found before it is refused, and each is reported as
``{"loc": [...], "msg": ..., "type": ...}`` in the words of pydantic 2. Only a plain form is taken
where pydantic would be lenient (``"3.0"`` or ``1_000`` for an integer in a query, ``"true"`` for
a boolean in a body): a client should not depend on leniency.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow_provider_promptlayer.testing.http.messages import Answer, RefusalError

# Far beyond 64 bits, and within the 4300 digits that int() takes.
_INTEGER = re.compile(r"[+-]?[0-9]{1,4000}")
_BOOLEANS = {
    **dict.fromkeys(("1", "on", "t", "true", "y", "yes"), True),
    **dict.fromkeys(("0", "off", "f", "false", "n", "no"), False),
}
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def read_boolean(text: str) -> bool | None:
    """Read a boolean in any of the spellings FastAPI takes; ``None`` if it is none."""
    return _BOOLEANS.get(text.lower())


class Errors:
    """The mistakes found so far in one part of a request (``"query"`` or ``"body"``)."""

    def __init__(self, part: str) -> None:
        self._part = part
        self._found: list[dict[str, Any]] = []

    def add(self, kind: str, message: str, *location: str | int) -> None:
        """Note a mistake at a place inside the part."""
        self._found.append({"loc": [self._part, *location], "msg": message, "type": kind})

    def refusal(self) -> RefusalError:
        """Give the 422 that reports what was found."""
        return RefusalError(Answer(422, {"detail": self._found}))

    def check(self) -> None:
        """Refuse the request if there was any mistake.

        Raises:
            RefusalError: there was one.

        """
        if self._found:
            raise self.refusal()


class QueryFields:
    """Reads the fields of a query; call ``check`` once all are read.

    Every method takes the field's name and gives ``None``, or the default, if it is absent.
    """

    def __init__(self, query: Mapping[str, str]) -> None:
        self._query = query
        self.errors = Errors("query")
        self.check = self.errors.check

    def text(self, name: str) -> str | None:
        """Read any text."""
        return self._query.get(name)

    def required_integer(self, name: str) -> int:
        """Read an int64 that must be there; the result means nothing if there was an error."""
        if name not in self._query:
            self.errors.add("missing", "Field required", name)
        return self.integer(name) or 0

    def integer(
        self, name: str, *, minimum: int = INT64_MIN, maximum: int = INT64_MAX
    ) -> int | None:
        """Read an integer within bounds."""
        text = self._query.get(name)
        if text is None:
            return None
        if not _INTEGER.fullmatch(text.strip()):
            message = "Input should be a valid integer, unable to parse string as an integer"
            self.errors.add("int_parsing", message, name)
            return None
        number = int(text)
        if number < minimum:
            message = f"Input should be greater than or equal to {minimum}"
            self.errors.add("greater_than_equal", message, name)
        elif number > maximum:
            message = f"Input should be less than or equal to {maximum}"
            self.errors.add("less_than_equal", message, name)
        return number

    def boolean(self, name: str, *, default: bool) -> bool:
        """Read a boolean in any of the spellings FastAPI takes."""
        text = self._query.get(name)
        if text is None:
            return default
        value = read_boolean(text)
        if value is None:
            message = "Input should be a valid boolean, unable to interpret input"
            self.errors.add("bool_parsing", message, name)
        return bool(value)

    def choice(self, name: str, choices: tuple[str, ...], *, default: str) -> str:
        """Read one of some words."""
        text = self._query.get(name, default)
        if text not in choices:
            *most, last = (repr(choice) for choice in choices)
            message = f"Input should be {', '.join(most)} or {last}"
            self.errors.add("literal_error", message, name)
        return text

    def timestamp(self, name: str) -> datetime | None:
        """Read an ISO 8601 date and time."""
        text = self._query.get(name)
        if text is None:
            return None
        try:
            return datetime.fromisoformat(text)
        except ValueError as error:
            message = f"Input should be a valid datetime: {error}"
            self.errors.add("datetime_from_date_parsing", message, name)
            return None
