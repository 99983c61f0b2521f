# SPDX-License-Identifier: Apache-2.0
"""The guest as a node: its object at the host's API server, and the agent in the guest."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.apiserver.agent_process import NodeState
from tests.kernel.guest import EXCHANGE, Done, Guest, Started, from_guest
from tests.testbed.controlplane import ControlPlane

STOP_SECONDS_MAX: Final = 30


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

    def start(self, *flags: str, env: Mapping[str, str] | None = None, user: int = 0) -> None:
        """Start the agent; `flags` beat those below."""
        common = (
            f"--node-name={self.name}",
            f"--api-server={self._server}",
            f"--ca-file={self._ca}",
            f"--token-file={self._token}",
            "--start-jitter-seconds-max=0",
            "--drift-check-seconds=0.5",
            "--statistics-window-seconds=1",
            "--report-interval-seconds-min=2",
            "--report-interval-seconds-max=2",
        )
        self.agent = self.guest.start(["python3", "-m", "numamigration_agent", *common, *flags], env=env, user=user)

    def stop(self) -> Done:
        """End the agent as a kubelet does, and return its exit code and its log."""
        return self._end(signal.SIGTERM)

    def kill(self) -> Done:
        """End the agent without a word."""
        return self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> Done:
        assert self.agent is not None
        self.agent.signal(number)
        return self.agent.wait(STOP_SECONDS_MAX)

    def _hand_token(self, name: str, token: str) -> Path:
        path = self.guest.exchange / f"{name}.token"
        path.write_text(token)
        path.chmod(0o644)  # an agent that is not root reads it too
        return EXCHANGE / path.name
