# SPDX-License-Identifier: Apache-2.0
"""JSON nested deeper than Python's own writer goes, without recursion.

It is slower, and so the second choice. :mod:`.json_steps` reads such a document.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

_MISSING: Final = object()


def dumps(value: Any) -> str:
    """Return ``value`` as ASCII text that :func:`.loads` takes back.

    :param value: what a JSON parser returns.
    """
    try:
        return json.dumps(value)
    except RecursionError:
        return "".join(_written(value))


def _written(value: Any) -> Iterator[str]:
    open_ones: list[tuple[Iterator[Any], bool]] = []
    while True:
        if isinstance(value, (dict, list, tuple)) and value:
            is_object = isinstance(value, dict)
            open_ones.append((iter(value.items() if isinstance(value, dict) else value), is_object))
            yield "{" if is_object else "["
            separator = ""
        else:
            yield json.dumps(value)
            separator = ", "
        while open_ones:
            items, is_object = open_ones[-1]
            value = next(items, _MISSING)
            if value is not _MISSING:
                yield separator
                if is_object:
                    key, value = value
                    yield f"{json.dumps(key)}: "
                break
            yield "}" if is_object else "]"
            open_ones.pop()
            separator = ", "
        else:
            return
