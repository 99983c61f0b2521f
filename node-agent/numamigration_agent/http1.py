# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 as far as the API server and proxies before it speak it: requests as bytes, answers read from a stream.

The standard library's ``http.client`` would parse headers with the ``email`` package: two megabytes for as long as the
agent runs, and a sixth of the CPU time of its start.

* A body has chunks, a length, or goes on to the end of the connection; after the last kind, and after
  ``Connection: close``, the connection cannot carry another request.
* A connection that ends in the middle of an answer is an error, never a short answer.
* Everything that a peer can make long is bounded.
* Nor are addresses and queries left to ``urllib.parse``, which keeps half a megabyte for IP addresses.

Sources: RFC 9112; RFC 3986, 2 (percent-encoding) and 3.2 (authority).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import BufferedReader
from typing import Final

LINE_BYTES_MAX: Final = 1 << 16
HEADERS_MAX: Final = 100
BODILESS: Final = frozenset({204, 304})
HTTPS_PORT: Final = 443
PORT_MAX: Final = 65535

_SERVER: Final = re.compile(r"https://(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?/*")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class ProtocolError(Exception):
    """What came is not HTTP/1.1, or ends too early."""


def parse_server(text: str) -> tuple[str, int]:
    """Return host and port of https://HOST[:PORT]; an IPv6 address stands in brackets, and comes without.

    Raises:
        ValueError: it is something else, or has more than that.
    """
    match = _SERVER.fullmatch(text)
    port = int(match[3] or HTTPS_PORT) if match else 0
    if match is None or not 0 < port <= PORT_MAX:
        raise ValueError(text)
    return match[1] or match[2], port


def percent_encoded(text: str) -> str:
    """Return text as one part of a path or query."""
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in text.encode())


def with_query(path: str, query: Mapping[str, str]) -> str:
    """Return the target of a request."""
    return f"{path}?" + "&".join(f"{percent_encoded(name)}={percent_encoded(text)}" for name, text in query.items())


def request_bytes(method: str, target: str, host: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """Return a request.

    Raises:
        ValueError: a line break or another control character where one would forge a header.
    """
    length = {} if body is None else {"Content-Length": str(len(body))}
    fields = {"Host": host, **headers, **length}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    if not all(line.isprintable() for line in lines):
        raise ValueError("a request line or header has control characters")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


class Response:
    """One answer; its body is read piece by piece.

    Attributes:
        status, reason: of the status line.
        ended: the body was read to its end.
        reusable: the connection can carry another request then.

    Raises:
        ConnectionResetError: the connection ended before a byte of an answer.
        ProtocolError: it is no HTTP answer.
    """

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream
        self.status = 100
        while self.status < 200:  # 1xx announces the answer
            self.status, self.reason = _status(_line(stream, begins=True))
            self._headers = _headers(stream)
        words = {word.strip().lower() for word in self._headers.get("connection", "").split(",")}
        self._chunked = self._headers.get("transfer-encoding", "").lower() == "chunked"
        self._left = 0 if self._chunked or self.status in BODILESS else self._length()
        self.ended = self._left == 0 and not self._chunked
        self.reusable = "close" not in words and self._left is not None

    def header(self, name: str) -> str | None:
        """Return a header's value; its name in small letters."""
        return self._headers.get(name)

    def read1(self, bytes_max: int) -> bytes:
        """Return what there is of the body, waiting for at least a byte; nothing at its end.

        Raises:
            ProtocolError: the connection ended before the body did.
        """
        if self._chunked and not self.ended and self._left == 0:
            self._next_chunk()
        if self.ended:
            return b""
        piece = self._stream.read1(bytes_max if self._left is None else min(bytes_max, self._left))
        self._took(piece)
        return piece

    def read(self, bytes_max: int) -> bytes:
        """Return the body, at most `bytes_max` bytes of it.

        Raises:
            ProtocolError: the connection ended before the body did.
        """
        pieces: list[bytes] = []
        left = bytes_max
        while left > 0 and (piece := self.read1(left)):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _took(self, piece: bytes) -> None:
        if self._left is None:
            self.ended = not piece
            return
        if not piece:
            raise ProtocolError("the connection ended in the middle of an answer")
        self._left -= len(piece)
        if self._left == 0 and self._chunked:
            _line(self._stream)
        self.ended = self._left == 0 and not self._chunked

    def _next_chunk(self) -> None:
        self._left = _number(_line(self._stream).partition(";")[0], 16)
        if self._left == 0:
            _headers(self._stream)  # trailers
            self.ended = True

    def _length(self) -> int | None:
        text = self._headers.get("content-length")
        return None if text is None else _number(text, 10)


def _line(stream: BufferedReader, *, begins: bool = False) -> str:
    data = stream.readline(LINE_BYTES_MAX)
    if not data and begins:
        raise ConnectionResetError("the connection ended without an answer")
    if not data.endswith(b"\n"):
        raise ProtocolError("the connection ended in the middle of an answer, or a line is too long")
    return data.decode("latin-1").rstrip("\r\n")


def _status(line: str) -> tuple[int, str]:
    version, _, rest = line.partition(" ")
    code, _, reason = rest.partition(" ")
    if version != "HTTP/1.1" or len(code) != 3:
        raise ProtocolError(f"no HTTP/1.1 answer: {line[:80]!r}")
    return _number(code, 10), reason


def _headers(stream: BufferedReader) -> dict[str, str]:
    found: dict[str, str] = {}
    for _ in range(HEADERS_MAX):
        line = _line(stream)
        if not line:
            return found
        name, _, value = line.partition(":")
        found[name.strip().lower()] = value.strip()
    raise ProtocolError(f"an answer has more than {HEADERS_MAX} headers")


def _number(text: str, base: int) -> int:
    digits = text.strip()
    if not digits.isalnum() or not digits.isascii():
        raise ProtocolError(f"no length or status: {text[:80]!r}")
    try:
        return int(digits, base)
    except ValueError as error:
        raise ProtocolError(f"no length or status: {text[:80]!r}") from error
