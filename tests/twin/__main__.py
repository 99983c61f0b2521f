# SPDX-License-Identifier: Apache-2.0
"""The agent, with the twin of the fake host that is mounted at --host-root."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import msgspec

from numamigration_agent.__main__ import main
from numamigration_agent.settings import parse_settings
from tests.fakekernel.config import Workload
from tests.fakekernel.control import Command, Migrate, Reply, TakeSnapshot
from tests.fakekernel.host import FakeHostError
from tests.fakekernel.model import Snapshot
from tests.twin import twin


class Controlled:
    """A fake host in another process, by its control socket; opened at the first use, for the host may come later."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def migrate(self, workload: Workload, folios: int) -> None:
        self._do(Migrate(workload, folios))

    def snapshot(self) -> Snapshot:
        found = self._do(TakeSnapshot()).snapshot
        if found is None:
            raise FakeHostError("no snapshot in the reply")
        return found

    def _do(self, command: Command) -> Reply:
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self._path))
            control.sendall(msgspec.json.encode(command) + b"\n")
            reply = msgspec.json.decode(control.makefile("rb").readline(), type=Reply)
        if reply.message:
            raise FakeHostError(reply.message)
        return reply


if __name__ == "__main__":
    root = parse_settings(sys.argv[1:], os.environ).host_root
    sys.exit(main(move=twin(Controlled(root.parent / "control"))))
