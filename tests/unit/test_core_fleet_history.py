# SPDX-License-Identifier: Apache-2.0
"""Promises about histories: whatever happened, in whatever order."""

import json
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from numamigration_api.vocabulary import FleetSwitch, NodeBucket
from numamigration_operator.core.decisions import WriteKind
from numamigration_operator.core.fleet import Fleet
from tests.unit.builders import OFFLOAD, TIERING, World, policy

NODES, POLICIES = st.sampled_from(["n0", "n1", "n2", "n3"]), st.sampled_from(["a", "b", "c"])
SETTINGS = st.sampled_from([{"offload": OFFLOAD}, {"balancing": TIERING}, {"offload": OFFLOAD, "balancing": TIERING}])
SELECTORS = st.sampled_from([{}, {"matchLabels": {"zone": "a"}}])
WORDS = st.sampled_from(["Ready", "Failed", "Refused", "Unsupported", "Pending"])


class FleetHistory(RuleBasedStateMachine):
    """One fleet lives through everything; another one is shown the outcome only. They must agree."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.sync()
        self.serial = 0

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
    )
    def policy_appears_or_is_edited(
        self, name: str, asked: object, selector: object, priority: int, mode: str, on_delete: str
    ) -> None:
        spec = {"settings": asked, "nodeSelector": selector, "priority": priority, "mode": mode, "onDelete": on_delete}
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
    @rule(data=st.data(), word=WORDS)
    def agent_reports(self, data: st.DataObject, word: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.world.states)))
        groups = {group: word for group, wish in self.world.groups(name).items() if wish["mode"] == "Apply"}
        self.world.report(name, dict(groups), statistics={"foliosMigrated": self.serial})

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
        self.world.now += seconds
        writes = self.world.decide().writes
        for write in writes:
            if write.key.kind is WriteKind.STATE_SPEC:
                self.check_new_wishes(json.loads(write.body))
                self.check_fleet_switch(json.loads(write.body))
        self.world.carry_out(writes)

    def check_new_wishes(self, document: dict[str, Any]) -> None:
        """Promise 7: a wish that will be restored comes from a policy whose finalizer is seen."""
        stored = self.world.states.get(document["metadata"]["name"], {"spec": {}})
        before = stored["spec"].get("groups", {}).values()
        known = {(wish["source"]["uid"], wish["release"]) for wish in before}
        metas = {one["metadata"]["uid"]: one["metadata"] for one in self.world.policies.values()}
        for wish in document["spec"].get("groups", {}).values():
            new = (wish["source"]["uid"], wish["release"]) not in known
            assert not new or wish["release"] == "Keep" or metas[wish["source"]["uid"]]["finalizers"]

    def check_fleet_switch(self, document: dict[str, Any]) -> None:
        """Promise 17: while the switch is not at run, no write turns anything on or on further."""
        if self.world.control.switch is FleetSwitch.RUN:
            return
        stored = self.world.states.get(document["metadata"]["name"], {"spec": {}})
        before = stored["spec"].get("groups", {})
        for group, wish in document["spec"].get("groups", {}).items():
            held = wish["mode"] != "Apply" or wish["settings"] == {"engine": "Off"}
            assert held or wish["settings"] == before.get(group, {}).get("settings")

    @rule()
    def writes_fail(self) -> None:
        for write in self.world.decide().writes:
            self.world.fleet.write_failed(write.key)

    @rule()
    def operator_restarts(self) -> None:
        self.world.restart()

    @invariant()
    def the_counts_are_a_partition_of_the_matched_nodes(self) -> None:
        for one in self.world.policies.values():
            counts = one["status"].get("nodes")
            if counts:
                assert counts["matched"] == sum(counts[bucket] for bucket in NodeBucket)

    @rule()
    def at_rest_a_fresh_fleet_agrees(self) -> None:
        self.world.settle()
        assert self.world.decide().writes == ()
        fresh = Fleet(self.world.settings)
        fresh.lead(2)
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


FleetHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestFleetHistory = FleetHistory.TestCase
