# SPDX-License-Identifier: Apache-2.0
"""Two promotions of one label that could happen at once are refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset, task_group
from support.modes import FakeTaskInstance
from support.needs import needs_watchers
from support.promotions import PROMPT, WORKFLOW, make

from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerPromoteOperator
from airflow_provider_promptlayer.testing import LocalPromptLayer
from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerVersionEventTrigger


def test_two_promotions_are_refused_with_the_dag_file() -> None:
    with DAG("d", schedule=None) as dag:
        make(task_id="a", **PROMPT)
        make(task_id="b", **PROMPT, version=6)
    with pytest.raises(PromptLayerInvalidInputError, match=r"'a' and 'b' both move label 'p"):
        dag.resolve_template_files()


@pytest.mark.parametrize(
    "other", [WORKFLOW, {**PROMPT, "release_label": "staging"}, {"prompt": "Another"}], ids=str
)
def test_other_labels(other: dict[str, Any]) -> None:
    with DAG("d", schedule=None) as dag:
        make(task_id="a", **PROMPT)
        make(task_id="b", **other)
    dag.resolve_template_files()


def test_ordered() -> None:
    with DAG("d", schedule=None) as dag:
        make(task_id="a", **PROMPT) >> make(task_id="b", **PROMPT, version=1)
    dag.resolve_template_files()


@pytest.mark.parametrize(
    ("rule", "beside", "is_refused"),
    [
        ("always", "nothing", True),
        ("one_failed", "another", True),
        ("one_success", "another", True),
        ("one_done", "another", True),
        ("one_failed", "below", False),
        ("one_failed", "nothing", False),
        ("all_done", "another", False),
        ("none_failed", "another", False),
    ],
)
def test_a_trigger_rule_that_does_not_wait(rule: str, beside: str, is_refused: bool) -> None:
    """With ``one_failed`` a task starts when one of those above it has failed; others may run."""
    with DAG("d", schedule=None) as dag:
        first = make(task_id="a", **PROMPT)
        check = _operators("empty").EmptyOperator(task_id="check")
        another = _operators("empty").EmptyOperator(task_id="another")
        last = make(task_id="b", **PROMPT, version=1, trigger_rule=rule)
        first >> check >> last
        if beside == "below":
            first >> another
        if beside != "nothing":
            another >> last
    refused = pytest.raises(PromptLayerInvalidInputError, match="trigger rule that waits")
    with refused if is_refused else nullcontext():
        dag.resolve_template_files()


class Promote(PromptLayerPromoteOperator):
    """One of a team's own."""


class PromoteCarefully(PromptLayerPromoteOperator):
    """Another one."""


def test_two_subclasses() -> None:
    with DAG("d", schedule=None) as dag:
        Promote(task_id="a", version=1, **PROMPT)
        PromoteCarefully(task_id="b", version=2, **PROMPT)
    with pytest.raises(PromptLayerInvalidInputError, match="'a' and 'b' both move"):
        dag.resolve_template_files()


def test_an_id_as_a_number_and_as_a_text() -> None:
    with DAG("d", schedule=None) as dag:
        make(task_id="a", prompt=7)
        make(task_id="b", prompt="7", version=6)
    with pytest.raises(PromptLayerInvalidInputError, match="'a' and 'b' both move"):
        dag.resolve_template_files()


def test_on_two_branches() -> None:
    with DAG("d", schedule=None) as dag:
        choose = _branch_operator()
        choose >> [make(task_id="a", **PROMPT), make(task_id="b", **PROMPT, version=1)]
    dag.resolve_template_files()


def test_behind_the_same_branch() -> None:
    with DAG("d", schedule=None) as dag:
        first = make(task_id="first", **WORKFLOW)
        rivals = [make(task_id="a", **PROMPT), make(task_id="b", **PROMPT, version=1)]
        _branch_operator() >> first >> rivals
    with pytest.raises(PromptLayerInvalidInputError, match="could do so at once"):
        dag.resolve_template_files()


def test_templates_that_render_to_the_same(server: LocalPromptLayer) -> None:
    with DAG("d", schedule=None) as dag:
        first = make(task_id="a", **PROMPT)
        make(task_id="b", **PROMPT, release_label="{{ label }}")
    dag.resolve_template_files()
    context: Any = {"ti": FakeTaskInstance(task_id="a"), "label": "prod"}
    with pytest.raises(Exception, match="could do so at once"):
        first.execute(context)
    assert server.count() == 0
    context["label"] = "staging"
    assert first.execute(context)["version"] == 5


def test_a_mapped_task(server: LocalPromptLayer) -> None:
    with DAG("d", schedule=None):
        mapped = PromptLayerPromoteOperator.partial(task_id="a", **PROMPT).expand(version=[4, 5])
        labels = PromptLayerPromoteOperator.partial(task_id="b", **PROMPT, version=5).expand(
            release_label=["eu", "us"]
        )
        places = PromptLayerPromoteOperator.partial(task_id="c", **PROMPT, version=5).expand(
            promptlayer_conn_id=["promptlayer_default", "another"]
        )
        mapped >> labels >> places
    context: Any = {"ti": FakeTaskInstance(task_id="a", map_index=0)}
    with pytest.raises(Exception, match="All instances of the mapped task 'a'"):
        mapped.unmap({"version": 4}).execute(context)
    assert server.count() == 0
    assert labels.unmap({"release_label": "eu"}).execute(context)["version"] == 5
    place = {"promptlayer_conn_id": "promptlayer_default"}
    assert places.unmap(place).execute(context)["version"] == 5


@pytest.mark.parametrize(
    ("fixed", "expanded", "is_refused"),
    [
        ({**PROMPT}, {"version": [4, 5]}, True),
        ({**PROMPT, "label": "prod"}, {"version": [4, 5]}, True),
        ({**PROMPT, "release_label": "eu"}, {"version": [4, 5]}, False),
        ({**PROMPT, "promptlayer_conn_id": "another"}, {"version": [4, 5]}, False),
        ({"version": 5}, {"prompt": ["Title", "Subject"]}, False),
        ({**PROMPT, "version": 5}, {"label": ["eu", "us"]}, False),
    ],
    ids=str,
)
def test_beside_a_mapped_task(
    fixed: dict[str, Any], expanded: dict[str, Any], is_refused: bool
) -> None:
    with DAG("d", schedule=None) as dag:
        make(task_id="a", **PROMPT)
        PromptLayerPromoteOperator.partial(task_id="b", **fixed).expand(**expanded)
    refused = pytest.raises(PromptLayerInvalidInputError, match="'a' and 'b' both move label")
    with refused if is_refused else nullcontext():
        dag.resolve_template_files()


def test_the_output_of_another_task_as_the_label(server: LocalPromptLayer) -> None:
    """Airflow makes the mapped task wait for it, unless it is given by the short name."""
    with DAG("d", schedule=None):
        label = _operators("empty").EmptyOperator(task_id="label").output
        mapped = PromptLayerPromoteOperator.partial(
            task_id="a", version=5, release_label=label
        ).expand(prompt=["Reply", "Title"])
        hasty = PromptLayerPromoteOperator.partial(task_id="b", version=5, label=label).expand(
            prompt=[PROMPT["prompt"]]
        )
        short = PromptLayerPromoteOperator.partial(task_id="c", version=5, label="eu").expand(
            prompt=[PROMPT["prompt"]]
        )
    assert mapped.upstream_task_ids == {"label"}
    context: Any = {"ti": FakeTaskInstance(task_id="b", map_index=0)}
    with pytest.raises(Exception, match=r"output of another task as release_label"):
        hasty.unmap(PROMPT).execute(context)
    assert server.count() == 0
    context["ti"].task_id = "c"
    assert short.unmap(PROMPT).execute(context)["label"] == "eu"


def test_in_a_mapped_task_group(server: LocalPromptLayer) -> None:
    with DAG("d", schedule=None):

        @task_group
        def promote_one(label: str) -> None:
            make(task_id="a", **PROMPT, release_label=label)

        promote_one.expand(label=["eu", "us"])
        alone = make(task_id="b", **PROMPT)
    instance: Any = alone.dag.get_task("promote_one.a")
    instance.release_label = "eu"  # as Airflow renders it
    context: Any = {"ti": FakeTaskInstance(task_id=instance.task_id, map_index=0)}
    assert instance.execute(context)["version"] == 5
    assert server.labels(**PROMPT)["eu"] == 5


LABEL: dict[str, Any] = {**PROMPT, "release_label": "prod"}


@needs_watchers
@pytest.mark.parametrize("compose", [lambda asset: [asset], lambda asset: Asset("b") | asset])
@pytest.mark.parametrize(
    ("watched", "is_refused"),
    [
        (LABEL, True),
        ({**LABEL, "ignore_own": False}, False),
        ({**LABEL, "release_label": "staging"}, False),
        ({**LABEL, "prompt": "Title"}, False),
        ({**LABEL, "promptlayer_conn_id": "another"}, False),
        (PROMPT, False),
        ({**WORKFLOW, "release_label": "prod"}, False),
    ],
    ids=str,
)
def test_the_label_that_starts_the_dag(
    watched: dict[str, Any],
    is_refused: bool,
    compose: Callable[[Any], Any],
    server: LocalPromptLayer,
) -> None:
    """Of a prompt PromptLayer does not tell who has moved the label, so the DAG would loop."""
    from airflow.sdk import AssetWatcher

    trigger = PromptLayerVersionEventTrigger(**watched)
    asset = Asset("a", watchers=[AssetWatcher(name="moves", trigger=trigger)])
    with DAG("d", schedule=compose(asset)) as dag:
        written = make(task_id="written", **LABEL)
        rendered = make(task_id="rendered", **PROMPT, release_label="{{ label }}")
        make(task_id="workflow", **WORKFLOW)
    says = r"Task 'written' moves label 'prod' of a prompt, whose moves start this DAG"
    with pytest.raises(PromptLayerInvalidInputError, match=says) if is_refused else nullcontext():
        dag.resolve_template_files()
    rendered.release_label = "prod"  # as Airflow renders it
    written.release_label = "other"
    context: Any = {"ti": FakeTaskInstance(task_id="rendered")}
    with pytest.raises(Exception, match="ignore_own=False") if is_refused else nullcontext():
        rendered.execute(context)
    assert server.count("PATCH") == (not is_refused)


def _branch_operator() -> Any:
    return _operators("python").BranchPythonOperator(task_id="choose", python_callable=lambda: "a")


def _operators(module: str) -> Any:
    try:
        return import_module(f"airflow.providers.standard.operators.{module}")
    except ImportError:  # Airflow 2
        return import_module(f"airflow.operators.{module}")
