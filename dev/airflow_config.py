# SPDX-License-Identifier: Apache-2.0
"""The environment in which a throw-away Airflow runs: every setting as AIRFLOW__SECTION__KEY.

Nothing of the caller's own Airflow leaks in: variables that start with AIRFLOW are dropped first.
Settings that an Airflow version does not know are ignored by it, so one table serves them all.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from importlib.metadata import version
from pathlib import Path

from packaging.version import Version

AIRFLOW_VERSION = Version(version("apache-airflow")).release
AIRFLOW_3 = AIRFLOW_VERSION >= (3, 0, 0)

_SIMPLE_AUTH = "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"


def airflow_environment(
    home: Path, dags_folder: Path, database_url: str, host: str, port: int, executor: str
) -> dict[str, str]:
    """Return the environment for all components of an Airflow whose server is at `host`:`port`."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    # Airflow 2's SequentialExecutor starts `airflow` by name. Not resolve(): in a virtual
    # environment the interpreter is a link to one that has no Airflow.
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    # Workers reach the API server over the loopback, never through a proxy.
    for name in ("no_proxy", "NO_PROXY"):
        env[name] = ",".join(filter(None, [env.get(name), host, "127.0.0.1", "localhost"]))
    # macOS kills a forked child that touches the system's proxy or Objective-C libraries.
    env["OBJC_DISABLE_INITIALIZE_FORK_SAFETY"] = "YES"
    env["SCARF_ANALYTICS"] = "false"
    env["AIRFLOW_HOME"] = str(home)

    server = f"http://{host}:{port}"
    settings: dict[str, dict[str, str]] = {
        "core": {
            "dags_folder": str(dags_folder),
            "executor": executor,
            "load_examples": "False",
            # A busy machine may need more than the defaults of 30 s and 50 s for its imports.
            "dagbag_import_timeout": "300",
            "dag_file_processor_timeout": "300",
            "dags_are_paused_at_creation": "True",
            # LocalExecutor starts this many processes ahead of time.
            "parallelism": "4",
            # The default asks the DNS.
            "hostname_callable": "socket.gethostname",
            # Shared by all components; otherwise each would make up its own.
            "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "auth_manager": _SIMPLE_AUTH,
            "simple_auth_manager_all_admins": "True",
            "execution_api_server_url": f"{server}/execution/",
        },
        "database": {"sql_alchemy_conn": database_url},
        "logging": {"base_log_folder": str(home / "logs"), "colored_console_log": "False"},
        "usage_data_collection": {"enabled": "False"},
        "api": {"base_url": server, "secret_key": secrets.token_hex(16)},
        "api_auth": {"jwt_secret": secrets.token_hex(32)},
        "webserver": {"base_url": server, "secret_key": secrets.token_hex(16), "workers": "1"},
        # Quick to notice things, and still slow enough that a busy machine with two cores is not
        # taken for a dead one: a triggerer is given up for lost after thirty missed heartbeats.
        "scheduler": {
            "job_heartbeat_sec": "1",
            "scheduler_heartbeat_sec": "1",
            "scheduler_idle_sleep_time": "0.2",
            "trigger_timeout_check_interval": "2",
            "dag_dir_list_interval": "5",
            # New files and changed ones are parsed at once. To parse all of them again every few
            # seconds would keep one core busy.
            "min_file_process_interval": "600",
        },
        "dag_processor": {
            "refresh_interval": "5",
            "min_file_process_interval": "600",
            "dag_file_processor_timeout": "300",
        },
        "triggerer": {"job_heartbeat_sec": "1", "triggerer_health_check_threshold": "30"},
        # With the default of five seconds, tasks fail when a busy machine's API server is slow.
        "workers": {"execution_api_timeout": "60"},
    }
    if not AIRFLOW_3:
        del settings["core"]["auth_manager"]
        del settings["api"]["base_url"]
    for section, options in settings.items():
        for key, value in options.items():
            env[f"AIRFLOW__{section}__{key}".upper()] = value
    return env
