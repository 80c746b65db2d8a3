# SPDX-License-Identifier: Apache-2.0
"""Certificates: both transports trust the same ones."""

from __future__ import annotations

import os
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from unit.transport.conftest import BOTH, KEY, POLL

from airflow_provider_promptlayer.api.http import Request
from airflow_provider_promptlayer.exceptions import (
    PromptLayerConfigurationError,
    PromptLayerUnreachableError,
)
from airflow_provider_promptlayer.testing import LocalPromptLayer


def refusal(
    driver: Any, where: Any, request: Request = POLL, **changes: Any
) -> PromptLayerUnreachableError:
    with pytest.raises(PromptLayerUnreachableError) as caught:
        driver.send(where, request, **changes)
    text = str(caught.value)
    assert KEY not in text
    assert " at 0x" not in text
    assert len(text.splitlines()) == 1
    return caught.value


@BOTH
def test_a_certificate_of_an_unknown_ca_is_refused(
    driver: Any, tls_server: Any, request_: Request
) -> None:
    error = refusal(driver, tls_server, request_)
    assert error.arrived is False
    assert "certificate" in str(error).lower()
    assert tls_server.requests == []


@BOTH
def test_the_error_says_that_a_host_does_not_answer_with_tls(
    driver: Any, request_: Request
) -> None:
    with LocalPromptLayer() as server:
        error = refusal(driver, server.url.replace("http://", "https://"), request_)
    assert error.arrived is False
    assert "does not answer with TLS" in str(error)
    assert "begins with http://" in str(error)


@BOTH
def test_a_ca_file_of_the_connection(
    driver: Any, tls_server: Any, certificates: Any, request_: Request
) -> None:
    (response,) = driver.send(tls_server, request_, verify=certificates.ca_file)
    assert response.body == b"whole"


@BOTH
def test_a_ca_file_of_another_ca(
    driver: Any, tls_server: Any, certificates: Any, request_: Request
) -> None:
    error = refusal(driver, tls_server, request_, verify=certificates.other_ca_file)
    assert error.arrived is False
    assert tls_server.requests == []


def test_a_name_that_is_not_in_the_certificate(
    driver: Any, tls_server: Any, certificates: Any
) -> None:
    url = tls_server.url.replace("127.0.0.1", "127.0.0.2")
    assert refusal(driver, url, verify=certificates.ca_file).arrived is False
    assert tls_server.requests == []


def test_verify_false_accepts_any_certificate_whatever_the_environment_says(
    driver: Any, tls_server: Any, certificates: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificates.other_ca_file)
    assert driver.get(tls_server, verify=False).body == b"whole"


def test_the_ca_files_of_the_environment_have_an_order(
    driver: Any, tls_server: Any, certificates: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURL_CA_BUNDLE", certificates.ca_file)
    assert driver.get(tls_server).body == b"whole"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificates.other_ca_file)
    refusal(driver, tls_server)
    assert driver.get(tls_server, verify=certificates.ca_file).body == b"whole"


def test_a_ca_file_that_is_replaced_is_read_again(
    driver: Any, tls_server: Any, certificates: Any, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(Path(certificates.other_ca_file).read_bytes())
    os.utime(bundle, (1, 1))
    refusal(driver, tls_server, verify=str(bundle))
    bundle.write_bytes(Path(certificates.ca_file).read_bytes())
    assert driver.get(tls_server, verify=str(bundle)).body == b"whole"


@BOTH
@pytest.mark.parametrize("content", [None, b"", b"no certificate"], ids=["none", "empty", "text"])
def test_a_ca_file_that_cannot_be_used(
    driver: Any, tls_server: Any, tmp_path: Path, content: bytes | None, request_: Request
) -> None:
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_bytes(content)
    with pytest.raises(PromptLayerConfigurationError, match="CA file"):
        driver.send(tls_server, request_, verify=str(bundle))
    assert tls_server.requests == []


def test_a_ca_folder(driver: Any, tls_server: Any, certificates: Any, tmp_path: Path) -> None:
    assert refusal(driver, tls_server, verify=str(tmp_path)).arrived is False


@BOTH
def test_a_handshake_that_never_ends(driver: Any, server: Any, request_: Request) -> None:
    """The server waits for an HTTP request."""
    error = refusal(driver, server.url.replace("http:", "https:"), request_, timeout=0.4)
    # Whether a poll arrived does not matter: aiohttp may not tell.
    assert error.arrived is False or request_.method == "GET"
    assert server.requests == []


@BOTH
@pytest.mark.parametrize("ending", ["closed", "reset", "plain-http"])
def test_a_handshake_that_breaks_off(driver: Any, request_: Request, ending: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def hang_up() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(20)
                connection.recv(65536)
                if ending == "reset":
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                elif ending == "plain-http":
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        error = refusal(driver, f"https://127.0.0.1:{listener.getsockname()[1]}", request_)
        thread.join(60)
    assert error.arrived is False
