# SPDX-License-Identifier: Apache-2.0
"""Become another program that the kernel kills when the program that started it is gone.

Usage: ``python -I -S tether.py PARENT_PID PROGRAM [ARGUMENT...]``; the process id stays the same.

A ``finally`` does not run after SIGKILL, nor when a test run ends with ``os._exit``; the parent-death signal does.
It is SIGKILL, since a kube-apiserver that loses its etcd in the same moment hangs on SIGTERM.

* A script of its own rather than ``preexec_fn``: Python code between fork and exec can deadlock in a process with
  threads (documentation of ``subprocess.Popen``).
* "Parent" is the *thread* that forked, so ``processes.start`` insists on the main thread.

Sources: prctl(2), PR_SET_PDEATHSIG(2const).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1
"""<linux/prctl.h>"""


def main() -> None:
    """Tie this process to its parent, then become the program."""
    parent, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # No signal comes for a parent that died before the line above.
    if os.getppid() != int(parent):
        raise SystemExit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
