# SPDX-License-Identifier: Apache-2.0
"""How commands end: exit codes that scripts may rely on, and errors that say what to do.

docs/kubectl-plugin.md has the same table; a test compares them.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Exit(IntEnum):
    """Exit codes; none changes its meaning."""

    DONE = 0
    FAILED = 1
    WOULD_CHANGE = 2
    NO_CLUSTER = 3
    NO_RIGHTS = 4
    NOT_INSTALLED = 5
    USAGE = 64
    """sysexits.h EX_USAGE; click's own 2 means something else here."""
    BAD_FILE = 65
    """sysexits.h EX_DATAERR."""
    INTERRUPTED = 130
    """128 and the number of SIGINT, as shells say it."""
    BROKEN_PIPE = 141
    """128 and the number of SIGPIPE."""


EXIT_MEANING: Final[dict[Exit, str]] = {
    Exit.DONE: "done; of `plan` and `diff`: nothing would change",
    Exit.FAILED: "not done: no such object, refused by the API server, a person said no; `doctor`: something is wrong",
    Exit.WOULD_CHANGE: "`plan`, `diff`: something would change",
    Exit.NO_CLUSTER: "no kubeconfig, no such context, or the API server does not answer",
    Exit.NO_RIGHTS: "the API server does not let this user do that",
    Exit.NOT_INSTALLED: "the API server does not know our kinds: the CRDs are missing",
    Exit.USAGE: "a command, flag or argument is wrong",
    Exit.BAD_FILE: "a file is broken; the message says line and column",
    Exit.INTERRUPTED: "Ctrl-C",
    Exit.BROKEN_PIPE: "whoever read the output closed it, as `head` does",
}


class Failure(Exception):  # noqa: N818 - most are no fault of the program
    """A command cannot go on.

    Args:
        code: to end with.
        message: what is wrong.
        advice: what to do about it.
    """

    def __init__(self, code: Exit, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.advice = advice

    def __str__(self) -> str:
        text = str(self.args[0])
        return f"{text}\n  {self.advice}" if self.advice else text
