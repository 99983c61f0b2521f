# SPDX-License-Identifier: Apache-2.0
"""Joins the machine's loopback and a node's network, which have no other way to each other.

Usage: ``python -I -S tunnel.py NODE_PID ADDRESS:PORT API_PORT SOCKET``

* In the node's network, ADDRESS:PORT (the ``kubernetes`` Service) leads to API_PORT on the machine's loopback: so
  kubelet and Pods reach the API server by in-cluster configuration, without kube-proxy.
* The unix socket SOCKET takes HTTP CONNECT, and leads to addresses in the node's network: that is how the API server
  reaches the kubelet (logs, exec) and Pods (webhooks), by its EgressSelectorConfiguration.

So the machine gets no interface, no address and no route, and runs beside each other do not meet. A socket belongs to
the network namespace in which it was made, whoever uses it; setns(2) moves only the calling thread.

Sources: setns(2), network_namespaces(7); KEP-1281 (API server network proxy), RFC 9110 9.3.6 (CONNECT).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Final

CLONE_NEWNET: Final = 0x40000000
"""<linux/sched.h>"""

CHUNK_BYTES: Final = 64 * 1024

REQUEST_BYTES_MAX: Final = 4096
"""Of a CONNECT request; the API server's has under a hundred."""

CONNECT_SECONDS_MAX: Final = 10.0

BACKLOG: Final = 128

Handler = Callable[[socket.socket], None]


def enter(network: int) -> None:
    """Move this thread into a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(network, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def network_of(pid: int | str) -> int:
    """Return an open file of a process's network namespace."""
    return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def splice(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until both have ended."""
    back = threading.Thread(target=_pump, args=(other, one), daemon=True)
    back.start()
    _pump(one, other)
    back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(CHUNK_BYTES):
            sink.sendall(chunk)
    # The other way may go on: a watch has long sent its request.
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def serve(listener: socket.socket, handle: Handler) -> None:
    """Give each connection a thread."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_handle, args=(connection, handle), daemon=True).start()


def _handle(connection: socket.socket, handle: Handler) -> None:
    with connection, contextlib.suppress(OSError):
        handle(connection)


def to_api_server(port: int) -> Handler:
    """Return what leads a connection to the machine's loopback."""

    def handle(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port), CONNECT_SECONDS_MAX) as there:
            there.settimeout(None)
            splice(connection, there)

    return handle


def to_node(network: int) -> Handler:
    """Return what answers HTTP CONNECT with a connection in the node's network."""

    def handle(connection: socket.socket) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n") and len(request) < REQUEST_BYTES_MAX:
            chunk = connection.recv(REQUEST_BYTES_MAX)
            if not chunk:
                return
            request += chunk
        host, _, port = request.split()[1].decode().rpartition(":")
        enter(network)
        try:
            there = socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS_MAX)
        except OSError:
            connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            raise
        with there:
            there.settimeout(None)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            splice(connection, there)

    return handle


def main() -> None:
    """Listen on both sides until killed."""
    pid, service, api_port, path = sys.argv[1:]
    address, _, port = service.rpartition(":")
    here, node = network_of("self"), network_of(pid)
    enter(node)
    in_node = socket.create_server((address, int(port)), backlog=BACKLOG)
    enter(here)
    out_here = socket.socket(socket.AF_UNIX)
    out_here.bind(path)
    out_here.listen(BACKLOG)
    threading.Thread(target=serve, args=(out_here, to_node(node)), daemon=True).start()
    serve(in_node, to_api_server(int(api_port)))


if __name__ == "__main__":
    main()
