# SPDX-License-Identifier: Apache-2.0
"""The section ``[promptlayer]`` of Airflow's configuration: defaults for all tasks of a site.

Each option is the default of the argument of the same name, and an argument that is given wins.
They are read when an operator is made, which every process that runs a task does anew.
"""

from __future__ import annotations

import datetime
from typing import Any, Final, TypeVar

from airflow_provider_promptlayer.api.arguments import seconds
from airflow_provider_promptlayer.polling.poller import DEFAULT_MAX_OUTAGE

_SECTION: Final = "promptlayer"

T = TypeVar("T")

CONFIG: Final[dict[str, Any]] = {
    _SECTION: {
        "description": "Defaults for the tasks of the PromptLayer provider. An argument of an "
        "operator or a sensor wins over the option of the same name.",
        "options": {
            "default_deferrable": {
                "description": "Whether tasks wait in the triggerer, without holding a worker. "
                "Set it to False where no triggerer runs. ``[operators] default_deferrable`` is "
                "not read: every configuration file that Airflow generates has it as False, "
                "which says nothing about whether there is a triggerer.",
                "version_added": "0.1.0",
                "type": "boolean",
                "example": "False",
                "default": "True",
            },
            "poke_interval": {
                "description": "Seconds between two polls. Empty for intervals that grow with the "
                "wait, from 2 s to 60 s.",
                "version_added": "0.1.0",
                "type": "float",
                "example": "30",
                "default": None,
            },
            "defer_after": {
                "description": "Seconds for which a task polls in its worker before it defers. "
                "Empty for 10. A mapped task, one that waits for a version, and one whose retry "
                "would not go back to what it has started defer at once all the same, unless they "
                "have the argument themselves.",
                "version_added": "0.1.0",
                "type": "float",
                "example": "0",
                "default": None,
            },
            "max_outage": {
                "description": "Seconds for which PromptLayer may be out of reach before a task "
                "fails.",
                "version_added": "0.1.0",
                "type": "float",
                "example": "7200",
                "default": f"{DEFAULT_MAX_OUTAGE:g}",
            },
            "timeout": {
                "description": "Seconds after which a wait fails. Empty for ``[sensors] "
                "default_timeout``.",
                "version_added": "0.1.0",
                "type": "float",
                "example": "86400",
                "default": None,
            },
        },
    }
}
"""The section as the provider's metadata describe it."""


def default_deferrable() -> bool:
    """Return whether tasks that do not say so themselves wait in the triggerer.

    :raises AirflowConfigException: if the option is not a boolean.
    """
    is_set = _is_set("default_deferrable")
    return not is_set or bool(_conf().getboolean(_SECTION, "default_deferrable"))


def default_seconds(name: str, otherwise: T, *, zero: bool = False) -> float | T:
    """Return the seconds of an option.

    :param otherwise: what to return where the option is not set.
    :param zero: whether 0 is taken.
    :raises AirflowConfigException: if the option is not a number.
    :raises PromptLayerInvalidInputError: if it is negative, or a 0 that is not taken.
    """
    if not _is_set(name):
        return otherwise
    return seconds(f"[{_SECTION}] {name}", _conf().getfloat(_SECTION, name), zero=zero)


def given_seconds(name: str, given: datetime.timedelta | float | None, otherwise: T) -> float | T:
    """Return the seconds of an argument, which may be 0; without one, those of the option.

    :param given: the argument, or None.
    :param otherwise: see :func:`default_seconds`, as for what is raised.
    """
    if given is None:
        return default_seconds(name, otherwise, zero=True)
    return seconds(name, given, zero=True)


def _is_set(name: str) -> bool:
    # Empty is unset: an option without a default is empty in a file that Airflow generates.
    return bool(str(_conf().get(_SECTION, name, fallback=None) or "").strip())


def _conf() -> Any:
    # Not above, because get_provider_info reads CONFIG and does not import Airflow.
    from airflow.providers.common.compat.sdk import conf

    return conf
