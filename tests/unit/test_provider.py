# SPDX-License-Identifier: Apache-2.0
"""The package as Airflow and its users meet it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import airflow
import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_provider_promptlayer.get_provider_info import get_provider_info
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "example_dags").glob("*.py"))


def test_info_has_the_shape_that_airflow_asks_for() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(
        (Path(airflow.__file__).parent / "provider_info.schema.json").read_text("utf-8")
    )
    jsonschema.validate(get_provider_info(), schema)


def test_everything_that_the_info_names_can_be_imported() -> None:
    info = get_provider_info()
    for section in ("operators", "sensors", "hooks", "triggers"):
        for entry in info[section]:
            for module in entry["python-modules"]:
                import_module(module)
    (connection_type,) = info["connection-types"]
    module, name = connection_type["hook-class-name"].rsplit(".", 1)
    assert getattr(import_module(module), name) is PromptLayerHook
    assert connection_type["connection-type"] == PromptLayerHook.conn_type


def test_the_pages_and_the_logo_that_the_info_names_are_there() -> None:
    (integration,) = get_provider_info()["integrations"]
    guides = {str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "guides").glob("*.md")}
    assert {guide.removeprefix("/") for guide in integration["how-to-guide"]} == guides
    assert (ROOT / integration["logo"].removeprefix("/")).is_file()


def test_entry_point_leads_to_the_info() -> None:
    (entry,) = [
        entry
        for entry in entry_points(group="apache_airflow_provider")
        if entry.module.startswith("airflow_provider_promptlayer")
    ]
    assert entry.load() is get_provider_info


def test_form_of_airflow_2_has_the_same_fields() -> None:
    pytest.importorskip("flask_appbuilder")
    pytest.importorskip("wtforms")
    (connection_type,) = get_provider_info()["connection-types"]
    assert set(PromptLayerHook.get_connection_form_widgets()) == set(connection_type["conn-fields"])


def test_field_behaviour_is_the_same_for_both_user_interfaces() -> None:
    (connection_type,) = get_provider_info()["connection-types"]
    behaviour = PromptLayerHook.get_ui_field_behaviour()
    assert set(behaviour) == {"hidden_fields", "relabeling", "placeholders"}
    assert behaviour["hidden_fields"] == connection_type["ui-field-behaviour"]["hidden-fields"]


def test_what_a_dag_file_imports_is_light() -> None:
    code = (
        "import sys, airflow.providers.common.compat.sdk as sdk; sdk.BaseSensorOperator;"
        "before = set(sys.modules);"
        "from airflow_provider_promptlayer.hooks import promptlayer;"
        "from airflow_provider_promptlayer.operators import promptlayer;"
        "from airflow_provider_promptlayer.sensors import promptlayer;"
        "parts = ('testing', 'transport.aio', 'transport.blocking', 'triggers');"
        "heavy = {f'airflow_provider_promptlayer.{part}' for part in parts};"
        "heavy |= {'aiohttp', 'yarl', 'requests', 'urllib3', 'ssl', 'cryptography'};"
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def loaded(path: Path) -> DAG:
    """Return the only DAG of a file."""
    scope: dict[str, Any] = {"__name__": f"example_{path.stem}", "__file__": str(path)}
    exec(compile(path.read_text("utf-8"), str(path), "exec"), scope)
    found = [getattr(each, "operator", each) for each in scope.values()]
    dags = {each.dag_id: each for each in found if isinstance(each, DAG)} | {
        each.dag_id: each.dag
        for each in found
        if isinstance(each, BaseOperator) or type(each).__name__ == "MappedOperator"
    }
    (dag,) = dags.values()
    return dag  # type: ignore[no-any-return]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_can_be_imported(path: Path) -> None:
    assert loaded(path).dag_id == f"promptlayer_{path.stem}"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_says_in_airflow_what_it_does_and_what_its_params_are(path: Path) -> None:
    dag = loaded(path)
    summary, _, details = (dag.doc_md or "").strip().partition("\n\n")
    assert summary.endswith(".")
    assert details.endswith(".")
    assert {name for name in dag.params if f"`{name}`" not in details} == set()
