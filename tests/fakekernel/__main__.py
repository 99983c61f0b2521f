# SPDX-License-Identifier: Apache-2.0
"""Run one fake host: ``python -m tests.fakekernel --mount DIR``.

Ends, and unmounts, on Ctrl-C, SIGTERM, the control command ``quit``, or when the mount is taken away.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from tests.fakekernel.config import HostConfig
from tests.fakekernel.control import RunningKernel, serve
from tests.fakekernel.host import detach
from tests.fakekernel.model import FakeKernel

ENDING_SIGNALS: Final = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fakekernel",
        description="Serve the kernel files of one fake host under a folder, until Ctrl-C.",
        epilog="Try: cat DIR/sys/module/dcbm/parameters/reason_mask. Needs root and libfuse3 (Debian: fuse3).",
    )
    parser.add_argument("--mount", type=Path, required=True, metavar="DIR", help="existing folder to mount on")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="JSON of a HostConfig (tests/fakekernel/config.py); default: V6 with four DMA channels",
    )
    parser.add_argument(
        "--control",
        type=Path,
        metavar="SOCKET",
        help='unix socket to make; takes JSON lines such as {"do": "reboot"} (tests/fakekernel/control.py)',
    )
    parser.add_argument("--frozen", action="store_true", help='time stands still but for {"do": "advance"}')
    parser.add_argument("--ready-fd", type=int, metavar="FD", help='gets "ready" and a newline once mounted')
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when standard input ends")
    return parser.parse_args(argv)


def _unmount_on_signal(running: RunningKernel, folder: Path) -> None:
    """Unmounting ends the main thread's loop, once no call is under way any more.

    libfuse's own handlers would only set a flag and hope that the signal wakes that loop, which is lost when it comes
    just before the loop goes to sleep (lib/fuse_loop_mt.c); the process would then stay until somebody reads a file.
    """
    signal.sigwait(ENDING_SIGNALS)
    running.end()
    detach(folder)


def _end_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _config(file: Path | None) -> HostConfig:
    return msgspec.json.decode(file.read_bytes(), type=HostConfig) if file else HostConfig()


def _frontend() -> Callable[[RunningKernel, Path, Callable[[], None]], None]:
    # Not at the top: without libfuse3 the import fails, and --help shall work.
    os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")  # else a libfuse 2 would be taken where both are
    try:
        from tests.fakekernel.frontend import mount
    except OSError as error:
        raise RuntimeError(f"{error}; on Debian: apt-get install -y --no-install-recommends fuse3") from error
    return mount


def _run(arguments: argparse.Namespace) -> None:
    mount = _frontend()
    config = _config(arguments.config)
    kernel = FakeKernel(config, random.Random(config.seed))
    running = RunningKernel(kernel, None if arguments.frozen else time.monotonic)
    arguments.mount = arguments.mount.resolve()
    detach(arguments.mount)

    def mounted() -> None:
        # Not earlier: an unmount before the mount would be lost. Until then the signals wait.
        threading.Thread(
            target=_unmount_on_signal, args=[running, arguments.mount], name="signals", daemon=True
        ).start()
        if arguments.until_stdin_closes:
            threading.Thread(target=_end_with_stdin, name="stdin", daemon=True).start()
        if arguments.ready_fd is not None:
            os.write(arguments.ready_fd, b"ready\n")
            os.close(arguments.ready_fd)

    # Blocked before any thread is made, since threads inherit the mask: only sigwait takes them.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    if arguments.control:
        serve(running, arguments.control)
    mount(running, arguments.mount, mounted)


def main(argv: Sequence[str] | None = None) -> int:
    """Run until told to end; 2 means that it could not start."""
    arguments = _arguments(argv)
    try:
        _run(arguments)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"python -m tests.fakekernel: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
