# SPDX-License-Identifier: Apache-2.0
"""The command line: which commands there are, and the flags that all of them take.

A command's module is imported when it is asked for, and what that needs of Kubernetes when it runs: ``--help`` and the
completion of words answer at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from enum import StrEnum
from functools import update_wrapper
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

from numamigration_api.vocabulary import NAMESPACE_DEFAULT
from numamigration_cli.screen import Screen

PROGRAM: Final = "kubectl numamigration"
COMPLETE_VARIABLE: Final = "_NUMAMIGRATION_COMPLETE"
"""By which a shell asks for words."""
COMMANDS: Final = {
    "status": "status",
    "nodes": "nodes",
    "explain": "explain",
    "profiles": "profiles",
    "history": "revisions",
    "diff": "revisions",
    "plan": "plan",
    "pause": "act",
    "resume": "act",
    "rollback": "act",
    "stop": "act",
    "release-hold": "act",
    "report": "report",
    "doctor": "doctor",
    "support-bundle": "bundle",
    "completion": "words",
}
"""Module of each command, in the order of ``--help``."""


class Output(StrEnum):
    """How results are printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


class Commands(click.Group):
    """Commands by name, imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names, in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return one command."""
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        found = getattr(import_module(f"numamigration_cli.commands.{module}"), cmd_name.replace("-", "_"))
        return found if isinstance(found, click.Command) else None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="numa-migration-operator", prog_name=PROGRAM)
def program() -> None:
    """Is page-migration tuning on, where does it not work, why, since when, and how to undo it.

    Exit codes: 0 done, 1 not done, 2 plan and diff: something would change, 3 no cluster, 4 no rights,
    5 not installed, 64 wrong usage, 65 broken file.
    """


Run = Callable[..., Coroutine[Any, Any, int | None]]


def with_cluster(run: Run) -> Callable[..., int | None]:
    """Make a coroutine of ``(cluster, screen, …)`` a command's function, with the flags that all commands take."""

    def command(
        kubeconfig: Path | None, context: str | None, namespace: str, output: str, no_color: bool, **given: Any
    ) -> int | None:
        from numamigration_cli.cluster import connected
        from numamigration_cli.cluster import run as run_it

        screen = Screen(Output(output), colorless=no_color or bool(os.environ.get("NO_COLOR")))

        async def work() -> int | None:
            async with connected(kubeconfig, context, namespace) as cluster:
                return await run(cluster, screen, **given)

        return run_it(work)

    for option in reversed(_OPTIONS):
        command = option(command)
    return update_wrapper(command, run)


_OPTIONS: Final = (
    click.option(
        "--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), help="File to read instead of KUBECONFIG."
    ),
    click.option("--context", help="Context of the kubeconfig; its current one when left out."),
    click.option(
        "-n",
        "--namespace",
        default=NAMESPACE_DEFAULT,
        show_default=True,
        envvar="NUMAMIGRATION_NAMESPACE",
        help="Namespace of the operator.",
    ),
    click.option(
        "-o", "--output", type=click.Choice([word.value for word in Output]), default="table", show_default=True
    ),
    click.option("--no-color", is_flag=True, help="No colors; NO_COLOR in the environment says the same."),
)
