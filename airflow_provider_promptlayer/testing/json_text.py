# SPDX-License-Identifier: Apache-2.0
"""JSON values as text, however hostile: nested deeper than Python's own encoder goes.

The rule here: what the service could send can be sent: NaN and the infinities, lone surrogates
(as escapes), integers of thousands of digits, any depth.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def dumps(value: Any) -> str:
    """Give a value as JSON text in ASCII.

    Raises:
        TypeError: it holds something that is not JSON.
        ValueError: it holds itself.

    """
    try:
        return json.dumps(value)
    except RecursionError:
        return "".join(_tokens(value))


def _tokens(value: Any) -> Iterator[str]:
    """Write a value with a stack of one's own instead of Python's."""
    # Of each container that is open: its identity, what is left of it, and its last token.
    # json.dumps has looked for circles, but only as deep as it got.
    stack: list[tuple[int, Iterator[tuple[str, Any]], str]] = []
    open_containers: set[int] = set()
    pending: Any = value
    while True:
        if isinstance(pending, dict | list | tuple):
            if id(pending) in open_containers:
                raise ValueError("Circular reference detected")
            open_containers.add(id(pending))
            is_object = isinstance(pending, dict)
            yield "{" if is_object else "["
            stack.append((id(pending), _items(pending), "}" if is_object else "]"))
        else:
            yield json.dumps(pending)
        while stack:
            container, items, end = stack[-1]
            item = next(items, None)
            if item is not None:
                separator_and_key, pending = item
                yield separator_and_key
                break
            yield end
            open_containers.discard(container)
            stack.pop()
        else:
            return


def _items(container: Any) -> Iterator[tuple[str, Any]]:
    separator = ""
    if isinstance(container, dict):
        for key, value in container.items():
            # A key is written as Python writes it: 1 as "1", true as "true".
            yield separator + json.dumps({key: 0})[1:-2], value
            separator = ", "
    else:
        for value in container:
            yield separator, value
            separator = ", "
