# SPDX-License-Identifier: Apache-2.0
"""The cluster by hand: ``python -m tests.cluster prepare`` and ``python -m tests.cluster up``.

Exit codes: 0 done; 1 a server failed; 2 wrong usage, or the machine lacks something (the message says what); 130
interrupted before the cluster was up.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.cluster.bed import Cluster
from tests.cluster.prepare import prepare
from tests.testbed.commands import run_command, stay_up
from tests.testbed.progress import Progress


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    progress = Progress()
    return run_command(lambda: _prepare(progress) if options.command == "prepare" else _up(progress))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster",
        description="A whole cluster with one node, in namespaces of its own; needs root.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prepare", help="see whether this machine can, and build what is missing (minutes, once)")
    commands.add_parser("up", help="start the cluster and keep it running until Ctrl-C")
    return parser


def _prepare(progress: Progress) -> int:
    binaries, helm, images = prepare(progress)
    for path in (*binaries.control_plane, *binaries[1:], helm, *images):
        print(path)
    return 0


def _up(progress: Progress) -> int:
    parts = prepare(progress)
    begun = time.monotonic()
    with Cluster(parts) as running:

        def announce() -> None:
            progress.note(f"ready in {time.monotonic() - begun:.1f} s; Ctrl-C stops it, and removes {running.folder}")
            print(f"cgroup {running.cgroup}, logs in {running.folder}")
            print(f"export KUBECONFIG={running.kubeconfig}", flush=True)

        return stay_up(announce, running.check_alive, progress)


if __name__ == "__main__":
    sys.exit(main())
