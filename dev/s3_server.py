# SPDX-License-Identifier: Apache-2.0
"""A private S3 server, moto's, for as long as a `with` block lasts.

    with S3Server() as lake:
        lake.filesystem.create_dir("bucket")
        env = {"AIRFLOW_CONN_LAKE": lake.airflow_connection_json}  # s3://lake@bucket/…

It keeps its objects in memory and listens on the loopback alone. dev/requirements/etl.txt has it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from dev.processes import Component, Components, free_port

START_SECONDS = 60.0
START_ATTEMPTS = 3
_KEY, _SECRET, _REGION = "local-key", "local-secret", "us-east-1"
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class S3ServerError(RuntimeError):
    """The server did not start; the message has the end of its log."""


class S3Server:
    """One server, in a process of its own."""

    def __enter__(self) -> S3Server:
        self._folder = Path(tempfile.mkdtemp(prefix="s3-server-"))
        self._components = Components({"PATH": os.defpath}, self._folder, self._folder)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self._components.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """Where it answers: the `endpoint_url` of S3 clients."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def airflow_connection_json(self) -> str:
        """An Airflow connection of type `aws` that leads here."""
        extra = {"endpoint_url": self.url, "region_name": _REGION}
        return json.dumps(
            {"conn_type": "aws", "login": _KEY, "password": _SECRET, "extra": extra},
        )

    @property
    def filesystem(self) -> Any:
        """A `pyarrow.fs.S3FileSystem` of the buckets."""
        return import_module("pyarrow.fs").S3FileSystem(
            access_key=_KEY,
            secret_key=_SECRET,
            region=_REGION,
            scheme="http",
            endpoint_override=f"127.0.0.1:{self._port}",
            allow_bucket_creation=True,
        )

    def _start(self) -> None:
        for attempt in range(1, START_ATTEMPTS + 1):
            # Another process may take the port in the moment before it is used.
            self._port = free_port()
            moto = self._components.start(
                f"moto-{attempt}",
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)],
            )
            if self._answers(moto):
                return
            self._components.kill(moto.name)
            if attempt == START_ATTEMPTS:
                raise S3ServerError(f"moto's server did not start\n{moto.tail()}")

    def _answers(self, moto: Component) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while moto.popen.poll() is None and time.monotonic() < deadline:
            with suppress(OSError), _DIRECT.open(f"{self.url}/moto-api/", timeout=5):
                return True
            time.sleep(0.1)
        return False
