# SPDX-License-Identifier: Apache-2.0
"""Files that commands write: new ones, never over another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from numamigration_cli.exits import Exit, Failure


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[BinaryIO]:
    """Give a file to write.

    Raises:
        Failure: it is there already, or cannot be written.
    """
    try:
        with target.open("xb") as stream:
            yield stream
    except FileExistsError as error:
        raise Failure(Exit.FAILED, f"{target} is there already", "name another file by --filename") from error
    except OSError as error:
        raise Failure(Exit.FAILED, f"{target}: {error.strerror}") from error
