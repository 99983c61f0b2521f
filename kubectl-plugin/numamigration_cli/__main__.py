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

        from numamigration_cli.app import PROGRAM, program
    except ModuleNotFoundError as error:
        return _say(Exit.FAILED, f"{error}\n  pip install 'numa-migration-operator[cli]'")
    try:
        done = program.main(args=arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
        return int(done or Exit.DONE)
    except Failure as error:
        return _say(error.code, str(error))
    except click.UsageError as error:
        error.show()
        return Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except click.ClickException as error:
        return _say(Exit.FAILED, error.format_message())
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
