# SPDX-License-Identifier: Apache-2.0
"""The guest by hand: ``python -m tests.kernel prepare``, ``… run -- PROGRAM ARGUMENT...``, ``… stand-in FOLDER``.

Exit codes: 0 done, or what the program returned; 1 the guest failed; 2 wrong usage, or the machine lacks something;
130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.kernel import standin
from tests.kernel.choice import read_choice
from tests.kernel.prepare import new_guest, prepare
from tests.testbed.commands import run_command
from tests.testbed.progress import Progress


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    progress = Progress()
    if options.command == "prepare":
        return run_command(lambda: _prepare(progress))
    if options.command == "stand-in":
        return run_command(lambda: _stand_in(options.folder.absolute(), options.revision, progress))
    return run_command(lambda: _run(options.program, options.seconds, progress))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.kernel", description="A QEMU guest with NUMA nodes.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prepare", help="download and make what the guest needs, once, and print where it is")
    run = commands.add_parser(
        "run", help="boot, run one program, and end; code: /mnt/code, our modules: /mnt/exchange/modules"
    )
    run.add_argument("--seconds", type=float, default=60, help="bound of the program (default: 60)")
    run.add_argument("program", nargs="+")
    stand_in = commands.add_parser(
        "stand-in",
        help="make an initrd for Debian's kernel that loads our modules, as a kernel with a driver of its own",
    )
    stand_in.add_argument("--revision", choices=("v5", "v6"), default="v6")
    stand_in.add_argument("folder", type=Path)
    return parser


def _prepare(progress: Progress) -> int:
    parts, modules = prepare(read_choice(os.environ), progress)
    for name, value in {**parts._asdict(), "modules": modules}.items():
        print(f"{name}: {value}")
    return 0


def _stand_in(folder: Path, revision: str, progress: Progress) -> int:
    kernel, initrd = standin.make(folder, revision, progress)
    print(f"make test-kernel KERNEL={kernel} INITRD={initrd} DCBM=real")
    return 0


def _run(program: list[str], seconds: float, progress: Progress) -> int:
    choice = read_choice(os.environ)
    parts, modules = prepare(choice, progress)
    begun = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="numamigration-guest-") as folder,
        new_guest(choice, parts, modules, Path(folder) / "run") as guest,
    ):
        progress.note(f"up in {time.monotonic() - begun:.1f} s: {guest.hello}")
        done = guest.run(program, seconds=seconds)
        print(done.output, end="")
        return done.code or 0


if __name__ == "__main__":
    sys.exit(main())
