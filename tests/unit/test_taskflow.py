# SPDX-License-Identifier: Apache-2.0
"""``@task.promptlayer_workflow`` and ``@task.promptlayer_batch``."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowException, AirflowSkipException, task
from support.clocks import timed_by_polls
from support.kinds import Serve
from support.modes import Ending, FakeTaskInstance, Store, run_task
from support.starts import deferred

from airflow_provider_promptlayer.decorators.promptlayer import (
    promptlayer_batch_task,
    promptlayer_workflow_task,
)
from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError
from airflow_provider_promptlayer.get_provider_info import get_provider_info
from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Template, Workflow


def nothing() -> None:
    """Return no input."""


NODES = [
    Node("Notes", Template("{topic}")),
    Node("Answer", Template("On {topic}"), is_output_node=True, duration=1),
]
"""A run of them still runs at the first poll."""


def outputs(topic: str) -> dict[str, str]:
    return {"Notes": topic, "Answer": f"On {topic}"}


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    endless = Node("Answer", duration=math.inf, is_output_node=True)
    return serve(timed_by_polls([Workflow("Digest", NODES), Workflow("Endless", [endless])]))


def started(server: LocalPromptLayer) -> list[Any]:
    """Return the input variables of each run."""
    return [dict(run.input_variables or {}) for run in server.executions.values()]


@dataclass
class Decorated:
    """A decorator, and a function that returns one input or a list with it.

    :param wrap: returns what the function returns for one input.
    :param returns: the result of the task, for one topic.
    :param lenient: arguments with which inputs may fail.
    """

    decorator: Any
    wrap: Callable[[Any], Any]
    returns: Callable[[str], Any]
    lenient: dict[str, Any] = field(default_factory=dict)
    calls: list[Any] = field(default_factory=list)

    def make(self, returned: Any = None, **arguments: Any) -> Any:
        """Return the task of a function that returns this, or its topic if None is given."""

        def function(topic: str = "tea", *, run_id: Any = None, ti: Any = None) -> Any:
            self.calls.append((topic, run_id, ti.try_number))
            if isinstance(returned, Exception):
                raise returned
            return self.wrap({"topic": topic}) if returned is None else returned

        return self.bind(function, **arguments)()

    def bind(self, function: Callable[..., Any], **arguments: Any) -> Any:
        """Return what makes the task of a function, when it is called as in a DAG."""
        how = {"workflow_id_or_name": "Digest", "poke_interval": 0.02, "retries": 2, **arguments}
        decorated = self.decorator(task_id="task", **how)(function)
        return lambda *args, **kwargs: decorated(*args, **kwargs).operator

    def run(
        self, returned: Any = None, store: Store | None = None, number: int = 1, **arguments: Any
    ) -> Ending:
        """Run a try of the task, made anew in each process."""
        max_tries = arguments.pop("max_tries", 2)
        return run_task(
            lambda: self.make(returned, **arguments),
            FakeTaskInstance(try_number=number, max_tries=max_tries),
            **({} if store is None else {"task_state_store": store}),
        )


@pytest.fixture(params=["workflow", "batch"])
def decorated(request: pytest.FixtureRequest) -> Iterator[Decorated]:
    if request.param == "workflow":
        yield Decorated(promptlayer_workflow_task, lambda one: one, outputs)
    else:
        yield Decorated(
            promptlayer_batch_task,
            lambda one: [one],
            lambda topic: [outputs(topic)],
            {"min_success_rate": 0},
        )


@pytest.mark.parametrize(
    ("name", "factory"),
    [("workflow", promptlayer_workflow_task), ("batch", promptlayer_batch_task)],
)
def test_airflow_finds_the_decorator(name: str, factory: Any) -> None:
    (told,) = (
        each["class-name"]
        for each in get_provider_info()["task-decorators"]
        if each["name"] == f"promptlayer_{name}"
    )
    assert told == f"{factory.__module__}.{factory.__name__}"
    with DAG("dag", schedule=None):
        made = getattr(task, f"promptlayer_{name}")(workflow_id_or_name="Digest")(nothing)()
    assert made.operator.custom_operator_name == f"@task.promptlayer_{name}"


class TestTheFunction:
    def test_is_called_once_in_each_try_wherever_the_task_waits(
        self, decorated: Decorated, deferrable: bool, server: LocalPromptLayer
    ) -> None:
        ending = decorated.run(deferrable=deferrable)
        assert (ending.kind, ending.value) == ("success", decorated.returns("tea")), ending
        assert (ending.worker_visits > 1) is deferrable
        assert decorated.calls == [("tea", "manual__1", 1)]
        assert started(server) == [{"topic": "tea"}]

    @pytest.mark.parametrize("do_xcom_push", [True, False])
    def test_is_not_called_again_to_start_what_had_to_wait(
        self, do_xcom_push: bool, server: LocalPromptLayer
    ) -> None:
        """A later worker starts the inputs that ``max_active_runs`` has held back."""
        batch = Decorated(promptlayer_batch_task, lambda one: [one], list)
        topics = ["tea", "\0\ud800", "{{ 1 }}", "__classname__"]
        returned = [{"topic": topic, topic: 2**70} for topic in topics]
        ending = batch.run(returned, max_active_runs=1, do_xcom_push=do_xcom_push)
        assert ending.kind == "success", ending
        assert ending.worker_visits > 2
        assert len(batch.calls) == 1
        assert started(server) == returned
        assert json.loads(ending.xcoms.pop("promptlayer_inputs")) == returned
        assert bool(ending.xcoms) is do_xcom_push

    def test_leaves_no_copy_of_its_list_where_no_other_worker_needs_it(
        self, server: LocalPromptLayer
    ) -> None:
        batch = Decorated(promptlayer_batch_task, lambda one: [one], list)
        ending = batch.run(deferrable=False)
        assert ending.kind == "success", ending
        assert "promptlayer_inputs" not in ending.xcoms

    @pytest.mark.parametrize(
        ("raised", "kind"), [(AirflowSkipException("no news"), "skipped"), (KeyError("day"), None)]
    )
    @pytest.mark.parametrize("soft_fail", [True, False])
    def test_may_fail_and_then_nothing_is_started(
        self,
        decorated: Decorated,
        raised: Exception,
        kind: str | None,
        soft_fail: bool,
        server: LocalPromptLayer,
    ) -> None:
        if kind is None:
            with pytest.raises(type(raised), match=str(raised)):
                decorated.run(raised, soft_fail=soft_fail)
        else:
            assert decorated.run(raised, soft_fail=soft_fail).kind == kind
        assert server.count() == 0

    @pytest.mark.parametrize(
        ("returned", "says"),
        [
            (..., "returned None, and not the "),
            (7, "must be a "),
            ({"topic": {1, 2}}, "cannot be sent as JSON"),
            ({"topic": math.nan}, "cannot be sent as JSON"),
        ],
        ids=["nothing", "number", "set", "nan"],
    )
    def test_has_to_return_what_can_be_sent(
        self, decorated: Decorated, returned: Any, says: str, server: LocalPromptLayer
    ) -> None:
        if isinstance(returned, dict):
            returned = decorated.wrap(returned)
        task = decorated.bind(lambda: None if returned is ... else returned, **decorated.lenient)
        ending = run_task(task)
        assert ending.kind == "failed for good", ending
        assert says in ending.message
        assert server.count("POST") == 0

    def test_returns_data_in_which_nothing_is_rendered(
        self, decorated: Decorated, server: LocalPromptLayer
    ) -> None:
        made = decorated.make(decorated.wrap({"topic": "{{ run_id }}"}))
        context: Any = {"ti": FakeTaskInstance(), "run_id": "manual__1"}
        made.render_template_fields(context)
        deferred(made)
        assert started(server) == [{"topic": "{{ run_id }}"}]
        made.render_template_fields(context)  # as dag.test() of Airflow 2, which resumes a copy
        assert "{{ run_id }}" in str(getattr(made, made.returned_as))

    def test_gets_rendered_arguments(self, decorated: Decorated, server: LocalPromptLayer) -> None:
        make = decorated.bind(
            lambda topic, day: decorated.wrap({"topic": topic, "day": day}),
            workflow_id_or_name="{{ name }}",
        )
        made = make("{{ run_id }}", day="{{ run_id }}")
        context: Any = {"ti": FakeTaskInstance(), "run_id": "r", "name": "Digest"}
        made.render_template_fields(context)
        deferred(made)
        assert started(server) == [{"topic": "r", "day": "r"}]


class TestLaterTries:
    def test_a_retry_goes_back_whatever_the_function_returns_by_then(
        self, decorated: Decorated, server: LocalPromptLayer
    ) -> None:
        store = Store()
        endless: dict[str, Any] = {"workflow_id_or_name": "Endless"}
        decorated.run(None, store, timeout=0.1, **endless)
        again = decorated.wrap({"topic": "coffee"})
        decorated.run(again, store, 2, timeout=0.1, **endless)
        assert [number for _, _, number in decorated.calls] == [1, 2]
        assert started(server) == [{"topic": "tea"}]

    def test_a_clear_starts_anew_where_it_returns_something_else(
        self, decorated: Decorated, server: LocalPromptLayer
    ) -> None:
        store, endless = Store(), {"workflow_id_or_name": "Endless", "timeout": 0.1}
        for number, topic in enumerate(["tea", "tea", "coffee"], 1):
            returned = decorated.wrap({"topic": topic})
            decorated.run(returned, store, number, max_tries=number + 1, **endless)
        assert started(server) == [{"topic": "tea"}, {"topic": "coffee"}]

    def test_a_retry_after_a_failed_run_sends_what_it_returns_now(
        self, decorated: Decorated, serve: Serve
    ) -> None:
        failing = Node("Answer", status="FAILED", is_output_node=True)
        server = serve(LocalPromptLayer([Workflow("Digest", [failing])]))
        store = Store()
        assert decorated.run(None, store).kind == "failed"
        decorated.run(decorated.wrap({"topic": "coffee"}), store, 2)
        assert started(server) == [{"topic": "tea"}, {"topic": "coffee"}]


class TestWhenTheDagIsParsed:
    def test_the_type_that_the_function_returns_means_no_multiple_outputs(
        self, decorated: Decorated
    ) -> None:
        def typed() -> dict[str, Any]:
            return {}

        assert not decorated.bind(typed)().multiple_outputs

    async def _async() -> dict[str, Any]:  # type: ignore[misc]  # it is no method
        return {}

    @pytest.mark.parametrize(
        ("function", "arguments", "says"),
        [
            (nothing, {"multiple_outputs": True}, "takes no multiple_outputs"),
            (_async, {}, "takes no async function"),
            (nothing, {"nonsense": 1}, "nonsense"),
            (nothing, {"fail_on": "sometimes"}, "fail_on"),
        ],
        ids=["multiple_outputs", "async", "unknown", "invalid"],
    )
    def test_mistakes_are_refused(
        self, decorated: Decorated, function: Any, arguments: dict[str, Any], says: str
    ) -> None:
        with pytest.raises(Exception, match=says):
            decorated.bind(function, **arguments)()

    def test_the_input_has_one_place(self, decorated: Decorated) -> None:
        name = "inputs" if decorated.decorator is promptlayer_batch_task else "input_variables"
        with pytest.raises(PromptLayerInvalidInputError, match=f"takes no {name}"):
            decorated.bind(nothing, **{name: [{}]})()

    def test_its_types_refuse_what_the_operator_would(self) -> None:
        """The type checker refuses each ``type: ignore`` here for which it has no need."""
        with DAG("dag", schedule=None):

            @promptlayer_workflow_task(workflow_id_or_name="Digest", retries=1)
            def digest(topic: str) -> dict[str, str]:
                return {"topic": topic}

            @promptlayer_batch_task(workflow_id_or_name="Digest", min_success_rate=0.5)
            def digests(topics: list[str]) -> list[dict[str, str]]:
                return [{"topic": topic} for topic in topics]

            @promptlayer_workflow_task(workflow_id_or_name="Digest")  # type: ignore[type-var]
            async def waits() -> dict[str, str]:
                return {}

            @promptlayer_workflow_task(workflow_id_or_name="Digest", inputs=[])  # type: ignore[call-arg]
            def misplaced() -> dict[str, str]:
                return {}

            @promptlayer_batch_task(workflow_id_or_name="Digest", start_concurrency="7")  # type: ignore[arg-type]
            def mistyped() -> list[dict[str, str]]:
                return []

            assert digest.function("tea") == {"topic": "tea"}
            one = digest("tea")["Answer"]
            many = digest.override(task_id="many").expand(topic=["tea"])["Answer"]
            assert digests([one, many]).operator.upstream_task_ids == {"digest", "many"}
            with pytest.raises(PromptLayerInvalidInputError, match="async"):
                waits()
            with pytest.raises((TypeError, AirflowException), match="inputs"):
                misplaced()
            with pytest.raises(PromptLayerInvalidInputError, match="start_concurrency"):
                mistyped()

    def test_an_output_as_an_argument_comes_before(self, decorated: Decorated) -> None:
        with DAG("dag", schedule=None):
            name, topic = (task(task_id=each)(nothing)() for each in ("name", "topic"))
            made = decorated.bind(lambda topic: topic, workflow_id_or_name=name)(topic)
        assert made.upstream_task_ids == {"name", "topic"}


DAG_FILE = """
from datetime import datetime
from airflow import __version__
from airflow.providers.common.compat.sdk import DAG, task
from airflow_provider_promptlayer.bases import deferral

# In dag.test() of Airflow 3, no scheduler has to notice the deferral.
deferral.SETTLE_SECONDS = 0.0 if __version__.startswith("2.") else 3600.0

with DAG(
    "taskflow", schedule=None, start_date=datetime(2026, 1, 1), params={"name": "Digest"}
) as dag:

    @task
    def topics():
        return ["tea", "coffee"]

    @task.promptlayer_workflow(workflow_id_or_name="{{ params.name }}", poke_interval=0.05)
    def digest(topic: str, tone: str) -> dict[str, str]:
        print("CALLED digest", topic)
        return {"topic": topic, "tone": tone}

    @task.promptlayer_batch(workflow_id_or_name="Digest", poke_interval=0.05)
    def digests(topics) -> list[dict[str, str]]:
        print("CALLED digests")
        return [{"topic": topic} for topic in topics]

    @task
    def gather(answer, notes, batch):
        print("GATHERED", [answer, *notes, *[each["Answer"] for each in batch]])

    found = topics()
    mapped = digest.override(task_id="mapped").partial(tone="dry").expand(topic=found)
    gather(digest("{{ params.name }}", "dry")["Answer"], mapped["Notes"], digests(found))

if __name__ == "__main__":
    print("ENDED", str(dag.test().state))
"""


def test_in_a_dag_that_airflow_tests(server: LocalPromptLayer, tmp_path: Path) -> None:
    """``dag.test()``: mapped, with outputs by node, deferred, in a process of its own."""
    file = tmp_path / "dags" / "taskflow.py"
    file.parent.mkdir()
    file.write_text(DAG_FILE)
    env = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(file.parent),
    }
    commands = ["-m", "airflow", "db", "migrate"], [str(file)]
    for command in commands:
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, env=env, check=False
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
    assert "ENDED success" in said, said
    assert "GATHERED ['On Digest', 'tea', 'coffee', 'On tea', 'On coffee']" in said, said
    assert said.count("CALLED digest ") == 3
    assert said.count("CALLED digests") == 1
    assert sorted(run["topic"] for run in started(server)) == [
        "Digest",
        "coffee",
        "coffee",
        "tea",
        "tea",
    ]
