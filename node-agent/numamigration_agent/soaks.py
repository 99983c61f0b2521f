# SPDX-License-Identifier: Apache-2.0
"""How long each group's wish is in force, and which wishes have been for as long as was asked (soaked). Pure.

* A wish is known by its hash, without its mode and its source's generation; another wish for the group begins anew,
  and so does one that was not in force meanwhile. What is wished for other groups makes no difference.
* The clock is the agent's monotonic one, and a restart begins anew what was not soaked yet: nobody knows what was
  meanwhile. What is soaked stays so, held, after restarts and after reboots, until another wish comes or it ends.
* A soak is over with a reading of the counters, so that what is told of it goes to its end. One of no seconds is over
  as soon as the wish is in force, and has no numbers.
* While a guardrail is crossed no soak ends: its time is not what it was to show.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from numamigration_agent.groups import GroupPlan
from numamigration_agent.statistics import Sample
from numamigration_api.machinery.clock import NEVER
from numamigration_api.machinery.records import dataclass, field
from numamigration_api.vocabulary import GroupMode, GroupState, SettingsGroup

READING_SECONDS_MIN: Final = 1.0
"""Between two readings for the sake of a soak; also what its numbers are over at least."""
_KEEPS: Final = frozenset({GroupMode.APPLY, GroupMode.HOLD})


class Soak(NamedTuple):
    """One under way.

    Attributes:
        revision: of the wish.
        since: when it came into force (monotonic seconds).
        first: the first sample after that.
    """

    revision: str
    since: float
    first: Sample | None = None

    def ends_at(self, seconds: float) -> float:
        """Return when it is over, and counters are to be read (monotonic seconds)."""
        return NEVER if self.first is None else max(self.since + seconds, self.first.at + READING_SECONDS_MIN)


@dataclass(frozen=True, slots=True)
class Soaks:
    """Those of one node.

    Attributes:
        done: by group, the revision of the wish that was soaked.
        running: by group.
    """

    done: Mapping[SettingsGroup, str] = field(default_factory=dict)
    running: Mapping[SettingsGroup, Soak] = field(default_factory=dict)

    def without(self, names: Collection[SettingsGroup]) -> Soaks:
        """Return those that are not of these groups."""
        return Soaks(running={name: soak for name, soak in self.running.items() if name not in names})

    def read_anew(self) -> Soaks:
        """Return the same ones, whose numbers begin with the next reading; their time goes on."""
        return Soaks(self.done, {name: soak._replace(first=None) for name, soak in self.running.items()})

    @property
    def first(self) -> Sample | None:
        """The sample with which the oldest one under way begins."""
        return min((soak.first for soak in self.running.values() if soak.first), default=None, key=lambda one: one.at)

    @property
    def lacks_first(self) -> bool:
        """Whether counters are to be read at once, since a soak has just begun."""
        return any(soak.first is None for soak in self.running.values())

    def ends_at(self, seconds: float) -> float:
        """Return when the next one is over (monotonic seconds)."""
        return min((soak.ends_at(seconds) for soak in self.running.values()), default=NEVER)


def decide_soaks(known: Soaks, groups: Iterable[GroupPlan], *, seconds: float, now: float) -> Soaks:
    """Return the soaks after what is said of the groups now.

    Args:
        known: so far.
        groups: of the spec.
        seconds: how long each wish shall be in force.
        now: of a monotonic clock.
    """
    wishes = {group.wish.group: group for group in groups if group.wish.mode in _KEEPS and group.wish.revision}
    done = {name: known.done[name] for name in wishes if known.done.get(name) == wishes[name].wish.revision}
    in_force = {name: group.wish.revision for name, group in wishes.items() if group.state is GroupState.READY}
    if not seconds:
        return Soaks(done | in_force)
    running = {name: _going_on(known, name, revision, now) for name, revision in in_force.items() if name not in done}
    return Soaks(done, running)


def _going_on(known: Soaks, name: SettingsGroup, revision: str, now: float) -> Soak:
    soak = known.running.get(name)
    return soak if soak and soak.revision == revision else Soak(revision, now)


def read_soaks(known: Soaks, sample: Sample, *, seconds: float, crossed: bool = False) -> Soaks:
    """Return the soaks after a reading of the counters: some begin with it, some end with it.

    Args:
        known: so far.
        sample: the reading.
        seconds: how long each wish shall be in force.
        crossed: a guardrail is, so none ends.
    """
    over = {name for name, soak in known.running.items() if sample.at >= soak.ends_at(seconds) and not crossed}
    return Soaks(
        {**known.done, **{name: known.running[name].revision for name in over}},
        {
            name: soak if soak.first else soak._replace(first=sample)
            for name, soak in known.running.items()
            if name not in over
        },
    )
