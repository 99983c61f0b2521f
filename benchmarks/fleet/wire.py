# SPDX-License-Identifier: Apache-2.0
"""A network namespace of a fleet's own, and the bytes that went through its loopback interface.

Whatever the processes of a fleet say to each other they say over loopback. In a namespace of their own nobody else
does, so that the interface's counter is what was on the wire: TLS and the headers of TCP and IP included, each packet
once, and those of connections that are closed since.

Sources: unshare(1); network_namespaces(7); netdevice(7); proc_pid_net(5).
"""

from __future__ import annotations

import fcntl
import socket
import struct
import subprocess
from typing import Final

LOOPBACK: Final = "lo"
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
"""<linux/sockios.h>, <linux/if.h>"""
INTERFACE_REQUEST: Final = struct.Struct("16sH22x")
"""``struct ifreq``: a name, and flags."""
SENT_BYTES: Final = 8
"""Field of a line of /proc/net/dev, after the name."""
WAYS: Final = (("unshare", "--net"), ("unshare", "--map-root-user", "--net", "--mount"))
"""As root; as anybody, where the kernel lets people have user namespaces. The fake kernel's mount needs the latter."""


def way_in() -> tuple[str, ...]:
    """Return what to put before a command so that it runs in a network namespace of its own; empty where none may."""
    return next((way for way in WAYS if _may(way)), ())


def _may(way: tuple[str, ...]) -> bool:
    try:
        return subprocess.run([*way, "true"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def raise_loopback() -> None:
    """Switch the loopback interface on, which a new namespace has switched off."""
    name = LOOPBACK.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, INTERFACE_REQUEST.pack(name, 0))
        _, flags = INTERFACE_REQUEST.unpack(answer)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, INTERFACE_REQUEST.pack(name, flags | IFF_UP))


def loopback_bytes(text: str) -> int:
    """Return how many bytes were sent over loopback, by the text of /proc/self/net/dev."""
    lines = text.splitlines()
    fields = dict(line.strip().split(":", 1) for line in lines if ":" in line)
    return int(fields[LOOPBACK].split()[SENT_BYTES])
