# SPDX-License-Identifier: Apache-2.0
"""What may follow on a command line: commands and flags by click, names of objects from the cluster.

kubectl asks a program of its own for the words of a plugin, ``kubectl_complete-numamigration``, with the words so far;
it prints a candidate a line, and in the last line what the shell shall do (4: offer no files).

Source: kubernetes/kubernetes staging/src/k8s.io/kubectl/pkg/cmd/plugin/plugin_completion.go; cobra, "Shell completion".
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import click
from click.shell_completion import CompletionItem, ShellComplete

from numamigration_cli.exits import Failure

NO_FILES: Final = 4
FILES: Final = 0
SECONDS_MAX: Final = 3.0
"""Somebody waits at the keyboard."""


class Names:
    """Completes a word by names from the cluster; silently by none when it cannot be asked.

    Args:
        kind: policies, nodes or profiles.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __call__(self, ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin so."""
        given = ctx.params
        try:
            found = asyncio.run(_names(self._kind, given.get("kubeconfig"), given.get("context")))
        except (Failure, TimeoutError):
            return []
        return [CompletionItem(name) for name in found if name.startswith(incomplete)]


async def _names(kind: str, kubeconfig: Any, context: str | None) -> list[str]:
    from numamigration_cli.cluster import METADATA_LIST, connected
    from numamigration_cli.objects import POLICIES, PROFILES, STATES, Named

    paths = {"policies": POLICIES, "nodes": STATES, "profiles": PROFILES}
    async with asyncio.timeout(SECONDS_MAX), connected(kubeconfig, context, "") as cluster:
        found = await cluster.list_all(paths[kind], Named, accept=METADATA_LIST)
        return [one.metadata.name for one in found]


def candidates(words: list[str], begun: str) -> str:
    """Return what may follow `words` and begins with `begun`, as kubectl reads it."""
    from numamigration_cli.app import COMPLETE_VARIABLE, PROGRAM, program

    found = ShellComplete(program, {}, PROGRAM, COMPLETE_VARIABLE).get_completions(words, begun)
    files = any(item.type in {"file", "dir"} for item in found)
    lines = [f"{item.value}\t{item.help}" if item.help else str(item.value) for item in found if item.type == "plain"]
    return "".join(f"{line}\n" for line in [*lines, f":{FILES if files else NO_FILES}"])
