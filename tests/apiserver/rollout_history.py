# SPDX-License-Identifier: Apache-2.0
"""Promise 8, judged from all versions of policies and node states in the order in which they were stored. Pure.

* At each version, per policy: the nodes that have something unsafe of it that has not soaked, and those that its
  ledger names, are together no more than maxUnproven of the nodes that match. Stricter than the promise: a node that is
  unreachable, or whose agent let a wish be, counts on here.
* A node gets something new that is unsafe only while the ledger that is stored names it.
* An object's leaderEpoch never falls, nor its writeSequence within one epoch.
* No version is missing: a generation follows on the one before.

Not for policies with maxUnproven 100 %, where a star stands for names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from numamigration_api.machinery.canonical import wish_revision
from tests.testbed.api import Json
from tests.testbed.recorder import Version

POLICIES: Final = "migrationpolicies"
STATES: Final = "nodemigrationstates"
PARTS: Final = {POLICIES: "status", STATES: "spec"}
"""What a leader writes of each."""


class History:
    """What stands in the API server after each version that is taken.

    Args:
        budgets: by policy name, how many nodes may be reserved or unproven at a time.
    """

    def __init__(self, budgets: Mapping[str, int]) -> None:
        self._budgets = budgets
        self._objects: dict[tuple[str, str], Json] = {}
        self._unproven: defaultdict[str, set[str]] = defaultdict(set)
        self._uids: dict[str, str] = {}
        self.most: defaultdict[str, int] = defaultdict(int)
        """By policy, the most nodes that ever counted at a time."""
        self.changed: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
        """By leaderEpoch, at which resource versions its leader changed something, and the object's name."""

    def findings(self, versions: Iterable[Version]) -> Iterator[str]:
        """Take versions in; yield what breaks the promise, the resource version first."""
        for version in versions:
            for finding in self._take(version):
                yield f"at {version.revision}: {version.plural} {version.name}: {finding}"

    def counted(self, policy: str) -> set[str]:
        """Return the nodes that are reserved or unproven for a policy."""
        return self._unproven[self._uids.get(policy, "")] | ledger_names(self._objects.get((POLICIES, policy), {}))

    def _take(self, version: Version) -> Iterator[str]:
        key = version.plural, version.name
        before, after = self._objects.get(key, {}), version.obj
        if before and after and before["metadata"]["uid"] == after["metadata"]["uid"]:
            yield from _whole(before, after)
            yield from _fence(_stamp(before, version.plural), _stamp(after, version.plural))
        if version.plural == STATES:
            yield from self._take_state(version.name, before, after)
        elif after:
            self._uids[version.name] = after["metadata"]["uid"]
        part, (epoch, _) = PARTS[version.plural], _stamp(after, version.plural)
        if before.get(part) != after.get(part):
            self.changed[epoch].append((version.revision, version.name))
        self._objects[key] = after
        yield from self._over_budget()

    def _take_state(self, name: str, before: Json, after: Json) -> Iterator[str]:
        unsafe = dict(unsafe_wishes(after))
        had = {group: wish_revision(wish) for group, wish in unsafe_wishes(before)}
        for group, wish in unsafe.items():
            source = wish["source"]["policy"]
            if had.get(group) == wish_revision(wish) or source not in self._budgets:
                continue
            named = ledger_names(self._objects.get((POLICIES, source), {}))
            if name not in named:
                yield f"{group} is pushed, and the ledger of {source} names {sorted(named)}"
        open_uids = {wish["source"]["uid"] for group, wish in unsafe.items() if not has_soaked(after, group, wish)}
        for uid in open_uids | self._unproven.keys():
            (self._unproven[uid].add if uid in open_uids else self._unproven[uid].discard)(name)

    def _over_budget(self) -> Iterator[str]:
        for policy, budget in self._budgets.items():
            counted = self.counted(policy)
            if len(counted) > max(budget, self.most[policy]):  # once for each node too many
                yield f"{len(counted)} nodes of {policy} are reserved or unproven, {budget} may be: {sorted(counted)}"
            self.most[policy] = max(self.most[policy], len(counted))


def ledger_names(policy: Json) -> set[str]:
    """Return the nodes that a policy's stored ledger names."""
    rollout = policy.get("status", {}).get("rollout", {})
    return {*rollout.get("reserved", ()), *rollout.get("carried", ())}


def unsafe_wishes(state: Json) -> Iterator[tuple[str, Json]]:
    """Yield what a node state asks for that does more than restore, hold, or turn offload off."""
    for group, wish in state.get("spec", {}).get("groups", {}).items():
        turns_off = group == "offload" and wish["settings"].get("engine") == "Off"
        if wish["mode"] == "Apply" and not turns_off:
            yield group, wish


def has_soaked(state: Json, group: str, wish: Json) -> bool:
    """Return whether the agent says that this wish has soaked."""
    told = state.get("status", {}).get("groups", {}).get(group, {}).get("soakedRevision")
    return bool(told == wish_revision(wish))


def _whole(before: Json, after: Json) -> Iterator[str]:
    old, new = (obj["metadata"]["generation"] for obj in (before, after))
    if new not in {old, old + 1}:
        yield f"generation {new} follows on {old}: what was between was not seen"


def _stamp(obj: Json, plural: str) -> tuple[int, int]:
    """Return leaderEpoch and writeSequence; 0 where there is none."""
    part = obj.get(PARTS[plural], {})
    place = part if plural == STATES else part.get("rollout", {})
    return place.get("leaderEpoch", 0), place.get("writeSequence", 0)


def _fence(old: tuple[int, int], new: tuple[int, int]) -> Iterator[str]:
    if new < old:  # first by epoch, then by the number within it
        yield f"(leaderEpoch, writeSequence) falls from {old} to {new}"
