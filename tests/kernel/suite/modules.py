# SPDX-License-Identifier: Apache-2.0
"""Kernel modules, by the system calls themselves: a program's exit code would hide the errno.

Sources: init_module(2), delete_module(2); kernel/module/main.c.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Final

from tests.kernel.suite.lib import EXCHANGE, LIBC

SYS_DELETE_MODULE: Final = 176
SYS_FINIT_MODULE: Final = 313
FOLDER: Final = f"{EXCHANGE}/modules"


def is_loaded(name: str) -> bool:
    """Tell whether a module is there."""
    return os.path.isdir(f"/sys/module/{name}")


def load(path: str, parameters: Mapping[str, str] | None = None) -> None:
    """Load a module of ours; `path` is that of its file below the folder of modules.

    Raises:
        OSError: the kernel, or the module's init, refuses.
    """
    options = " ".join(f"{name}={value}" for name, value in (parameters or {}).items())
    descriptor = os.open(f"{FOLDER}/{path}", os.O_RDONLY)
    try:
        _call(SYS_FINIT_MODULE, descriptor, options.encode(), 0)
    finally:
        os.close(descriptor)


def unload(name: str) -> None:
    """Unload a module, at once or not at all, as rmmod does.

    Raises:
        OSError: EAGAIN (which is EWOULDBLOCK) while it is in use, ENOENT when it is not there.
    """
    _call(SYS_DELETE_MODULE, name.encode(), os.O_NONBLOCK)


def _call(number: int, *arguments: object) -> None:
    if LIBC.syscall(number, *arguments) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
