# SPDX-License-Identifier: Apache-2.0
"""Files of the state folder, which is on the host's tmpfs: small, ours alone, replaced as a whole.

After a crash a file is the old one or the new one: the new content is on the disk before its name is. What is read was
perhaps not written by us, so it is never followed through a link, waited for, or read without a bound.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

DAMAGES: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError)  # json.loads recurses
"""What a document that is not ours may raise while it is parsed."""


def read_file(path: Path, bytes_max: int) -> bytes:
    """Read at most `bytes_max` bytes.

    Raises:
        OSError: there is none, or it is no plain file.
    """
    # Not through a link, and without waiting for a writer should it be a pipe: it shall be a file of ours.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(bytes_max) or b""


def replace_file(path: Path, data: bytes) -> str:
    """Replace a file, making its folder where there is none; returns what went wrong, empty when it is safe."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_synced(temporary, data)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        return str(error)
    return ""


def _write_synced(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
