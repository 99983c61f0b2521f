# SPDX-License-Identifier: Apache-2.0
"""The guest's hardware as a QEMU command line: two sockets, three NUMA nodes, the third a slower tier without CPU.

The kernel reads distances (SLIT) and latencies and bandwidths (HMAT) from ACPI tables and makes memory tiers of the
latter; 6.1 knows no tiers by HMAT and would put all three nodes into one.

Sources: qemu-system-x86_64(1), ``-numa``; Documentation/driver-api/... (memory tiers: mm/memory-tiers.c).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

NODE_MIB: Final = 512
NODES: Final = (0, 1, 2)
LOWER_TIER: Final = 2
"""Has memory and no processor."""
INITIATOR: Final = {0: 0, 1: 1, 2: 0}
"""Node to the nearest node with processors."""
DISTANCE: Final = {(0, 1): 21, (0, 2): 30, (1, 2): 40}
LATENCY_NS: Final = {(0, 0): 10, (0, 1): 20, (0, 2): 40, (1, 0): 20, (1, 1): 10, (1, 2): 60}
BANDWIDTH: Final = {(0, 0): "200G", (0, 1): "100G", (0, 2): "50G", (1, 0): "100G", (1, 1): "200G", (1, 2): "40G"}
"""By (initiator, target); what the HMAT claims, for the emulated memory is equally fast everywhere."""

GUEST_MIB: Final = NODE_MIB * len(NODES)
QEMU_MIB: Final = 256
"""Of QEMU itself: translated code above all."""

HOST: Final = "10.0.2.2"
"""The machine's loopback as the guest sees it (QEMU user networking)."""

PORT_NAME: Final = "numamigration.ask"
COMMAND_LINE: Final = "console=ttyS0 panic=-1 root=/dev/vda rw init=/guest-init mitigations=off nokaslr"
"""panic=-1: reboot at once, which ends QEMU (-no-reboot), so that a panic is noticed at once. nokaslr: else the kernel
may lie in the lower tier, and there in the way of whoever takes memory away."""


class Parts(NamedTuple):
    """What one guest is made of.

    Attributes:
        qemu: the program.
        kernel: image to boot.
        initrd: may be None for a kernel with everything built in.
        disk: root disk; None for an initrd that stays.
        code: folder shared read-only.
    """

    qemu: Path
    kernel: Path
    initrd: Path | None
    disk: Path | None
    code: Path


def command(parts: Parts, *, console: Path, port: Path, exchange: Path) -> list[str | Path]:
    """Return how QEMU is started.

    Args:
        parts: what the guest is made of.
        console: file that gets the kernel's console.
        port: Unix socket on which we listen.
        exchange: folder that the guest may write.
    """
    return [parts.qemu, *_processors(), *_memory(), *_quiet(console), *_port(port), *_shares(parts.code, exchange),
            *_network(), *_boot(parts)]  # fmt: skip


def _processors() -> list[str]:
    # Never hardware virtualization. One host thread for both processors: with two, a kernel that patched its own code
    # at a write to numa_balancing (text_poke_bp of arch/x86/kernel/alternative.c) once met an old breakpoint and died
    # of "Oops: int3". It takes as long, for most of the time one processor has nothing to do.
    return ["-accel", "tcg,thread=single", "-machine", "q35,hmat=on", "-cpu", "max", "-smp", "2,sockets=2"]


def _memory() -> Iterator[str]:
    yield from ("-m", f"{GUEST_MIB}M")
    for node in NODES:
        yield from ("-object", f"memory-backend-ram,id=m{node},size={NODE_MIB}M")
        yield from ("-numa", f"node,nodeid={node},memdev=m{node},initiator={INITIATOR[node]}")
    for node in sorted(set(INITIATOR.values())):
        yield from ("-numa", f"cpu,node-id={node},socket-id={node}")
    for (source, target), value in DISTANCE.items():
        yield from ("-numa", f"dist,src={source},dst={target},val={value}")
    for pair, nanoseconds in LATENCY_NS.items():
        yield from _hmat(pair, f"data-type=access-latency,latency={nanoseconds}")
        yield from _hmat(pair, f"data-type=access-bandwidth,bandwidth={BANDWIDTH[pair]}")


def _hmat(pair: tuple[int, int], value: str) -> tuple[str, str]:
    return "-numa", f"hmat-lb,initiator={pair[0]},target={pair[1]},hierarchy=memory,{value}"


def _quiet(console: Path) -> list[str]:
    # A file and not our standard streams: nobody types into the console, and nothing of it is lost with a pipe.
    return ["-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none",
            "-chardev", f"file,id=console,path={console}", "-serial", "chardev:console"]  # fmt: skip


def _port(port: Path) -> list[str]:
    return ["-device", "virtio-serial-pci", "-chardev", f"socket,id=ask,path={port}",
            "-device", f"virtserialport,chardev=ask,name={PORT_NAME}"]  # fmt: skip


def _shares(code: Path, exchange: Path) -> list[str]:
    return ["-fsdev", f"local,id=code,path={code},security_model=none,readonly=on",
            "-device", "virtio-9p-pci,fsdev=code,mount_tag=code",
            "-fsdev", f"local,id=exchange,path={exchange},security_model=none",
            "-device", "virtio-9p-pci,fsdev=exchange,mount_tag=exchange"]  # fmt: skip


def _network() -> list[str]:
    return ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]


def _boot(parts: Parts) -> list[str | Path]:
    words: list[str | Path] = ["-kernel", parts.kernel, "-append", COMMAND_LINE]
    if parts.initrd:
        words += ["-initrd", parts.initrd]
    if parts.disk:
        words += ["-drive", f"file={parts.disk},format=raw,if=none,id=root,snapshot=on",
                  "-device", "virtio-blk-pci,drive=root"]  # fmt: skip
    return words
