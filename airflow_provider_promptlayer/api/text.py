# SPDX-License-Identifier: Apache-2.0
"""Foreign text, made fit for a log line.

What PromptLayer, a gateway or a language model wrote becomes one line of bounded length without
control characters before it goes into a message, so that it can neither forge log lines nor drive
a terminal.
"""

from __future__ import annotations

import reprlib
import unicodedata
from collections.abc import Iterable
from itertools import islice
from typing import Any

MESSAGE_LIMIT = 500
"""Characters of one foreign message that a message of ours may quote."""

EXCERPT_LIMIT = 200
"""Characters of an answer of unknown shape that a message of ours may quote."""

PROBLEM_LIMIT = 400
"""Characters that a batch keeps of what went wrong with one of its inputs."""

_SPACES = {"\n", "\r", "\t", "\v", "\f", "\x85", "\u2028", "\u2029"}
_NOT_PRINTABLE = {"Cc", "Cf", "Cs", "Co", "Cn"}


def quoted(value: Any) -> str:
    """Return a value as Python shows it, as :func:`one_line` of at most 80 characters."""
    return one_line(repr(value), 80)


def one_line(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Return ``text`` as a single printable line of at most ``limit`` characters.

    Line breaks and tabs become spaces; other control and format characters (ANSI escapes, NUL,
    bidirectional overrides) and lone surrogates are written out as escapes.
    """
    text = text.strip()
    if len(text) <= limit and text.isprintable():
        return text
    # An escape is never shorter than its character, so no character past the limit can appear in
    # the result: a message of megabytes costs nothing.
    line = "".join(_printable(character) for character in text[:limit])
    if len(text) <= limit and len(line) <= limit:
        return line
    return line[: limit - 1].rstrip() + "…"


def listed(phrases: Iterable[str], total: int, most: int, separator: str = "; ") -> str:
    """Return the first ``most`` of ``total`` phrases, and how many more there are."""
    first = list(islice(phrases, most))
    more = total - len(first)
    last = f"{separator.rstrip(', ')} and {more} more" if more > 0 else ""
    return separator.join(first) + last


def shown(value: Any) -> str:
    """Return text as it is, and the beginning of any other value as Python shows it.

    Deep nesting does not exhaust the stack, as it does with ``str``.
    """
    if isinstance(value, str):
        return value
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of thousands of digits
        return type(value).__name__


def says_no_requests(message: str) -> bool:
    """Return whether PromptLayer says that no request meets the conditions.

    A log import that finds none ends as failed with this message, and the start of a report is
    answered with it in a 401 that is not about the key.
    """
    return "no requests found" in message.lower()


def excerpt(body: bytes, limit: int = EXCERPT_LIMIT) -> str:
    """Return the first characters of an answer's body as one printable line."""
    # As many bytes as the characters can take, and some for the blanks before them.
    text = body.lstrip()[: 4 * (limit + 1)].decode("utf-8", errors="replace")
    return one_line(text, limit)


def _printable(character: str) -> str:
    if character in _SPACES:
        return " "
    if unicodedata.category(character) in _NOT_PRINTABLE:
        return character.encode("unicode_escape").decode("ascii")
    return character
