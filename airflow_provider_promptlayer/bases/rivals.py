# SPDX-License-Identifier: Apache-2.0
"""Which tasks of a DAG would move the same release label at once, or start their DAG again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import XComArg

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.text import quoted
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_WHICH_LABEL = ("prompt", "workflow", "release_label", "promptlayer_conn_id")
"""The arguments that say which label a task moves."""


def refuse_rivals(task: Any, kind: type[Any], context: Context | None = None) -> None:
    """Raise if another task of the DAG moves the same label and is not ordered with this one.

    Tasks on different branches below one branching task are no rivals.

    :param kind: the class of all tasks that move labels.
    :param context: that of the running task, to compare what templates render to; None to compare
        the arguments as they are written.
    :raises PromptLayerInvalidInputError: names the other task.
    """
    if not task.has_dag():
        return
    read = _as_written if context is None else _renderer(context)
    wanted = _as_text([getattr(task, name) for name in _WHICH_LABEL])
    for other in _others(task, kind):
        if (
            _as_text(read(other)) == wanted
            and not _is_ordered(task, other)
            and not _branches(task, other)
        ):
            raise PromptLayerInvalidInputError(
                f"Tasks {task.task_id!r} and {other.task_id!r} both move {_moved(task)}, and could "
                f"do so at once: order them, such as {task.task_id} >> {other.task_id}, with a "
                "trigger rule that waits for all tasks upstream."
            )


def refuse_mapped_rivals(task: Any, context: Context) -> None:
    """Raise if the instances of a mapped task all move the same label, or cannot know which.

    :raises PromptLayerInvalidInputError: says so.
    """
    ti: Any = context["ti"]
    if ti.map_index < 0 or not task.has_dag():
        return
    mapped = task.dag.get_task(task.task_id)
    fixed = getattr(mapped, "partial_kwargs", None)
    if fixed is None:
        return  # the instances of a mapped task group, which may differ in any argument
    if isinstance(fixed.get("label"), XComArg):
        raise PromptLayerInvalidInputError(
            f"Give the mapped task {task.task_id!r} the output of another task as release_label: "
            "Airflow does not see in partial(label=…) that this task has to wait for it."
        )
    if ("prompt" in fixed or "workflow" in fixed) and not any(
        _expands(mapped, name) for name in ("release_label", "label", "promptlayer_conn_id")
    ):
        raise PromptLayerInvalidInputError(
            f"All instances of the mapped task {task.task_id!r} move {_moved(task)}: expand over "
            "the prompt, the workflow or the label, or promote once."
        )


def refuse_own_event(task: Any) -> None:
    """Raise if a watcher that is to ignore own moves of a prompt's label starts the task's DAG.

    PromptLayer keeps no sign of who has moved a prompt's label. So the watcher would report the
    move of this task, too, and start the DAG again and again.

    :raises PromptLayerInvalidInputError: says what to do.
    """
    if task.prompt is None or not task.has_dag():
        return
    moved = str(task.prompt), task.release_label, task.promptlayer_conn_id
    for watcher in _watchers(getattr(task.dag.timetable, "asset_condition", None)):
        found = getattr(watcher, "trigger", None)
        watched = found["kwargs"] if isinstance(found, Mapping) else vars(found)
        names = "release_label", "promptlayer_conn_id"
        label = str(watched.get("prompt")), *map(watched.get, names)
        if watched.get("ignore_own") and label == moved:
            raise PromptLayerInvalidInputError(
                f"Task {task.task_id!r} moves label {quoted(task.release_label)} of a "
                "prompt, whose moves start this DAG. PromptLayer does not tell who has moved a "
                "prompt's label, so the task would start the DAG again: watch another label, or "
                "give the watcher ignore_own=False, if that is wanted."
            )


def _watchers(condition: Any) -> Iterator[Any]:
    """Yield the watchers of all assets on which a DAG is scheduled; Airflow 2 has none."""
    yield from getattr(condition, "watchers", ())
    for part in getattr(condition, "objects", ()):
        yield from _watchers(part)


def _moved(task: Any) -> str:
    noun = "workflow" if task.prompt is None else "prompt"
    return f"label {quoted(task.release_label)} of the same {noun}"


def _expands(mapped: Any, name: str) -> bool:
    names = version_compat.expanded_over(mapped)
    return names is None or name in names


def _others(task: Any, kind: type[Any]) -> Iterator[Any]:
    for other in task.dag.tasks:
        its_kind = getattr(other, "operator_class", type(other))  # of a mapped task
        if (
            other.task_id != task.task_id
            and isinstance(its_kind, type)
            and issubclass(its_kind, kind)
        ):
            yield other


def _as_text(which: list[Any]) -> list[Any]:
    """Return which label a task moves, where 7 and "7" are the same id."""
    return [str(value) if isinstance(value, int) else value for value in which]


def _as_written(task: Any) -> list[Any]:
    """Return which label a task moves; an empty list if the instances of a mapped task differ."""
    fixed = getattr(task, "partial_kwargs", None)
    if fixed is None:
        return [getattr(task, name) for name in _WHICH_LABEL]
    if any(_expands(task, name) for name in (*_WHICH_LABEL, "label")):
        return []
    defaults = {"promptlayer_conn_id": PromptLayerHook.default_conn_name}
    given = {**defaults, "release_label": fixed.get("label", "prod"), **fixed}
    return [given.get(name) for name in _WHICH_LABEL]


def _renderer(context: Context) -> Callable[[Any], list[Any]]:
    def read(task: Any) -> list[Any]:
        try:
            return [task.render_template(value, context) for value in _as_written(task)]
        except Exception:  # noqa: BLE001  # such as an XCom of a task that has not run yet
            return []

    return read


def _is_ordered(task: Any, other: Any) -> bool:
    return other.task_id in _waiting_for(task) or task.task_id in _waiting_for(other)


def _waiting_for(task: Any) -> set[str]:
    """Return which tasks of the DAG start only after a task has ended, by their trigger rules."""
    waiting: set[str] = set()
    for each in task.dag.topological_sort():
        waits = [up == task.task_id or up in waiting for up in each.upstream_task_ids]
        rule: str = each.trigger_rule  # an enum whose members are texts
        # For these, one of the tasks upstream is enough, and the others may still run.
        is_early = rule.startswith("one_")
        if rule != "always" and waits and (all(waits) if is_early else any(waits)):
            waiting.add(each.task_id)
    return waiting


def _branches(task: Any, other: Any) -> bool:
    """Return whether two tasks are below a branching task, and not below the same child of it."""
    for branching in map(task.dag.get_task, _above(task) & _above(other)):
        if not any(cls.__name__ == "BranchMixIn" for cls in type(branching).__mro__):
            continue
        children = [
            {child for child in branching.downstream_task_ids if child == each.task_id}
            | (branching.downstream_task_ids & _above(each))
            for each in (task, other)
        ]
        if not children[0] & children[1]:
            return True
    return False


def _above(task: Any) -> set[str]:
    return {*task.get_flat_relative_ids(upstream=True)}
