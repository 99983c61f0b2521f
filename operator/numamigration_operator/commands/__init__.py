# SPDX-License-Identifier: Apache-2.0
"""Commands that do one thing and end: for people, and for the jobs that install and uninstall.

Each says on standard output what it does, a line for each step. Exit codes: 0 done, 1 could not, 2 a flag, a setting or
the cluster configuration is wrong, 130 interrupted. All of them may be run again at any time.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple

from numamigration_api.machinery.logs import set_up_logs
from numamigration_operator.settings import EXIT_USAGE, PROGRAM, OperatorSettings, Parser, settings_from

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
"""128 and the number of SIGINT, as shells say it."""

Say = Callable[[str], None]


class Command(NamedTuple):
    """One command.

    Attributes:
        text: what ``--help`` says of it.
        settings: operator settings that it takes.
        flags: adds its own flags.
        run: does it, and returns whether it could do all of its part.
    """

    text: str
    settings: tuple[str, ...]
    flags: Callable[[Parser], None]
    run: Callable[[argparse.Namespace, OperatorSettings, Say], Coroutine[Any, Any, bool]]


def seconds(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a whole number of seconds between two bounds."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and least <= int(text[:9]) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is not legal; legal is a whole number from {least} to {most}")
        return int(text)

    return read


def _wait_flag(parser: Parser, what: str, least: int, most: int, default: int) -> None:
    parser.add_argument(
        "--wait-seconds",
        type=seconds(least, most),
        default=default,
        metavar="VALUE",
        help=f"{what} Legal: a whole number from {least} to {most}. Default: {default}.",
    )


def _crds_flags(parser: Parser) -> None:
    parser.add_argument("action", choices=("apply", "print"), help="apply: install or update them. print: show them.")
    _wait_flag(parser, "How long all of it may take.", 1, 3600, 60)


def _uninstall_flags(parser: Parser) -> None:
    _wait_flag(parser, "How long to wait for the nodes.", 0, 86400, 240)
    parser.add_argument(
        "--delete-crds",
        action="store_true",
        help="Delete the CRDs in the end, and with them every policy and node state.",
    )


def _selftest_flags(parser: Parser) -> None:
    _wait_flag(parser, "How long to wait for the agents.", 0, 3600, 120)


async def _crds(options: argparse.Namespace, settings: OperatorSettings, say: Say) -> bool:
    from numamigration_operator.commands.crds import apply_crds, print_crds

    if options.action == "print":
        return print_crds()
    from numamigration_operator.commands.asking import connected

    async with connected(settings) as client:
        return await apply_crds(client, options.wait_seconds, say)


async def _uninstall(options: argparse.Namespace, settings: OperatorSettings, say: Say) -> bool:
    from numamigration_operator.commands.asking import connected
    from numamigration_operator.commands.uninstall import uninstall

    async with connected(settings) as client:
        return await uninstall(client, settings.home_namespace, options.wait_seconds, options.delete_crds, say)


async def _selftest(options: argparse.Namespace, settings: OperatorSettings, say: Say) -> bool:
    from numamigration_operator.commands.asking import connected
    from numamigration_operator.commands.selftest import selftest

    async with connected(settings) as client:
        return await selftest(client, options.wait_seconds, say)


COMMANDS: Final[Mapping[str, Command]] = {
    "crds": Command(
        "Installs the CRDs of this release by server-side apply, and waits until the API server serves them. A CRD of "
        "a newer release is left alone; one that is not ours is refused.",
        ("kubeconfig", "context"),
        _crds_flags,
        _crds,
    ),
    "selftest": Command(
        "Has the API server try a policy, without storing it, and waits until the agents have reported. Fails when the "
        "policy is refused or no agent reports; agents that are silent are named.",
        ("kubeconfig", "context"),
        _selftest_flags,
        _selftest,
    ),
    "uninstall": Command(
        "Turns the fleet switch to restore, waits until every node has confirmed that the values of before are back, "
        "takes the finalizer out of every policy, and says what is left. With dead nodes, or without any operator, it "
        "ends all the same. The switch stays at restore: delete the ConfigMap numamigration-control to install anew.",
        ("kubeconfig", "context", "namespace"),
        _uninstall_flags,
        _uninstall,
    ),
}


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Run one command; return the exit code.

    Raises:
        SettingsError: a flag or a setting is wrong.
        SystemExit: ``--help`` was asked for and answered.
    """
    command = COMMANDS[name]
    parser = Parser(prog=f"{PROGRAM} {name}", description=command.text)
    command.flags(parser)
    parser.add_settings((*command.settings, "log_format", "log_level"))
    options = parser.parse_args(arguments)
    settings = settings_from(options)
    set_up_logs(settings.log_format, settings.log_level)

    from numamigration_operator.cluster.client import ClusterConfigError, ClusterError

    try:
        done = asyncio.run(command.run(options, settings, _say))
    except ClusterError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return EXIT_USAGE if isinstance(error, ClusterConfigError) else EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0 if done else EXIT_FAILED


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
