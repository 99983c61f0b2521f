# SPDX-License-Identifier: Apache-2.0
"""The guest as a node: its object at the host's API server, and the agent in the guest."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.apiserver.agent_process import NodeState
from tests.kernel.guest import EXCHANGE, Done, Guest, Started, from_guest
from tests.testbed.api import WAIT_SECONDS_MAX, Json
from tests.testbed.controlplane import ControlPlane
from tests.testbed.errors import WaitTimeoutError

STOP_SECONDS_MAX: Final = 30
CODE: Final = "/mnt/code"
INSTALLED: Final = "/run/agent"
"""Where the agent's packages are copied to and compiled, as in an image: its child compiles them anew elsewhere."""
PACKAGES: Final = ("node-agent/numamigration_agent", "crds/numamigration_api")

MOVES_NOTHING: Final = (
    f'echo \'["none", [], 0, 1]\' | python3 -I -S -c \'import sys; sys.path.append("{INSTALLED}"); '
    "from numamigration_agent.kernel.mover import main; main([])'"
)
"""So that what the agent's child is made of has been read from the disk once, which is slow here."""


def install(guest: Guest) -> None:
    """Put the agent where it is started from, once for each boot."""
    sources = " ".join(f"{CODE}/{package}" for package in PACKAGES)
    script = (
        f"mkdir {INSTALLED} && cp -r {sources} {INSTALLED} && python3 -m compileall -q {INSTALLED} && {MOVES_NOTHING}"
    )
    done = guest.run(["env", "-u", "PYTHONPYCACHEPREFIX", "sh", "-c", script], seconds=60)
    assert done.code == 0, done.output


class GuestNode(NodeState):
    """A node state, and the agent that serves it inside the guest; state and baseline lie on the guest's tmpfs.

    Args:
        guest: where the agent runs.
        control_plane: the API server on this machine; its certificate is good for the address the guest uses.
        name: of the node and of its node state.
        token: whose rights the agent has; None means all.
    """

    def __init__(self, guest: Guest, control_plane: ControlPlane, name: str, *, token: str | None = None) -> None:
        super().__init__(control_plane.api, name)
        self.guest = guest
        self._server = from_guest(control_plane.server)
        self._ca = guest.hand_file(control_plane.ca)
        self._token = self._hand_token(name, token or control_plane.admin_token)
        self.agent: Started | None = None

    def start(
        self,
        *flags: str,
        env: Mapping[str, str] | None = None,
        user: int = 0,
        within: Sequence[str] = (),
        program: str = "tests.kernel.suite.agent",
    ) -> None:
        """Start the agent.

        Args:
            flags: beat those below.
            env: further variables.
            user: id of who it runs as.
            within: a program that starts the one which is given to it.
            program: the agent with more time for pages of its own, or ``numamigration_agent``.
        """
        common = (
            f"--node-name={self.name}",
            f"--api-server={self._server}",
            f"--ca-file={self._ca}",
            f"--token-file={self._token}",
            # Not the one of the test before: a verdict on an engine holds for the whole boot.
            f"--state-dir=/run/{self.name}",
            "--start-jitter-seconds-max=0",
            "--drift-check-seconds=0.5",
            "--statistics-window-seconds=1",
            "--report-interval-seconds-min=1",
            "--report-interval-seconds-max=1",
        )
        command = [*within, "python3", "-m", program, *common, *flags]
        self.agent = self.guest.start(command, env={"PYTHONPATH": f"{INSTALLED}:{CODE}", **(env or {})}, user=user)

    def until(self, predicate: Callable[[Json], bool], *, seconds: float = WAIT_SECONDS_MAX) -> Json:
        """Return the status once it is about the last spec and satisfies `predicate`; else fail with what it said."""
        try:
            return super().until(predicate, seconds=seconds)
        except WaitTimeoutError:
            status = self.api.get(self.path).get("status", {})
            said = {name: status.get(name) for name in ("conditions", "groups", "statistics", "verification")}
            pytest.fail(f"not as awaited after {seconds:g} s: {json.dumps(said, indent=1)}")

    def reason(self, reason: str, group: str = "offload") -> Json:
        """Return the status once a group has that reason."""
        return self.until(lambda status: status.get("groups", {}).get(group, {}).get("reason") == reason)

    def stop(self) -> Done:
        """End the agent as a kubelet does, and return its exit code and its log."""
        return self._end(signal.SIGTERM)

    def kill(self, seconds: float = STOP_SECONDS_MAX) -> Done:
        """End the agent without a word; it goes when the kernel lets it, for which `seconds` are waited."""
        return self._end(signal.SIGKILL, seconds)

    def _end(self, number: signal.Signals, seconds: float = STOP_SECONDS_MAX) -> Done:
        assert self.agent is not None
        self.agent.signal(number)
        return self.agent.wait(seconds)

    def _hand_token(self, name: str, token: str) -> Path:
        path = self.guest.exchange / f"{name}.token"
        path.write_text(token)
        path.chmod(0o644)  # an agent that is not root reads it too
        return EXCHANGE / path.name
