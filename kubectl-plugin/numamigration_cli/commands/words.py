# SPDX-License-Identifier: Apache-2.0
"""``completion``."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

from numamigration_cli.app import COMPLETE_VARIABLE, program

SHELLS: Final = ("bash", "zsh", "fish")
FILE: Final = "kubectl-numamigration"


@click.command("completion", short_help="Words for bash, zsh and fish")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what makes SHELL complete the words of kubectl-numamigration, for example: source <(… completion bash).

    For "kubectl numamigration" nothing is needed but kubectl's own completion: it asks kubectl_complete-numamigration,
    which is installed beside this program.
    """
    found = get_completion_class(shell)
    if found is not None:
        click.echo(found(program, {}, FILE, COMPLETE_VARIABLE).source())
