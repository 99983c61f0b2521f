# SPDX-License-Identifier: Apache-2.0
"""The promises, checked from outside: by the server's objects, by what was written there and when, and by the kernels.

Nothing here looks into an operator or an agent. Each write is checked when it is stored, each kernel write when it is
done, so after every step all promises were checked; `at_rest` checks that everything has come to its end.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import dropwhile
from typing import Any, Final

from numamigration_api.vocabulary import CONTROL_CONFIG_MAP, EPOCH_ANNOTATION, HOLD_KEY_PREFIX, LEASE_NAME
from tests.simulation.kernels import GROUPS, KernelWrite, phrase
from tests.simulation.network import Place, Sent
from tests.simulation.objects import Json, find
from tests.simulation.operators import FLEET, LEASE
from tests.simulation.rollouts import (
    FAILED_PHASES,
    Cell,
    Content,
    Whole,
    budget,
    cell_of,
    content_of_wish,
    contents_of,
    has_soaked,
    is_settled,
    ledger,
    owner_of,
    phase,
    unproven,
    verdicts,
)
from tests.simulation.server import (
    CONFIG_MAPS,
    LEASES,
    NODES,
    POLICIES,
    PROFILES,
    REVISIONS,
    STATES,
    SimServer,
    Written,
)
from tests.simulation.tuning import TuningOracle, is_question
from tests.simulation.wanted import FINALIZER, View, is_deleting, is_safe, matched, same_wish, winner

STALE_SECONDS_MAX: Final = 300.0
"""So long ago may be what an operator decided from: late requests, slow watches, lists that failed again and again."""
STATUS_SECONDS: Final = 5.0
STATISTICS_SECONDS: Final = 60.0
LATE_SECONDS: Final = 12.0
"""So much later than it was decided a write may be sent: the longest back-off, and the pace."""
HELD_BACK_SECONDS: Final = 22.0  # before a body is sent first: two back-offs in a row, and the pace
CLOCKS_APART_SECONDS: Final = 42.0  # two that are wrong by less than is told, and whole seconds of a timestamp
NO_WISH: Final[Json] = {"source": {"uid": ""}}
STATUS_BURST: Final = 3  # writes that came late may come together
LEDGER: Final = ("leaderEpoch", "revision", "generation", "cursor", "reserved", "carried", "startedAt")
"""What leaders promise each other: written at once, and by itself."""
KNOWN_SECONDS: Final = 100.0
"""After so long every operator has heard of what others wrote: late events, requests that wait and are tried again."""
NODE_SECONDS: Final = 200.0  # after which a silent node is unreachable, in every policy of a schedule
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
        taken: the same, until an operator has put something there again; a reboot makes it no push of its own.
        operators: client names of operators.
        sent_bodies: what operators have sent where, and when first.
        on_step: told of a step that only the oracle can tell.
        clocks_wrong: a wall clock was set so wrong that a leader may take nodes for silent ones.
        stored_contents: what ControllerRevisions have had.
        proven: what went well in a cell, of whole revisions, by uid of the policy and cell.
        since: by policy uid and node, since when something there has not soaked, and whether a push began it.
        asked: by node and group, the generation that brought what it asks for: older words are about something else.
        settled_at: the same as `since`, until when.
        beside: with how many that counted a node settled then, itself among them.
        broken_at: since when an agent says that it could not do what its spec says.
        heard: when each agent reported last.
        unplaced: when the status that told a node's cell was last taken away.
        gone: when the node state of each node was last deleted, and what it was.
        returned: when each agent reported after a silence after which it could have been taken for unreachable.
        failed_at: when each content was last said to have failed, and at which generation of its policy.
        ever_failed: uids of policies of which a revision failed.
        erased: contents of which a person deleted the word that they failed, before a status said so too.
        turned: by content of a policy and cell, when and by whom what was proven there was said to have failed.
        reserved_by: which leader reserved a node last, by policy uid and node.
        deleted_at: until when a policy was not deleted.
        held_at: since when a class is held, and by whom, by key.
        turned_at: since when the fleet switch does not say run; None while it does.
    """

    server: SimServer
    operators: frozenset[str]
    on_step: Callable[[str], None]
    sent_bodies: Mapping[Place, dict[bytes, Sent]]
    clocks_wrong: bool = False
    stored_contents: set[Content] = field(default_factory=set)
    proven: dict[tuple[str, Cell], set[Whole]] = field(default_factory=lambda: defaultdict(set))
    since: dict[tuple[str, str], tuple[float, bool]] = field(default_factory=dict)
    asked: dict[tuple[str, str], int] = field(default_factory=dict)
    settled_at: dict[tuple[str, str], float] = field(default_factory=dict)
    unsaid: dict[str, list[tuple[float, Json]]] = field(default_factory=lambda: defaultdict(list))
    beside: dict[tuple[str, str], int] = field(default_factory=dict)
    broken_at: dict[str, float] = field(default_factory=dict)
    heard: dict[str, float] = field(default_factory=dict)
    unplaced: dict[str, float] = field(default_factory=dict)
    gone: dict[str, tuple[float, Json]] = field(default_factory=dict)
    returned: dict[str, float] = field(default_factory=dict)
    failed_at: dict[Content, tuple[float, int]] = field(default_factory=dict)
    ever_failed: set[str] = field(default_factory=set)
    erased: set[Content] = field(default_factory=set)
    turned: dict[tuple[frozenset[Content], Cell], tuple[float, str]] = field(default_factory=dict)
    reserved_by: dict[tuple[str, str], str] = field(default_factory=dict)
    deleted_at: dict[str, float] = field(default_factory=dict)
    held_at: dict[str, tuple[float, str]] = field(default_factory=dict)
    views: list[View] = field(default_factory=list)
    turned_at: float | None = None
    delivered: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)
    orphans: set[tuple[str, str]] = field(default_factory=set)
    taken: set[tuple[str, str]] = field(default_factory=set)
    kept: set[tuple[str, str]] = field(default_factory=set)
    before: dict[tuple[str, str], str] = field(default_factory=dict)
    kernel: dict[tuple[str, str], str] = field(default_factory=dict)
    troubled: set[str] = field(default_factory=set)
    told: dict[Place, tuple[float, bytes]] = field(default_factory=dict)
    status_writes: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    armed: set[str] = field(default_factory=set)
    restored: set[tuple[str, str]] = field(default_factory=set)
    wished: dict[tuple[str, str], int] = field(default_factory=dict)
    sent: dict[tuple[str, str], float] = field(default_factory=dict)
    overtaken: int = 0
    latest: dict[tuple[str, str], float] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    lease_epoch: int = 0
    leased_at: dict[int, float] = field(default_factory=dict)
    renewed: dict[str, float] = field(default_factory=dict)
    leading_since: dict[str, float] = field(default_factory=dict)
    leader_of: dict[int, str] = field(default_factory=dict)
    last_wish: dict[tuple[str, str], Json] = field(default_factory=dict)
    tuning: TuningOracle = field(init=False)

    def __post_init__(self) -> None:
        self.tuning = TuningOracle(self)

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
            case c if c == REVISIONS:
                self._wrote_revision(written)
            case c if c == CONFIG_MAPS:
                self._wrote_control(written)
            case c if c == PROFILES:
                self.tuning.wrote_profile(written)
            case _:
                pass
        if written.collection in {POLICIES, NODES, CONFIG_MAPS, PROFILES}:
            self._look(written.at)

    def _look(self, now: float) -> None:
        control = self.server.get(CONFIG_MAPS, "numamigration-control") or {}
        switch = (control.get("data") or {}).get("fleet", "run")
        nodes: Mapping[str, Json] = self.server.all(NODES)
        if self.views and nodes == self.views[-1].nodes:
            nodes = self.views[-1].nodes
        self.views.append(View(now, self._policies(), nodes, switch))
        if switch == "run":
            self.turned_at = None
        elif self.turned_at is None:
            self.turned_at = now

    def _policies(self) -> Mapping[str, Json]:
        """Return the policies as they ask now, those that are tuned for what was measured."""
        return self.tuning.asking(self.server.all(POLICIES))

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
        """Its epoch never falls.

        Who leads creates it again with its own epoch if it is gone. Somebody may have led in between, if that lease was
        deleted too between two renewals: then what that one has written fences whoever led before. Anybody else creates
        it with the greatest epoch that it has seen, if any, which is not that of who led only lately; before it claims
        its own, it lists what all leaders have written.
        """
        again = written.before is None and written.identity in self.renewed
        self._check_holder(written)
        before, text = (
            find(one, ("metadata", "annotations", EPOCH_ANNOTATION)) for one in (written.before, written.after)
        )
        if written.client in self.operators and text is not None:
            known = (epoch for epoch, at in self.leased_at.items() if written.sent_at > at + KNOWN_SECONDS)
            floor = int(before or 0) if before or again else max(known, default=0)
            _check(int(text) >= floor, f"fence: the lease's epoch falls from {floor} to {text}")
            self.lease_epoch = max(self.lease_epoch, int(text))
            self.leased_at.setdefault(int(text), written.at)

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

    def check_holds(self, written: Written) -> None:
        """Nothing is sent by whoever could not renew the lease in time; what is under way may arrive later."""
        late = written.sent_at - self.renewed.get(written.identity, -LEASE.lease) - LEASE.renew_deadline
        _check(late <= 0, f"lease: {written.client} writes {written.name} {late:.1f} s after its lease ran out")

    def _wrote_policy(self, written: Written) -> None:
        after = written.after
        self._check_let_go(written)
        if after is None:
            return
        if FINALIZER in (after["metadata"].get("finalizers") or []):
            self.armed.add(after["metadata"]["uid"])
        if written.before is None or written.client not in self.operators:
            return
        self.check_holds(written)
        if written.before.get("status") == after.get("status"):
            return
        _check(written.before["spec"] == after["spec"], f"an operator edits the spec of policy {written.name}")
        self.check_epoch(written, find(after, ("status", "rollout", "leaderEpoch")))
        size = self.server.size(POLICIES, written.name)
        _check(size < POLICY_BYTES_MAX, f"promise 12: policy {written.name} has {size} bytes")
        self._check_pace(written)
        self._check_ledger(written)
        self._check_phase(written)
        self._check_reservation(written)

    def _check_let_go(self, written: Written) -> None:
        """An operator lets a deleted policy go once nothing of it is to be restored, or after a deadline.

        One that keeps needs no finalizer, whatever earlier pushes have told the nodes.
        """
        before, after = written.before, written.after or {}
        if before is None or not is_deleting(before):
            self.deleted_at[written.name] = written.at
            return
        waited = written.at - self.deleted_at.get(written.name, 0.0)
        keeps = before["spec"]["onDelete"] == "Keep"
        late = keeps or self.clocks_wrong or waited > FLEET.restore_deadline_seconds - CLOCKS_APART_SECONDS
        held = written.after is None or FINALIZER in (before["metadata"].get("finalizers") or [])
        if late or written.client not in self.operators or not held or FINALIZER in str(after.get("metadata")):
            return
        uid, nodes = before["metadata"]["uid"], self.server.all(NODES)
        waiting = [
            name
            for name, state in self.server.all(STATES).items()
            if name in nodes and any((_wish(state, group) or NO_WISH)["source"]["uid"] == uid for group in GROUPS)
        ]
        _check(not waiting, f"promise 7: policy {written.name} is let go while {waiting} have something of it")

    def _check_pace(self, written: Written) -> None:
        """At most one write in 5 s; late ones may come together, so a few are counted over a while."""
        before, after = find(written.before, ("status",)) or {}, find(written.after, ("status",)) or {}
        moved = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        old, new = (one.get("rollout") or {} for one in (before, after))
        reserves = any(old.get(name) != new.get(name) for name in LEDGER)
        if not reserves:
            times = self.status_writes[written.client, written.name]
            times.append(written.at)
            recent = [at for at in times if at > written.at - 10 * STATUS_SECONDS]
            self.status_writes[written.client, written.name] = recent
            message = f"promise 12: {len(recent)} writes of {written.name}'s status in 50 s"
            _check(len(recent) <= 10 + STATUS_BURST, message)
        self._check_sums(written, alone=moved <= {"statistics", "rollout"} and old == new)

    def _check_sums(self, written: Written, *, alone: bool) -> None:
        """Statistics alone are no news for a minute after a start, and after the decision for the last write.

        A body is as old as when it was sent first. One that waited behind others of its place, which were lost or
        refused, may have been decided as early as those were, and they may be what it brings back: so it counts from
        the first of them on, and is not judged itself. So it counts too where the one before was stored, and only its
        answer was late or lost: the body behind it may be half a minute old when it is sent. Nor is that body judged:
        what was decided meanwhile, and replaced before it could be sent, is seen by nobody. Where the body takes it
        back, its sums are all that is seen of a decision about something else.
        """
        request = written.request
        assert request is not None
        place = request.client, request.life, request.path
        at, body = self.told.get(place, (self.leading_since[written.identity], b""))
        bodies = self.sent_bodies[place]
        fresh = {one: sent for one, sent in bodies.items() if one != body}
        if alone and fresh.keys() == {request.body} and fresh[request.body].at == fresh[request.body].waits:
            waited = written.sent_at - max(at, self.leading_since[written.identity])
            message = f"promise 12: {written.name}'s statistics alone {waited:.0f} s after a start or the last write"
            _check(waited >= STATISTICS_SECONDS - HELD_BACK_SECONDS, message)
        self.told[place] = min((sent.waits for sent in fresh.values()), default=written.sent_at), request.body
        for one in fresh.keys() - {request.body} | {body}:
            bodies.pop(one, None)

    def check_epoch(self, written: Written, epoch: Any) -> None:
        uid = (written.after or {})["metadata"]["uid"]
        known = self.epochs.get(uid, 0)
        _check(epoch is not None and epoch >= known, f"fence: {written.name} has epoch {epoch} after {known}")
        _check(epoch <= self.lease_epoch, f"fence: {written.name} has epoch {epoch}, the lease {self.lease_epoch}")
        self.epochs[uid] = epoch
        leader = self.leader_of.setdefault(epoch, written.identity)
        _check(leader == written.identity, f"fence: {written.identity} and {leader} share epoch {epoch}")

    # --- rollouts

    def _wrote_revision(self, written: Written) -> None:
        """Note contents and verdicts; data never change, so a content is there from its first write on."""
        if written.client in self.operators:
            self.check_holds(written)
        if written.after is None:
            self._note_erased(written)
            return
        uid = owner_of(written.after)
        contents = contents_of(uid, written.after["data"])
        self.stored_contents |= contents
        old = verdicts(written.before)
        for cell, one in verdicts(written.after).items():
            if one["verdict"] == "Proven":
                self.proven[uid, cell].add(Whole(contents, written.after["data"]["onDelete"]))
            if one["verdict"] == "Failed" and one != old.get(cell):
                self.ever_failed.add(uid)
                self.failed_at |= dict.fromkeys(contents, (written.at, int(one["generation"])))
                self.erased -= contents
                if old.get(cell, {}).get("verdict") == "Proven":
                    self.turned[contents, cell] = written.at, written.identity
            if one["verdict"] == "Proven" and old.get(cell, {}).get("verdict") != "Proven":
                self._check_proven(written, uid, cell, contents)

    def _note_erased(self, written: Written) -> None:
        """Where a person deletes the record, only the policy's phase tells a verdict to the next leader."""
        before = written.before or {}
        uid = owner_of(before)
        told = any(
            phase(one) in FAILED_PHASES for one in self.server.all(POLICIES).values() if one["metadata"]["uid"] == uid
        )
        if written.client not in self.operators and not told:
            self.erased |= contents_of(uid, before["data"])

    def _wrote_control(self, written: Written) -> None:
        data = (written.after or {}).get("data") or {}
        keys = {key for key in data if key.startswith(HOLD_KEY_PREFIX)}
        for key in self.held_at.keys() - keys:
            del self.held_at[key]
        for key in keys - self.held_at.keys():
            self.held_at[key] = written.at, written.identity

    def knows(self, written: Written, at: float) -> bool:
        """Whether the writer must know of what was stored then: it has listed everything since, or it is long ago."""
        return written.sent_at > at + KNOWN_SECONDS or self.leading_since.get(written.identity, 0.0) > at

    def _check_ledger(self, written: Written) -> None:
        """A new leader takes over every name that it finds, and no write brings an older ledger back."""
        before, after = written.before or {}, written.after or {}
        old, new = (find(one, ("status", "rollout")) or {} for one in (before, after))
        if new.get("leaderEpoch", 0) > old.get("leaderEpoch", 0):
            names, kept = ({*ledger(one, "reserved"), *ledger(one, "carried")} for one in (before, after))
            lost = sorted(names - kept)
            _check(not lost, f"promise 8: {written.name} is claimed without {lost}, whom the predecessor has named")
        same = all(old.get(name) == new.get(name) for name in ("revision", "generation", "startedAt"))
        turned = same and new.get("cursor", 0) < old.get("cursor", 0)
        _check(not turned, f"promise 8: {written.name} has an older ledger again: {old} and then {new}")

    def _check_phase(self, written: Written) -> None:
        """A revision is said to have failed where it lasts before anything follows from it."""
        before, after = written.before, written.after or {}
        if phase(after) not in FAILED_PHASES or phase(before) in FAILED_PHASES:
            return
        uid = after["metadata"]["uid"]
        specs = (one["spec"] for view in self._lately(written.at) for one in view.policies.values())
        told = any(contents_of(uid, spec) <= self.failed_at.keys() for spec in specs)
        _check(told, f"promise 8: {written.name} is {phase(after)}, and no revision says so")

    def _check_reservation(self, written: Written) -> None:
        """A new name is only added onto the leader's own ledger, and within the budget.

        A node that counts anyway takes no new room, but never are more named at once than the budget allows. Whoever
        settled a moment ago may still count for the leader, and be named again beside all who were too many then, as
        after an edit to a smaller budget.
        """
        policy, before = written.after or {}, written.before
        names = set(ledger(policy, "reserved")) - {"*"}
        taken = names - set(ledger(before, "reserved"))  # over from a predecessor, or new
        self.reserved_by |= dict.fromkeys(((policy["metadata"]["uid"], node) for node in taken), written.identity)
        fresh = taken - set(ledger(before, "carried"))
        if not fresh:
            return
        old = find(before, ("status", "rollout")) or {}
        claimed = not old.get("revision") or old.get("leaderEpoch") == find(
            policy, ("status", "rollout", "leaderEpoch")
        )
        _check(claimed, f"promise 8: {written.name} reserves {sorted(fresh)} before its ledger was claimed")
        lately = self._lately(written.at)
        matched_ = max(map(len, _matched_lately(policy, lately)))
        counted = names | set(ledger(policy, "carried")) | self._counted(policy, written, lately)
        most = budget(policy, matched_)
        uid = policy["metadata"]["uid"]
        unseen = {key for key, at in self.settled_at.items() if not self.knows(written, at) and self.beside[key] > most}
        added = fresh - {node for source, node in self.since.keys() | unseen if source == uid}
        message = f"promise 8: {written.name} reserves {sorted(fresh)}: {sorted(counted)} are more than {most}"
        _check(len(fresh) <= most and (not added or len(counted) <= most), message)

    def _lately(self, now: float) -> list[View]:
        """Return the views of the last minutes, the newest first."""
        found: list[View] = []
        for view in reversed(self.views):
            found.append(view)
            if view.since < now - KNOWN_SECONDS:
                break
        return found

    def _counted(self, policy: Json, written: Written, lately: list[View]) -> set[str]:
        """Return the nodes that a leader must count as unproven: by pushes, or by what others did long ago.

        A push is not counted that was stored after the leader had sent this: it may put right what a person has edited
        meanwhile, as nothing else is pushed without a name.
        """
        now, uid = written.at, policy["metadata"]["uid"]
        deadline = float(policy["spec"]["rollout"]["nodeDeadlineSeconds"])
        ours = set.intersection(*_matched_lately(policy, lately))
        return {
            node
            for (source, node), (since, pushed) in self.since.items()
            if source == uid
            and node in ours
            and ((pushed and since <= written.sent_at) or now > since + KNOWN_SECONDS)
            and not self._may_be_silent(node, now, deadline)
        } | {
            node
            for node in ours & self._held_unproven(policy, now, lately)
            if not self._may_be_silent(node, now, deadline)
        }

    def _held_unproven(self, policy: Json, now: float, lately: list[View]) -> set[str]:
        """Return the nodes where the hold of a class, and no pause, keeps off what has not soaked: it comes back."""
        uid = policy["metadata"]["uid"]
        mine = (one for view in lately for one in view.policies.values() if one["metadata"]["uid"] == uid)
        known = {key for key, (at, _) in self.held_at.items() if now > at + KNOWN_SECONDS}
        if not known or any(one["spec"]["mode"] != "Apply" for one in mine):
            return set()
        data = (self.server.get(CONFIG_MAPS, CONTROL_CONFIG_MAP) or {}).get("data") or {}
        cells = {(one["dialect"], one["hardwareClass"]) for one in (json.loads(data[key]) for key in known)}
        return {
            node
            for node, state in self.server.all(STATES).items()
            if cell_of(state) in cells and (uid, "offload") in unproven(_resumed(state))
        }

    def may_be_silent(self, node: str, now: float) -> bool:
        """The same for the shortest deadline that a policy has here."""
        return self._may_be_silent(node, now, NODE_SECONDS)

    def _may_be_silent(self, node: str, now: float, deadline: float) -> bool:
        """Whether a leader may take a node for unreachable: its agent is silent, or was until lately."""
        if self.clocks_wrong:
            return True
        silent = now - self.heard.get(node, -deadline)
        return silent > deadline - KNOWN_SECONDS / 2 or now < self.returned.get(node, -KNOWN_SECONDS) + KNOWN_SECONDS

    def _note_unproven(self, written: Written) -> None:
        """Note what has not soaked, since when, and through whom."""
        node, at = written.name, written.at
        if written.after is not None:
            moment = find(written.after, ("status", "reportedAt"))
            if moment and moment != find(written.before, ("status", "reportedAt")):
                if at - self.heard.get(node, at) > KNOWN_SECONDS:
                    self.returned[node] = at
                self.heard[node] = at
        if written.after is None or not _has_failed(written.after):
            self.broken_at.pop(node, None)
        else:
            self.broken_at.setdefault(node, at)
        if any(cell_of(written.before)) and not any(cell_of(written.after)):
            self.unplaced[node] = at
        if written.before is not None and written.after is None:
            self.gone[node] = at, written.before
        now = set(self._unsettled(written))
        for uid in [uid for uid, name in self.since if name == node and uid not in now]:
            self.beside[uid, node] = self._count(uid)
            del self.since[uid, node]
            self.settled_at[uid, node] = at
        pushed = written.client in self.operators and written.before is not None
        for uid in now:
            self.since.setdefault((uid, node), (at, pushed))

    def _note_unsaid(self, written: Written) -> None:
        """Note what had soaked before a person took it out, a report of before arrived late, or another policy won."""
        before, after = written.before, written.after
        if before is None or after is None:
            return
        lost = _soaked(before) - _soaked(after)
        if written.client in self.operators:
            now = ((one, _wish(after, one.group)) for one in lost)
            lost = {one for one, wish in now if wish is not None and wish["source"]["uid"] != one.uid}
        if lost:
            self.unsaid[written.name].append((written.at, before))

    def _unsettled(self, written: Written) -> Iterator[str]:
        """Yield the uids of policies that have something on a node that has not soaked, or has no answer yet."""
        before, after = written.before, written.after
        if after is None:
            return
        told = find(after, ("status", "observedGeneration")) or 0
        for group in GROUPS:
            old, new = _wish(before, group), _wish(after, group)
            if new is None or is_safe(group, new):
                continue
            same = old is not None and (old is new or (not is_safe(group, old) and _asks_the_same(group, old, new)))
            if not same:
                self.asked[written.name, group] = after["metadata"]["generation"]
            settled = is_settled if told >= self.asked.get((written.name, group), 0) else has_soaked
            if not settled(after, group, new):
                yield new["source"]["uid"]

    def _count(self, uid: str) -> int:
        """Return how many nodes count for a policy now: those that have not settled, and those that are named."""
        policies = (one for one in self.server.all(POLICIES).values() if one["metadata"]["uid"] == uid)
        names = {name for one in policies for part in ("reserved", "carried") for name in ledger(one, part)}
        return len(names | {node for source, node in self.since if source == uid})

    def _check_rollout(self, written: Written, group: str, new: Json) -> None:
        """What a push must find: its revision, its name in the ledger, no verdict, no hold, and its turn."""
        name, content = written.name, content_of_wish(group, new)
        before = _wish(written.before, group)
        if before is not None and content_of_wish(group, before) == content:
            return
        if self.server.get(NODES, name) is None:
            return  # a late push made the node state of a Node that is gone; it is collected
        last = self.last_wish.get((name, group))
        taken = written.before is None or (name, group) in self.taken
        if last is not None and content_of_wish(group, last) == content and taken:
            return  # as it was before somebody deleted or edited it
        stored = content in self.stored_contents
        _check(stored, f"promise 8: {name} gets {group} of {new['source']['policy']}, which no revision has")
        policy = self._policies().get(new["source"]["policy"])
        if policy is None or policy["metadata"]["uid"] != content.uid:
            return
        older = self._is_older(written.after or {}, policy, written.at)
        halts = policy["spec"]["rollout"]["onFailure"] == "Halt"
        if not older or halts:
            self._check_verdict(written, content, policy)
        self._check_class(written, group)
        if self._is_undone(written, policy, content):
            self.on_step("rollback")
            return
        self._check_named(written, policy)
        if not older:
            self._check_canaries(written, policy)

    def _is_older(self, state: Json, policy: Json, now: float) -> bool:
        """Whether what a node has of a policy is a revision before its own that went well in the node's cell.

        Nodes to which a rollout has not come join that one, also while the policy's own has failed, and are none of its
        canaries. The two may share contents, or differ in onDelete alone. What is being restored is none of either.
        """
        uid, spec, name = policy["metadata"]["uid"], policy["spec"], state["metadata"]["name"]
        mine = {content_of_wish(group, wish) for group, wish in _staying(state, uid)}
        others = self.proven.get((uid, cell_of(state)), set()) - {Whole(contents_of(uid, spec), spec["onDelete"])}
        known = [one.contents for one in others if mine <= one.contents]
        return bool(known) and any(
            mine >= {one for one in contents if self._wins(view, name, one)}
            for view in self._lately(now)
            for contents in known
        )

    def _wins(self, view: View, node: str, asked: Content) -> bool:
        won = winner(view, node, asked.group)
        return won is not None and bool(won["metadata"]["uid"] == asked.uid)

    def _check_verdict(self, written: Written, content: Content, policy: Json) -> None:
        """Nothing is pushed that has failed; after a halt not either as an older revision that asks the same.

        Where a rollout goes back, an older revision that shares all of it is still where nodes go to.
        """
        if content in self.erased and phase(policy) not in FAILED_PHASES:
            return
        at, generation = self.failed_at.get(content, (0.0, 0))
        generations = [policy["metadata"]["generation"], *self._generations(written.at, policy["metadata"]["name"])]
        current = self._has_current(written, policy)
        if current and generation >= max(generations) and self.knows(written, at):
            others = {one for one in self.failed_at if one.uid == content.uid}
            _check(
                not contents_of(content.uid, policy["spec"]) <= others,
                f"promise 8: {written.name} is pushed what failed {written.sent_at - at:.0f} s before",
            )

    def _generations(self, now: float, name: str) -> list[int]:
        return [view.policies[name]["metadata"]["generation"] for view in self._lately(now) if name in view.policies]

    def _check_class(self, written: Written, group: str) -> None:
        """Nothing is turned on in a held class."""
        if group != "offload":
            return
        state = self.server.get(STATES, written.name)
        driver = find(state, ("status", "verification", "driver"))
        control = (self.server.get(CONFIG_MAPS, CONTROL_CONFIG_MAP) or {}).get("data") or {}
        for key, (at, by) in self.held_at.items():
            hold = json.loads(control[key])
            known = self.knows(written, at) or (by == written.identity and written.sent_at > at + LATE_SECONDS)
            same = cell_of(state) == (hold["dialect"], hold["hardwareClass"]) and driver in {None, hold["driver"]}
            _check(not (same and known), f"class: {written.name} is turned on, which {key} holds since {at:.0f} s")

    def _has_current(self, written: Written, policy: Json) -> bool:
        """Whether a node gets what a policy asks for now, and no older revision, which may have some of the same.

        Such a one restores the rest.
        """
        uid = policy["metadata"]["uid"]
        asked = contents_of(uid, policy["spec"])
        mine = {content_of_wish(group, wish) for group, wish in _staying(written.after, uid)}
        won = (winner(self.views[-1], written.name, one.group) for one in asked - mine)
        return mine <= asked and not any(one is not None and one["metadata"]["uid"] == uid for one in won)

    def _is_undone(self, written: Written, policy: Json, content: Content) -> bool:
        """Whether a node goes back, which needs a verdict and no reservation: whole, also where others have won.

        What the hold of a class had paused before it soaked has counted all the time, and goes back once the hold ends.
        Whoever settled counts for a leader until it can know that; so does one whose node state a person deleted. One
        that has nothing of the policy any more, as after another one won it, goes nowhere back: it joins, by its name.
        """
        lately = [view.policies[written_] for view in self._lately(written.at) for written_ in view.policies]
        current = any(
            content in contents_of(content.uid, one["spec"]) for one in lately if one["metadata"]["uid"] == content.uid
        )
        had = self._had_unproven(written, content.uid)
        settled_at = self.settled_at.get((content.uid, written.name))
        settled = settled_at is not None and settled_at > written.sent_at - LATE_SECONDS
        counts = had or settled or (settled_at is not None and not self.knows(written, settled_at))
        had |= settled and any(_staying(written.before, content.uid))
        failed = content.uid in self.ever_failed or phase(policy) in FAILED_PHASES
        asked = content in contents_of(content.uid, policy["spec"]) and self._has_current(written, policy)
        if asked or not counts or (current and not failed) or not (had or failed):
            return False
        _check(failed, f"promise 8: {written.name} goes back before {policy['metadata']['name']}'s revision has failed")
        return True

    def _had_unproven(self, written: Written, uid: str) -> bool:
        """Whether something of a policy had not soaked on a node before a write, or had no answer yet."""
        since, _ = self.since.get((uid, written.name), (written.at, False))
        return since < written.at or any(source == uid for source, _ in unproven(_resumed(written.before or {})))

    def _check_named(self, written: Written, policy: Json) -> None:
        name, reserved = policy["metadata"]["name"], ledger(policy, "reserved")
        told, mine = find(policy, ("status", "rollout", "leaderEpoch")), find(written.after, ("spec", "leaderEpoch"))
        _check(told is not None and told >= mine, f"promise 8: {written.name} is pushed by {name} before it is claimed")
        # After an edit, a push that this leader had reserved before may still wait, with what both revisions have.
        ours = self.reserved_by.get((policy["metadata"]["uid"], written.name)) == written.identity
        carried = ours and written.name in ledger(policy, "carried")
        _check(
            written.name in reserved or "*" in reserved or carried,
            f"promise 8: {written.name} is pushed by {name}, whose ledger has only {list(reserved)}",
        )

    def _check_canaries(self, written: Written, policy: Json) -> None:
        """No more nodes of a cell than canaries have a revision before those have soaked.

        A node whose status somebody took away is in no cell until its agent has told it anew. What was decided while
        the cell was proven may come after the word that a later node has failed.
        """
        uid, name = policy["metadata"]["uid"], policy["metadata"]["name"]
        cell = cell_of(written.after)
        at, by = self.turned.get((contents_of(uid, policy["spec"]), cell), (-LATE_SECONDS, ""))
        known = written.sent_at > at + LATE_SECONDS if by == written.identity else self.knows(written, at)
        if not self._knows_of(written, policy) or self._is_proven(uid, policy, cell) or not known:
            return
        canary = policy["spec"]["rollout"]["canary"]
        if not canary["soakSeconds"]:
            return
        resolved, partly, have = self._taken(written, policy, cell, contents_of(uid, policy["spec"]))
        if len(resolved | partly) >= canary["nodes"]:
            return
        message = f"promise 8: {name} pushes {written.name}, while {sorted(have)} soak and {sorted(resolved)} have"
        _check(len(have | resolved) <= canary["nodes"], message)
        failed = [node for node in have if self.knows(written, self.broken_at.get(node, written.at))]
        message = f"promise 8: {name} pushes {written.name}, although {failed} failed, and no revision says so"
        _check(not failed, message)

    def _check_proven(self, written: Written, uid: str, cell: tuple[str, str], contents: frozenset[Content]) -> None:
        """A cell is proven once all of its canaries have soaked: none that was pushed is still awaited.

        What was pushed while the verdict was on its way, or waited to be sent once more, was none of them.
        """
        policy = next((one for one in self._policies().values() if one["metadata"]["uid"] == uid), None)
        lately = (one for view in self._lately(written.at) for one in view.policies.values())
        if policy is None or any(one["spec"] != policy["spec"] for one in lately if one["metadata"]["uid"] == uid):
            return
        resolved, partly, taken = self._taken(written, policy, cell, contents)
        decided = self._first_sent(written)
        have = {node for node in taken if self.since.get((uid, node), (0.0, True))[0] <= decided}
        canaries = policy["spec"]["rollout"]["canary"]["nodes"]
        message = f"promise 8: {written.name} is proven on {cell} by {sorted(resolved)}, while {sorted(have)} soak"
        _check(not have or len(resolved | partly) >= canaries, message)

    def _taken(
        self, written: Written, policy: Json, cell: tuple[str, str], wanted: frozenset[Content]
    ) -> tuple[set[str], set[str], set[str]]:
        """Return the nodes of a cell where a policy's content has soaked, that stand for such, and where it soaks.

        Where others win some of its groups, the part that is left is all that it has there, and proves the cell. So
        does a canary that went after it had soaked, for whoever may have decided before that was known: the verdict
        waits for its turn behind another one of the same object. For the same writers one has soaked of which a person,
        or a late report of its agent, has taken that back.
        """
        uid = policy["metadata"]["uid"]
        deadline = float(policy["spec"]["rollout"]["nodeDeadlineSeconds"])
        have, partly, resolved = set(), self._went_well(written, uid, cell, wanted), set()
        nodes = self.server.all(NODES)
        for node, state in self.server.all(STATES).items():
            if node not in nodes or cell_of(state) != cell:
                continue
            had = self._had_soaked(written, node, uid, wanted)
            soaked = had or not any(source == uid for source, _ in unproven(state))
            some = self._has_some(state, wanted)
            if not some or not self._has_all(state, wanted):  # what it has may be of the revision before
                if had or (soaked and self._has_what_it_won(state, wanted, written.at)):
                    partly.add(node)
                continue
            if soaked:
                resolved.add(node)
            elif not (
                self._may_be_silent(node, written.at, deadline)
                or not self._has_won(node, uid, wanted, written.at)
                or self._is_older(state, policy, written.at)
                or written.at <= self.unplaced.get(node, -KNOWN_SECONDS) + KNOWN_SECONDS
            ):
                have.add(node)
        return resolved, partly, have

    def _had_soaked(self, written: Written, node: str, uid: str, wanted: frozenset[Content]) -> bool:
        """Whether a node had what a policy has won of a content, soaked, until the writer need not know of a change."""
        lately = (state for at, state in self.unsaid.get(node, ()) if not self.knows(written, at))
        return any(
            wanted <= _soaked(state)
            or (
                not any(source == uid for source, _ in unproven(state))
                and self._has_what_it_won(state, wanted, written.at)
            )
            for state in lately
        )

    def _went_well(self, written: Written, uid: str, cell: Cell, wanted: frozenset[Content]) -> set[str]:
        """Return the nodes of a cell that went after a content had soaked there, which the writer need not know."""
        nodes = self.server.all(NODES)
        left = {node: state for node, (at, state) in self.gone.items() if not self.knows(written, at)}
        left |= {node: state for node, state in self.server.all(STATES).items() if node not in nodes}
        return {
            node
            for node, state in left.items()
            if cell_of(state) == cell
            and self._has_some(state, wanted)
            and self._has_all(state, wanted)
            and not any(source == uid for source, _ in unproven(state))
        }

    def _has_what_it_won(self, state: Json, wanted: frozenset[Content], now: float) -> bool:
        name = state["metadata"]["name"]
        won = (frozenset(one for one in wanted if self._wins(view, name, one)) for view in self._lately(now))
        return self._has_some(state, wanted) and any(mine and self._has_all(state, mine) for mine in won)

    def _knows_of(self, written: Written, policy: Json) -> bool:
        """Whether the writer must know what a policy asks for: its ledger says so, or nobody edited it lately."""
        uid, stands = policy["metadata"]["uid"], find(policy, ("status", "rollout")) or {}
        if written.name not in stands.get("carried", ()) and not policy["spec"].get("tuning"):
            epochs = stands.get("leaderEpoch"), find(written.after, ("spec", "leaderEpoch"))
            if epochs[0] == epochs[1] and stands.get("generation") == policy["metadata"]["generation"]:
                return True
        lately = (one for view in self._lately(written.at) for one in view.policies.values())
        return all(one["spec"] == policy["spec"] for one in lately if one["metadata"]["uid"] == uid)

    def _has_won(self, node: str, uid: str, wanted: frozenset[Content], now: float) -> bool:
        """Whether a policy has won all of its groups on a node for some minutes: what it lost, it waits for no more.

        It loses a group to another policy, or with the Node's labels; before it first won there, it has lost nothing.
        """
        lately = [
            view
            for view in reversed(self._lately(now))
            if node in view.nodes and any(one["metadata"]["uid"] == uid for one in view.policies.values())
        ]
        for group in {one.group for one in wanted}:
            won = (winner(view, node, group) for view in lately)
            selected = dropwhile(lambda one: one is None, won)
            if not all(one is not None and one["metadata"]["uid"] == uid for one in selected):
                return False
        return True

    def _has_all(self, state: Json, wanted: frozenset[Content]) -> bool:
        wishes = ((one, _wish(state, one.group)) for one in wanted)
        return all(wish is not None and content_of_wish(one.group, wish) == one for one, wish in wishes)

    def _has_some(self, state: Json, wanted: frozenset[Content]) -> bool:
        wishes = ((group, _wish(state, group)) for group in GROUPS)
        return any(
            wish is not None and not is_safe(group, wish) and content_of_wish(group, wish) in wanted
            for group, wish in wishes
        )

    def _is_proven(self, uid: str, policy: Json, cell: tuple[str, str]) -> bool:
        wanted = contents_of(uid, policy["spec"])
        return any(
            contents_of(uid, one["data"]) == wanted and verdicts(one).get(cell, {}).get("verdict") == "Proven"
            for one in self.server.all(REVISIONS).values()
            if owner_of(one) == uid
        )

    # --- node states

    def _wrote_state(self, written: Written) -> None:
        before, after = written.before, written.after
        if written.client not in self.operators:
            self._state_of_others(written)
        self._note_unsaid(written)
        self._note_unproven(written)
        if after is None:
            self.tuning.wrote_state(written)
            return
        size = self.server.size(STATES, written.name)
        _check(size < STATE_BYTES_MAX, f"promise 12: node state {written.name} has {size} bytes")
        self._note_restored(after)
        self.tuning.wrote_state(written)
        if is_question(written):
            return
        late = self._is_overtaken(written)
        self._check_sequence(written)
        if written.client in self.operators:
            self.check_holds(written)
            status = before.get("status") if before else None
            _check(after.get("status") == status, f"promise 9: an operator writes the status of {written.name}")
            self.check_epoch(written, find(after, ("spec", "leaderEpoch")))
            for group in () if late else GROUPS:
                self._check_wish(written, group, _wish(before, group), _wish(after, group))
            self.taken -= {(written.name, group) for group in GROUPS if _wish(after, group) is not None}
        for group in GROUPS:
            if (wish := _wish(after, group)) is not None:
                self.last_wish[written.name, group] = wish

    def _state_of_others(self, written: Written) -> None:
        """A person, or the garbage collector, may take wishes away that nobody remembers after a crash."""
        for group in GROUPS:
            old, new = _wish(written.before, group), _wish(written.after, group)
            if old is not None and not same_wish(old, new):
                self.orphans.add((written.name, group))
                self.taken.add((written.name, group))

    def _is_overtaken(self, written: Written) -> bool:
        """Whether the same client has written this object by a request that it sent later than this one."""
        sent = written.sent_at
        latest = self.sent.get((written.client, written.name), sent)
        self.sent[written.client, written.name] = max(sent, latest)
        self.overtaken += sent < latest
        return sent < latest

    def _check_sequence(self, written: Written) -> None:
        """What a process wrote later is not overwritten by what it had sent before."""
        if written.client not in self.operators or written.request is None:
            return
        key, sent = (written.identity, written.name), self._first_sent(written)
        latest = self.latest.get(key, sent)
        self.latest[key] = max(sent, latest)
        _check(sent >= latest, f"{written.name} gets what {written.client} sent {latest - sent:.1f} s before it")

    def _first_sent(self, written: Written) -> float:
        """Return when what was written was sent for the first time; a request without an answer is sent once more."""
        request = written.request
        if request is None:
            return written.at
        bodies = self.sent_bodies.get((request.client, request.life, request.path), {})
        return bodies[request.body].at if request.body in bodies else request.sent_at

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
            self._check_rollout(written, group, new)

    def _check_release(self, written: Written, group: str, old: Json | None) -> None:
        """A wish goes only with Keep, or once the agent has said that its values of before are back.

        Keep may be what the policy says by now, although no push has told the node so yet.
        """
        if old is None or written.before is None:
            return
        if old["mode"] == "Restore" and old["release"] != "Keep":
            confirmed = (written.before["metadata"]["uid"], group) in self.restored
            _check(confirmed, f"promise 7: {written.name} drops {group} before its restore is confirmed")
        else:
            keeps = old["release"] == "Keep" or self._ends_with(old["source"]["uid"], "Keep", written.at)
            _check(keeps, f"promise 7: {written.name} drops {group}, which was to be restored")
            self.kept.add((written.name, group))

    def _ends_with(self, uid: str, release: str, now: float) -> bool:
        """Whether a policy has said lately that its wishes end so."""
        policies = (policy for view in self._lately(now) for policy in view.policies.values())
        return any(one["metadata"]["uid"] == uid and one["spec"]["onDelete"] == release for one in policies)

    def _check_restore(self, written: Written, group: str, new: Json) -> None:
        """Only a wish that ended is restored: its policy did not want it, at some moment that could be known."""
        uid = new["source"]["uid"]
        if same_wish(self.last_wish.get((written.name, group)), new):
            return
        for view in self.seen_lately(written.at, written.name):
            won = winner(view, written.name, group)
            if view.switch != "run" or won is None or won["metadata"]["uid"] != uid:
                return
        policy = self.server.get(POLICIES, new["source"]["policy"])
        if uid in self.ever_failed or phase(policy) in FAILED_PHASES:
            return  # nothing went well here before it
        raise BrokenPromiseError(f"promise 6: {written.name} restores {group}, which {new['source']['policy']} wants")

    def _check_push(self, written: Written, group: str, new: Json) -> None:
        uid, name = new["source"]["uid"], new["source"]["policy"]
        if new["release"] == "Restore":
            _check(uid in self.armed, f"promise 7: {written.name} is pushed before the finalizer of {name}")
        last = self.last_wish.get((written.name, group))
        if same_wish(last, new):
            return
        # How a wish ends moves nothing, and goes out under any switch.
        if (
            last is not None
            and same_wish(last | {"release": new["release"]}, new)
            and self._ends_with(uid, new["release"], written.at)
        ):
            return
        away = self.turned_at is not None and self.knows(written, self.turned_at)
        _check(not away, f"promise 17: {written.name} gets {group} of {name} since the fleet switch says otherwise")
        for view in self.seen_lately(written.at, written.name):
            won = winner(view, written.name, group)
            if won is None or won["metadata"]["uid"] != uid or view.switch != "run":
                continue
            if won["spec"]["settings"][group] == new["settings"] and won["spec"]["mode"] == "Apply":
                return
            if content_of_wish(group, new) in self.stored_contents:
                return
        raise BrokenPromiseError(f"{written.name} gets {group} from {name}, which did not want this there lately")

    # --- kernels

    def booted(self, node: str, values: Mapping[str, str]) -> None:
        """Take in that a node boots anew: nothing of ours is there."""
        for group, value in values.items():
            self.kernel[node, group] = self.before[node, group] = value
            self.kept.discard((node, group))
            self.orphans.discard((node, group))

    def kernel_wrote(self, write: KernelWrite, passing: frozenset[str] = frozenset()) -> None:
        """Check that an agent does what it was told, and nothing else.

        Args:
            write: what it did.
            passing: what the group may hold besides, as a step of a change.
        """
        key = write.node, write.group
        self.kernel[key] = write.after
        if write.after in passing:
            return
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
        right = self._text(write.node, write.group, wish) or self.before[key]
        _check(right == write.after, f"{write.node} sets {write.group} to {write.after}, its spec says {right}")

    def _text(self, node: str, group: str, wish: Json) -> str:
        """Return what a group holds by a wish; empty: what it held before."""
        settings = wish["settings"]
        return phrase(group, self.tuning.class_settings(node, settings) if group == "offload" else settings)

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
        self._holds_at_rest(states, alive)
        self.tuning.at_rest(view, alive)
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
        stands = phase(won)
        if won["spec"]["mode"] == "Paused":
            mine = wish if wish is not None and wish["source"]["uid"] == won["metadata"]["uid"] else {"mode": "Hold"}
            _check(mine["mode"] == "Hold" or not alive, f"{where} is {mine['mode']} on a paused policy")
            return
        if stands == "Complete" and alive and not self._is_stopped(state):
            _check(wish is not None, f"{where} is not pushed")
            assert wish is not None
            _check(wish["source"]["uid"] == won["metadata"]["uid"], f"{where} is {wish['source']['policy']}'s")
            _check(wish["settings"] == won["spec"]["settings"][group], f"{where} has other settings")
            _check(wish["mode"] == "Apply", f"{where} is {wish['mode']}")
        if alive and wish is not None and wish["mode"] == "Apply" and (name, group) in self.kernel:
            text = self._text(name, group, wish)
            if not text and wish["release"] == "Keep":
                return
            text = text or self.before[name, group]
            _check(self.kernel[name, group] == text, f"{where} holds {self.kernel[name, group]}, not {text}")

    def _is_stopped(self, state: Json) -> bool:
        """Whether a held class keeps something from a node: what turns offload on, and what comes with it."""
        holds = ((self.server.get(CONFIG_MAPS, CONTROL_CONFIG_MAP) or {}).get("data") or {}).items()
        cells = [json.loads(text) for key, text in holds if key.startswith(HOLD_KEY_PREFIX)]
        return any(cell_of(state) == (one["dialect"], one["hardwareClass"]) for one in cells)

    def _holds_at_rest(self, states: Mapping[str, Json], alive: frozenset[str]) -> None:
        """Every node of a held class verifies anew."""
        data = (self.server.get(CONFIG_MAPS, CONTROL_CONFIG_MAP) or {}).get("data") or {}
        for hold in (json.loads(data[key]) for key in self.held_at):
            for name in alive & states.keys():
                state = states[name]
                driver, epoch = find(state, ("status", "verification", "driver")), find(state, ("spec", "verifyEpoch"))
                if cell_of(state) == (hold["dialect"], hold["hardwareClass"]) and driver in {None, "", hold["driver"]}:
                    _check((epoch or 0) >= hold["verifyEpoch"], f"class: {name} has not to verify anew for {hold}")

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
            self._rollout_at_rest(policy, where)
        if view.switch == "run" and phase(policy) == "Complete" and not self.held_at:
            _check(counts["pending"] == 0, f"{where} has {counts['pending']} pending: {status.get('worstNodes')}")

    def _rollout_at_rest(self, policy: Json, where: str) -> None:
        """A rollout ends: all have it, or it says why not; and nobody is named any more."""
        name, stands = policy["metadata"]["name"], phase(policy)
        if policy["spec"]["mode"] == "Apply":
            ends = {"Complete", "Halted", "RolledBack", *(("Soaking", "Progressing") if self.held_at else ())}
            _check(stands in ends, f"{where} is {stands or 'without a phase'}")
        names = [*ledger(policy, "reserved"), *ledger(policy, "carried")]
        _check(not names, f"at rest: {name} still names {names}")


def _wish(state: Mapping[str, Any] | None, group: str) -> Json | None:
    found = find(dict(state), ("spec", "groups", group)) if state is not None else None
    return found if isinstance(found, dict) else None


def _matched_lately(policy: Json, lately: list[View]) -> list[set[str]]:
    """Return the nodes that a policy has selected, once for each moment at which one had come, gone or changed."""
    return [set(matched(view, policy)) for view in {id(view.nodes): view for view in lately}.values()]


def _asks_the_same(group: str, old: Json, new: Json) -> bool:
    return content_of_wish(group, old) == content_of_wish(group, new)


def _resumed(state: Json) -> Json:
    """Return a node state whose offload is not held."""
    wish = _wish(state, "offload")
    if wish is None or wish["mode"] != "Hold":
        return state
    spec = state["spec"]
    return state | {"spec": spec | {"groups": spec["groups"] | {"offload": wish | {"mode": "Apply"}}}}


def _staying(state: Json | None, uid: str) -> Iterator[tuple[str, Json]]:
    """Yield the groups of a node that are a policy's and are not being restored, with their wishes."""
    for group in GROUPS:
        wish = _wish(state, group)
        if wish is not None and wish["source"]["uid"] == uid and wish["mode"] != "Restore":
            yield group, wish


def _soaked(state: Json) -> set[Content]:
    """Return what is in force on a node and is awaited no more."""
    wishes = ((group, _wish(state, group)) for group in GROUPS)
    return {
        content_of_wish(group, wish)
        for group, wish in wishes
        if wish is not None and wish["mode"] == "Apply" and (is_safe(group, wish) or is_settled(state, group, wish))
    }


def _has_failed(state: Json) -> bool:
    """Whether a report on the spec as it is says that a group of it failed."""
    status = state.get("status") or {}
    current = status.get("observedGeneration") == state["metadata"]["generation"]
    return current and any(one["state"] == "Failed" for one in (status.get("groups") or {}).values())


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise BrokenPromiseError(message)
