# SPDX-License-Identifier: Apache-2.0
"""Rollouts over a simulated fleet, what goes wrong meanwhile, and the judgement: for tests and for soaks."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Final, Self

from tests.apiserver.operator_process import (
    ACCOUNT,
    LEASE,
    POLICIES,
    STATES,
    OperatorProcess,
    account,
    await_served,
    buckets,
    forget_leader,
    groups,
    is_through,
    make_policy,
)
from tests.apiserver.rollout_history import History, ledger_names
from tests.fleet.control import ask
from tests.testbed import processes
from tests.testbed.api import ApiError, Json, poll
from tests.testbed.controlplane import ControlPlane
from tests.testbed.errors import WaitTimeoutError
from tests.testbed.recorder import Recorder

GROUP: Final = "numamigration.dev"
NODES: Final = 200
SHARE: Final = 10
"""Percent of the nodes that may be unproven."""
POLICY: Final = "fleet"
ROLLOUT: Final = {"canary": {"nodes": 2, "soakSeconds": 1}, "maxUnproven": f"{SHARE}%"}
PACE: Final = ("--jitter", "0", "--window", "1", "--report", "60", "120")
WAIT_SECONDS_MAX: Final = 300.0
"""Of each wait: a rollout takes half a minute on two idle cores."""
VERSIONS_A_NODE_MAX: Final = 0.75
"""Between two events of a rollout, which writes more than three: so three events come before its end."""
RESERVED_SHARE: Final = 0.5
"""Of moments: right after a reservation was stored."""
SHORT_LEASE: Final = (
    *("--lease-duration-seconds", "6"),
    *("--lease-renew-deadline-seconds", "4.5"),
    *("--lease-retry-seconds", "0.3"),
)
LEASE_LOST: Final = 3
"""Exit code of an operator that does not lead any more."""
REQUESTS_OPEN_MAX: Final = 8  # the operator's default
EPOCH: Final = "numamigration.dev/leader-epoch"
FINDINGS_SHOWN: Final = 5


class BrokenRolloutError(AssertionError):
    """The API server's history has what it must not have."""


class RolloutScene:
    """A fleet, one policy for all of it, and at least one operator, from ``__enter__`` to ``__exit__``.

    Args:
        bed: a control plane of its own, with our rights and kinds; the scene stops and starts its servers.
        folder: for logs.
        rng: of the moments.
    """

    def __init__(self, bed: ControlPlane, folder: Path, rng: Random, nodes: int = NODES) -> None:
        self.bed, self.api, self.rng, self.nodes = bed, bed.api, rng, nodes
        self._folder, self._operators = folder, list[OperatorProcess]()
        self._history = History({POLICY: self.budget})
        self._rate = 1000
        self.judged = 0
        """So many versions."""

    @property
    def budget(self) -> int:
        """How many nodes may be reserved or unproven at a time."""
        return math.ceil(self.nodes * SHARE / 100)

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self.recorder = cleanup.enter_context(Recorder(self.bed.etcd, GROUP))
            self._kubeconfig = self.bed.kubeconfig_for(account(self.bed), name=ACCOUNT)
            cleanup.callback(self._end_operators)
            self._start_fleet(cleanup)
            self.leader = self.start_operator()
            self.leader.wait_line("ready:")
            poll(self._has_reported, "a report of every agent", timeout=WAIT_SECONDS_MAX)
            make_policy(self.api, POLICY, "", nodeSelector={}, settings=self._settings(), rollout=ROLLOUT)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def _start_fleet(self, cleanup: ExitStack) -> None:
        self._socket = self._folder / "fleet.sock"
        command: list[str | Path] = [sys.executable, "-m", "tests.fleet", "--kubeconfig", self.bed.kubeconfig]
        command += ["--nodes", str(self.nodes), "--control", self._socket, *PACE]
        self._fleet = processes.start("fleet", command, self._folder / "fleet.log")
        cleanup.callback(self._fleet.stop, 10.0)

    def _has_reported(self) -> bool:
        self._fleet.check_alive()
        return self._socket.exists() and int(ask(self._socket, "facts")["reports"]) >= self.nodes

    # --- what people do

    def edit(self) -> None:
        """Ask every node for something that nobody asked for before."""
        self._rate += 1
        self.api.merge_patch(f"{POLICIES}/{POLICY}", {"spec": {"settings": self._settings()}})

    def _settings(self) -> Json:
        return {"balancing": {"mode": "Tiering", "promoteRateLimitMBps": self._rate}}

    # --- what goes wrong

    def some_progress(self) -> None:
        """Return at a random moment of the rollout that is under way; often before what was just reserved is pushed."""
        self.recorder.await_more(self.rng.randint(1, int(VERSIONS_A_NODE_MAX * self.nodes)), WAIT_SECONDS_MAX)
        if self.rng.random() < RESERVED_SHARE:
            self.recorder.await_more(1, WAIT_SECONDS_MAX, lambda version: bool(ledger_names(version.obj)))

    def start_operator(self, *flags: str) -> OperatorProcess:
        """Start one more."""
        log = self._folder / f"operator-{len(self._operators)}.log"
        self._operators.append(OperatorProcess(self._kubeconfig, log, *flags))
        return self._operators[-1]

    def kill_operator(self) -> None:
        """SIGKILL the leader; another one starts at once."""
        self.leader.kill()
        forget_leader(self.api)
        self.leader = self.start_operator()

    def kill_apiserver(self) -> None:
        """SIGKILL the API server, and start it again."""
        self.bed.kill_apiserver()
        self.bed.start_apiserver()
        await_served(self.api)

    def kill_etcd(self) -> None:
        """SIGKILL etcd below a running API server, and start it again."""
        self.bed.kill_etcd()
        self.bed.start_etcd()
        await_served(self.api)

    def freeze_leader(self) -> None:
        """Stop the leader of a rollout until another one goes on with it, then let it go on: it must end.

        What it had begun to send may still arrive; its successor counts these nodes, and has not written them yet.

        Raises:
            BrokenRolloutError: something else landed, or it did not end as one does that leads no more.
        """
        frozen = self._change_leases()
        self.edit()
        self.some_progress()
        epoch = int(self.api.get(LEASE)["metadata"]["annotations"][EPOCH])
        frozen.process.send_signal(signal.SIGSTOP)
        claimed = self.api.watch_until(
            f"{POLICIES}/{POLICY}",
            lambda policy: policy["status"]["rollout"]["leaderEpoch"] > epoch,
            timeout=WAIT_SECONDS_MAX,
        )
        since = int(claimed["metadata"]["resourceVersion"])
        frozen.process.send_signal(signal.SIGCONT)
        code = frozen.process.wait(WAIT_SECONDS_MAX)
        if code != LEASE_LOST:
            raise BrokenRolloutError(f"the deposed leader ended with {code}, not {LEASE_LOST}: {frozen.log}")
        self.judge()
        late = {name for revision, name in self._history.changed[epoch] if revision > since}
        if len(late) > REQUESTS_OPEN_MAX or late - ledger_names(claimed):
            raise BrokenRolloutError(f"the deposed leader, epoch {epoch}, changed {sorted(late)} after {since}")

    def _change_leases(self) -> OperatorProcess:
        """Replace the leader by a pair with short leases; return the one that leads."""
        self.leader.stop()
        first = self.start_operator(*SHORT_LEASE)
        first.wait_line("ready:")
        self.leader = self.start_operator(*SHORT_LEASE)
        self.leader.wait_line("standing by")
        return first

    def _end_operators(self) -> None:
        for process in self._operators:
            process.kill()

    # --- how it is

    def settle(self) -> None:
        """Return when all is as the last edit wants it.

        Raises:
            WaitTimeoutError: it is not.
        """
        findings = ["nothing yet"]

        def settled() -> bool:
            self._fleet.check_alive()
            if self.leader.process.poll() is not None:  # a short lease runs out while servers are down
                self.leader = self.start_operator()
            with contextlib.suppress(OSError, ApiError):
                findings[:] = self._findings()
            return not findings

        try:
            poll(settled, "the last edit everywhere", timeout=WAIT_SECONDS_MAX)
        except WaitTimeoutError as error:
            raise WaitTimeoutError(f"{error}: {'; '.join(findings)}; logs: {self._folder}") from None

    def _findings(self) -> list[str]:
        policy, wanted = self.api.get(f"{POLICIES}/{POLICY}"), self._settings()
        if not is_through(policy) or policy["status"]["observedGeneration"] != policy["metadata"]["generation"]:
            return [f"rollout {policy.get('status', {}).get('rollout')}"]
        found = []
        if buckets(policy) != {"ready": self.nodes} or policy["status"].get("overlays", {}).get("unproven"):
            found.append(f"policy counts {policy['status']['nodes']}, {policy['status'].get('overlays')}")
        states = self.api.list_items(STATES)
        others = [
            s["metadata"]["name"]
            for s in states
            if groups(s).get("balancing", {}).get("settings") != wanted["balancing"]
        ]
        if others or len(states) != self.nodes:
            found.append(f"{len(others)} of {len(states)} nodes have other settings: {others[:FINDINGS_SHOWN]}")
        return found

    def judge(self) -> None:
        """Judge all that was stored until now.

        Raises:
            BrokenRolloutError: it is not as promised.
        """
        note = {"metadata": {"annotations": {"test-bed/judged": str(self.judged)}}}
        stored = self.api.merge_patch(f"{POLICIES}/{POLICY}", note)
        self.recorder.await_revision(int(stored["metadata"]["resourceVersion"]), WAIT_SECONDS_MAX)
        versions = self.recorder.take()
        self.judged += len(versions)
        if found := list(self._history.findings(versions)):
            shown = "\n".join(found[:FINDINGS_SHOWN])
            raise BrokenRolloutError(f"{len(found)} findings; logs: {self._folder}\n{shown}")

    @property
    def most(self) -> int:
        """How many nodes were reserved or unproven at a time at most, until it was judged last."""
        return self._history.most[POLICY]
