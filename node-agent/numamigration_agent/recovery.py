# SPDX-License-Identifier: Apache-2.0
"""What an earlier life of this agent knew, from the files of the state folder and the node's own status. Pure.

A status of another boot tells which wishes were soaked, and is as good as none else. One that was edited, or told by
another release, is read as far as it makes sense: what is not understood is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from numamigration_agent.baseline import Baselines, recover
from numamigration_agent.jobs import Begun
from numamigration_agent.kernel.codecs import Value, is_reason_name, reason_names
from numamigration_agent.kernel.counters import NUMA_COUNTERS, numa_name
from numamigration_agent.kernel.dialects import CODECS, REASONS_FIELD
from numamigration_agent.record import verdict_of_status
from numamigration_agent.statistics import DRIFT_CORRECTIONS, TOTALS, Statistics
from numamigration_agent.verify import Verdict
from numamigration_agent.window import Window, window_of_status
from numamigration_api.machinery.conditions import find_condition
from numamigration_api.machinery.records import dataclass, field
from numamigration_api.machinery.shapes import count, mapping, moment, objects, texts
from numamigration_api.vocabulary import NodeCondition, Outcome, Reason, SettingsGroup

_SETTLED: Final = (Outcome.APPLIED, Outcome.ALREADY_SET, Outcome.CLAMPED)  # a tuple: what is asked may not be hashable
_DRIFTED: Final = (Reason.DRIFT_DETECTED, Reason.CONTENDED)


class Settled(NamedTuple):
    """Since when a revision is in force, for people."""

    revision: str | None
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What was known.

    Attributes:
        on_file: baselines that the file has.
        reasons_seen: migration reasons that this kernel has ever shown.
        settled: by field, the target that was last found in force.
        contended: fields that another writer fights over; empty when the spec is another one by now.
        contended_since: since when, for people.
        statistics: None when none of this boot were told.
        verdict: of the last trial, as the status has it.
        soaked: by group, the revision of the wish that was soaked, on whatever boot.
    """

    baselines: Baselines
    on_file: Mapping[str, Value] = field(default_factory=dict)
    reasons_seen: frozenset[str] = frozenset()
    settled: Mapping[str, Value] = field(default_factory=dict)
    settled_at: Settled | None = None
    statistics: Statistics | None = None
    since: str | None = None
    window: Window | None = None
    contended: frozenset[str] = frozenset()
    contended_since: str = ""
    verdict: Verdict | None = None
    soaked: Mapping[SettingsGroup, str] = field(default_factory=dict)


def recall(begun: Begun, state: Mapping[str, Any]) -> Earlier:
    """Return what the files and a node state say."""
    status, boot_id = mapping(state.get("status")), begun.host.boot_id
    baselines = recover(begun.loaded, status, boot_id)
    on_file = begun.loaded.values if isinstance(begun.loaded, Baselines) else {}
    mask = baselines.values.get(REASONS_FIELD)
    reasons_seen = reason_names(mask) if mask else frozenset[str]()
    soaked = soaked_of_status(status)
    if status.get("bootID") != boot_id:
        return Earlier(baselines=baselines, on_file=on_file, reasons_seen=reasons_seen, soaked=soaked)
    revision, settled_at = status.get("observedRevision"), moment(status.get("settledAt"))
    same = revision == mapping(state.get("spec")).get("revision")
    contended, contended_since = contended_of_status(status) if same else (frozenset[str](), "")
    return Earlier(
        baselines=baselines,
        on_file=on_file,
        reasons_seen=reasons_seen | reasons_of_status(status),
        settled=settled_of_status(status),
        settled_at=Settled(revision, settled_at) if settled_at else None,
        statistics=Statistics(totals={DRIFT_CORRECTIONS: 0, **totals_of_status(status)}),
        since=moment(mapping(status.get("statistics")).get("since")),
        window=window_of_status(status),
        contended=contended,
        contended_since=contended_since,
        verdict=verdict_of_status(status, boot_id),
        soaked=soaked,
    )


def soaked_of_status(status: Mapping[str, Any]) -> dict[SettingsGroup, str]:
    """Return by group the wish that a status says was soaked."""
    groups = mapping(status.get("groups"))
    told = {name: mapping(groups.get(name)).get("soakedRevision") for name in SettingsGroup}
    return {name: revision for name, revision in told.items() if isinstance(revision, str)}


def totals_of_status(status: Mapping[str, Any]) -> dict[str, int]:
    """Return the totals that a status has, to go on counting after a restart of the agent."""
    known = mapping(status.get("statistics"))
    totals = {name: count(known.get(key)) for name, key in TOTALS.items()}
    for row in objects(known.get("numaNodes")):
        number = count(row.get("id"))
        if number is not None:
            totals |= {numa_name(number, name): count(row.get(TOTALS[name])) for name in NUMA_COUNTERS}
    return {name: total for name, total in totals.items() if total is not None}


def reasons_of_status(status: Mapping[str, Any]) -> frozenset[str]:
    """Return the migration reasons that a status says this kernel knows."""
    names = texts(mapping(status.get("capabilities")).get("migrationReasons"))
    return frozenset(filter(is_reason_name, names))


def contended_of_status(status: Mapping[str, Any]) -> tuple[frozenset[str], str]:
    """Return the fields that a status says another writer fights over, and since when."""
    drifted = find_condition(objects(status.get("conditions")), NodeCondition.DRIFTED) or {}
    rows = (row for row in objects(status.get("knobs")) if not row.get("outcome"))
    names = (row.get("field") for row in rows if row.get("reason") == Reason.CONTENDED)
    known = frozenset(name for name in names if isinstance(name, str) and name in CODECS)
    return known, moment(drifted.get("lastTransitionTime")) or ""


def settled_of_status(status: Mapping[str, Any]) -> dict[str, Value]:
    """Return by field what a status says was in force, so that drift is told from work also after a restart."""
    settled: dict[str, Value] = {}
    for row in objects(status.get("knobs")):
        in_force = row.get("outcome") in _SETTLED
        shown, name = row.get("observed") if in_force else row.get("desired"), row.get("field")
        drifted = not row.get("outcome") and row.get("reason") in _DRIFTED
        told = in_force or drifted
        if not (told and isinstance(shown, str) and isinstance(name, str) and name in CODECS):
            continue
        value = CODECS[name].unshow(shown)
        if value is not None:
            settled[name] = value
    return settled
