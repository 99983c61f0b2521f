# SPDX-License-Identifier: Apache-2.0
"""The end of a watch, on a server that says no goodbye."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from kubernetes.aio.client.configuration import Configuration

from numamigration_operator.cluster.client import Access, Client
from tests.testbed.pki import write_pki

ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n"


@pytest.fixture
def mute_server(tmp_path: Path) -> Iterator[Configuration]:
    """A server that sends one line of a watch, and then neither reads nor writes until the test is over."""
    pki, over = write_pki(tmp_path / "pki"), threading.Event()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pki.server_cert, pki.server_key)

    def serve() -> None:
        with closing(tls.wrap_socket(listener.accept()[0], server_side=True)) as connection:
            connection.recv(65536)
            connection.sendall(ANSWER)
            over.wait()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        configuration = Configuration(host=f"https://127.0.0.1:{listener.getsockname()[1]}")
        configuration.ssl_ca_cert = str(pki.ca)
        try:
            yield configuration
        finally:
            over.set()
            thread.join()


def test_a_watch_that_is_left_holds_no_connection_when_its_event_loop_ends(mute_server: Configuration) -> None:
    async def leave() -> bytes:
        client = Client(Access(), mute_server)
        async with client.stream("/", query={}) as lines:
            line = await anext(lines)
        await client.close()
        return line

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        line = asyncio.run(leave())
        gc.collect()

    assert line.strip() == b"{}"
    assert [str(one.message) for one in told if one.category is ResourceWarning] == []
