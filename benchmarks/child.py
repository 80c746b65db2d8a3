# SPDX-License-Identifier: Apache-2.0
"""Run a function in a process of its own, and return its result.

Each measurement gets a fresh interpreter, so that memory, garbage collector and imports are its
own. Arguments and result travel as JSON; the result by a file, because Airflow logs to standard
output. Run as a script by :func:`in_child` alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

_TIMEOUT_SECONDS = 300.0

_UNWANTED = {
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "PYTHONDONTWRITEBYTECODE",  # imports would compile each file each time
}


class ChildError(Exception):
    """A function failed in its process; the text is the last line that it left."""


@contextlib.contextmanager
def server_process(module: str) -> Iterator[str]:
    """Run a server's module in a process of its own, until its standard input is closed.

    Yields the first line that it writes, which says where it listens.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline()
    finally:
        process.communicate()  # closes its standard input and waits


def in_child(
    function: str,
    environment: Mapping[str, str] | None = None,
    python: str | Path = sys.executable,
    **arguments: Any,
) -> Any:
    """Return what ``benchmarks.MODULE.FUNCTION(**arguments)`` returns in a new process.

    :param function: ``"MODULE.FUNCTION"``.
    :param environment: added to a clean one with an Airflow home that is thrown away.
    :param python: the interpreter, which may be that of another environment.
    :raises ChildError: if it fails, or takes longer than five minutes.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        result = Path(folder) / "result.json"
        command = [python, "-m", __name__, function, json.dumps(arguments), str(result)]
        try:
            subprocess.run(
                command,
                cwd=ROOT,
                env={**_clean_environment(folder), **(environment or {})},
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_TIMEOUT_SECONDS,
            )
        except subprocess.CalledProcessError as error:
            lines = [line for line in str(error.stdout).splitlines() if line.strip()]
            raise ChildError(lines[-1] if lines else f"exit code {error.returncode}") from None
        except subprocess.TimeoutExpired:
            raise ChildError(f"not done after {_TIMEOUT_SECONDS:.0f} s") from None
        return json.loads(result.read_text())


def _clean_environment(airflow_home: str) -> dict[str, str]:
    """Return this process's environment without variables that would change the measurement."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith("_PROXY")
        and not name.startswith("AIRFLOW")
        and name not in _UNWANTED
    }
    return {
        **environment,
        "AIRFLOW_HOME": airflow_home,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }


def _main() -> None:
    function, arguments, result = sys.argv[1:]
    module, _, name = function.rpartition(".")
    returned = getattr(import_module(f"benchmarks.{module}"), name)(**json.loads(arguments))
    Path(result).write_text(json.dumps(returned))


if __name__ == "__main__":
    _main()
