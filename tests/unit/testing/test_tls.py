# SPDX-License-Identifier: Apache-2.0
"""HTTPS with good and bad certificates."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from unit.testing.conftest import get, needs_ipv6

from airflow_provider_promptlayer.testing import Close, Huge, LocalPromptLayer, Raw, Reset


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", pytest.param("::1", marks=needs_ipv6)])
def test_a_trusted_certificate(host):
    with LocalPromptLayer(tls="trusted", host=host) as server:
        assert server.url.startswith("https://")
        assert get(server, verify=server.ca_file).status_code == 200
        connection = json.loads(server.airflow_connection_json)
        assert connection["extra"] == {"verify": server.ca_file}
        with pytest.raises(requests.exceptions.SSLError):
            get(server)
        by_name = server.url.replace("127.0.0.1", "localhost")
        assert requests.get(by_name, verify=server.ca_file, timeout=60).status_code == 401


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("self-signed", "self-signed certificate"),
        ("expired", "certificate has expired"),
        ("wrong host", "IP address mismatch"),
    ],
)
def test_a_bad_certificate(kind, reason):
    with LocalPromptLayer(tls=kind) as server:
        url = urlsplit(server.url)
        context = ssl.create_default_context(cafile=server.ca_file)
        with (
            socket.create_connection((url.hostname, url.port), timeout=60) as plain,
            pytest.raises(ssl.SSLCertVerificationError, match=reason),
        ):
            context.wrap_socket(plain, server_hostname=url.hostname)
        assert server.count() == 0
        server.use_certificate("trusted")
        assert get(server, verify=server.ca_file).status_code == 200


@pytest.mark.parametrize("fault", [Close(), Close(3), Reset(), Reset(3), Raw(b"x"), Huge(9)])
def test_faults(fault):
    with LocalPromptLayer(tls="trusted") as server:
        server.script(fault)
        try:
            assert len(get(server, verify=server.ca_file).content) == 9
        except requests.RequestException:
            assert not isinstance(fault, Huge)
        assert get(server, verify=server.ca_file).status_code == 200


def test_files_go_with_the_server():
    with LocalPromptLayer(tls="trusted") as server:
        path = Path(server.ca_file)
        first = path.read_text()
    with pytest.raises(RuntimeError, match="TLS"):
        _ = server.ca_file
    assert not path.parent.exists()
    with server:
        assert Path(server.ca_file).read_text() != first


def test_mistakes():
    with LocalPromptLayer() as server:
        with pytest.raises(RuntimeError, match="TLS"):
            _ = server.ca_file
        with pytest.raises(RuntimeError, match="TLS"):
            server.use_certificate("trusted")
    with pytest.raises(ValueError, match="'nope'; there are 'trusted'"):
        LocalPromptLayer(tls="nope").start()  # type: ignore[arg-type]  # refused
