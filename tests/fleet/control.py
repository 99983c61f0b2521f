# SPDX-License-Identifier: Apache-2.0
"""What one can do to a running fleet from outside: a line in, a line of JSON out, over a unix socket.

    refuse v5-00* EIO       silent v6-001      engines v5-* hangs=true      facts

PATTERN is a shell pattern of node names. A line that is no command is answered with ``{"error": ...}``.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from numamigration_api.vocabulary import MigrationReason
from tests.fakekernel.config import DmaEngine, Workload
from tests.fleet.cast import Part
from tests.fleet.fleet import Fleet
from tests.fleet.node import FleetNode
from tests.fuzz.tables import CHANNELS, ENGINE

ANSWER_SECONDS_MAX: Final = 30.0
LINE_BYTES_MAX: Final = 1 << 20


class CommandError(Exception):
    """The line is no command; the text says why."""


class Verb(NamedTuple):
    """A command for the nodes of a pattern: its arguments for people, and what it does to one of them."""

    arguments: str
    do: Callable[[Fleet, FleetNode, list[str]], object]


def _refuse(_: Fleet, node: FleetNode, arguments: list[str]) -> None:
    name = arguments[0]
    if name not in errno.errorcode.values():
        raise CommandError(f"{name} is no errno")
    node.refuse_writes(getattr(errno, name))


def _engines(_: Fleet, node: FleetNode, arguments: list[str]) -> None:
    pairs = (text.partition("=") for text in arguments)
    changes = {name: json.loads(value) for name, _, value in pairs}
    msgspec.convert({"driver": "ptdma", **changes}, DmaEngine)  # a name or value that no engine has ends here
    node.change_engines(**changes)


def _folios(_: Fleet, node: FleetNode, arguments: list[str]) -> None:
    reason = MigrationReason(arguments[1]) if len(arguments) > 1 else MigrationReason.SYSCALL_OR_CPUSET
    rate = float(arguments[0])
    node.kernel.set_workloads([Workload(reason, rate)] if rate else [])


def _drift(_: Fleet, node: FleetNode, arguments: list[str]) -> None:
    node.kernel.drift(arguments[0], arguments[1])


VERBS: Final[Mapping[str, Verb]] = {
    "refuse": Verb("ERRNO", _refuse),
    "engines": Verb("FIELD=VALUE ...", _engines),
    "folios": Verb("A_SECOND [REASON]", _folios),
    "drift": Verb("FILE TEXT", _drift),
    "heal": Verb("", lambda _fleet, node, _: node.heal()),
    "silent": Verb("", lambda fleet, node, _: fleet.stop(node)),
    "start": Verb("", lambda fleet, node, _: fleet.start(node)),
    "age": Verb("", lambda _fleet, node, _: node.age()),
    "reboot": Verb("", lambda fleet, node, _: fleet.reboot(node)),
    "show": Verb("", lambda _fleet, node, _: {"offloading": node.knob(ENGINE), "channels": node.knob(CHANNELS)}),
}


async def obey(fleet: Fleet, line: str) -> Mapping[str, Any]:
    """Carry out a line; return the answer."""
    word, _, rest = line.strip().partition(" ")
    try:
        match word:
            case "facts":
                return fleet.facts()
            case "add":
                part = msgspec.json.decode(rest, type=Part)
                await fleet.add(part)
                return {"nodes": part.count}
            case _:
                return _obey_by_node(fleet, word, rest.split())
    except (CommandError, ValueError, OSError, msgspec.ValidationError) as error:
        return {"error": f"{line.strip()}: {error}"}


def _obey_by_node(fleet: Fleet, word: str, words: list[str]) -> Mapping[str, Any]:
    verb = VERBS.get(word)
    if verb is None:
        raise CommandError(f"no command; these are: facts, add PART, {', '.join(VERBS)}")
    needed = len([name for name in verb.arguments.split() if name.isupper()])
    if len(words) < 1 + needed:
        raise CommandError(f"is used so: {word} PATTERN {verb.arguments}".rstrip())
    nodes = fleet.select(words[0])
    if not nodes:
        raise CommandError("no such node")
    answers = {node.member.name: fleet.do(node, partial(verb.do, fleet, node, words[1:])) for node in nodes}
    return answers if any(answers.values()) else {"nodes": len(nodes)}


async def serve(fleet: Fleet, path: Path) -> asyncio.Server:
    """Listen at a socket."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(json.dumps(await obey(fleet, line.decode())).encode() + b"\n")
            await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(talk, path, limit=LINE_BYTES_MAX)


def ask(path: Path, line: str) -> dict[str, Any]:
    """Send one line to a fleet's socket and return the answer; for other processes.

    Raises:
        CommandError: the fleet refused it.
        OSError: there is no fleet.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_SECONDS_MAX)
        connection.connect(str(path))
        connection.sendall(line.encode() + b"\n")
        with connection.makefile() as stream:
            answer: dict[str, Any] = json.loads(stream.readline())
    if "error" in answer:
        raise CommandError(answer["error"])
    return answer
