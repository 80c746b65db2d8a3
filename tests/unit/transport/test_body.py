# SPDX-License-Identifier: Apache-2.0
"""A body arrives in chunks, and is returned without secrets and without copies."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.transport.conftest import KEY, settings_for

from airflow_provider_promptlayer.api.http import Request
from airflow_provider_promptlayer.transport.redaction import Body, Redactor
from airflow_provider_promptlayer.transport.tls import proxy_for

PROXY = "http://me:pass@proxy.invalid"
QUOTED = "bWU6cGFzcw=="  # me:pass, as a proxy is sent it
PARTS = st.lists(st.sampled_from([KEY, KEY[:9], KEY[9:], QUOTED, QUOTED[:-1], "x", "é" * 40]))


def secrets(key: str, proxy: str | None = None) -> Redactor:
    settings = settings_for("https://promptlayer.invalid", api_key=key, proxy=proxy)
    return Redactor(settings, proxy_for(settings))


def body(key: str, proxy: str | None = None) -> Body:
    return Body(Request("GET", "/x", "poll"), secrets(key, proxy))


@pytest.mark.parametrize(
    ("userinfo", "text", "redacted"),
    [
        ("tok_9876543210", "dG9rXzk4NzY1NDMyMTA6", "***"),
        ("tok_9876543210", "no user tok_9876543210", "no user ***"),
        ("me:tok_9876543210", "me and tok_9876543210", "me and ***"),
        ("me:tok%2F9876543210", "tok/9876543210 or tok\\/9876543210", "*** or ***"),
        ("me:pass", "a pass is no secret, bWU6cGFzcw== is", "a pass is no secret, *** is"),
    ],
)
def test_a_proxys_credential_is_redacted(userinfo: str, text: str, redacted: str) -> None:
    assert secrets(KEY, f"http://{userinfo}@proxy.invalid").redact(text) == redacted


@given(PARTS, st.lists(st.integers(0, 500)))
def test_no_secret_is_left_wherever_the_chunks_end(parts: list[str], ends: list[int]) -> None:
    sent = "".join(parts)
    found = body(KEY, PROXY)
    for start, end in pairwise([0, *sorted(ends), 10_000]):
        found.add(sent.encode()[start:end])
    assert found.whole().decode() == sent.replace(KEY, "***").replace(QUOTED, "***")


@pytest.mark.parametrize("key", [KEY, "short"])
def test_a_large_body_is_held_once(key: str) -> None:
    found = body(key)
    tracemalloc.start()
    try:
        for _ in range(300):
            found.add(b"x" * 65_536)
        whole = found.whole()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(whole) == 300 * 65_536
    assert peak < 1.3 * len(whole)
