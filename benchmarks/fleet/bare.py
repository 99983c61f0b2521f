# SPDX-License-Identifier: Apache-2.0
"""The bare loops that the product is compared with, each a process of its own that does nothing else.

``push``: server-side apply documents that were made beforehand, so many at a time. ``list``: read Nodes (metadata) and
node states by pages, both at a time, and decode what the operator decodes. No decision, no watch, no retry.

``python -m benchmarks.fleet.bare push|list FILE``, where the file holds a ``Push`` or a ``Lists``. It says ``ready``
when everything is made, begins with a line on its standard input, and prints a ``Done``.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from msgspec import Struct

from numamigration_api.machinery.listwatch import LIST_LIMIT
from numamigration_operator.cluster.informer import NODES, STATES, Page, Resource
from tests.fleet.client import Access, Client
from tests.testbed.errors import BedError

READY: Final = "ready"


class Push(Struct, frozen=True):
    """What to apply.

    Attributes:
        kubeconfig: of whom.
        manager: field manager.
        width: requests that are open at a time.
        documents: by path.
    """

    kubeconfig: str
    manager: str
    width: int
    documents: dict[str, dict[str, Any]]


class Lists(Struct, frozen=True):
    """Who reads."""

    kubeconfig: str


class Done(Struct, frozen=True):
    """When it began and ended, monotonic seconds; how many objects were written or read; CPU seconds meanwhile."""

    begun: float
    ended: float
    objects: int
    cpu: float


async def push(work: Push) -> Done:
    """Apply all documents."""
    async with Client(Access.of(Path(work.kubeconfig)), work.width) as client:
        rest = iter(work.documents.items())
        begun, cpu = _begin()
        counts = await asyncio.gather(*(_apply(client, rest, work.manager) for _ in range(work.width)))
        return Done(begun, time.monotonic(), sum(counts), time.process_time() - cpu)


async def _apply(client: Client, rest: Iterator[tuple[str, dict[str, Any]]], manager: str) -> int:
    count = 0
    for path, document in rest:
        answer = await client.apply(path, document, manager)
        if answer.status not in {200, 201}:
            raise OSError(f"{path}: {answer}")
        count += 1
    return count


async def read(work: Lists) -> Done:
    """Read everything that grows with the number of nodes."""
    access = Access.of(Path(work.kubeconfig))
    tls = ssl.create_default_context(cadata=access.authority)
    headers = {"Authorization": f"Bearer {access.token}"}
    async with aiohttp.ClientSession(
        access.server, connector=aiohttp.TCPConnector(ssl=tls), headers=headers
    ) as session:
        begun, cpu = _begin()
        counts = await asyncio.gather(_read(session, NODES), _read(session, STATES))
        return Done(begun, time.monotonic(), sum(counts), time.process_time() - cpu)


async def _read(session: aiohttp.ClientSession, resource: Resource[Any]) -> int:
    count, token = 0, ""
    while True:
        query = {"limit": str(LIST_LIMIT), **({"continue": token} if token else {})}
        async with session.get(resource.path, params=query, headers={"Accept": resource.list_accept}) as answer:
            answer.raise_for_status()
            page = msgspec.json.decode(await answer.read(), type=Page)
        count += len([resource.decoder.decode(item) for item in page.items or ()])
        token = page.metadata.continue_
        if not token:
            return count


def _begin() -> tuple[float, float]:
    """Wait for the word; return the moment, and the CPU time until then."""
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    sys.stdin.readline()
    return time.monotonic(), time.process_time()


@contextmanager
def started(loop: str, work: Push | Lists, file: Path) -> Iterator[Callable[[], Done]]:
    """Give what lets a loop of its own process, which has made everything, begin; it returns when it is over.

    Args:
        loop: push or list.
        work: what it does.
        file: through which it is told.
    """
    file.write_bytes(msgspec.json.encode(work))
    command = [sys.executable, "-m", "benchmarks.fleet.bare", loop, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout
        if stdout.readline().strip() != READY:
            raise BedError(f"the bare {loop} did not start")

        def begin() -> Done:
            stdin.write("\n")
            stdin.flush()
            line = stdout.readline()
            if not line:
                raise BedError(f"the bare {loop} ended without an answer")
            return msgspec.json.decode(line, type=Done)

        yield begin


def main() -> None:
    """Run one loop."""
    raw = Path(sys.argv[2]).read_bytes()
    if sys.argv[1] == "push":
        done = asyncio.run(push(msgspec.json.decode(raw, type=Push)))
    else:
        done = asyncio.run(read(msgspec.json.decode(raw, type=Lists)))
    sys.stdout.write(msgspec.json.encode(done).decode() + "\n")


if __name__ == "__main__":
    main()
