# SPDX-License-Identifier: Apache-2.0
"""The test bed by hand: ``python -m tests.testbed build [cluster|oldest]`` and ``python -m tests.testbed up``.

Exit codes: 0 done; 1 a server failed; 2 wrong usage, or the machine lacks something (the message says what);
130 interrupted before the servers were up.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.testbed.binaries import find_binaries, find_cluster_binaries, find_oldest
from tests.testbed.commands import run_command, stay_up
from tests.testbed.controlplane import ControlPlane
from tests.testbed.progress import Progress


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    progress = Progress()
    if options.command == "build":
        return run_command(lambda: _build(SETS[options.set](progress)))
    return run_command(lambda: _up(progress, options.folder))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.testbed", description="A real etcd and kube-apiserver on loopback, without a cluster."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser(
        "build", help="find the servers or build them (minutes, once), and print where they are"
    )
    build.add_argument(
        "set",
        nargs="?",
        default="api",
        choices=SETS,
        help="api (default): etcd, kube-apiserver, kubectl; cluster: those, and what a node is made of; oldest: the"
        " oldest kube-apiserver that the project supports",
    )
    up = commands.add_parser("up", help="start the servers and keep them running until Ctrl-C")
    up.add_argument(
        "--folder", type=Path, help="new folder for data, keys and logs, which stays (default: a temporary one)"
    )
    return parser


def _cluster(progress: Progress) -> dict[str, Path]:
    control_plane, *_ = found = find_cluster_binaries(progress)
    return {**control_plane._asdict(), **dict(zip(found._fields[1:], found[1:], strict=True))}


SETS: Final[Mapping[str, Callable[[Progress], Mapping[str, Path]]]] = {
    "api": lambda progress: find_binaries(progress)._asdict(),
    "cluster": _cluster,
    "oldest": lambda progress: {"kube_apiserver": find_oldest(progress)},
}
"""What ``build`` finds or builds."""


def _build(found: Mapping[str, Path]) -> int:
    for name, path in found.items():
        print(f"{name}: {path}")
    return 0


def _up(progress: Progress, folder: Path | None) -> int:
    begun = time.monotonic()
    with ControlPlane(find_binaries(progress), folder) as running:

        def announce() -> None:
            progress.note(f"ready in {time.monotonic() - begun:.1f} s; logs in {running.folder}; Ctrl-C stops it")
            print(f"{running.binaries.kubectl} --kubeconfig {running.kubeconfig} get namespaces", flush=True)

        return stay_up(announce, running.check_alive, progress)


if __name__ == "__main__":
    sys.exit(main())
