# SPDX-License-Identifier: Apache-2.0
"""Which nodes are measured, and what their hardware class makes of it: MigrationProfiles, kept by the leader.

* A class is a dialect on a hardware class. One node of it is asked at a time, up to PROFILE_NODES_MAX in all, so the
  cost grows with kinds of hardware and not with nodes. Only nodes are asked whose policy wants to know, and that
  nothing keeps from being pushed.
* What a node is asked stands in its spec.probe, what came of it in its status, what follows in the profile. So a new
  leader goes on where the last one stopped. A round has an id of its own, which an agent measures once.
* The class has what all measured nodes would gain by: offload only if all say so, with the fewest channels that one
  of them chose.
* What was measured is used until it is measured anew: after REMEASURE_SECONDS, when somebody edited the profile, or
  when a rollout with it failed in service; the last takes it out of use at once, and waits longer each time.
* Nobody looks at nodes while no policy is tuned.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from numamigration_api.machinery.canonical import canonical_json, revision_hash
from numamigration_api.machinery.clock import timestamp
from numamigration_api.machinery.conditions import shorten
from numamigration_api.machinery.profiles import profile_name
from numamigration_api.vocabulary import (
    API_VERSION,
    PROFILE_KIND,
    PROFILE_NODES_MAX,
    STATE_KIND,
    Engine,
    PolicyMode,
    ProbePhase,
    ProfilePhase,
    RolloutPhase,
    SettingsGroup,
)
from numamigration_operator.core.decisions import Patch, Write, WriteKey, WriteKind
from numamigration_operator.core.node_record import NodeRecord
from numamigration_operator.core.objects import (
    MeasuredNode,
    ProbeView,
    ProfileObject,
    ProfileStatus,
    Recommendation,
    StateObject,
)
from numamigration_operator.core.policy_record import PolicyRecord
from numamigration_operator.core.remeasure import seconds_until_due
from numamigration_operator.core.resolve import PolicyFacts, Resolution
from numamigration_operator.core.revisions import Cell
from numamigration_operator.core.stops import Stops
from numamigration_operator.core.tuned import Profiles, Tuned, digest_of, is_edited, profiles_of

LOOK_SECONDS: Final = 10.0
"""Between two looks at all nodes, while there is something to measure."""
ANSWER_SECONDS: Final = 1800.0
"""A node that has not measured by then is let be; most of it is waiting for a calm moment."""
CHANNELS_TRIED: Final = (1, 2, 4, 8, 16)
"""As in the published tables; an agent leaves out what its host has not."""
SECONDS_OF_CLASS: Final = 60
"""Of measuring a class; its nodes share them."""
ENDED: Final = frozenset({ProbePhase.DONE, ProbePhase.STOPPED, ProbePhase.REFUSED})


class Asked(NamedTuple):
    """What a node is asked to measure, and what it says of that."""

    id: str = ""
    view: ProbeView | None = None

    @property
    def result(self) -> ProbeView | None:
        """What became of it; None while nothing did."""
        view = self.view
        return view if view is not None and view.id == self.id and view.phase in ENDED else None


NOT_ASKED: Final = Asked()


class Tuner:
    """Measures classes.

    Attributes:
        listed: the profiles were listed once; before that no tuned policy is known.
    """

    def __init__(self, nodes: Mapping[str, NodeRecord], policies: Mapping[str, PolicyRecord], stops: Stops) -> None:
        self.listed = False
        self._nodes, self._policies, self._stops = nodes, policies, stops
        self._profiles: dict[str, ProfileObject] = {}
        self._tuned: dict[str, Tuned] = {}  # policies that want to know, by uid
        self._asked: dict[str, Asked] = {}  # by node
        self._since: dict[tuple[str, str], float] = {}  # (node, id), monotonic seconds
        self._open: dict[WriteKey, bytes] = {}  # what was written last, until it is seen
        self._due = -math.inf

    # What the API server shows

    def take_state(self, state: StateObject) -> None:
        """Take in what a node was asked, and what it says."""
        name, probe = state.metadata.name, state.spec.probe
        if self._open:
            self._open.pop(WriteKey(WriteKind.PROBE, name), None)
        before = self._asked.get(name, NOT_ASKED)
        after = NOT_ASKED if probe is None else Asked(probe.id, state.status.probe)
        if after == before:
            return
        self._due = -math.inf
        if probe is None:
            del self._asked[name]
        else:
            self._asked[name] = after

    def drop_state(self, name: str) -> None:
        """Take in that a node state is gone."""
        self._asked.pop(name, None)

    def take_profile(self, profile: ProfileObject) -> None:
        """Take in a profile."""
        name = profile.metadata.name
        for kind in (WriteKind.PROFILE, WriteKind.PROFILE_STATUS):
            self._open.pop(WriteKey(kind, name), None)
        self._profiles[name] = profile
        self._due = -math.inf

    def drop_profile(self, name: str) -> None:
        """Take in that a profile is gone: the class is measured anew."""
        self._profiles.pop(name, None)
        self._due = -math.inf

    def keep_profiles(self, names: Iterable[str]) -> None:
        """Take in the end of a whole list: other profiles are gone."""
        known = set(names)
        for name in [name for name in self._profiles if name not in known]:
            self.drop_profile(name)
        for key in [key for key in self._open if key.kind is WriteKind.PROFILE and key.name not in known]:
            del self._open[key]  # made, and deleted before it was seen; one that is on its way is made once only
        self.listed = True

    def write_failed(self, key: WriteKey) -> None:
        """Take in that a write did not stick."""
        self._open.pop(key, None)

    def take_policy(self, uid: str, tuning: Tuned) -> None:
        """Take in what a policy wants to know; one that is gone wants nothing."""
        self._tuned.pop(uid, None)
        if tuning is not Tuned.NO:
            self._tuned[uid] = tuning
        self._due = -math.inf

    # What follows

    @property
    def is_known(self) -> bool:
        """It is known what was measured, or no policy has it."""
        return self.listed or Tuned.APPLIED not in self._tuned.values()

    def profiles(self) -> Profiles:
        """Return what tuned policies have: of each measured class its recommendation, of a disputed one no offload."""
        return profiles_of(self._profiles.values())

    def due(self, now: float) -> float:
        """Return when to look again, monotonic seconds; infinity when there is nothing to measure."""
        if not self._tuned and not self._asked:
            return math.inf
        return max(self._due, now) if self.listed else math.inf

    def writes(self, now: float, wall: datetime, epoch: int) -> Iterator[Write]:
        """Yield what is to be asked, and what was found; looks at all nodes."""
        self._due = now + LOOK_SECONDS
        classes = self._classes()
        wanted: dict[str, str] = {}
        for name, (cell, _) in classes.items():
            if name not in self._profiles:
                yield from self._write(WriteKey(WriteKind.PROFILE, name), _profile_document(name, cell), Patch.CREATE)
        for name, profile in sorted(self._profiles.items()):
            nodes = classes[name][1] if name in classes else []
            if not self._is_told(name):
                status = self._next_status(profile, nodes, now, wall)
                if status != profile.status:
                    yield from self._tell(profile, status, epoch)
            if self._is_told(name):
                # Until it is seen the round goes on: whoever is asked no more would be asked again, without end.
                wanted |= dict.fromkeys(self._asked_among(_round(profile), nodes), _round(profile))
            elif _is_due(profile, wall):
                wanted |= self._next_asks(_round(profile), nodes, now)
        yield from self._asks(wanted, now)

    def _is_told(self, name: str) -> bool:
        """Return whether a profile's status is on its way."""
        return WriteKey(WriteKind.PROFILE_STATUS, name) in self._open

    def _classes(self) -> dict[str, tuple[Cell, list[NodeRecord]]]:
        """Return the nodes that may be asked, by the name of their class's profile."""
        cells: defaultdict[Cell, list[NodeRecord]] = defaultdict(list)
        for record in self._nodes.values():
            if record.cell is not None and record.cell.hardware_class and self._may_be_asked(record):
                cells[record.cell].append(record)
        return {profile_name(*cell): (cell, nodes) for cell, nodes in sorted(cells.items())}

    def _may_be_asked(self, record: NodeRecord) -> bool:
        """Return whether a node's policy wants to know, and nothing keeps pushes from it."""
        if record.uid is None or not record.selected or record.report is None or record.is_lost:
            return False
        wants = _who_wants(record.resolution) is not None
        return wants and self._stops.stop(record).reason is None and not record.is_corrupt

    def _next_status(
        self, profile: ProfileObject, nodes: list[NodeRecord], now: float, wall: datetime
    ) -> ProfileStatus:
        """Return a profile's status after what has happened since it was written."""
        status, stamp = profile.status, timestamp(wall)
        if is_edited(status):
            # Whatever it says now: what is made of it is signed anew. When it was measured tells rounds apart.
            message = "edited by hand; it is measured anew"
            return ProfileStatus(ProfilePhase.MEASURING, measured_at=status.measured_at, message=message)
        failure = self._failure(profile)
        if failure is not None:
            return msgspec.structs.replace(
                status, phase=ProfilePhase.DISPUTED, disputes=status.disputes + 1, attempted_at=stamp, message=failure
            )
        if not nodes or not _is_due(profile, wall):
            return status
        results = self._results(_round(profile), nodes)
        measured = [(name, view) for name, view in results if view.choice is not None and view.phase == ProbePhase.DONE]
        if self._goes_on(_round(profile), nodes, now):
            return status if status.phase else ProfileStatus(ProfilePhase.MEASURING)
        if measured:
            return _concluded(measured[:PROFILE_NODES_MAX], status.disputes, stamp)
        why = "; ".join(sorted({f"{view.reason}: {view.message}" for _, view in results})) or "no node has answered"
        return msgspec.structs.replace(
            status, phase=status.phase or ProfilePhase.MEASURING, attempted_at=stamp, message=shorten(why)
        )

    def _failure(self, profile: ProfileObject) -> str | None:
        """Return why a rollout of what was measured has failed in service, once that was taken back.

        A revision that failed is not tried again until its policy is edited, so what is measured anew and is the same
        has failed already.
        """
        status, recommended = profile.status, profile.status.recommendation
        if status.phase != ProfilePhase.MEASURED or recommended is None or recommended.engine == Engine.OFF:
            return None
        cell = Cell(profile.spec.dialect, profile.spec.hardware_class)
        for policy in self._policies.values():
            rollout = policy.stored.rollout
            if policy.facts.tuning is not Tuned.APPLIED or rollout is None or rollout.phase != RolloutPhase.ROLLED_BACK:
                continue
            for record in policy.rollout.course.failures:
                if record.cell == cell:
                    return shorten(f"policy {policy.facts.name}: {record.message}")
        return None

    def _results(self, round_id: str, nodes: Iterable[NodeRecord]) -> list[tuple[str, ProbeView]]:
        ended = ((name, self._asked[name].result) for name in self._asked_among(round_id, nodes))
        return sorted((name, view) for name, view in ended if view is not None)

    def _goes_on(self, round_id: str, nodes: list[NodeRecord], now: float) -> bool:
        """Return whether somebody is to be waited for, or to be asked."""
        return bool(self._running(round_id, nodes, now) or self._unasked(round_id, nodes))

    def _running(self, round_id: str, nodes: Iterable[NodeRecord], now: float) -> list[str]:
        """Return who measures, or waits to, and has time left."""
        waiting = (name for name in self._asked_among(round_id, nodes) if self._asked[name].result is None)
        return [name for name in waiting if now - self._since.setdefault((name, round_id), now) < ANSWER_SECONDS]

    def _asked_among(self, round_id: str, nodes: Iterable[NodeRecord]) -> list[str]:
        return [one.name for one in nodes if self._asked.get(one.name, NOT_ASKED).id == round_id]

    def _unasked(self, round_id: str, nodes: Collection[NodeRecord]) -> list[NodeRecord]:
        """Return who may still be asked; nobody once so many were, whatever they answered: a class may be large."""
        unasked = [one for one in nodes if self._asked.get(one.name, NOT_ASKED).id != round_id]
        return unasked if len(self._asked_among(round_id, nodes)) < PROFILE_NODES_MAX else []

    def _next_node(self, round_id: str, nodes: Collection[NodeRecord]) -> str | None:
        """Return who is asked next, in the order of a hash: nodes beside each other often have the same neighbours.

        Whom we have asked, and do not see asked yet, stays the one. None while writes to all of them are on their way:
        what is measured there is about to be another setting.
        """
        unasked = self._unasked(round_id, nodes)
        sent = next((one.name for one in unasked if (one.name, round_id) in self._since), None)
        free = (one.name for one in unasked if not one.is_open)
        return sent or min(free, key=lambda name: hashlib.sha256(f"{round_id} {name}".encode()).digest(), default=None)

    def _next_asks(self, round_id: str, nodes: list[NodeRecord], now: float) -> dict[str, str]:
        """Return by node what it is to be asked: who was asked stays so, and if all have answered one more is.

        Not before the question is gone from whoever is no node of the class any more, and may still measure.
        """
        asked = dict.fromkeys(self._asked_among(round_id, nodes), round_id)
        left = any(one.id == round_id for name, one in self._asked.items() if name not in asked)
        after = None if left or self._running(round_id, nodes, now) else self._next_node(round_id, nodes)
        return asked if after is None else {**asked, after: round_id}

    def _asks(self, wanted: Mapping[str, str], now: float) -> Iterator[Write]:
        for name in sorted(wanted.keys() | self._asked.keys()):
            round_id, record = wanted.get(name), self._nodes.get(name)
            shown = self._asked.get(name, NOT_ASKED).id or None
            if round_id == shown or record is None or record.state_uid is None:
                continue
            key = WriteKey(WriteKind.PROBE, name)
            self._since.pop((name, shown or ""), None)
            if round_id is None:
                yield from self._write(key, _withdrawal(record), Patch.MERGE)
            else:
                self._since[name, round_id] = now
                yield from self._write(key, _probe_document(record, round_id), Patch.APPLY)

    def _tell(self, profile: ProfileObject, status: ProfileStatus, epoch: int) -> Iterator[Write]:
        told = msgspec.structs.replace(status, digest=digest_of(status), leader_epoch=epoch)
        meta = profile.metadata
        seen = {"uid": meta.uid, "resourceVersion": meta.resource_version}
        # Whole, for an apply leaves what somebody wrote by hand; and onto what was seen or nowhere, for a late write
        # would bring an older measurement back.
        steps = [{"op": "test", "path": f"/metadata/{key}", "value": value} for key, value in seen.items()]
        whole = {"op": "add", "path": "/status", "value": msgspec.to_builtins(told)}
        body = canonical_json([*steps, whole])
        yield from self._write(WriteKey(WriteKind.PROFILE_STATUS, meta.name), body, Patch.JSON)

    def _write(self, key: WriteKey, body: bytes, patch: Patch) -> Iterator[Write]:
        """Yield a write, unless it is on its way."""
        if self._open.get(key) != body:
            self._open[key] = body
            yield Write(key, body, patch=patch)


def _who_wants(resolution: Resolution) -> PolicyFacts | None:
    """Return the policy for which a node may be measured: the one that has offload there, else the first that asks."""
    winner = resolution.winners.get(SettingsGroup.OFFLOAD)
    policies = (winner,) if winner is not None else resolution.policies
    return next((one for one in policies if one.mode is PolicyMode.APPLY and one.tuning is not Tuned.NO), None)


def _round(profile: ProfileObject) -> str:
    """Return the id of the measurement that comes next: another one after each that ended."""
    status = profile.status
    return revision_hash(
        {"uid": profile.metadata.uid, "measured": status.measured_at, "attempted": status.attempted_at}
    )


def _is_due(profile: ProfileObject, wall: datetime) -> bool:
    """Return whether a class is to be measured."""
    return seconds_until_due(profile.status, wall) <= 0


def _measured(name: str, view: ProbeView) -> MeasuredNode:
    choice = view.choice
    assert choice is not None
    return MeasuredNode(name, choice.engine, choice.channels, choice.gain, shorten(view.message) or None)


def _concluded(measured: Iterable[tuple[str, ProbeView]], disputes: int, stamp: str) -> ProfileStatus:
    """Return what follows from some nodes for their class: the most careful of their choices."""
    views = dict(measured)
    nodes = tuple(_measured(name, view) for name, view in views.items())
    careful = min(nodes, key=lambda one: (one.engine != Engine.OFF, one.channels or 0))
    gains = [one.gain for one in nodes if one.gain is not None]
    return ProfileStatus(
        phase=ProfilePhase.MEASURED,
        recommendation=Recommendation(careful.engine, careful.channels),
        gain=min(gains, key=float) if gains and careful.engine != Engine.OFF else None,
        nodes=nodes,
        results=views[careful.node].results,
        measured_at=stamp,
        disputes=disputes,
        message=careful.message,
    )


def _profile_document(name: str, cell: Cell) -> bytes:
    return canonical_json(
        {
            "apiVersion": API_VERSION,
            "kind": PROFILE_KIND,
            "metadata": {"name": name},
            "spec": {"dialect": cell.dialect, "hardwareClass": cell.hardware_class},
        }
    )


def _probe(round_id: str, policy: PolicyFacts | None) -> dict[str, Any]:
    candidates = [{"engine": str(Engine.DMA), "channels": channels} for channels in CHANNELS_TRIED]
    seconds = SECONDS_OF_CLASS // PROFILE_NODES_MAX
    probe: dict[str, Any] = {"id": round_id, "candidates": candidates, "secondsMax": seconds}
    risks = [str(risk) for risk in policy.plan.accepted_risks] if policy is not None else []
    return probe | ({"acceptedRisks": risks} if risks else {})


def _probe_document(record: NodeRecord, round_id: str) -> bytes:
    """Return the apply of what a node is asked, and of nothing else."""
    return canonical_json(
        {
            "apiVersion": API_VERSION,
            "kind": STATE_KIND,
            "metadata": {"name": record.name, "uid": record.state_uid},
            "spec": {"probe": _probe(round_id, _who_wants(record.resolution))},
        }
    )


def _withdrawal(record: NodeRecord) -> bytes:
    """Return the merge patch by which a node is asked no more, also where somebody has a hand in what it is asked."""
    return canonical_json({"metadata": {"uid": record.state_uid}, "spec": {"probe": None}})
