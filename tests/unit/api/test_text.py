# SPDX-License-Identifier: Apache-2.0
"""Foreign text cannot forge log lines, drive a terminal or flood a log."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_promptlayer.api.text import EXCERPT_LIMIT, MESSAGE_LIMIT, excerpt, one_line


def is_harmless(line: str) -> bool:
    """Whether ``line`` is a single line without control, format or unassigned characters."""
    return len(line.splitlines()) <= 1 and not any(
        unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
        for character in line
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("plain", "plain", id="plain"),
        pytest.param("", "", id="empty"),
        pytest.param("  around \n", "around", id="stripped"),
        pytest.param("a\nb\r\nc\td", "a b  c d", id="breaks-and-tabs"),
        pytest.param("a\x85b\u2028c\u2029d\ve\ff", "a b c d e f", id="unicode-breaks"),
        pytest.param("a\x1cb\x1eb", "a\\x1cb\\x1eb", id="ascii-separators"),
        pytest.param("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m", id="ansi"),
        pytest.param("a\x9b31mb", "a\\x9b31mb", id="c1-csi"),
        pytest.param("a\x00b\x7fc", "a\\x00b\\x7fc", id="nul-and-del"),
        pytest.param("a\u202eb\u2066c", "a\\u202eb\\u2066c", id="bidi"),
        pytest.param("a\u200bb\ufeffc", "a\\u200bb\\ufeffc", id="zero-width"),
        pytest.param("a\ud800b", "a\\ud800b", id="lone-surrogate"),
        pytest.param("\U000e0041x", "\\U000e0041x", id="tag-character"),
        pytest.param("\ue000", "\\ue000", id="private-use"),
        pytest.param("größe 日本 🎉", "größe 日本 🎉", id="unicode-stays"),
    ],
)
def test_one_line(text: str, line: str) -> None:
    assert one_line(text) == line
    line.encode()  # can be written to any log


@pytest.mark.parametrize(
    ("text", "limit", "line"),
    [
        pytest.param("abcde", 5, "abcde", id="just-fits"),
        pytest.param("abcdef", 5, "abcd…", id="one-too-long"),
        pytest.param("abc   defg", 5, "abc…", id="no-blank-before-the-mark"),
        pytest.param("\x1b" * 5, 5, "\\x1b…", id="cut-after-escaping"),
        pytest.param("ab", 1, "…", id="limit-of-one"),
        pytest.param("x" * 10_000_000, 10, "x" * 9 + "…", id="megabytes"),
    ],
)
def test_one_line_is_cut(text: str, limit: int, line: str) -> None:
    assert one_line(text, limit) == line


@pytest.mark.parametrize("blanks", [MESSAGE_LIMIT + 1, 100_000])
def test_blanks_before_the_text_do_not_hide_it(blanks: int) -> None:
    assert one_line("\n" * blanks + "gateway time-out") == "gateway time-out"


def test_a_cut_is_marked_even_where_it_falls_on_a_blank() -> None:
    assert one_line("a" * 10 + " " + "b" * 90, 10).endswith("…")


@settings(max_examples=150)
@given(st.text(st.characters(), max_size=80), st.integers(1, 60))
def test_one_line_of_anything_is_harmless_and_short(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert is_harmless(line)
    assert len(line) <= limit


@settings(max_examples=100)
@given(st.binary(max_size=300), st.integers(1, 60))
def test_an_excerpt_of_anything_is_harmless_and_short(body: bytes, limit: int) -> None:
    line = excerpt(body, limit)
    assert is_harmless(line)
    assert len(line) <= limit


@pytest.mark.parametrize(
    ("body", "line"),
    [
        pytest.param(b"<html>\n<b>502</b>", "<html> <b>502</b>", id="html"),
        pytest.param(b"\xff\xfea", "\ufffd\ufffda", id="invalid-utf-8"),
        pytest.param(b"", "", id="empty"),
        pytest.param("ü".encode() * 1000, "ü" * (EXCERPT_LIMIT - 1) + "…", id="long"),
        pytest.param("🎉".encode() * 1000, "🎉" * (EXCERPT_LIMIT - 1) + "…", id="four-bytes"),
    ],
)
def test_excerpt(body: bytes, line: str) -> None:
    assert excerpt(body) == line
