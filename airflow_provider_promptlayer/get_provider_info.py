# SPDX-License-Identifier: Apache-2.0
"""What Airflow's provider manager reads. Imports neither the hook nor Airflow."""

from __future__ import annotations

from typing import Any

from airflow_provider_promptlayer import __version__
from airflow_provider_promptlayer.bases.configuration import CONFIG
from airflow_provider_promptlayer.hooks.connection_form import CONN_FIELDS, FIELD_BEHAVIOUR

__all__ = ["get_provider_info"]

_PACKAGE = "airflow_provider_promptlayer"
_INTEGRATION = "PromptLayer"
_GUIDES = (
    "run-a-workflow",
    "wait-for-a-run",
    "many-inputs",
    "nightly-evaluation",
    "load-and-export",
    "promote",
    "new-versions",
    "test-your-dags",
)


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata (entry point ``apache_airflow_provider``)."""
    return {
        "package-name": "airflow-provider-promptlayer",
        "name": _INTEGRATION,
        "description": "Run PromptLayer workflows and evaluations without holding a worker.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.promptlayer.com",
                "logo": "/docs/images/logo.svg",
                "how-to-guide": [f"/docs/guides/{guide}.md" for guide in _GUIDES],
                "tags": ["service", "ai"],
            }
        ],
        **{
            section: [
                {
                    "integration-name": _INTEGRATION,
                    "python-modules": [f"{_PACKAGE}.{section}.promptlayer"],
                }
            ]
            for section in ("operators", "sensors", "hooks", "triggers")
        },
        "extra-links": [f"{_PACKAGE}.bases.task.PromptLayerLink"],
        "connection-types": [
            {
                "connection-type": "promptlayer",
                "hook-name": _INTEGRATION,
                "hook-class-name": f"{_PACKAGE}.hooks.promptlayer.PromptLayerHook",
                "ui-field-behaviour": FIELD_BEHAVIOUR,
                "conn-fields": CONN_FIELDS,
            }
        ],
        "config": CONFIG,
        "task-decorators": [
            {
                "name": f"promptlayer_{what}",
                "class-name": f"{_PACKAGE}.decorators.promptlayer.promptlayer_{what}_task",
            }
            for what in ("workflow", "batch")
        ],
    }
