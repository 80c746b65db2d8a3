# SPDX-License-Identifier: Apache-2.0
"""Which templates the triggerer can render, for a task that starts there.

Airflow 3.3 renders the arguments of such a task in the triggerer, whose supervisor answers few of
the requests that a template may send. A request that it does not know is never answered: the task
hangs until its time-out, and only the triggerer's own log says why (seen on 3.3.2 with
``GetXComSequenceSlice``, ``GetPrevSuccessfulDagRun``, ``GetTaskStateStore``,
``GetTaskBreadcrumbs``). Nor does the triggerer know the macros and filters of a DAG file. So a
template may use what was seen to work there, and anything else is refused when the DAG is parsed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import jinja2
from airflow.providers.common.compat.sdk import MappedOperator, XComArg
from jinja2 import meta, nodes
from jinja2.filters import FILTERS

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.text import one_line

_NAMES: Final = frozenset(
    {
        "conn",
        "dag_run",
        "data_interval_end",
        "data_interval_start",
        "ds",
        "ds_nodash",
        "logical_date",
        "macros",
        "params",
        "run_id",
        "task_instance",
        "ti",
        "ts",
        "ts_nodash",
        "ts_nodash_with_tz",
        "var",
    }
)
_TASK_INSTANCE: Final = frozenset({"ti", "task_instance"})
_ATTRIBUTES: Final = frozenset({"dag_id", "map_index", "run_id", "task_id", "try_number"})
_PULL: Final = (
    "calls xcom_pull without map_indexes, which hangs there: write "
    "{{ ti.xcom_pull(task_ids='…', map_indexes=-1) }}, or pass the .output of the task"
)


def for_triggerer(name: str, value: Any) -> Any:
    """Return a template, or a plain value, that the triggerer renders as a worker would ``value``.

    :param name: the argument, for messages.
    :raises PromptLayerInvalidInputError: if the triggerer cannot; says what to write instead.
    """
    if isinstance(value, XComArg):
        return _pull(name, value)
    if isinstance(value, str):
        for problem in _problems(value):
            raise _refused(name, problem)
    elif value is not None and not isinstance(value, (int, float)):
        raise _refused(name, f"is a {type(value).__name__}, and not a number or a template")
    return value


def _pull(name: str, value: XComArg) -> str:
    """Return a template for a task's output, because Airflow gives a trigger no outputs."""
    plain = version_compat.plain_xcom(value)
    if plain is None:
        raise _refused(name, "is computed from outputs: pass the .output of a task as it is")
    operator, key = plain
    if isinstance(operator, MappedOperator) or operator.get_closest_mapped_task_group() is not None:
        raise _refused(
            name,
            f"is the output of {operator.task_id!r}, which is mapped: write {{{{ ti.xcom_pull("
            f"task_ids={operator.task_id!r}, map_indexes=…) }}}} with the index of the one meant",
        )
    return f"{{{{ ti.xcom_pull(task_ids={operator.task_id!r}, key={key!r}, map_indexes=-1) }}}}"


def _problems(template: str) -> Iterator[str]:
    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.do"], autoescape=False).parse(template)  # noqa: S701 - nothing is rendered
        used = meta.find_undeclared_variables(tree)
    except jinja2.TemplateError as error:
        yield f"is no template ({one_line(str(error))})"
        return
    for unknown in sorted(used - _NAMES):
        yield (
            f"uses {unknown!r}, which is not to be had there: use "
            f"{', '.join(sorted(_NAMES - _TASK_INSTANCE))} or ti.xcom_pull"
        )
    for found in tree.find_all(nodes.Filter):
        if found.name not in FILTERS:
            yield f"uses the filter {found.name!r}, which is not one of Jinja's own"
    pulls, understood = set(), set()
    for call in tree.find_all(nodes.Call):
        if any(keyword.key == "map_indexes" for keyword in call.kwargs):
            pulls.add(call.node)
    for attribute in tree.find_all(nodes.Getattr):
        if isinstance(attribute.node, nodes.Name) and attribute.node.name in _TASK_INSTANCE:
            if attribute.attr == "xcom_pull" and attribute not in pulls:
                yield _PULL
            elif attribute.attr not in _ATTRIBUTES | {"xcom_pull"}:
                yield f"uses ti.{attribute.attr}, which may hang there"
            understood.add(attribute.node)
    for variable in tree.find_all(nodes.Name):
        if variable.name in _TASK_INSTANCE and variable not in understood:
            yield f"hands on {variable.name}: use its attributes or ti.xcom_pull alone"


def _refused(name: str, problem: str) -> PromptLayerInvalidInputError:
    return PromptLayerInvalidInputError(
        f"With start_from_trigger, {name} is rendered in the triggerer, and it {problem}."
    )
