# SPDX-License-Identifier: Apache-2.0
"""The promises, checked from outside: by the server's objects, by what was written there and when, and by the kernels.

Nothing here looks into an operator or an agent. Each write is checked when it is stored, each kernel write when it is
done, so after every step all promises were checked; `at_rest` checks that everything has come to its end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from numamigration_api.vocabulary import EPOCH_ANNOTATION, LEASE_NAME
from tests.simulation.kernels import GROUPS, KernelWrite, phrase
from tests.simulation.objects import Json, find
from tests.simulation.operators import LEASE
from tests.simulation.server import CONFIG_MAPS, LEASES, NODES, POLICIES, STATES, SimServer, Written
from tests.simulation.wanted import FINALIZER, View, is_deleting, is_safe, matched, same_wish, winner

STALE_SECONDS_MAX: Final = 300.0
"""So long ago may be what an operator decided from: late requests, slow watches, lists that failed again and again."""
STATUS_SECONDS: Final = 5.0
STATISTICS_SECONDS: Final = 60.0
LATE_SECONDS: Final = 12.0
"""So much later than it was decided a write may be sent: the longest back-off, and the pace."""
STATUS_BURST: Final = 3  # writes that came late may come together
POLICY_BYTES_MAX: Final = 20_000
STATE_BYTES_MAX: Final = 10_000


class BrokenPromiseError(AssertionError):
    """A promise is not kept."""


@dataclass
class Oracle:
    """All checks of one schedule.

    Attributes:
        views: what was wanted, since when.
        delivered: the node state that an agent was told of last.
        orphans: (node, group) whose wish was taken away by hand, with nothing left that tells it must be restored.
        operators: client names of operators.
    """

    server: SimServer
    operators: frozenset[str]
    views: list[View] = field(default_factory=list)
    delivered: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)
    orphans: set[tuple[str, str]] = field(default_factory=set)
    kept: set[tuple[str, str]] = field(default_factory=set)
    before: dict[tuple[str, str], str] = field(default_factory=dict)
    kernel: dict[tuple[str, str], str] = field(default_factory=dict)
    troubled: set[str] = field(default_factory=set)
    told: dict[tuple[str, str], float] = field(default_factory=dict)
    status_writes: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    armed: set[str] = field(default_factory=set)
    restored: set[tuple[str, str]] = field(default_factory=set)
    wished: dict[tuple[str, str], int] = field(default_factory=dict)
    sent: dict[tuple[str, str], float] = field(default_factory=dict)
    overtaken: int = 0
    epochs: dict[str, int] = field(default_factory=dict)
    lease_epoch: int = 0
    renewed: dict[str, float] = field(default_factory=dict)
    leading_since: dict[str, float] = field(default_factory=dict)
    leader_of: dict[int, str] = field(default_factory=dict)
    last_wish: dict[tuple[str, str], Json] = field(default_factory=dict)

    # --- writes

    def wrote(self, written: Written) -> None:
        """Check one write."""
        match written.collection:
            case c if c == POLICIES:
                self._wrote_policy(written)
            case c if c == STATES:
                self._wrote_state(written)
            case c if c == LEASES:
                self._wrote_lease(written)
            case _:
                pass
        if written.collection in {POLICIES, NODES, CONFIG_MAPS}:
            self._look(written.at)

    def _look(self, now: float) -> None:
        control = self.server.get(CONFIG_MAPS, "numamigration-control") or {}
        switch = (control.get("data") or {}).get("fleet", "run")
        self.views.append(View(now, self.server.all(POLICIES), self.server.all(NODES), switch))

    def seen_lately(self, now: float, node: str) -> Iterator[View]:
        """Yield what an operator may have decided from, the newest first: each cache is from a moment of its own."""
        recent: list[View] = []
        for view in reversed(self.views):
            recent.append(view)
            if view.since < now - STALE_SECONDS_MAX:
                break
        machines = {id(view.nodes.get(node)): view.nodes for view in recent}
        switches = dict.fromkeys(view.switch for view in recent)
        for view in recent:
            for nodes in machines.values():
                for switch in switches:
                    yield View(view.since, view.policies, nodes, switch)

    def _wrote_lease(self, written: Written) -> None:
        self._check_holder(written)
        text = find(written.after, ("metadata", "annotations", EPOCH_ANNOTATION))
        if written.client in self.operators and text is not None:
            _check(int(text) >= self.lease_epoch, f"fence: the lease's epoch falls from {self.lease_epoch} to {text}")
            self.lease_epoch = int(text)

    def _check_holder(self, written: Written) -> None:
        """Nobody takes a lease that another one may still hold."""
        path = ("spec", "holderIdentity")
        old, new = find(written.before, path), find(written.after, path)
        if written.client not in self.operators:
            return
        if old and new and old != new:
            waited = written.at - self.renewed.get(old, -LEASE.lease)
            message = f"lease: {new} takes it {waited:.1f} s after {old} renewed it"
            _check(waited >= LEASE.lease, message)
        if new:
            self.renewed[new] = written.at
            self.leading_since.setdefault(new, written.at)

    def _check_holds(self, written: Written) -> None:
        """Nothing is sent by whoever could not renew the lease in time; what is under way may arrive later."""
        late = written.sent_at - self.renewed.get(written.identity, -LEASE.lease) - LEASE.renew_deadline
        _check(late <= 0, f"lease: {written.client} writes {written.name} {late:.1f} s after its lease ran out")

    def _wrote_policy(self, written: Written) -> None:
        after = written.after
        if after is None:
            return
        if FINALIZER in (after["metadata"].get("finalizers") or []):
            self.armed.add(after["metadata"]["uid"])
        if written.before is None or written.client not in self.operators:
            return
        self._check_holds(written)
        if written.before.get("status") == after.get("status"):
            return
        _check(written.before["spec"] == after["spec"], f"an operator edits the spec of policy {written.name}")
        self._check_epoch(written, find(after, ("status", "rollout", "leaderEpoch")))
        size = self.server.size(POLICIES, written.name)
        _check(size < POLICY_BYTES_MAX, f"promise 12: policy {written.name} has {size} bytes")
        self._check_pace(written)

    def _check_pace(self, written: Written) -> None:
        """At most one write in 5 s; late ones may come together, so a few are counted over a while."""
        times = self.status_writes[written.client, written.name]
        times.append(written.at)
        recent = [at for at in times if at > written.at - 10 * STATUS_SECONDS]
        self.status_writes[written.client, written.name] = recent
        _check(len(recent) <= 10 + STATUS_BURST, f"promise 12: {len(recent)} writes of {written.name}'s status in 50 s")
        before, after = find(written.before, ("status",)) or {}, find(written.after, ("status",)) or {}
        moved = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        last = max(self.told.get((written.identity, written.name), 0.0), self.leading_since[written.identity])
        self.told[written.identity, written.name] = written.sent_at
        if moved <= {"statistics", "rollout"}:
            waited = written.sent_at - last
            message = f"promise 12: {written.name}'s statistics alone {waited:.0f} s after a start or the last write"
            _check(waited >= STATISTICS_SECONDS - LATE_SECONDS, message)

    def _check_epoch(self, written: Written, epoch: Any) -> None:
        uid = (written.after or {})["metadata"]["uid"]
        known = self.epochs.get(uid, 0)
        _check(epoch is not None and epoch >= known, f"fence: {written.name} has epoch {epoch} after {known}")
        _check(epoch <= self.lease_epoch, f"fence: {written.name} has epoch {epoch}, the lease {self.lease_epoch}")
        self.epochs[uid] = epoch
        leader = self.leader_of.setdefault(epoch, written.identity)
        _check(leader == written.identity, f"fence: {written.identity} and {leader} share epoch {epoch}")

    # --- node states

    def _wrote_state(self, written: Written) -> None:
        before, after = written.before, written.after
        if written.client not in self.operators:
            self._state_of_others(written)
        if after is None:
            return
        size = self.server.size(STATES, written.name)
        _check(size < STATE_BYTES_MAX, f"promise 12: node state {written.name} has {size} bytes")
        self._note_restored(after)
        late = self._is_overtaken(written)
        if written.client in self.operators:
            self._check_holds(written)
            status = before.get("status") if before else None
            _check(after.get("status") == status, f"promise 9: an operator writes the status of {written.name}")
            self._check_epoch(written, find(after, ("spec", "leaderEpoch")))
            for group in () if late else GROUPS:
                self._check_wish(written, group, _wish(before, group), _wish(after, group))
        for group in GROUPS:
            if (wish := _wish(after, group)) is not None:
                self.last_wish[written.name, group] = wish

    def _state_of_others(self, written: Written) -> None:
        """A person, or the garbage collector, may take wishes away that nobody remembers after a crash."""
        for group in GROUPS:
            old, new = _wish(written.before, group), _wish(written.after, group)
            if old is not None and not same_wish(old, new):
                self.orphans.add((written.name, group))

    def _is_overtaken(self, written: Written) -> bool:
        """Whether the same client has written this object by a request that it sent later than this one."""
        sent = written.sent_at
        latest = self.sent.get((written.client, written.name), sent)
        self.sent[written.client, written.name] = max(sent, latest)
        self.overtaken += sent < latest
        return sent < latest

    def _note_restored(self, state: Json) -> None:
        """Note which groups the agent has restored since they were last to be something else."""
        status, metadata = state.get("status") or {}, state["metadata"]
        for group in GROUPS:
            key, wish = (metadata["uid"], group), _wish(state, group)
            if wish is not None and wish["mode"] != "Restore" and self.wished.get(key) != metadata["generation"]:
                self.wished[key] = metadata["generation"]
                self.restored.discard(key)
        for group, result in (status.get("groups") or {}).items():
            key = metadata["uid"], group
            fresh = status.get("observedGeneration", 0) > self.wished.get(key, 0)
            if fresh and result["state"] in {"Restored", "Unsupported"}:
                self.restored.add(key)

    def _check_wish(self, written: Written, group: str, old: Json | None, new: Json | None) -> None:
        if same_wish(old, new):
            return
        if new is None:
            self._check_release(written, group, old)
        elif new["mode"] == "Restore":
            self._check_restore(written, group, new)
        elif not is_safe(group, new):
            self._check_push(written, group, new)

    def _check_release(self, written: Written, group: str, old: Json | None) -> None:
        """A wish goes only with Keep, or once the agent has said that its values of before are back."""
        if old is None or written.before is None:
            return
        if old["mode"] == "Restore" and old["release"] != "Keep":
            confirmed = (written.before["metadata"]["uid"], group) in self.restored
            _check(confirmed, f"promise 7: {written.name} drops {group} before its restore is confirmed")
        else:
            _check(old["release"] == "Keep", f"promise 7: {written.name} drops {group}, which was to be restored")
            self.kept.add((written.name, group))

    def _check_restore(self, written: Written, group: str, new: Json) -> None:
        """Only a wish that ended is restored: its policy did not want it, at some moment that could be known."""
        uid = new["source"]["uid"]
        if same_wish(self.last_wish.get((written.name, group)), new):
            return
        for view in self.seen_lately(written.at, written.name):
            won = winner(view, written.name, group)
            if view.switch != "run" or won is None or won["metadata"]["uid"] != uid:
                return
        raise BrokenPromiseError(f"promise 6: {written.name} restores {group}, which {new['source']['policy']} wants")

    def _check_push(self, written: Written, group: str, new: Json) -> None:
        uid, name = new["source"]["uid"], new["source"]["policy"]
        if new["release"] == "Restore":
            _check(uid in self.armed, f"promise 7: {written.name} is pushed before the finalizer of {name}")
        if same_wish(self.last_wish.get((written.name, group)), new):
            return
        for view in self.seen_lately(written.at, written.name):
            won = winner(view, written.name, group)
            if won is None or won["metadata"]["uid"] != uid or view.switch != "run":
                continue
            if won["spec"]["settings"][group] == new["settings"] and won["spec"]["mode"] == "Apply":
                return
        raise BrokenPromiseError(f"{written.name} gets {group} from {name}, which did not want this there lately")

    # --- kernels

    def booted(self, node: str, values: Mapping[str, str]) -> None:
        """Take in that a node boots anew: nothing of ours is there."""
        for group, value in values.items():
            self.kernel[node, group] = self.before[node, group] = value
            self.kept.discard((node, group))
            self.orphans.discard((node, group))

    def kernel_wrote(self, write: KernelWrite) -> None:
        """Check that an agent does what it was told, and nothing else."""
        key = write.node, write.group
        self.kernel[key] = write.after
        wish = _wish(self.delivered.get(write.node), write.group)
        if write.group == "offload" and write.after == "Off" and write.node in self.troubled:
            return
        _check(wish is not None, f"promise 6: {write.node} changes {write.group} that nobody wishes")
        assert wish is not None
        if wish["mode"] == "Restore":
            message = f"promise 7: {write.node} restores {write.group} to {write.after}, it was {self.before[key]}"
            _check(write.after == self.before[key], message)
            return
        _check(wish["mode"] == "Apply", f"promise 6: {write.node} changes {write.group} on {wish['mode']}")
        right = phrase(write.group, wish["settings"]) == write.after
        _check(right, f"{write.node} sets {write.group} to {write.after}, which its spec does not say")

    # --- rest

    def at_rest(self, alive: frozenset[str]) -> None:
        """Check that all has come to where it shall be.

        Args:
            alive: nodes whose agent lives and whose kernel has no trouble.
        """
        self._look(self.server.host.clock.now)
        view = self.views[-1]
        lease = self.server.get(LEASES, LEASE_NAME)
        _check(bool(find(lease, ("spec", "holderIdentity"))), "at rest: nobody leads")
        _check(self.server.stale_lists == 0, "a list was asked for that may be stale for ever")
        states = self.server.all(STATES)
        _check(states.keys() == view.nodes.keys(), f"at rest: states of {sorted(states.keys() ^ view.nodes.keys())}")
        for policy in view.policies.values():
            self._policy_at_rest(view, policy)
        for name, state in states.items():
            for group in GROUPS:
                self._group_at_rest(view, state, group, alive=name in alive)

    def _group_at_rest(self, view: View, state: Json, group: str, *, alive: bool) -> None:
        name, wish = state["metadata"]["name"], _wish(state, group)
        won = winner(view, name, group)
        where = f"at rest: {name} {group}"
        if view.switch == "restore" or (won is None and view.switch != "hold"):
            _check(wish is None or not alive, f"{where} is still {wish and wish['mode']}, although nobody wishes it")
            self._value_without_wish(name, group, wish, alive=alive)
            return
        if view.switch == "off" and group == "offload" and alive and wish is not None:
            _check(self.kernel.get((name, group), "Off") == "Off", f"promise 17: {name} is on")
        if view.switch != "run" or won is None:
            return
        _check(wish is not None, f"{where} is not pushed")
        assert wish is not None
        _check(wish["source"]["uid"] == won["metadata"]["uid"], f"{where} is {wish['source']['policy']}'s")
        if won["spec"]["mode"] == "Paused":
            _check(wish["mode"] == "Hold", f"{where} is {wish['mode']} on a paused policy")
            return
        _check(wish["mode"] == "Apply", f"{where} is {wish['mode']}")
        _check(wish["settings"] == won["spec"]["settings"][group], f"{where} has other settings")
        if alive and (name, group) in self.kernel:
            text = phrase(group, wish["settings"])
            _check(self.kernel[name, group] == text, f"{where} holds {self.kernel[name, group]}, not {text}")

    def _value_without_wish(self, name: str, group: str, wish: Json | None, *, alive: bool) -> None:
        key = name, group
        if not alive or wish is not None or key not in self.kernel or key in self.orphans | self.kept:
            return
        _check(
            self.kernel[key] == self.before[key],
            f"promise 7: at rest {name} {group} is {self.kernel[key]}, it was {self.before[key]}",
        )

    def _policy_at_rest(self, view: View, policy: Json) -> None:
        name, status = policy["metadata"]["name"], policy.get("status") or {}
        _check(not is_deleting(policy), f"promise 13: policy {name} is not gone")
        where = f"at rest: status of {name}"
        _check(
            status.get("observedGeneration") == policy["metadata"]["generation"], f"{where} is of another generation"
        )
        counts = dict(status["nodes"])
        total = counts.pop("matched")
        nodes = len(matched(view, policy))
        _check(total == nodes, f"{where} has {total} nodes, not {nodes}")
        _check(sum(counts.values()) == total, f"promise 11: {where} is no partition: {status['nodes']}")
        if view.switch == "run":
            _check(counts["pending"] == 0, f"{where} has {counts['pending']} pending: {status.get('worstNodes')}")


def _wish(state: Mapping[str, Any] | None, group: str) -> Json | None:
    found = find(dict(state), ("spec", "groups", group)) if state is not None else None
    return found if isinstance(found, dict) else None


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise BrokenPromiseError(message)
