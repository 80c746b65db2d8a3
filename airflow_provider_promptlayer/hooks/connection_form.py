# SPDX-License-Identifier: Apache-2.0
"""The connection form, described once for both of Airflow's user interfaces.

Airflow 3 reads :data:`CONN_FIELDS` and :data:`FIELD_BEHAVIOUR` from the provider info, without
importing the hook; Airflow 2 asks the hook, which builds the widgets of its web framework from
the same description.
"""

from __future__ import annotations

from typing import Any, Final

CONN_FIELDS: Final[dict[str, dict[str, Any]]] = {
    "timeout": {
        "label": "Timeout of a request (seconds)",
        "description": "Seconds that a single request may take. Default: 30.",
        "schema": {"type": ["number", "null"], "default": None},
    },
    "verify": {
        "label": "Verify TLS certificates",
        "description": "true, false, or the path of a CA file. Default: true.",
        "schema": {"type": ["string", "null"], "default": None},
    },
    "proxy": {
        "label": "Proxy",
        "description": "URL of an HTTP proxy. Default: what the environment says.",
        "schema": {"type": ["string", "null"], "default": None},
    },
    "dashboard_url": {
        "label": "Web interface",
        "description": "URL of PromptLayer's web interface, for the links of tasks. Default: what "
        "belongs to the host.",
        "schema": {"type": ["string", "null"], "default": None},
    },
    **{
        name: {
            "label": f"Page of a {noun}",
            "description": f"URL of the web page of a {noun}, or its path below the web interface, "
            f"with {{workspace_id}} and {{{place}}}. Default: no link.",
            "schema": {"type": ["string", "null"], "default": None},
        }
        for name, noun, place in (
            ("run_url", "workflow run", "workflow_version_execution_id"),
            ("prompt_url", "prompt template", "prompt"),
            ("workflow_url", "workflow", "workflow"),
            ("report_url", "report", "report_id"),
        )
    },
}
"""Field of the connection's extra → label, help text and JSON schema."""

FIELD_BEHAVIOUR: Final[dict[str, Any]] = {
    "hidden-fields": ["schema", "login", "extra"],
    "relabeling": {"password": "API key", "host": "Host (optional)", "port": "Port (optional)"},
    "placeholders": {
        "password": "pl_…",
        "host": "https://api.promptlayer.com",
        "port": "443",
        "verify": "true",
        "timeout": "30",
        "proxy": "http://proxy.example.com:3128",
        "dashboard_url": "https://dashboard.promptlayer.com",
    },
}
"""The standard fields: which are hidden, and what the others are called."""


def widgets() -> dict[str, Any]:
    """Return the fields of :data:`CONN_FIELDS` as form fields of Airflow 2's web interface."""
    # Both are part of Airflow 2 alone, and not of the Airflow that types are checked against.
    from flask_appbuilder.fieldwidgets import (  # type: ignore[import-not-found]
        BS3TextFieldWidget,
    )
    from wtforms import StringField  # type: ignore[import-untyped]

    return {
        name: StringField(
            spec["label"], description=spec["description"], widget=BS3TextFieldWidget()
        )
        for name, spec in CONN_FIELDS.items()
    }
