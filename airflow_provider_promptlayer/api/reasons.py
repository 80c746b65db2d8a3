# SPDX-License-Identifier: Apache-2.0
"""Why a row or a criterion has its verdict, as far as PromptLayer says so.

The description leaves the shape of criterion summaries and of step results open, and the sources
differ: a mapping by the id of the step or a list, an explanation as text or as an object. Only
messages use it, so an unknown shape is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from airflow_provider_promptlayer.api.text import shown

_IDS: Final = ("step_id", "criterion_id", "id")
_WORDS: Final = ("message", "error_message", "reasoning", "detail", "text", "summary", "error")
_ITEMS_READ: Final = 3
_DEPTH: Final = 4


def entries(results: Any) -> Iterator[tuple[str, Any]]:
    """Yield the id and the result of each step in a mapping or a list of results."""
    if isinstance(results, Mapping):
        yield from results.items()
    elif isinstance(results, list):
        for number, result in enumerate(results, start=1):
            named = result if isinstance(result, Mapping) else {}
            ids = (named.get(name) for name in _IDS)
            yield next((key for key in ids if isinstance(key, str)), f"number {number}"), result


def reason(result: Mapping[str, Any]) -> str | None:
    """Return why a step has its verdict, or None where its result does not say."""
    found = list(filter(None, _explanations(result)))
    in_words = next((text for text in map(words, found) if text), None)
    return in_words or (shown(found[0]) if found else None)


def error_of(result: Mapping[str, Any]) -> Any:
    """Return why a step could not be calculated, or None."""
    return result.get("error_message") or result.get("error") or None


def words(value: Any, depth: int = _DEPTH) -> str | None:
    """Return the text of an explanation, which may be inside of objects and lists."""
    if isinstance(value, str):
        return value.strip() or None
    if not depth:
        return None
    if isinstance(value, Mapping):
        found = (words(value.get(name), depth - 1) for name in _WORDS)
        return next(filter(None, found), None)
    if isinstance(value, list):
        said = [text for item in value[:_ITEMS_READ] if (text := words(item, depth - 1))]
        return "; ".join(said) or None
    return None


def words_or_all(value: Any) -> str | None:
    """Return what :func:`words` finds, else the value as Python shows it; None for an empty one."""
    return words(value) or (shown(value) if value else None)


def _explanations(result: Mapping[str, Any]) -> Iterator[Any]:
    raw = result.get("raw_value")
    yield result.get("evidence")
    yield result.get("error_message")
    yield raw.get("reasoning") if isinstance(raw, Mapping) else None
    yield result.get("error")
    yield result.get("error_summary")
    evaluator = result.get("evaluator_result")
    yield error_of(evaluator) if isinstance(evaluator, Mapping) else None
