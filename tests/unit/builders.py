# SPDX-License-Identifier: Apache-2.0
"""Objects as the API server shows them, in a line each, and a fleet whose writes take effect."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from numamigration_api.machinery.canonical import wish_revision
from numamigration_api.machinery.clock import timestamp
from numamigration_api.vocabulary import RESTORE_FINALIZER, FleetSwitch
from numamigration_operator.core.course import Goal
from numamigration_operator.core.decisions import Decisions, EventWish, Patch, Write, WriteKey, WriteKind
from numamigration_operator.core.fleet import Fleet, FleetSettings
from numamigration_operator.core.fleet_switch import Control
from numamigration_operator.core.objects import NodeObject, PolicyObject, RevisionObject, StateObject
from numamigration_operator.core.render import Turn
from numamigration_operator.core.resolve import PolicyFacts

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OFFLOAD: dict[str, Any] = {"engine": "DMA", "channels": 4}
TIERING: dict[str, Any] = {"mode": "Tiering"}
ALL_AT_ONCE: dict[str, Any] = {
    "canary": {"nodes": 0, "soakSeconds": 0},
    "maxUnproven": 10**6,
    "failureThreshold": 10**6,
}
"""No canary, no bound and no threshold, as the schema would not take it: for what is not about rollouts."""
LOOKS_MAX = 40  # each at what the last one led to
DIALECT, HARDWARE_CLASS = "V6", "class-a"


def policy(name: str = "p", *, meta: dict[str, Any] | None = None, status: Any = None, **spec: Any) -> PolicyObject:
    """Return a policy that keeps on delete (so that no finalizer is needed) and sets `offload` on every node."""
    document = {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": timestamp(START),
        }
        | (meta or {}),
        "spec": {"nodeSelector": {}, "settings": {"offload": OFFLOAD}, "onDelete": "Keep", "rollout": ALL_AT_ONCE}
        | spec,
        "status": status or {},
    }
    return msgspec.convert(document, PolicyObject)


def node(name: str = "n", uid: str | None = None, **labels: str) -> NodeObject:
    """Return a Node with these labels."""
    return msgspec.convert({"metadata": {"name": name, "uid": uid or f"node-{name}", "labels": labels}}, NodeObject)


def state(
    name: str = "n",
    spec: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    *,
    generation: int = 1,
    uid: str = "",
    owner: str | None = None,
) -> StateObject:
    """Return a node state, decoded from bytes as the informer does it."""
    document = {
        "metadata": {
            "name": name,
            "uid": uid or f"state-{name}",
            "generation": generation,
            "ownerReferences": [{"uid": owner or f"node-{name}"}],
        },
        "spec": spec or {},
        "status": status or {},
    }
    return msgspec.json.decode(json.dumps(document).encode(), type=StateObject)


def admitted(one: PolicyFacts) -> Turn:
    """The turn of a node that every rollout has admitted."""
    return Turn(Goal(one.wishes, one.revision), admitted=True)


def awaiting(one: PolicyFacts) -> Turn:
    """The turn of a node that no rollout has reached yet."""
    return Turn(Goal(one.wishes, one.revision))


class World:
    """A fleet, a clock, and an API server of a few dictionaries: what is decided can be stored and shown.

    No fake of server-side apply: each object has one writer here, so an apply replaces that writer's half.
    """

    def __init__(self, settings: FleetSettings | None = None) -> None:
        self.settings = settings or FleetSettings(reserve_interval_seconds=0.0)
        self.fleet = Fleet(self.settings)
        self.fleet.lead(1)
        self.now = 1000.0
        self.policies: dict[str, dict[str, Any]] = {}
        self.nodes: dict[str, NodeObject] = {}
        self.states: dict[str, dict[str, Any]] = {}
        self.control = Control()
        self.fence_problem = ""
        self.revisions: dict[str, dict[str, Any]] = {}
        self.cells: dict[str, tuple[str, str]] = {}  # by node, where it is not the usual one
        self.written: list[Write] = []
        self.version = 100

    @property
    def wall(self) -> datetime:
        return START + timedelta(seconds=self.now)

    # What people and kubelets do

    def add_policy(self, one: PolicyObject) -> None:
        document = json.loads(msgspec.json.encode(one))
        document["metadata"]["resourceVersion"] = self._next()
        self.policies[one.metadata.name] = document
        self.show_policy(one.metadata.name)

    def turn(self, switch: FleetSwitch, problem: str = "") -> None:
        """Turn the fleet switch."""
        self.control = Control(switch, problem)
        self.fleet.control_changed(self.control, self.now)

    def edit_policy(self, name: str, **spec: Any) -> None:
        self.policies[name]["spec"] |= spec
        self.policies[name]["metadata"]["generation"] += 1
        self.show_policy(name)

    def delete_policy(self, name: str) -> None:
        if RESTORE_FINALIZER in self.policies[name]["metadata"]["finalizers"]:
            self.policies[name]["metadata"]["deletionTimestamp"] = timestamp(self.wall)
            self.show_policy(name)
            return
        uid = self.policies.pop(name)["metadata"]["uid"]
        self.fleet.policy_gone(uid, self.now)

    def add_node(self, name: str, **labels: str) -> None:
        self.nodes[name] = node(name, **labels)
        self.fleet.node_changed(self.nodes[name], self.now)

    def remove_node(self, name: str) -> None:
        del self.nodes[name]
        self.fleet.node_gone(name, self.now)
        if self.states.pop(name, None) is not None:
            self.fleet.state_gone(name, self.now)

    def report(
        self,
        name: str,
        groups: dict[str, str | tuple[str, str]] | None = None,
        *,
        soaked: bool = True,
        **status: Any,
    ) -> None:
        """Let the agent report on its spec: a state by group, Ready where none is given (Restored for a restore).

        What is ready has soaked, unless it is said not to have.
        """
        spec = self.states[name]["spec"]
        results = {}
        for group, wish in spec.get("groups", {}).items():
            default = {"Restore": "Restored", "Hold": "Held"}.get(wish["mode"], "Ready")
            given = (groups or {}).get(group, default)
            word, reason = given if isinstance(given, tuple) else (given, "AsExpected")
            results[group] = {"state": word, "reason": reason, "message": f"{group} is {word}"}
            if soaked and word in {"Ready", "Held"}:
                results[group]["soakedRevision"] = wish_revision(wish)
        self.states[name]["status"] = (
            {
                "observedGeneration": self.states[name]["metadata"]["generation"],
                "observedRevision": spec["revision"],
                "reportedAt": timestamp(self.wall),
                "groups": results,
            }
            | self._cell(name)
            | status
        )
        self.states[name]["metadata"]["resourceVersion"] = self._next()
        self.show_state(name)

    def _cell(self, name: str) -> dict[str, Any]:
        dialect, hardware_class = self.cells.get(name, (DIALECT, HARDWARE_CLASS))
        return {"dialect": dialect, "hardwareClass": hardware_class}

    # What the API server shows

    def show_policy(self, name: str) -> None:
        self.policies[name]["metadata"]["resourceVersion"] = self._next()
        self.fleet.policy_changed(self.policy(name), self.now)

    def show_state(self, name: str) -> bool:
        return self.fleet.state_changed(self.state(name), self.now, self.wall)

    def show_revision(self, name: str) -> None:
        self.fleet.revision_changed(msgspec.convert(self.revisions[name], RevisionObject), self.now)

    def policy(self, name: str) -> PolicyObject:
        return msgspec.convert(self.policies[name], PolicyObject)

    def state(self, name: str) -> StateObject:
        return msgspec.json.decode(json.dumps(self.states[name]).encode(), type=StateObject)

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.policies[name]["status"]
        return found

    def condition(self, name: str, type_: str) -> dict[str, Any]:
        return next(c for c in self.status(name)["conditions"] if c["type"] == type_)

    def groups(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.states[name]["spec"].get("groups", {})
        return found

    # What the operator does

    def sync(self) -> None:
        """Tell the fleet everything, as after a start."""
        self.fleet.control_changed(self.control, self.now)
        self.fleet.fence_read(self.fence_problem, self.now)
        self.fleet.policies_listed([self.policy(name) for name in self.policies], self.now)
        for name in self.revisions:
            self.show_revision(name)
        self.fleet.revisions_listed(self.revisions, self.now)
        for one in self.nodes.values():
            self.fleet.node_changed(one, self.now)
        self.fleet.nodes_listed(self.nodes, self.now)
        for name in self.states:
            self.show_state(name)
        self.fleet.states_listed(self.states, self.now)

    def restart(self, epoch: int = 1) -> None:
        """A new leader; with the same epoch, one that nobody can tell from the last."""
        self.fleet = Fleet(self.settings)
        self.fleet.lead(epoch)
        self.sync()

    def decide(self) -> Decisions:
        return self.fleet.decide(self.now, self.wall)

    def step(self, seconds: float = 0.0) -> Decisions:
        """Look at what happened, let time pass, look again; store what was decided and show it.

        Nothing is pushed before it is reserved, and nothing is reserved before its agent has told where it belongs: so
        one look leads to the next, until nothing moves.
        """
        first = self._look()
        if not seconds:
            return first
        self.now += seconds
        last = self._look()
        return Decisions(first.writes + last.writes, first.events + last.events, last.look_again)

    def _look(self) -> Decisions:
        writes: tuple[Write, ...] = ()
        events: tuple[EventWish, ...] = ()
        for _ in range(LOOKS_MAX):
            found = self.decide()
            self.carry_out(found.writes)
            writes, events = writes + found.writes, events + found.events
            if found.relist:
                self.relist()
            elif not found.writes:
                return Decisions(writes, events, found.look_again)
        raise AssertionError(f"decides without end: {[write.key for write in found.writes]}")

    def specs(self, seconds: float = 0.0) -> list[Write]:
        """Look, and store what comes before specs, until specs are decided; return these, which are on their way.

        What needs a second reservation waits for the next status: that takes `seconds`.
        """
        until = self.now + seconds
        for _ in range(LOOKS_MAX):
            found = self.decide()
            open_writes = [write for write in found.writes if write.key.kind is WriteKind.STATE_SPEC]
            self.carry_out(write for write in found.writes if write not in open_writes)
            if found.relist:
                self.relist()
            elif open_writes or (not found.writes and self.now >= until):
                return open_writes
            elif not found.writes:
                self.now += 1
        raise AssertionError(f"decides without end: {[write.key for write in found.writes]}")

    def relist(self) -> None:
        """List Nodes and node states once more."""
        for one in self.nodes.values():
            self.fleet.node_changed(one, self.now)
        self.fleet.nodes_listed(self.nodes, self.now)
        for name in self.states:
            self.show_state(name)
        self.fleet.states_listed(self.states, self.now)
        self.fleet.relisted(self.now)

    def settle(self, *, agents: bool = True) -> None:
        """Decide, store and report until nothing moves any more."""
        for _ in range(8):
            self.step(self.settings.status_interval_seconds + 1)
            for name in self.states if agents else ():
                self.report(name)
        # The last reports too: a node that is still to be decided hides that a later event failed to mark it.
        self.step()

    def carry_out(self, writes: Iterable[Write]) -> None:
        for write in writes:
            self.written.append(write)
            document = json.loads(write.body)
            if write.patch is Patch.JSON:
                self._patch(write.key, document)
                continue
            match write.key.kind:
                case WriteKind.STATE_SPEC:
                    self._apply_state(write.key, document)
                case WriteKind.POLICY_STATUS:
                    self._store_status(write.key, document)
                case WriteKind.POLICY_FINALIZER:
                    known = self.policies[write.key.name]["metadata"]["finalizers"]
                    self._store_finalizers(write.key.name, [*known, *document["metadata"]["finalizers"]])
                case WriteKind.REVISION:
                    self._store_revision(write, document)
                case WriteKind.REVISION_DELETION:
                    del self.revisions[write.key.name]
                    self.fleet.revision_gone(write.key.name, self.now)
                case _:
                    raise NotImplementedError(write.key)

    def _store_status(self, key: WriteKey, document: dict[str, Any]) -> None:
        known = self.policies[key.name]
        if (
            document["metadata"].get("resourceVersion", known["metadata"]["resourceVersion"])
            != (known["metadata"]["resourceVersion"])
        ):
            self.fleet.write_failed(key)
            return
        known["status"] = document["status"]
        self.show_policy(key.name)

    def _store_revision(self, write: Write, document: dict[str, Any]) -> None:
        name, version = document["metadata"]["name"], document["metadata"].get("resourceVersion")
        known = self.revisions.get(name)
        if version != (known and known["metadata"]["resourceVersion"]):
            self.show_revision(name)  # until a watch has shown it, the same would be decided again and again
            self.fleet.write_failed(write.key)
            return
        document["metadata"] |= {"uid": f"revision-{name}", "resourceVersion": str(int(version or 0) + 1)}
        self.revisions[name] = document
        self.show_revision(name)

    def _apply_state(self, key: WriteKey, document: dict[str, Any]) -> None:
        asked = document["metadata"].get("resourceVersion")
        if asked not in {None, self.states.get(key.name, {}).get("metadata", {}).get("resourceVersion")}:
            self.show_state(key.name)  # until a watch has shown it, the same would be decided again and again
            self.fleet.write_failed(key)
            return
        self._store_state(document)

    def store_late(self, write: Write) -> None:
        """A push that somebody else sent is stored, and no watch has shown it yet."""
        state, document = self.states[write.key.name], json.loads(write.body)
        state["metadata"]["generation"] += 1
        state["metadata"]["resourceVersion"] = self._next()
        state["spec"] = document["spec"]

    def _store_state(self, document: dict[str, Any]) -> None:
        name = document["metadata"]["name"]
        fresh: dict[str, Any] = {
            "metadata": {"name": name, "uid": f"state-{name}", "generation": 0},
            "status": self._cell(name),  # as if its agent had said so, and no more
        }
        known = self.states.setdefault(name, fresh)
        if known.get("spec") != document["spec"]:
            known["metadata"]["generation"] += 1
        known["metadata"]["resourceVersion"] = self._next()
        known["spec"] = document["spec"]
        known["metadata"]["ownerReferences"] = document["metadata"]["ownerReferences"]
        self.show_state(name)

    def _store_finalizers(self, name: str, finalizers: list[str]) -> None:
        meta = self.policies[name]["metadata"]
        meta["finalizers"] = finalizers
        if meta.get("deletionTimestamp") and not finalizers:
            del self.policies[name]
            self.fleet.policy_gone(meta["uid"], self.now)
            return
        self.show_policy(name)

    def _patch(self, key: WriteKey, steps: list[dict[str, Any]]) -> None:
        if key.kind is WriteKind.POLICY_FINALIZER:
            self._patch_finalizers(key, steps)
            return
        *tests, add = steps
        known = self.states.get(key.name, {}).get("metadata", {})
        if any(test["value"] != known.get(test["path"].removeprefix("/metadata/")) for test in tests):
            self.fleet.write_failed(key)
            return
        self._store_state({"metadata": known, "spec": add["value"]})

    def _patch_finalizers(self, key: WriteKey, steps: list[dict[str, Any]]) -> None:
        """All steps of a JSON patch, or a 422 and none; what is removed is always a finalizer."""
        meta = self.policies.get(key.name, {}).get("metadata", {})
        left: list[str] = list(meta.get("finalizers", []))
        for step in steps:
            at = step["path"].removeprefix("/metadata/finalizers/")
            shown = left[int(at) : int(at) + 1] if at.isdecimal() else [meta.get("uid")]
            if shown != [step.get("value", *shown)]:
                self.fleet.write_failed(key)
                return
            if step["op"] == "remove":
                del left[int(at)]
        self._store_finalizers(key.name, left)

    def _next(self) -> str:
        self.version += 1
        return str(self.version)


def keys(decisions: Decisions) -> list[WriteKey]:
    """Return where the writes go; the stored revisions aside."""
    return [write.key for write in decisions.writes if write.key.kind is not WriteKind.REVISION]
