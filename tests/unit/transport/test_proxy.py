# SPDX-License-Identifier: Apache-2.0
"""Proxies: both transports take the same one."""

from __future__ import annotations

import base64
import socket
from typing import Any

import pytest
from unit.transport.conftest import KEY, keep_alive

from airflow_provider_promptlayer.api.http import Request
from airflow_provider_promptlayer.exceptions import (
    PromptLayerConfigurationError,
    PromptLayerUnreachableError,
)
from airflow_provider_promptlayer.transport.blocking import PromptLayerSession
from airflow_provider_promptlayer.transport.settings import Settings
from airflow_provider_promptlayer.transport.tls import proxy_for

POLL = Request("GET", "/a%2Fb%3F?x=%23", "poll")
START = Request("POST", "/a%2Fb%3F/run", "start", b"{}")
BOTH = pytest.mark.parametrize("request_", [POLL, START], ids=["get", "post"])


@BOTH
def test_cleartext_goes_through_the_proxy(
    driver: Any, server: Any, start_proxy: Any, request_: Request
) -> None:
    proxy = start_proxy()
    (response,) = driver.send(server, request_, proxy=proxy.address())
    assert response.body == b"whole"
    assert proxy.requests[0].target == server.url + request_.path
    assert server.requests[0].target == request_.path


@BOTH
def test_tls_goes_through_a_tunnel_that_does_not_see_the_key(
    driver: Any, tls_server: Any, start_proxy: Any, certificates: Any, request_: Request
) -> None:
    proxy = start_proxy()
    (response,) = driver.send(
        tls_server, request_, proxy=proxy.address(), verify=certificates.ca_file
    )
    assert response.body == b"whole"
    (tunnel,) = proxy.requests
    assert tunnel.method == "CONNECT"
    assert tunnel.target == f"127.0.0.1:{tls_server.port}"
    assert KEY.encode() not in tunnel.raw
    assert tls_server.requests[0].headers["x-api-key"] == KEY
    assert tls_server.requests[0].target == request_.path


def test_certificates_are_checked_behind_a_proxy(
    driver: Any, tls_server: Any, start_proxy: Any
) -> None:
    with pytest.raises(PromptLayerUnreachableError) as caught:
        driver.get(tls_server, proxy=start_proxy().address())
    assert caught.value.arrived is False
    assert tls_server.requests == []


CREDENTIALS = pytest.mark.parametrize(
    ("userinfo", "sent"),
    [
        ("user:proxy-geheim", b"user:proxy-geheim"),
        ("proxy-geheim", b"proxy-geheim:"),
        ("proxy-geheim:", b"proxy-geheim:"),
        (":proxy-geheim", b":proxy-geheim"),
        ("us%40er:p%3Aw%25", b"us@er:p:w%"),
        ("\u00fcser:p%C3%B6w", "\u00fcser:p\u00f6w".encode("latin-1")),
        ("user:\u30d1\u30b9", "user:\u30d1\u30b9".encode()),
    ],
)


@CREDENTIALS
@pytest.mark.parametrize("tls", [True, False], ids=["tls", "cleartext"])
def test_credentials_go_to_the_proxy_alone(
    driver: Any,
    serve: Any,
    start_proxy: Any,
    certificates: Any,
    userinfo: str,
    sent: bytes,
    tls: bool,
) -> None:
    proxy = start_proxy()
    server = serve(keep_alive, certificates.server if tls else None)
    address = proxy.address(f"{userinfo}@")
    driver.send(server, POLL, START, proxy=address, verify=certificates.ca_file)
    expected = base64.b64encode(sent).decode()
    assert len(proxy.requests) == 2
    for received in proxy.requests:
        assert received.headers["proxy-authorization"] == f"Basic {expected}"
        assert "authorization" not in received.headers
    if tls:
        assert all("proxy-authorization" not in each.headers for each in server.requests)


@pytest.mark.parametrize("userinfo", ["", "@", ":@"])
def test_a_proxy_without_credentials_is_sent_none(
    driver: Any, server: Any, start_proxy: Any, userinfo: str
) -> None:
    proxy = start_proxy()
    driver.get(server, proxy=proxy.address(userinfo))
    assert "proxy-authorization" not in proxy.requests[0].headers


def test_the_session_gives_the_credentials_to_no_other_proxy(server: Any, start_proxy: Any) -> None:
    ours, theirs = start_proxy(), start_proxy()
    settings = Settings(server.url, KEY, proxy=ours.address("proxy-geheim@"))
    with PromptLayerSession(settings) as session:
        session.get(server.url, timeout=10)
        session.get(server.url, timeout=10, proxies={"http": theirs.address()})
    assert "proxy-authorization" in ours.requests[0].headers
    assert "proxy-authorization" not in theirs.requests[0].headers


@BOTH
def test_a_proxy_that_refuses_the_tunnel(
    driver: Any, tls_server: Any, start_proxy: Any, request_: Request
) -> None:
    proxy = start_proxy(refuse=True)
    url = proxy.address("user:proxy-geheim@")
    with pytest.raises(PromptLayerUnreachableError) as caught:
        driver.send(tls_server, request_, proxy=url)
    text = str(caught.value)
    assert "407" in text
    assert "proxy-geheim" not in text
    assert KEY not in text
    assert tls_server.connections == 0
    assert caught.value.arrived is False  # nothing was sent but CONNECT


@pytest.mark.parametrize("scheme", ["http", "https"])
@BOTH
def test_a_proxy_that_is_not_there(driver: Any, scheme: str, request_: Request) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://user:proxy-geheim@127.0.0.1:{port}"
    with pytest.raises(PromptLayerUnreachableError) as caught:
        driver.send(f"{scheme}://pl.invalid", request_, proxy=url)
    assert caught.value.arrived is False
    assert "proxy-geheim" not in str(caught.value)
    assert " at 0x" not in str(caught.value)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_the_proxy_of_the_environment(
    driver: Any, server: Any, start_proxy: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = start_proxy()
    monkeypatch.setenv(name, proxy.address().removeprefix("" if "all" in name else "http://"))
    assert driver.get(server).body == b"whole"
    assert len(proxy.requests) == 1
    monkeypatch.setenv("no_proxy", "example.com, 127.0.0.1")
    assert driver.get(server).body == b"whole"
    assert len(proxy.requests) == 1


def test_the_proxy_of_the_connection_counts_more_than_the_environment(
    driver: Any, server: Any, start_proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = start_proxy(), start_proxy()
    monkeypatch.setenv("http_proxy", theirs.address())
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert driver.get(server, proxy=ours.address()).body == b"whole"
    assert (ours.connections, theirs.connections) == (1, 0)


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://user:proxy-geheim@127.0.0.1:1",
        "http://user:proxy-/geheim@127.0.0.1:1",
        "http://user:proxy-?geheim@127.0.0.1:1",
        "http://user:proxy-#geheim@127.0.0.1:1",
        "http://user:proxy-[geheim@127.0.0.1:1",
        "user:proxy-geheim@127.0.0.1:port",
        "http://user:proxy-geheim@127.0.0.1:99999",
        "http://user:proxy-geheim@pro\u2100xy:1",
        "http://user:proxy-geheim@xn--\u00fc:1",
    ],
)
def test_a_proxy_that_cannot_be_used(
    driver: Any, server: Any, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The libraries' own errors about most of them quote the password."""
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(PromptLayerConfigurationError, match="not the URL of an HTTP") as caught:
        driver.get(server)
    assert "geheim" not in str(caught.value)
    assert server.connections == 0


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({}, "https://pl.example.com", None),
        ({"https_proxy": "p:3128"}, "https://pl.example.com", "http://p:3128"),
        ({"https_proxy": "HTTP://user:pw@P:3128/"}, "https://pl.example.com", "http://p:3128"),
        ({"http_proxy": "http://p:3128"}, "https://pl.example.com", None),
        ({"https_proxy": "http://p", "no_proxy": ".example.com"}, "https://pl.example.com", None),
        ({"https_proxy": "http://p", "no_proxy": "example.org"}, "https://a.example", "http://p"),
        ({"https_proxy": ""}, "https://pl.example.com", None),
        ({"http_proxy": "http://p", "no_proxy": "*"}, "http://10.0.0.1", None),
        ({"http_proxy": "http://p", "NO_PROXY": "10.0.0.0/8"}, "http://10.0.0.1", None),
    ],
)
def test_proxy_for(
    variables: dict[str, str],
    url: str,
    proxy: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = proxy_for(Settings(url, KEY))
    assert (found and found.url) == proxy
    assert "pw" not in repr(found)
