# SPDX-License-Identifier: Apache-2.0
"""A private S3 server, moto's, for as long as a `with` block lasts.

    with S3Server() as lake:
        lake.filesystem.create_dir("bucket")
        env = {"AIRFLOW_CONN_LAKE": lake.airflow_connection_json}  # s3://lake@bucket/…

It keeps its objects in memory and listens on the loopback alone. dev/requirements/etl.txt has it.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from contextlib import suppress
from importlib import import_module
from typing import Any

from dev.private_server import PrivateServer

_KEY, _SECRET, _REGION = "local-key", "local-secret", "us-east-1"
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class S3Server(PrivateServer):
    """One server, in a process of its own."""

    name = "Moto"

    @property
    def url(self) -> str:
        """Where it answers: the `endpoint_url` of S3 clients."""
        return f"http://{self._host}:{self._port}"

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
            endpoint_override=f"{self._host}:{self._port}",
            allow_bucket_creation=True,
        )

    def command(self) -> list[str]:
        """Return the command of moto's server."""
        return [sys.executable, "-m", "moto.server", "-H", self._host, "-p", str(self._port)]

    def answers(self) -> bool:
        """Return whether it answers by now."""
        with suppress(OSError), _DIRECT.open(f"{self.url}/moto-api/", timeout=5):
            return True
        return False
