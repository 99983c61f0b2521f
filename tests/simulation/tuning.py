# SPDX-License-Identifier: Apache-2.0
"""What is promised of measurements, checked from outside: who is asked, what a class makes of answers, what is used.

The oracle's own reading of docs/decisions/0033; shares the name of a profile with the product, and the words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from numamigration_api.machinery.profiles import profile_name
from numamigration_api.vocabulary import PROBE_MANAGER, PROFILE_NODES_MAX
from tests.simulation.kernels import of_class
from tests.simulation.measuring import ENDED
from tests.simulation.objects import Json, find
from tests.simulation.rollouts import Cell, cell_of, contents_of, owner_of, phase, verdicts
from tests.simulation.server import PROFILES, REVISIONS, STATES, Written
from tests.simulation.wanted import View, is_deleting, matched, winner

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle

FORGED_CHANNELS: Final = 16
"""No node of a schedule measures so many: whoever has them has them from a profile that was edited by hand."""
FIXED_ENGINES: Final = frozenset({"Off", "CPUThreads"})
KNOWN_SECONDS: Final = 100.0
"""After so long every operator has heard of what somebody took away."""
ANSWER_SECONDS: Final = 1800.0
"""For so long a node that was asked is waited for."""
WAITS: Final = frozenset({"NotCalm", "BudgetSpent"})
"""Why a node that is asked may not have answered at rest; the second passes after a day."""
ENTRY: Final = ("engine", "channels")
SIGNED: Final = ("phase", "recommendation", "nodes")
"""What somebody else's hand is known by."""

Entry = tuple[str, str, int]
"""What a class has: the name of its profile, an engine, and channels; 0 for none."""


class Asked(NamedTuple):
    """A node's question: which, since when, and by whom."""

    id: str
    since: float
    by: str


def is_answered(state: Json) -> bool:
    """Whether something became of what a node is asked."""
    probe = find(state, ("status", "probe")) or {}
    return bool(probe.get("id") == find(state, ("spec", "probe", "id")) and probe.get("phase") in ENDED)


def is_question(written: Written) -> bool:
    """Whether this is a write of what a node is asked, and of nothing else."""
    request = written.request
    return request is not None and request.query.get("fieldManager") == PROBE_MANAGER


def wants_to_know(policy: Json) -> bool:
    """Whether a policy has its nodes measured."""
    spec = policy["spec"]
    return bool(spec.get("tuning", {}).get("mode", "Off") != "Off" and spec["mode"] == "Apply")


def is_applied(spec: Json) -> bool:
    """Whether what was measured becomes a policy's settings: numbers that it gives itself win."""
    offload = spec["settings"].get("offload", {})
    fixed = {"channels", "profiles"} & offload.keys() or offload.get("engine") in FIXED_ENGINES
    return bool(spec.get("tuning", {}).get("mode") == "Auto" and not fixed)


def entry_of(named: Mapping[str, Any], name: str) -> Entry:
    """Return what a class has by a recommendation, or by an entry of the settings."""
    return name, str(named["engine"]), int(named.get("channels") or 0)


def careful(nodes: Iterable[Mapping[str, Any]]) -> tuple[str, int]:
    """Return the most careful of some choices: off if any is, else the fewest channels."""
    return min(((str(one["engine"]), int(one.get("channels") or 0)) for one in nodes), key=_care)


def _care(choice: tuple[str, int]) -> tuple[bool, int]:
    return choice[0] != "Off", choice[1]


@dataclass
class TuningOracle:
    """All checks of measurements in one schedule.

    Attributes:
        oracle: of everything else.
        forged: profiles that somebody edited, until an operator writes them.
        told: by node, what it has ever said that it chose.
        rightful: what classes were ever to have.
        questions: by node, what it is asked.
        written_at: when each place of profiles and questions was written by operators, the changeless writes too.
        cells: where each node said last that it belongs.
    """

    oracle: Oracle
    forged: set[str] = field(default_factory=set)
    told: dict[str, set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))
    rightful: set[Entry] = field(default_factory=set)
    questions: dict[str, Asked] = field(default_factory=dict)
    cells: dict[str, Cell] = field(default_factory=dict)

    # --- what policies ask for

    def asking(self, policies: Mapping[str, Json]) -> Mapping[str, Json]:
        """Return policies as they are once what was measured stands in those that are tuned."""
        if not any(is_applied(one["spec"]) for one in policies.values()):
            return policies
        profiles = [
            {"name": name, **{key: value[key] for key in ENTRY if key in value}} for name, value in self._usable()
        ]
        return {name: _tuned(one, profiles) if is_applied(one["spec"]) else one for name, one in policies.items()}

    def _usable(self) -> Iterator[tuple[str, Json]]:
        """Yield what each class has: what was measured, or no offload while that is disputed."""
        for name, profile in sorted(self.oracle.server.all(PROFILES).items()):
            status = profile.get("status") or {}
            if name not in self.forged and "recommendation" in status:
                yield name, {"engine": "Off"} if status["phase"] == "Disputed" else status["recommendation"]

    # --- writes

    def wrote_profile(self, written: Written) -> None:
        """Check what an operator makes of answers."""
        if written.after is None or written.before is None:
            self.forged.discard(written.name)
            return
        name, before, status = written.name, written.before.get("status") or {}, written.after.get("status") or {}
        if written.client not in self.oracle.operators:
            moved = any(before.get(key) != status.get(key) for key in SIGNED)
            self.forged |= {name} if moved else set()
            return
        self.oracle.check_holds(written)
        self.oracle.check_epoch(written, status.get("leaderEpoch"))
        self._check_dispute(name, before, status)
        self.forged.discard(name)
        nodes, found = status.get("nodes") or [], status.get("recommendation")
        _check(found is None or bool(nodes), f"tuning: {name} recommends {found}, which nobody has measured")
        if found is None:
            return
        for one in nodes:
            choice = str(one["engine"]), int(one.get("channels") or 0)
            _check(choice in self.told[one["node"]], f"tuning: {name} says that {one['node']} chose {choice}")
        chosen = str(found["engine"]), int(found.get("channels") or 0)
        _check(chosen == careful(nodes), f"tuning: {name} recommends {chosen}, and its nodes chose {nodes}")
        fresh = status.get("measuredAt") != before.get("measuredAt")
        members = {node for node, cell in self.cells.items() if profile_name(*cell) == name}
        strangers = sorted({one["node"] for one in nodes} - members) if fresh else []
        _check(not strangers, f"tuning: {name} is measured on {strangers}, which are of other classes")
        self.rightful |= {entry_of(found, name), (name, "Off", 0)}

    def _check_dispute(self, name: str, before: Json, status: Json) -> None:
        """What failed in service is measured anew a day later: longer than any schedule."""
        if before.get("phase") != "Disputed" or self.oracle.clocks_wrong or name in self.forged:
            return
        same = status.get("disputes", 0) >= before.get("disputes", 0) and status.get("phase") == "Disputed"
        _check(same, f"tuning: {name} is {status.get('phase')} so soon after it was disputed")

    def wrote_state(self, written: Written) -> None:
        """Take in who is asked and what is told; check that asking moves nothing, and that profiles are rightful."""
        name, before, after = written.name, written.before or {}, written.after
        if after is None:
            self.questions.pop(name, None)
            return
        if any(cell_of(after)):
            self.cells[name] = cell_of(after)
        probe = find(after, ("status", "probe")) or {}
        if probe.get("phase") == "Done" and "choice" in probe:
            self.told[name].add((str(probe["choice"]["engine"]), int(probe["choice"].get("channels") or 0)))
        asked = find(after, ("spec", "probe", "id"))
        if asked is None:
            self.questions.pop(name, None)
        elif asked != find(before, ("spec", "probe", "id")):
            self.questions[name] = Asked(asked, written.at, written.identity)
        if written.client not in self.oracle.operators:
            return
        if is_question(written):
            self._check_question(written, asked)
            return
        stays = asked in {None, find(before, ("spec", "probe", "id"))}  # a spec may be replaced as a whole
        _check(stays, f"tuning: a push asks {name} something else")
        named = find(after, ("spec", "groups", "offload", "settings", "profiles")) or []
        wrong = [one for one in named if entry_of(one, one["name"]) not in self.rightful]
        _check(not wrong, f"tuning: {name} gets {wrong}, which was not measured")

    def _check_question(self, written: Written, asked: str | None) -> None:
        before, after = written.before or {}, written.after or {}
        self.oracle.check_holds(written)
        spec, old = ({**find(one, ("spec",)), "probe": None} for one in (after, before))
        _check(spec == old, f"tuning: asking {written.name} changes {sorted(_moved(old, spec))}")
        if asked is None or asked == find(before, ("spec", "probe", "id")):
            return
        views = self.oracle.seen_lately(written.at, written.name)
        _check(any(_is_wanted(view, written.name) for view in views), f"tuning: {written.name} is asked for nobody")
        others = [node for node in self._standing(written, asked) if node != written.name]
        busy = [node for node in others if not is_answered(self.oracle.server.get(STATES, node) or {})]
        _check(not busy, f"tuning: {written.name} is asked while {busy} measure")
        _check(len(others) < PROFILE_NODES_MAX, f"tuning: {written.name} is asked after {sorted(others)}")

    def _standing(self, written: Written, asked: str) -> Iterator[str]:
        """Yield who is asked in the same round, as far as the writer must know and count that."""
        for node, (question, since, by) in self.questions.items():
            known = by == written.identity or self.oracle.knows(written, since)
            if question == asked and known and written.at < since + ANSWER_SECONDS and self._counts(node, written.at):
                yield node

    def _counts(self, node: str, now: float) -> bool:
        state = self.oracle.server.get(STATES, node) or {}
        corrupt = find(state, ("status", "verification", "result")) == "Failed"
        if corrupt or not any(cell_of(state)) or self.oracle.may_be_silent(node, now) or self.oracle.held_at:
            return False
        if now <= self.oracle.unplaced.get(node, -inf) + KNOWN_SECONDS:
            return False
        return all(_is_wanted(view, node) for view in self.oracle.seen_lately(now, node))

    # --- rest

    def at_rest(self, view: View, alive: frozenset[str]) -> None:
        """Check who is asked once all is at rest: only where a node is waited for that is never calm.

        Args:
            view: what is wanted.
            alive: nodes whose agent lives and whose kernel has no trouble.
        """
        classes = self._classes(view, alive)
        for policy in view.policies.values():
            self._failed_at_rest(policy, classes.keys())
        asked: defaultdict[Cell, dict[str, Json]] = defaultdict(dict)
        for name, state in self.oracle.server.all(STATES).items():
            if find(state, ("spec", "probe")) is not None and name in alive:
                asked[self.cells.get(name, cell_of(state))][name] = state
        for cell, states in asked.items():
            self._class_at_rest(cell, states, classes.get(cell, set()))
        if view.switch != "run" or self.oracle.held_at:
            return
        for cell in classes.keys() - asked.keys():
            status = find(self.oracle.server.get(PROFILES, profile_name(*cell)), ("status",)) or {}
            message = f"tuning: at rest {cell} is not measured, and nobody is asked: {status}"
            _check(bool({"measuredAt", "attemptedAt"} & status.keys()), message)

    def _failed_at_rest(self, policy: Json, classes: Collection[Cell]) -> None:
        """What was measured and has failed in service is disputed, where anybody may be asked."""
        uid, name = policy["metadata"]["uid"], policy["metadata"]["name"]
        if phase(policy) != "RolledBack" or "profiles" not in policy["spec"]["settings"].get("offload", {}):
            return
        for revision in self.oracle.server.all(REVISIONS).values():
            same = owner_of(revision) == uid and contents_of(uid, revision["data"]) == contents_of(uid, policy["spec"])
            for cell, record in verdicts(revision).items() if same else ():
                status = find(self.oracle.server.get(PROFILES, profile_name(*cell)), ("status",)) or {}
                failed = (
                    cell in classes
                    and record["verdict"] == "Failed"
                    and record["generation"] >= policy["metadata"]["generation"]
                )
                used = status.get("phase") == "Measured" and find(status, ("recommendation", "engine")) == "DMA"
                _check(not (failed and used), f"tuning: at rest {name} has failed on {cell}, which is not disputed")

    def _classes(self, view: View, alive: frozenset[str]) -> dict[Cell, set[str]]:
        """Return the nodes that may be asked, by class."""
        found: defaultdict[Cell, set[str]] = defaultdict(set)
        for name in alive if view.switch == "run" else ():
            if _is_wanted(view, name) and name in self.cells:
                found[self.cells[name]].add(name)
        return found

    def _class_at_rest(self, cell: Cell, states: Mapping[str, Json], wanted: set[str]) -> None:
        where, rounds = f"tuning: at rest {cell}", {find(one, ("spec", "probe", "id")) for one in states.values()}
        _check(states.keys() <= wanted, f"{where}: {sorted(states.keys() - wanted)} are asked for nobody")
        _check(len(rounds) == 1, f"{where} is asked for {sorted(rounds)}")
        _check(len(states) <= PROFILE_NODES_MAX, f"{where} has {len(states)} nodes that are asked: {sorted(states)}")
        running = sorted(name for name, state in states.items() if not is_answered(state))
        _check(len(running) == 1, f"{where}: {sorted(states)} are asked, and {running} have not answered")
        waits = find(states[running[0]], ("status", "probe", "reason"))
        _check(waits in WAITS, f"{where}: {running} does not answer, for {waits}")

    def class_settings(self, node: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what of a wish's settings is meant for a node."""
        return of_class(settings, profile_name(*self.cells.get(node, ("", ""))))


def _tuned(policy: Json, profiles: list[Json]) -> Json:
    spec = policy["spec"]
    offload = {key: value for key, value in spec["settings"].get("offload", {}).items() if key != "engine"}
    settings = {**spec["settings"], "offload": {**offload, "profiles": profiles}}
    return {**policy, "spec": {**spec, "settings": settings}}


def _is_wanted(view: View, node: str) -> bool:
    """Whether the policy that has offload on a node, or else the first one that asks, has it measured."""
    won = winner(view, node, "offload")
    if won is not None:
        return wants_to_know(won)
    return any(
        wants_to_know(one) and not is_deleting(one) and node in matched(view, one) for one in view.policies.values()
    )


def _moved(old: Json, new: Json) -> Iterator[str]:
    yield from (key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def _check(holds: bool, message: str) -> None:
    if not holds:
        from tests.simulation.oracle import BrokenPromiseError

        raise BrokenPromiseError(message)
