# SPDX-License-Identifier: Apache-2.0
"""Entry points: ``kubectl-numamigration``, and ``kubectl_complete-numamigration``, which kubectl asks for words."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from numamigration_cli.exits import Exit, Failure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    try:
        import click

        from numamigration_cli.app import COMPLETE_VARIABLE, PROGRAM, program
    except ModuleNotFoundError as error:
        return _say(Exit.FAILED, f"{error}\n  pip install 'numa-migration-operator[cli]'")
    if COMPLETE_VARIABLE in os.environ:
        program.main([], PROGRAM, COMPLETE_VARIABLE)  # answers the shell, and ends the process
    try:
        with program.make_context(PROGRAM, list(sys.argv[1:] if arguments is None else arguments)) as context:
            done = program.invoke(context)
        sys.stdout.flush()
        return int(done or Exit.DONE)
    except Failure as error:
        return _say(error.code, str(error))
    except click.UsageError as error:
        error.show()
        return Exit.USAGE
    except click.exceptions.Exit as answered:  # --help and --version
        return answered.exit_code
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more at exit, into a pipe that nobody reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.BROKEN_PIPE


def complete(arguments: Sequence[str] | None = None) -> int:
    """Print what may follow on a command line, whose last word is begun, as kubectl wants it of a plugin."""
    from numamigration_cli.completion import candidates

    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.stdout.write(candidates(given[:-1], given[-1] if given else ""))
    return Exit.DONE


def _say(code: Exit, text: str) -> int:
    sys.stderr.write(f"error: {text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
