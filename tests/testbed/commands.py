# SPDX-License-Identifier: Apache-2.0
"""How every command of tests, demo and benchmarks ends: signals, messages, exit codes.

Exit codes: what the work returns; 1 it failed as it may (`failures`); 2 the machine lacks something; 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Final

from tests.testbed.errors import BedError, MissingNeedError
from tests.testbed.progress import Progress

ROOT: Final = Path(__file__).resolve().parents[2]
ADMIN_FOLDERS: Final = "/usr/sbin:/sbin"
"""Not on everyone's PATH, and mke2fs, depmod, ip and runc are there."""
ALIVE_SECONDS: Final = 1.0
"""How often a bed that is used by hand looks whether its servers still run."""


def run_command(
    work: Callable[[], int],
    *,
    failures: tuple[type[Exception], ...] = (),
    say: Callable[[str], object] = lambda text: print(text, file=sys.stderr),
) -> int:
    """Do `work` and return the exit code; what it has started is stopped on the way out.

    Args:
        work: returns its exit code.
        failures: errors besides BedError that are told in a line instead of a traceback.
        say: takes the line.
    """
    told: tuple[type[Exception], ...] = (BedError, *failures)
    # A shell starts background jobs with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        return work()
    except MissingNeedError as error:
        say(f"error: {error}")
        return 2
    except told as error:
        say(f"error: {_text(error)}")
        return 1
    except KeyboardInterrupt:
        return 130


def stay_up(announce: Callable[[], object], check_alive: Callable[[], None], progress: Progress) -> int:
    """Say what is up, and stay until Ctrl-C, or until `check_alive` raises; return the exit code."""
    try:
        announce()
        while True:
            check_alive()
            time.sleep(ALIVE_SECONDS)
    except KeyboardInterrupt:
        progress.note("stopping")
    return 0


def search_path(environ: Mapping[str, str]) -> str:
    """Return where programs are looked for."""
    return f"{environ.get('PATH', os.defpath)}:{ADMIN_FOLDERS}"


def commit() -> str:
    """Return the commit that is checked out; empty where there is none, or no git."""
    return _git("rev-parse", "HEAD")


def revision() -> str:
    """Return the git revision, and whether the tree differs from it."""
    return (commit() or "unknown") + (" and uncommitted changes" if _git("status", "--porcelain") else "")


def _git(*arguments: str) -> str:
    try:
        said = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return said.stdout.strip() if said.returncode == 0 else ""


def _text(error: Exception) -> str:
    return f"{error}\n{error.stderr}" if isinstance(error, subprocess.CalledProcessError) else str(error)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
