# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 answers as they come from a line, whole, in pieces and broken."""

from __future__ import annotations

import io
import re

import pytest

from numamigration_agent.http1 import ProtocolError, Response, parse_server, request_bytes, with_query

BODY_MAX = 1 << 20


def response(*parts: bytes) -> Response:
    return Response(io.BufferedReader(io.BytesIO(b"".join(parts))))


@pytest.mark.parametrize(
    ("content", "body", "reusable"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcNEXT", b"abc", True, id="a length"),
        pytest.param(b"HTTP/1.1 200\r\ncontent-length:3\r\n\r\nabc", b"abc", True, id="no phrase, no space"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nabc", b"abc", False, id="neither: to the end of the connection"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\nT: r\r\n\r\nNEXT",
            b"abc",
            True,
            id="chunks, with an extension and a trailer",
        ),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", b"a", True, id="1xx before"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 1\r\n\r\na", b"a", False, id="the server closes"
        ),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\nNEXT", b"", True, id="204 has no body"),
    ],
)
def test_a_body_is_read_to_its_end_and_no_further(content: bytes, body: bytes, reusable: bool) -> None:
    answer = response(content)

    assert (answer.read(BODY_MAX), answer.ended, answer.reusable) == (body, True, reusable)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", id="in a body of known length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", id="in a chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", id="between chunks"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", id="before the last empty line"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", id="in a header"),
    ],
)
def test_a_connection_that_ends_early_is_an_error(content: bytes) -> None:
    with pytest.raises(ProtocolError, match="ended in the middle"):
        response(content).read(BODY_MAX)


def test_a_connection_that_ends_before_an_answer_is_told_apart() -> None:
    with pytest.raises(ConnectionResetError):
        response(b"")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 2x0 OK\r\n\r\n", id="no status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", id="a negative length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n", id="a signed chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\na\r\n", id="no hexadecimal"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 101 + b"\r\n", id="headers without end"),
        pytest.param(b"HTTP/1.1 200 " + b"x" * (1 << 17), id="a line without end"),
    ],
)
def test_what_is_no_http_is_an_error(content: bytes) -> None:
    with pytest.raises(ProtocolError):
        response(content).read(BODY_MAX)


def test_a_piece_comes_before_the_next_one_is_there() -> None:
    answer = response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\n")

    assert answer.read1(BODY_MAX) == b"abc"
    assert not answer.ended


def test_no_more_is_read_than_was_asked_for() -> None:
    answer = response(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")

    assert (answer.read(2), answer.ended, answer.read(2), answer.ended) == (b"ab", False, b"c", True)


def test_a_header_is_found_whatever_its_case() -> None:
    assert response(b"HTTP/1.1 429 Slow\r\nRETRY-after: 7\r\n\r\n").header("retry-after") == "7"


def test_a_request_has_its_length() -> None:
    sent = request_bytes("PATCH", "/x?y=1", "h:1", {"A": "b"}, b"{}")

    assert sent == b"PATCH /x?y=1 HTTP/1.1\r\nHost: h:1\r\nA: b\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize("target", ["/x\r\nA: b", "/x\n", "/\x7f"])
def test_a_request_that_would_forge_a_header_is_not_made(target: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        request_bytes("GET", target, "h", {}, None)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        pytest.param("https://10.96.0.1:6443", "10.96.0.1", 6443, id="IPv4 address"),
        pytest.param("https://[fd00::1]:6443", "fd00::1", 6443, id="IPv6 address"),
        pytest.param("https://[fd00::1]", "fd00::1", 443, id="IPv6 address without a port"),
        pytest.param("https://kubernetes.default.svc/", "kubernetes.default.svc", 443, id="name, with a slash"),
        pytest.param("https://a:65535", "a", 65535, id="highest port"),
    ],
)
def test_a_server_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    assert parse_server(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("https://a:0", id="no port"),
        pytest.param("https://a:65536", id="one past the highest port"),
        pytest.param("https://a\n", id="line break"),
        pytest.param("https://fd00::1", id="IPv6 address without brackets"),
        pytest.param("https://a?b", id="query"),
        pytest.param("https://a#b", id="fragment"),
        pytest.param("https://u@a", id="user"),
        pytest.param("http://a", id="no TLS"),
    ],
)
def test_what_is_more_or_less_than_a_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        parse_server(text)


def test_what_stands_in_a_query_cannot_end_it() -> None:
    target = with_query("/x", {"fieldSelector": "metadata.name=a&b", "continue": "é /+"})

    assert target == "/x?fieldSelector=metadata.name%3Da%26b&continue=%C3%A9%20%2F%2B"
