# SPDX-License-Identifier: Apache-2.0
"""``python -m airflow_provider_promptlayer.testing``: a local PromptLayer until it is interrupted.

Once the server listens, its URL and API key are printed, and written to ``--ready-file``; printed
too is what there is to use, with the release labels. Each request is a line on stderr.
SIGINT and SIGTERM end it with exit code 0.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .server import LocalPromptLayer

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal arrives; return the exit code."""
    options = _parse(arguments)
    ready_file: Path | None = options.ready_file
    # Blocked before the server's thread exists, which inherits this, so that a signal does not
    # interrupt the start or the stop: it waits for sigwait.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        from . import LocalPromptLayer, load_definitions

        defined = load_definitions(options.workflows) if options.workflows else None
        server = LocalPromptLayer(
            defined and defined.workflows,
            tables=defined and defined.evaluations.tables,
            reports=defined and defined.evaluations.reports,
            request_logs=defined and defined.evaluations.request_logs,
            prompts=defined and defined.evaluations.prompts,
            api_key=options.api_key,
            host=options.host,
            port=options.port,
        )
        with server:
            _announce(server)
            _log_requests()
            if ready_file is not None:
                _write_ready_file(server, ready_file)
            signal.sigwait(_STOP_SIGNALS)
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
    except (ImportError, OSError, OverflowError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_promptlayer.testing",
        description="A local PromptLayer, to test DAGs without a key and without spending.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (%(default)s)")
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one (%(default)s)")
    parser.add_argument(
        "--workflows",
        type=Path,
        metavar="FILE",
        help="workflows, tables, reports, request logs and prompts: .toml or .json",
    )
    parser.add_argument("--api-key", default="pl_local_key", help="the key (%(default)s)")
    parser.add_argument(
        "--ready-file",
        type=Path,
        metavar="PATH",
        help="written once it listens: JSON with url, api_key and pid",
    )
    return parser.parse_args(arguments)


def _announce(server: LocalPromptLayer) -> None:
    def released(name: str, labels: dict[str, int]) -> str:
        leads = ", ".join(f"{label}: {version}" for label, version in labels.items())
        return f"{name!r} ({leads})" if leads else repr(name)

    workflows = [released(name, server.labels(workflow=name)) for name in server.workflow_names]
    prompts = [released(name, server.labels(prompt=name)) for name in server.prompt_names]
    tables = [
        f"{table.title!r} ({table.id}): "
        + ", ".join(f"{sheet.title!r} ({sheet.id})" for sheet in table.sheets)
        for table in server.tables
    ]
    reports = [f"{report.name!r} ({number})" for number, report in server.pipelines.items()]
    connection = shlex.quote(server.airflow_connection_json)
    sys.stdout.write(
        f"Local PromptLayer on {server.url}, API key {server.api_key}\n"
        f"Workflows: {', '.join(workflows) or 'none'}\n"
        f"Prompts: {', '.join(prompts) or 'none'}\n"
        f"Tables: {'; '.join(tables) or 'none'}\n"
        f"Reports: {', '.join(reports) or 'none'}\n"
        f"export AIRFLOW_CONN_PROMPTLAYER_DEFAULT={connection}\n"
    )
    sys.stdout.flush()


def _log_requests() -> None:
    from .http.app import logger

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False


def _write_ready_file(server: LocalPromptLayer, path: Path) -> None:
    content = {"url": server.url, "api_key": server.api_key, "pid": os.getpid()}
    # Renamed into place, so that no reader sees half a file.
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
