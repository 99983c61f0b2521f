# SPDX-License-Identifier: Apache-2.0
"""Promises about histories: whatever happened, in whatever order."""

import json
from collections.abc import Iterable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from numamigration_api.machinery.canonical import wish_revision
from numamigration_api.machinery.clock import parse_timestamp
from numamigration_api.vocabulary import FleetSwitch, NodeBucket
from numamigration_operator.core.decisions import Write, WriteKind
from numamigration_operator.core.fleet import Fleet
from tests.unit.builders import OFFLOAD, TIERING, World, policy

pytestmark = pytest.mark.uncounted

NODES, POLICIES = st.sampled_from(["n0", "n1", "n2", "n3"]), st.sampled_from(["a", "b", "c"])
OTHER_CELL = {"n3": ("V5", "class-b")}
SETTINGS = st.sampled_from(
    [
        {"offload": OFFLOAD},
        {"offload": OFFLOAD | {"channels": 2}},
        {"offload": {"engine": "Off"}},
        {"balancing": TIERING},
        {"offload": OFFLOAD, "balancing": TIERING},
    ]
)
SELECTORS = st.sampled_from([{}, {"matchLabels": {"zone": "a"}}])
WORDS = st.sampled_from(["Ready", "Ready", "Failed", "Refused", "Unsupported", "Pending"])
DEADLINE = 700
ROLLOUTS = st.builds(
    lambda unproven, canaries, soak, on_failure: {
        "canary": {"nodes": canaries, "soakSeconds": soak},
        "maxUnproven": unproven,
        "failureThreshold": 10**6,
        "nodeDeadlineSeconds": DEADLINE,
        "onFailure": on_failure,
    },
    unproven=st.sampled_from([1, 2, 10**6]),
    canaries=st.sampled_from([0, 1]),
    soak=st.sampled_from([0, 300]),
    on_failure=st.sampled_from(["Halt", "Rollback"]),
)
UNTOUCHED = {"Refused", "Unsupported"}
LOOKS_AT_REST_MAX = 60


def spec_of(write: Write) -> dict[str, Any]:
    """Return the spec that a write of a node state brings, applied or put in place of what is there."""
    document = json.loads(write.body)
    if isinstance(document, list):
        document = {"spec": next(step["value"] for step in document if step["path"] == "/spec")}
    spec: dict[str, Any] = document["spec"]
    return spec


class Budgeted(World):
    """A world that counts after each write, whoever's and however late, which nodes the policies expose."""

    def __init__(self) -> None:
        super().__init__()
        self.cells |= OTHER_CELL
        self.epoch = 1
        self.said: dict[str, dict[str, Any]] = {}  # by node, the wishes that its agent reported on

    def report(self, name: str, *arguments: Any, **more: Any) -> None:
        self.said[name] = json.loads(json.dumps(self.groups(name)))
        super().report(name, *arguments, **more)

    def exposed(self, policy_name: str) -> set[str]:
        """Nodes that have something unproven of a policy, or may be pushed."""
        one = self.policies[policy_name]
        ledger = one["status"].get("rollout", {})
        names = {*ledger.get("reserved", ()), *ledger.get("carried", ())}
        return names | {name for name in self.states if name in self.nodes and self.is_unproven(name, one)}

    def is_unproven(self, name: str, one: dict[str, Any]) -> bool:
        status = self.states[name]["status"]
        spoke = status.get("reportedAt")
        silent = (self.wall - parse_timestamp(spoke)).total_seconds() if spoke else 0.0
        deadline = one["spec"]["rollout"]["nodeDeadlineSeconds"]
        if silent > deadline - 2:  # a report has whole seconds
            return False
        for group, wish in self.groups(name).items():
            mine = wish["source"]["uid"] == one["metadata"]["uid"]
            if not mine or wish["mode"] != "Apply" or wish["settings"] == {"engine": "Off"}:
                continue
            result, about = status.get("groups", {}).get(group, {}), self.said.get(name, {}).get(group)
            untouched = about and wish_revision(about) == wish_revision(wish) and result.get("state") in UNTOUCHED
            if result.get("soakedRevision") != wish_revision(wish) and not untouched:
                return True
        return False

    def carry_out(self, writes: Iterable[Write]) -> None:
        for write in writes:
            self.arrive(write, deposed=False)

    def arrive(self, write: Write, *, deposed: bool) -> None:
        """Store one write, unless the API server refuses it; check promise 8."""
        before = {name: self.exposed(name) for name in self.policies}
        if self.is_refused(write):
            if not deposed:
                self.fleet.write_failed(write.key)
            return
        super().carry_out([write])
        for name, was in before.items():
            if name in self.policies:
                after, most = self.exposed(name), self.policies[name]["spec"]["rollout"]["maxUnproven"]
                assert len(after) <= max(most, len(was)), (name, sorted(was), sorted(after), write)

    def is_refused(self, write: Write) -> bool:
        """Its object is gone, or the fence is higher than the writer's epoch."""
        name, document = write.key.name, json.loads(write.body)
        match write.key.kind:
            case WriteKind.STATE_SPEC:
                spec = spec_of(write)
                stored = self.states.get(name, {"spec": {}})["spec"].get("leaderEpoch", 0)
                return name not in self.nodes or spec["leaderEpoch"] < stored
            case WriteKind.POLICY_STATUS:
                if self.uid_of(name) != document["metadata"]["uid"]:
                    return True
                known, version = self.policies[name], document["metadata"].get("resourceVersion")
                if version not in {None, known["metadata"]["resourceVersion"]}:
                    return True
                stored = known["status"].get("rollout", {}).get("leaderEpoch", 0)
                return bool(document["status"]["rollout"]["leaderEpoch"] < stored)
            case WriteKind.POLICY_FINALIZER:
                uid = document[0]["value"] if isinstance(document, list) else document["metadata"]["uid"]
                return bool(self.uid_of(name) != uid)
            case WriteKind.REVISION:
                (owner,) = document["metadata"]["ownerReferences"]
                return owner["uid"] not in {self.uid_of(one) for one in self.policies}
            case _:
                return write.key.kind is WriteKind.REVISION_DELETION and name not in self.revisions

    def uid_of(self, policy_name: str) -> Any:
        return self.policies.get(policy_name, {}).get("metadata", {}).get("uid")

    def come_to_rest(self) -> None:
        """Let agents apply and watch, and the operator look, until nothing is written any more."""
        for _ in range(LOOKS_AT_REST_MAX):
            quiet = not self.step(self.settings.status_interval_seconds + 1).writes
            for name in self.states:
                self.report(name)
            if quiet and not self.step(self.settings.status_interval_seconds + 1).writes:
                return
        raise AssertionError("never at rest")


class FleetHistory(RuleBasedStateMachine):
    """One fleet lives through everything; another one is shown the outcome only. They must agree."""

    def __init__(self) -> None:
        super().__init__()
        self.world = Budgeted()
        self.world.sync()
        self.serial = 0
        self.on_their_way: list[Write] = []
        self.late: list[Write] = []  # of leaders that are none any more

    @rule(name=NODES, zone=st.sampled_from("ab"))
    def node_appears_or_is_relabelled(self, name: str, zone: str) -> None:
        self.world.add_node(name, zone=zone)

    @precondition(lambda self: self.world.nodes)
    @rule(data=st.data())
    def node_goes(self, data: st.DataObject) -> None:
        self.world.remove_node(data.draw(st.sampled_from(sorted(self.world.nodes))))

    @rule(
        name=POLICIES,
        asked=SETTINGS,
        selector=SELECTORS,
        priority=st.integers(1, 3),
        mode=st.sampled_from(["Apply", "Apply", "Paused", "Plan"]),
        on_delete=st.sampled_from(["Keep", "Restore"]),
        rollout=ROLLOUTS,
    )
    def policy_appears_or_is_edited(
        self, name: str, asked: object, selector: object, priority: int, mode: str, on_delete: str, rollout: object
    ) -> None:
        spec = {"settings": asked, "nodeSelector": selector, "priority": priority, "mode": mode, "onDelete": on_delete}
        spec["rollout"] = rollout
        if name in self.world.policies:
            self.world.edit_policy(name, **spec)
            return
        self.serial += 1
        self.world.add_policy(policy(name, meta={"uid": f"{name}-{self.serial}"}, **spec))

    @precondition(lambda self: self.world.policies)
    @rule(data=st.data())
    def policy_is_deleted(self, data: st.DataObject) -> None:
        self.world.delete_policy(data.draw(st.sampled_from(sorted(self.world.policies))))

    @precondition(lambda self: self.world.states)
    @rule(data=st.data(), word=WORDS, soaked=st.booleans())
    def agent_reports(self, data: st.DataObject, word: str, soaked: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.world.states)))
        groups = {group: word for group, wish in self.world.groups(name).items() if wish["mode"] == "Apply"}
        self.world.report(name, dict(groups), soaked=soaked, statistics={"foliosMigrated": self.serial})

    @precondition(lambda self: self.world.states)
    @rule(data=st.data())
    def somebody_edits_a_spec(self, data: st.DataObject) -> None:
        state = self.world.states[data.draw(st.sampled_from(sorted(self.world.states)))]
        state["spec"] = state["spec"] | {"revision": "f" * 16}
        state["metadata"]["generation"] += 1
        self.world.show_state(state["metadata"]["name"])

    @rule(switch=st.sampled_from([FleetSwitch.RUN, *FleetSwitch]))
    def somebody_turns_the_fleet_switch(self, switch: FleetSwitch) -> None:
        self.world.turn(switch)

    @rule(seconds=st.sampled_from([0.0, 0.3, 6.0, 400.0]))
    def operator_looks(self, seconds: float) -> None:
        self.operator_decides(seconds)
        self.writes_arrive()

    @rule(seconds=st.sampled_from([0.0, 0.3, 6.0]))
    def operator_decides(self, seconds: float) -> None:
        self.world.now += seconds
        found = self.world.decide()
        for write in found.writes:
            if write.key.kind is WriteKind.STATE_SPEC:
                self.check_new_wishes(write.key.name, spec_of(write))
                self.check_fleet_switch(write.key.name, spec_of(write))
        self.on_their_way += found.writes
        if found.relist:
            self.world.relist()

    @rule()
    def writes_arrive(self) -> None:
        """In their order: of two writes to one place the applier sends the second once the first is answered."""
        writes, self.on_their_way = self.on_their_way, []
        self.world.carry_out(writes)

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def a_write_of_a_deposed_leader_arrives(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.late) - 1))
        self.world.arrive(self.late.pop(place), deposed=True)

    def check_new_wishes(self, node: str, spec: dict[str, Any]) -> None:
        """Promise 7: a wish that will be restored comes from a policy whose finalizer is seen."""
        stored = self.world.states.get(node, {"spec": {}})
        before = stored["spec"].get("groups", {}).values()
        known = {(wish["source"]["uid"], wish["release"]) for wish in before}
        metas = {one["metadata"]["uid"]: one["metadata"] for one in self.world.policies.values()}
        for wish in spec.get("groups", {}).values():
            new = (wish["source"]["uid"], wish["release"]) not in known
            armed = metas.get(wish["source"]["uid"], {}).get("finalizers")
            assert not new or wish["release"] == "Keep" or armed, (wish, metas, stored)

    def check_fleet_switch(self, node: str, spec: dict[str, Any]) -> None:
        """Promise 17: while the switch is not at run, no write turns anything on or on further."""
        if self.world.control.switch is FleetSwitch.RUN:
            return
        stored = self.world.states.get(node, {"spec": {}})
        before = stored["spec"].get("groups", {})
        for group, wish in spec.get("groups", {}).items():
            held = wish["mode"] != "Apply" or wish["settings"] == {"engine": "Off"}
            assert held or wish["settings"] == before.get(group, {}).get("settings")

    @rule()
    def writes_fail(self) -> None:
        self.operator_decides(0.0)
        for write in self.on_their_way:
            self.world.fleet.write_failed(write.key)
        self.on_their_way = []

    @rule()
    def operator_restarts(self) -> None:
        self.writes_arrive()
        self.world.restart(self.world.epoch)

    @rule()
    def another_operator_leads(self) -> None:
        """Promise 8: what the deposed one sent may still arrive, at any time."""
        self.late, self.on_their_way = self.late + self.on_their_way, []
        self.world.epoch += 1
        self.world.restart(self.world.epoch)

    @precondition(lambda self: self.world.revisions)
    @rule(data=st.data())
    def somebody_deletes_a_revision(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.world.revisions)))
        del self.world.revisions[name]
        self.world.fleet.revision_gone(name, self.world.now)

    @invariant()
    def the_counts_are_a_partition_of_the_matched_nodes(self) -> None:
        for one in self.world.policies.values():
            counts = one["status"].get("nodes")
            if counts:
                assert counts["matched"] == sum(counts[bucket] for bucket in NodeBucket)

    @rule()
    def at_rest_a_fresh_fleet_agrees(self) -> None:
        self.writes_arrive()
        self.world.come_to_rest()
        assert self.world.decide().writes == ()
        fresh = Fleet(self.world.settings)
        fresh.lead(self.world.epoch)
        seasoned, self.world.fleet = self.world.fleet, fresh
        self.world.sync()
        assert self.world.decide().writes == ()
        self.world.now += 1
        assert self.world.decide().writes == ()
        for uid, record in fresh._policies.items():
            known = seasoned._policies[uid]
            assert +known.tally.buckets == +record.tally.buckets
            assert known.tally.names == record.tally.names
            assert known.tally.losses == record.tally.losses
            assert known.tally.statistics() == record.tally.statistics()
            assert known.holders == record.holders
            assert known.rollout.book.unproven == record.rollout.book.unproven == set()
            assert known.rollout.book.unreverted == record.rollout.book.unreverted


FleetHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestFleetHistory = FleetHistory.TestCase
