# SPDX-License-Identifier: Apache-2.0
"""What an answer other than 2xx means."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from unit.api.answers import NOW, answer

from airflow_provider_promptlayer.api.http import (
    Origin,
    Request,
    Response,
    decode_json,
    error_for,
    error_text,
    retry_after,
)
from airflow_provider_promptlayer.exceptions import (
    PromptLayerAuthError,
    PromptLayerError,
    PromptLayerNotFoundError,
    PromptLayerRateLimitError,
    PromptLayerRefusedError,
    PromptLayerServerError,
    PromptLayerTransientError,
    PromptLayerUnexpectedAnswerError,
)

REQUEST = Request("GET", "/workflows", "list workflows")
ORIGIN = Origin("https://pl.example", "Airflow connection 'search'")
HTML = b"<html>\n<head><title>502 Bad Gateway</title></head>\n</html>"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((status, PromptLayerRefusedError) for status in (100, 301, 304, 308, 400, 402, 409, 422)),
        *((status, PromptLayerAuthError) for status in (401, 403)),
        (404, PromptLayerNotFoundError),
        (429, PromptLayerRateLimitError),
        *((status, PromptLayerServerError) for status in (408, 500, 502, 503, 504, 520, 599)),
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(HTML, id="html"),
        pytest.param(b'{"success": false, "message": "no\\nway"}', id="message"),
        pytest.param(b"[" * 100_000, id="deep"),
    ],
)
def test_the_status_decides_and_not_the_body(
    status: int, error: type[PromptLayerError], body: bytes
) -> None:
    found = error_for(REQUEST, answer(status, body), now=NOW)
    if status == 404 and b"message" not in body:
        error = PromptLayerRefusedError  # PromptLayer has not said that there is no such thing
    assert type(found) is error
    assert found.status == status
    assert found.retry_helps is (status in (408, 429) or status >= 500)
    text = str(found)
    assert text.startswith("Could not list workflows: ")
    assert f"HTTP {status}" in text
    assert "\n" not in text
    assert len(text) < 1000


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param({"success": False, "message": "Not here."}, "Not here.", id="message"),
        pytest.param({"error": "Bad key"}, "Bad key", id="error"),
        pytest.param({"message": " ", "error": "Bad key"}, "Bad key", id="blank-message"),
        pytest.param({"message": {"a": 1}, "error": "Bad key"}, "Bad key", id="odd-message"),
        pytest.param({"detail": "Not Found"}, "Not Found", id="detail-as-text"),
        pytest.param(
            {"detail": [{"loc": ["body", "metadata", 0], "msg": "str expected", "type": "x"}]},
            "body.metadata.0: str expected",
            id="fastapi",
        ),
        pytest.param(
            {"detail": [{"loc": ["query", "page"], "msg": "a"}, {"msg": "b"}, "c", 5]},
            "query.page: a; b; c; 5",
            id="fastapi-several",
        ),
        pytest.param(
            {"detail": [{"loc": ["f", i], "msg": "m"} for i in range(8)]},
            "f.0: m; f.1: m; f.2: m; f.3: m; f.4: m; and 3 more",
            id="fastapi-many",
        ),
        pytest.param({"detail": [{"loc": "body", "msg": None}]}, "None", id="fastapi-odd"),
        pytest.param({"detail": []}, '{"detail": []}', id="detail-empty"),
        pytest.param(b'{"message": "a\\u001b[2J\\u202eb"}', "a\\x1b[2J\\u202eb", id="ansi"),
        pytest.param(b'{"message": "\\ud800"}', "\\ud800", id="lone-surrogate"),
    ],
)
def test_error_text(body: Any, text: str) -> None:
    assert error_text(answer(400, body)) == text
    assert text in str(error_for(REQUEST, answer(400, body), now=NOW)) + "."


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"message": "x" * 10**6}, id="message"),
        pytest.param({"detail": [{"loc": ["x" * 10**6], "msg": "y" * 10**6}]}, id="fastapi"),
        pytest.param({"detail": ["x" * 10**5] * 20}, id="fastapi-texts"),
    ],
)
def test_a_long_error_is_cut(body: Any) -> None:
    text = error_text(answer(400, body))
    assert text is not None
    assert 100 < len(text) <= 500
    assert len(str(error_for(REQUEST, answer(500, body), now=NOW))) < 700


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "Put a valid key into the password of Airflow connection 'search'."),
        (403, "Put a valid key into the password of Airflow connection 'search'."),
        (404, "Check the name or id"),
        (302, "final address into the host of Airflow connection 'search'."),
    ],
)
def test_the_message_says_what_to_do(status: int, advice: str) -> None:
    body = {"success": False, "message": "no"}
    response = replace(answer(status, body, location="https://evil.example/?key=1"), origin=ORIGIN)
    said = str(error_for(REQUEST, response, now=NOW))
    assert advice in said
    assert "evil" not in said


FOREIGN = {
    "a page": HTML,
    "a long page": b"<!DOCTYPE html>" + b"<p>secret of the intranet" * 10_000,
    "text": b"upstream connect error",
    "nothing": b"",
    "blanks": b"  \n ",
    "a list": b"[]",
    "a word": b'"secret"',
    "a number": b"1" * 30,
    "another object": b'{"code": 5, "secret": 1}',
    "bytes": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("body", FOREIGN.values(), ids=FOREIGN.keys())
@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 422, 429, 500, 502, 503])
def test_an_answer_that_is_not_promptlayers_is_called_that(status: int, body: bytes) -> None:
    response = replace(answer(status, body), origin=ORIGIN)
    assert error_text(response) is None
    said = str(error_for(REQUEST, response, now=NOW))
    assert "https://pl.example (Airflow connection 'search') is not PromptLayer's" in said
    for page in ("html", "secret", "upstream", "1111"):
        assert page not in said


def test_a_page_with_status_200_is_called_that_too() -> None:
    with pytest.raises(PromptLayerUnexpectedAnswerError) as raised:
        decode_json(REQUEST, replace(answer(200, HTML), origin=ORIGIN))
    assert "https://pl.example (Airflow connection 'search') is not Prompt" in str(raised.value)
    assert "html" not in str(raised.value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param("0", 0.0, id="zero"),
        pytest.param("17", 17.0, id="seconds"),
        pytest.param(" 17 ", 17.0, id="blanks"),
        pytest.param("1.5", 1.5, id="fraction"),
        pytest.param("Fri, 15 Jan 2027 08:01:00 GMT", 60.0, id="date"),
        pytest.param("Fri, 15 Jan 2027 09:01:00 +0100", 60.0, id="date-with-zone"),
        pytest.param("Fri, 15 Jan 2027 08:01:00", 60.0, id="naive-date-is-utc"),
        pytest.param("Fri, 15 Jan 2027 08:01:00 -0000", 60.0, id="unknown-zone-is-utc"),
        pytest.param("Friday, 15-Jan-27 08:01:00 GMT", 60.0, id="rfc-850-date"),
        pytest.param("Fri Jan 15 08:01:00 2027", 60.0, id="asctime-date"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 -2300", 251_602_383_599.0, id="far-date"),
        pytest.param("Thu, 01 Jan 1970 00:00:00 GMT", 0.0, id="past"),
        pytest.param("", None, id="empty"),
        pytest.param("soon", None, id="word"),
        pytest.param("-1", None, id="negative"),
        pytest.param("nan", None, id="nan"),
        pytest.param("inf", None, id="infinite"),
        pytest.param("1e999", None, id="overflow"),
        pytest.param("Fri, 32 Jan 2027 08:01:00 GMT", None, id="no-such-day"),
        pytest.param("Fri, 15 Jan 99999 08:01:00 GMT", None, id="huge-year"),
        pytest.param("Fri, 15 Jan 2027 08:01:00 +9999999999", None, id="huge-zone"),
        pytest.param("Fri, 15 Jan 2027 99:99:99 GMT", None, id="no-such-time"),
        pytest.param("1, 2", None, id="list"),
        pytest.param("\x00", None, id="nul"),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}, now=NOW) == seconds
    assert retry_after({}, now=NOW) is None


@pytest.mark.parametrize("status", [429, 500, 503])
def test_retry_after_is_handed_on(status: int) -> None:
    found = error_for(REQUEST, answer(status, b"", retry_after="9"), now=NOW)
    assert isinstance(found, PromptLayerTransientError)
    assert found.retry_after == 9.0


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'"AAA"', "AAA"),
        (b"null", None),
        (b'{"a": 18446744073709551617}', {"a": 2**64 + 1}),
        (b"Infinity", float("inf")),
        (b'"\\ud800"', "\ud800"),
        (b"\xef\xbb\xbf[1]", [1]),
        (b"1" * 4000, int("1" * 4000)),
        (b"1" * 5000, "1" * 5000),  # more digits than Python converts: not a reason to fail
    ],
    ids=["string", "null", "64-bits", "infinity", "surrogate", "bom", "4000", "5000-digits"],
)
def test_decode_json(body: bytes, value: Any) -> None:
    assert decode_json(REQUEST, answer(200, body)) == value


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xff", b"<html>", b"[" * 100_000, b"1 2"],
    ids=["empty", "cut", "bytes", "html", "deep", "two-values"],
)
def test_invalid_json_is_unexpected_and_transient(body: bytes) -> None:
    with pytest.raises(PromptLayerUnexpectedAnswerError, match="is not JSON") as caught:
        decode_json(REQUEST, answer(200, body))
    assert caught.value.status == 200
    assert caught.value.retry_helps
    assert caught.value.retry_after is None
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(("status", "success"), [(199, False), (200, True), (299, True), (300, 0)])
def test_is_success(status: int, success: bool) -> None:
    assert answer(status).is_success == bool(success)


def test_reprs_hold_neither_body_nor_headers() -> None:
    assert "secret" not in repr(Request("POST", "/x", "do", b"secret"))
    assert "secret" not in repr(answer(200, b"secret", cookie="secret"))


@pytest.mark.parametrize(
    ("body", "is_slow_to_parse"),
    [
        (b'{"A": {"status": "RUNNING"}}', False),
        (b'"' + b"x" * 300_000 + b'"', True),
        (b"[" * 5_000 + b"]" * 5_000, True),  # Python's parser gives it up
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, True),
    ],
    ids=["small", "large", "deep list", "deep object"],
)
def test_what_is_slow_to_parse(body: bytes, is_slow_to_parse: bool) -> None:
    assert Response(200, {}, body).is_slow_to_parse is is_slow_to_parse
