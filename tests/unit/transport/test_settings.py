# SPDX-License-Identifier: Apache-2.0
"""An Airflow connection, read into settings."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from airflow_provider_promptlayer.api.links import Dashboard
from airflow_provider_promptlayer.exceptions import PromptLayerConfigurationError
from airflow_provider_promptlayer.transport.settings import (
    DEFAULT_BASE_URL,
    DEFAULT_TIMEOUT,
    Settings,
    read_connection,
)

KEY = "pl_0123456789abcdef"


def connection(**fields: Any) -> Any:
    known = {
        "conn_id": "promptlayer_default",
        "host": None,
        "port": None,
        "schema": None,
        "password": KEY,
        "extra": None,
    }
    assert not set(fields) - set(known)
    return SimpleNamespace(**{**known, **fields})


def with_extra(**extra: Any) -> Any:
    return connection(extra=json.dumps(extra))


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({}, DEFAULT_BASE_URL),
        ({"host": "  "}, DEFAULT_BASE_URL),
        ({"schema": "http"}, DEFAULT_BASE_URL),
        ({"host": "pl.example.com"}, "https://pl.example.com"),
        ({"host": " pl.example.com \n"}, "https://pl.example.com"),
        ({"host": "pl.example.com/"}, "https://pl.example.com"),
        ({"host": "https://pl.example.com/"}, "https://pl.example.com"),
        ({"host": "HTTPS://PL.Example.COM"}, "https://pl.example.com"),
        ({"host": "http://pl.example.com"}, "http://pl.example.com"),
        ({"host": "pl.example.com/prefix/"}, "https://pl.example.com/prefix"),
        ({"host": "https://pl.example.com:8443/Api/v2"}, "https://pl.example.com:8443/Api/v2"),
        ({"host": "pl.example.com/a", "port": 8443}, "https://pl.example.com:8443/a"),
        ({"host": "pl.example.com:8443"}, "https://pl.example.com:8443"),
        ({"host": "pl.example.com", "port": "8443"}, "https://pl.example.com:8443"),
        ({"host": "pl.example.com:1", "port": 2}, "https://pl.example.com:1"),
        ({"host": "http://pl.example.com", "port": 80}, "http://pl.example.com"),
        ({"host": "http://pl.example.com", "port": 443}, "http://pl.example.com:443"),
        ({"host": "pl.example.com", "port": 443}, "https://pl.example.com"),
        ({"host": "https://pl.example.com:443/a"}, "https://pl.example.com/a"),
        ({"host": "M\u00fcnchen.example"}, "https://xn--mnchen-3ya.example"),
        ({"host": "stra\u00dfe.example"}, "https://xn--strae-oqa.example"),
        ({"host": "pl.example.com/a/../b"}, "https://pl.example.com/b"),
        ({"host": "pl.example.com/../../a/.."}, "https://pl.example.com"),
        ({"host": "pl.example.com/a/%2E%2e/b"}, "https://pl.example.com/b"),
        ({"host": "pl.example.com//a//b//"}, "https://pl.example.com/a//b"),
        ({"host": "pl.example.com/a/..//b"}, "https://pl.example.com/b"),
        ({"host": "pl.example.com/%7Eme/%41"}, "https://pl.example.com/~me/A"),
        ({"host": "pl.example.com/a%2fb%c3%bc"}, "https://pl.example.com/a%2Fb%C3%BC"),
        ({"host": "pl.example.com/100%/%zz"}, "https://pl.example.com/100%25/%25zz"),
        ({"host": "pl.example.com/\u00fc [x]"}, "https://pl.example.com/%C3%BC%20%5Bx%5D"),
        ({"host": "::1", "port": 8443}, "https://[::1]:8443"),
        ({"host": "2001:DB8::1"}, "https://[2001:db8::1]"),
        ({"host": "[::1]:8443"}, "https://[::1]:8443"),
        ({"host": "http://[::1]:8443/x"}, "http://[::1]:8443/x"),
        ({"host": "pl.example.com", "schema": "http"}, "http://pl.example.com"),
        ({"host": "pl.example.com", "schema": "HTTP "}, "http://pl.example.com"),
        ({"host": "pl.example.com", "schema": "https"}, "https://pl.example.com"),
        ({"host": "pl.example.com", "schema": "public"}, "https://pl.example.com"),
        ({"host": "https://pl.example.com", "schema": "http"}, "https://pl.example.com"),
        ({"host": "http://pl.example.com", "schema": "https"}, "http://pl.example.com"),
        ({"host": "pl.example.com:8443/v1:beta"}, "https://pl.example.com:8443/v1:beta"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_base_url(fields: dict[str, Any], url: str) -> None:
    assert read_connection(connection(**fields)).base_url == url


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "https://user:pw@pl.example.com"},
        {"host": "user:pw@pl.example.com"},
        {"host": "https://pl.example.com?key=1"},
        {"host": "https://pl.example.com#top"},
        {"host": "ftp://pl.example.com"},
        {"host": "file:///etc/passwd"},
        {"host": "https://"},
        {"host": "//pl.example.com"},
        {"host": "/path"},
        {"host": "https://[::1"},
        {"host": "https://pl.example.com:abc"},
        {"host": "https://pl.example.com:99999"},
        {"host": "pl.example.com", "port": "abc"},
        {"host": "pl.example.com", "port": 65536},
        {"host": "pl.example.com", "port": -1},
        {"host": "my host"},
        {"host": "https://pl example.com"},
        {"host": "pl.exam\x00ple.com"},
        {"host": "pl%41.example.com"},
        {"host": "xn--\u00fc.example.com"},
        {"host": "m\u00fcnchen..example"},
    ],
    ids=str,
)
def test_an_invalid_host(fields: dict[str, Any]) -> None:
    with pytest.raises(PromptLayerConfigurationError, match="'promptlayer_default'") as caught:
        read_connection(connection(**fields))
    assert KEY not in str(caught.value)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "cleartext"),
    [
        ("https://pl.example.com", False),
        ("http://pl.example.com", True),
        ("http://10.0.0.1:8000", True),
        ("http://127.0.0.1.example.com", True),
        ("http://localhost.example.com", True),
        ("http://[2001:db8::1]", True),
        ("http://127.0.0.1:8000/x", False),
        ("http://127.9.9.9", False),
        ("http://localhost:8000", False),
        ("http://LOCALHOST.", False),
        ("http://[::1]:8000", False),
    ],
)
def test_is_cleartext(url: str, cleartext: bool) -> None:
    assert Settings(url, KEY).is_cleartext is cleartext


def test_blanks_around_the_key_are_dropped() -> None:
    assert read_connection(connection(password=f"\t{KEY}\r\n")).api_key == KEY


@pytest.mark.parametrize(
    ("password", "says"),
    [
        *((missing, "no API key") for missing in (None, "", "  \n")),
        *(
            (f"pl_{odd}", "paste it again")
            for odd in ("\nb", "\r\nX: 1", "ü", "\0", "\ud800", "\x7f")
        ),
    ],
    ids=ascii,
)
def test_a_key_that_cannot_be_sent(password: str | None, says: str) -> None:
    with pytest.raises(PromptLayerConfigurationError, match=says) as caught:
        read_connection(connection(password=password))
    assert "pl_" not in str(caught.value)


def test_reprs_show_neither_the_key_nor_the_proxy_password() -> None:
    settings = read_connection(with_extra(proxy="http://user:geheim@proxy.example.com:3128"))
    for text in (repr(settings), str(settings), f"{settings}"):
        assert KEY not in text
        assert "geheim" not in text
    assert settings.proxy == "http://user:geheim@proxy.example.com:3128"


@pytest.mark.parametrize(
    "extra",
    [
        None,
        "",
        "{}",
        '{"timeout": null, "verify": null, "proxy": null}',
        '{"other": 1}',
        '{"timeout": "", "verify": "", "proxy": ""}',
    ],
)
def test_the_extra_is_optional(extra: str | None) -> None:
    settings = read_connection(connection(extra=extra))
    assert (settings.timeout, settings.verify, settings.proxy) == (DEFAULT_TIMEOUT, True, None)


@pytest.mark.parametrize(
    "extra",
    ["no json", "[1]", "5", '"text"', "null", '{"a":', '{"a":' + "[" * 100_000, '{"a": "\ud800'],
    ids=["text", "list", "number", "string", "null", "cut", "deep", "surrogate"],
)
def test_an_extra_that_is_no_object(extra: str) -> None:
    with pytest.raises(PromptLayerConfigurationError, match="not a JSON object"):
        read_connection(connection(extra=extra))


PROXIES = ["http://p:3128", "https://p.example.com", "HTTP://p", "http://u:pw@p:1"]
PROXIES += ["http://[::1]:3128", "http://prö.example.com:1", "http://my_proxy.local.:1"]


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        *(("timeout", value, 5.0) for value in (5, 5.0, "5", " 5.0 ")),
        *(("verify", value, True) for value in (True, "true", "True", "1", "yes", "on")),
        *(("verify", value, False) for value in (False, "false", " False ", "0", "no", "off")),
        *(("verify", value, "/etc/ca.pem") for value in ("/etc/ca.pem", " /etc/ca.pem ")),
        *(("proxy", value, value) for value in PROXIES),
    ],
)
def test_a_field_of_the_extra(name: str, value: Any, read: Any) -> None:
    found = getattr(read_connection(with_extra(**{name: value})), name)
    assert (found, type(found)) == (read, type(read))


NO_SECONDS: list[Any] = [0, -1, "0", "abc", True, False, [], [5], {}, "nan", "inf", float("inf")]
NO_SECONDS += [10**400, "1e999"]
NO_VERIFY: list[Any] = [[], {}, 1.5, ["x"], 7]
NO_PROXIES: list[Any] = ["p:3128", "p", "socks5://u:geheim@p:1", "http://", "http://:1"]
NO_PROXIES += ["http://p:99999", "http://p:0", "http://[::1", "http://p:x", "http://pro xy:1"]
NO_PROXIES += ["http://pro..xy:1", "http://xn--ü:1", 5, {}, True, ["http://p"]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("timeout", value) for value in NO_SECONDS),
        *(("verify", value) for value in NO_VERIFY),
        *(("proxy", value) for value in NO_PROXIES),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_field_of_the_extra_that_cannot_be_used(name: str, value: Any) -> None:
    with pytest.raises(PromptLayerConfigurationError, match=f"'{name}' in the extra") as caught:
        read_connection(with_extra(**{name: value}))
    assert "geheim" not in str(caught.value)


def test_equal_connections_are_equal_settings() -> None:
    first, second = (read_connection(with_extra(timeout=5)) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != read_connection(connection(password="other", extra='{"timeout": 5}'))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
SCRAP = st.text(st.sampled_from("ab:/[]@?#%.0189 \x00\\é-"), max_size=14)
FIELD = st.none() | SCRAP | st.text(max_size=10) | st.integers()


@hypothesis_settings(max_examples=250)
@given(
    host=FIELD | SCRAP.map("http://{}".format) | SCRAP.map("https://a{}".format),
    port=st.none() | st.integers() | st.text(max_size=6),
    schema=FIELD,
    password=st.just(KEY) | FIELD,
    extra=st.none()
    | st.text(max_size=12)
    | JSON.map(json.dumps)
    | st.fixed_dictionaries(
        {},
        optional={"timeout": JSON, "verify": JSON, "proxy": JSON | SCRAP.map("http://{}".format)},
    ).map(json.dumps),
)
def test_any_fields_give_settings_or_a_clear_error(
    host: Any, port: Any, schema: Any, password: Any, extra: Any
) -> None:
    fields = connection(host=host, port=port, schema=schema, password=password, extra=extra)
    with contextlib.suppress(PromptLayerConfigurationError):
        settings = read_connection(fields)
        assert settings.base_url.startswith(("http://", "https://"))
        assert not settings.base_url.endswith("/")
        again = read_connection(connection(host=settings.base_url))
        assert again.base_url == settings.base_url
        assert isinstance(settings.is_cleartext, bool)
        assert settings.timeout > 0
        assert settings.api_key.isascii()


@pytest.mark.parametrize(
    ("host", "extra", "dashboard"),
    [
        (None, {}, Dashboard("https://dashboard.promptlayer.com")),
        ("api.eu.promptlayer.com", {}, Dashboard("https://dashboard.eu.promptlayer.com")),
        ("http://127.0.0.1:8000", {}, Dashboard()),
        (
            None,
            {"dashboard_url": " https://pl.example.com/ui/ "},
            Dashboard("https://pl.example.com/ui"),
        ),
        (
            "http://127.0.0.1:8000",
            {"dashboard_url": "http://127.0.0.1:3000", "run_url": "/r/{workspace_id}"},
            Dashboard("http://127.0.0.1:3000", run_url="/r/{workspace_id}"),
        ),
        (
            "pl.example.com",
            {"report_url": "https://x.example.com/{report_id}", "prompt_url": "/{prompt}"},
            Dashboard(None, report_url="https://x.example.com/{report_id}", prompt_url="/{prompt}"),
        ),
    ],
    ids=str,
)
def test_where_the_web_pages_are(
    host: str | None, extra: dict[str, Any], dashboard: Dashboard
) -> None:
    found = read_connection(connection(host=host, extra=json.dumps(extra)))
    assert found.dashboard == dashboard
    assert hash(found) == hash(read_connection(connection(host=host, extra=json.dumps(extra))))


@pytest.mark.parametrize("name", ["dashboard_url", "run_url", "prompt_url", "workflow_url"])
@pytest.mark.parametrize(
    "value",
    [
        "javascript:alert(1)",
        "pl.example.com",
        "https://user:geheim@pl.example.com",
        f"https://pl.example.com/{KEY}",
        "https://pl.example.com/{report_id}?{sheet_id}",
        5,
        ["https://pl.example.com"],
    ],
    ids=str,
)
def test_what_is_no_web_page(name: str, value: Any) -> None:
    with pytest.raises(PromptLayerConfigurationError, match=f"'{name}' in the extra") as caught:
        read_connection(with_extra(**{name: value}))
    assert KEY not in str(caught.value)
    assert "geheim" not in str(caught.value)
