# SPDX-License-Identifier: Apache-2.0
"""JSON as language models cause it to be sent: whatever Python's parser takes, and a bit more."""

from __future__ import annotations

import json
from typing import Any


def loads(body: bytes) -> Any:
    """Return what ``body`` says. NaN, ±Infinity and lone surrogates are taken as they come.

    An integer of more digits than Python converts (4,300) is returned as the text of its digits.

    :raises ValueError: if it is no JSON.
    """
    try:
        return json.loads(body)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:
        return json.loads(body, parse_int=_integer)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits
