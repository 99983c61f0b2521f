# SPDX-License-Identifier: Apache-2.0
"""Turns what the agent knows into the status of its node state. Pure; every length is bounded (promise 12: 10 kB).

* A field that the kernel does not have is absent, never 0 and never null.
* ``significant`` is what makes a report due at once; a moved counter alone is no change.
* All texts are made from kernel files and policies, so all are cut to the bounds of the CRD here.

Source: Kubernetes API conventions, "Typical status properties".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from numamigration_agent.conditions import find_conditions
from numamigration_agent.groups import GroupPlan
from numamigration_agent.kernel.codecs import ReasonMask, UInt, Value
from numamigration_agent.kernel.counters import split_numa_name
from numamigration_agent.kernel.dialects import (
    CHANNELS_FIELD,
    FIELD_ORDER,
    KNOBS,
    THREAD_COUNT_FIELD,
    Knob,
)
from numamigration_agent.kernel.engines import ENGINES_MAX
from numamigration_agent.kernel.probe import DriverState, KernelFacts, hardware_class
from numamigration_agent.plan import UNITS, PlannedPolicy
from numamigration_agent.rows import KnobPlan
from numamigration_agent.statistics import PRESSURES, TOTALS, fallback_share_max, rates
from numamigration_agent.verify import verdict_json
from numamigration_agent.view import View, group_results
from numamigration_agent.window import window_json
from numamigration_api.machinery.clock import timestamp
from numamigration_api.machinery.conditions import merge_conditions, shorten
from numamigration_api.machinery.records import replace
from numamigration_api.vocabulary import (
    KNOBS_MAX,
    PLANS_MAX,
    Engine,
    Outcome,
    SettingsGroup,
)

SHORT_LENGTH_MAX: Final = 128
KNOB_TEXT_LENGTH_MAX: Final = 256
REASONS_MAX: Final = 32  # rows in status; the mask is a word of the kernel
NUMA_ROWS_MAX: Final = 8  # half a kilobyte
PLAN_KNOBS_MAX: Final = 8  # the knobs of a plan that are not as asked
STATUS_BYTES_MAX: Final = 9_900  # as JSON with blanks; promise 12 says 10 kB
WITH_RESULTS_BYTES_MAX: Final = 8_000  # the same with results of a probe: the spec that asked has its part of the 10 kB

OFFLOAD_UNKNOWN: Final = "Unknown"
_NOT_LOADED, _UNSUPPORTED, _OFF = "Not loaded", "Unsupported", "Off"
OFFLOAD_OFF: Final = frozenset({_NOT_LOADED, _UNSUPPORTED, _OFF})
"""Phrases of a kernel that copies by no engine."""

_UNITS_OF_ENGINE: Final = {
    Engine.DMA: (CHANNELS_FIELD, "channel"),
    Engine.CPU_THREADS: (THREAD_COUNT_FIELD, "thread"),
}
_IN_FORCE: Final = frozenset({Outcome.APPLIED, Outcome.ALREADY_SET})
_VOLATILE: Final = frozenset({"reportedAt", "statistics", "window"})
_RATES: Final = {
    "folios_migrated": "foliosPerSecond",
    "folios_failed": "foliosFailedPerSecond",
    "pages_migrated": "pagesMigratedPerSecond",
    "pages_promoted": "pagesPromotedPerSecond",
    "pages_demoted": "pagesDemotedPerSecond",
}


def build_status(view: View, *, now: datetime, conditions: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the status document.

    Args:
        view: what is known.
        now: wall time, with zone.
        conditions: those that the object has, for their transition times.
    """
    groups = group_results(view.groups, view.hindrances)
    found = find_conditions(view, groups)
    status = _without_none(
        {
            "observedGeneration": view.spec.generation,
            "observedRevision": view.spec.revision,
            "reportedAt": timestamp(now),
            "settledAt": view.settled_at,
            "bootID": view.facts.host.boot_id,
            "kernelRelease": shorten(view.facts.host.release, SHORT_LENGTH_MAX),
            "agentVersion": view.agent_version,
            "dialect": str(view.facts.dialect),
            "hardwareClass": hardware_class(view.facts),
            "offload": offload_phrase(view.facts),
            "conditions": merge_conditions(conditions, found, generation=view.spec.generation, now=now),
            # Left out when empty: what an apply empties becomes null, which the CRD refuses (kube-apiserver 1.37).
            "groups": {str(group.wish.group): _group_json(group, view.soaked) for group in groups} or None,
            "capabilities": _capabilities(view),
            "dmaEngines": _engines(view.facts),
            "knobs": [_knob_json(row, view.baselines) for row in _all_rows(view, groups)][:KNOBS_MAX],
            "statistics": _statistics(view),
            "window": window_json(view.window) if view.window else None,
            "verification": verdict_json(view.verdict) if view.verdict else None,
            "probe": view.probe,
            "plans": [_plan_json(planned) for planned in view.plans[:PLANS_MAX]] or None,
            "unknownFiles": [shorten(path, 256) for path in view.facts.unknown_files] or None,
        }
    )
    return _fitted(status)


def _fitted(status: dict[str, Any]) -> dict[str, Any]:
    """Leave out what can be spared, the least first, until the status fits (promise 12). Baselines stay."""
    status = _with_fewer_results(status)
    for spare in _SPARED:
        if len(json.dumps(status)) <= STATUS_BYTES_MAX:
            break
        status = spare(status)
    return status


def _without_numa_nodes(status: dict[str, Any]) -> dict[str, Any]:
    """The sums over all NUMA nodes stay."""
    return _without_none(
        status | {"statistics": _without_none(status.get("statistics", {}) | {"numaNodes": None}) or None}
    )


def _without_plan_knobs(status: dict[str, Any]) -> dict[str, Any]:
    plans = [_without_none(plan | {"knobs": None}) for plan in status.get("plans", ())]
    return _without_none(status | {"plans": plans or None})


def _with_fewer_results(status: dict[str, Any]) -> dict[str, Any]:
    """Keep the results of the heaviest shapes, which stand first, as many as there is room for."""
    probe = status.get("probe") or {}
    rows = list(probe.get("results", ()))
    surplus = len(json.dumps(status)) - WITH_RESULTS_BYTES_MAX if rows else 0
    while rows and surplus > 0:
        surplus -= len(json.dumps(rows.pop())) + 2
    return _without_none(status | {"probe": _without_none(probe | {"results": rows or None})}) if probe else status


def _without_ranges(status: dict[str, Any]) -> dict[str, Any]:
    return status | {"capabilities": _without_none(status["capabilities"] | {"ranges": None})}


def _without_unknown_files(status: dict[str, Any]) -> dict[str, Any]:
    return _without_none(status | {"unknownFiles": None})


def _without_knob_messages(status: dict[str, Any]) -> dict[str, Any]:
    return status | {"knobs": [_without_none(row | {"message": None}) for row in status["knobs"]]}


def _without_texts(status: dict[str, Any]) -> dict[str, Any]:
    """Groups and plans lose their messages; the conditions have them too."""
    groups = {name: _without_none(group | {"message": None}) for name, group in status.get("groups", {}).items()}
    plans = [_without_none(plan | {"message": None}) for plan in status.get("plans", ())]
    return _without_none(status | {"groups": groups or None, "plans": plans or None})


def _with_short_conditions(status: dict[str, Any]) -> dict[str, Any]:
    rows = [row | {"message": shorten(row["message"], KNOB_TEXT_LENGTH_MAX)} for row in status["conditions"]]
    return status | {"conditions": rows}


_SPARED: Final = (
    _without_numa_nodes,
    _without_plan_knobs,
    _without_ranges,
    _without_unknown_files,
    _without_knob_messages,
    _without_texts,
    _with_short_conditions,
)


def significant(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a status whose change is worth a report at once."""
    return {key: value for key, value in status.items() if key not in _VOLATILE}


def offload_phrase(facts: KernelFacts) -> str:
    """Say in one phrase what the kernel does now."""
    if not facts.switches:
        return _NOT_LOADED if facts.driver is DriverState.NOT_LOADED else _UNSUPPORTED
    if any(facts.value(knob) is None for knob in facts.switches):
        return OFFLOAD_UNKNOWN
    return " or ".join(_engine_phrase(facts, knob) for knob in facts.running) or _OFF


def _engine_phrase(facts: KernelFacts, switch: Knob) -> str:
    engine = switch.codec.show(facts.value(switch) or Value(""))
    name, unit = _UNITS_OF_ENGINE[Engine(engine)]
    counted = next((knob for knob in facts.knobs if knob.field == name), None)
    if counted is None:
        return engine
    count = facts.value(counted)
    return f"{engine}, {count or '?'} {unit}{'' if count == '1' else 's'}"


# --- parts -------------------------------------------------------------------------------------------------------


def _all_rows(view: View, groups: Sequence[GroupPlan]) -> list[KnobPlan]:
    """Every knob of this kernel, every field asked for, and every baseline, in the table's order."""
    asked = {row.field: row for group in groups for row in group.knobs}
    plain = {knob.field: KnobPlan(knob.field, knob) for knob in view.facts.knobs}
    held = {name: KnobPlan(name) for name in view.baselines}
    rows = [_fresh(view.facts, row) for row in {**held, **plain, **asked}.values()]
    return sorted(rows, key=lambda row: (FIELD_ORDER.get(row.field, len(FIELD_ORDER)), row.field))


def _fresh(facts: KernelFacts, row: KnobPlan) -> KnobPlan:
    return replace(row, observed=facts.value(row.knob)) if row.knob else row


def _knob_json(row: KnobPlan, baselines: Mapping[str, Value]) -> dict[str, Any]:
    knob = row.knob or next((knob for knob in KNOBS if knob.field == row.field), None)
    return _without_none(
        {
            "field": shorten(row.field, SHORT_LENGTH_MAX),
            "path": row.knob.path if row.knob else None,
            "desired": shorten(row.asked, KNOB_TEXT_LENGTH_MAX) or None,
            "observed": _shown(knob, row.observed),
            "baseline": _shown(knob, baselines.get(row.field)),
            "outcome": row.outcome and str(row.outcome),
            "reason": row.reason and str(row.reason),
            "message": shorten(row.message, KNOB_TEXT_LENGTH_MAX) or None,
        }
    )


def _plan_knob_json(row: KnobPlan) -> dict[str, Any]:
    # The path stands in the node's own knobs; three times more would take the tenth part of the 10 kB.
    return {key: value for key, value in _knob_json(row, {}).items() if key != "path"}


def _shown(knob: Knob | None, value: Value | None) -> str | None:
    return shorten(knob.codec.show(value), KNOB_TEXT_LENGTH_MAX) if knob and value is not None else None


def _group_json(group: GroupPlan, soaked: Mapping[SettingsGroup, str]) -> dict[str, Any]:
    return _without_none(
        {
            "state": str(group.state),
            "reason": str(group.reason),
            "message": shorten(group.message) or None,
            "soakedRevision": soaked.get(group.wish.group),
        }
    )


def _plan_json(planned: PlannedPolicy) -> dict[str, Any]:
    source = planned.request.source
    return _without_none(
        {
            "policy": source.policy,
            "uid": source.uid,
            "generation": source.generation,
            "wouldChange": planned.would_change,
            "state": str(planned.state),
            "reason": str(planned.reason),
            "message": shorten(planned.message) or None,
            "knobs": [_plan_knob_json(row) for row in planned.knobs if row.outcome not in _IN_FORCE][:PLAN_KNOBS_MAX],
        }
    )


def _capabilities(view: View) -> dict[str, Any]:
    facts = view.facts
    settable = tuple(knob for knob in facts.knobs if not facts.row.only_turned_off or _sets(knob))
    channels = next((knob.codec for knob in settable if knob.field == CHANNELS_FIELD), None)
    return _without_none(
        {
            "fields": list(dict.fromkeys(knob.setting for knob in settable)),
            "ranges": [f"{name}: {legal}" for name, legal in _ranges(settable).items() if _limits(legal)] or None,
            "channelsMax": channels.highest if isinstance(channels, UInt) else None,
            "migrationReasons": sorted(facts.reasons_seen)[:REASONS_MAX] or None,
            "batchCeiling": _batch_ceiling(view),
        }
    )


def _sets(knob: Knob) -> bool:
    """Whether a dialect that is only turned off honours it."""
    return knob.is_engine or UNITS[knob.group] != UNITS[SettingsGroup.OFFLOAD]


def _limits(legal: str) -> bool:
    """Whether it says more than the API does, which knows of each field what any kernel may take."""
    return not legal.endswith("..") and legal not in {"false|true", ReasonMask().legal}


def _ranges(knobs: Iterable[Knob]) -> dict[str, str]:
    """Return by settings field what is legal; of two files for one field, what either takes."""
    found: dict[str, str] = {}
    for knob in knobs:
        words = (*found[knob.setting].split("|"), *knob.codec.legal.split("|")) if knob.setting in found else ()
        found[knob.setting] = "|".join(dict.fromkeys(words)) or knob.codec.legal
    return found


def _batch_ceiling(view: View) -> str | None:
    if not view.facts.switches:
        return None
    declared = view.batch_ceiling_pages
    return f"{declared} base pages, as declared" if declared else "compile-time, not readable"


def _engines(facts: KernelFacts) -> list[dict[str, Any]] | None:
    rows = [
        _without_none(
            {
                "driver": shorten(row.driver, SHORT_LENGTH_MAX),
                "channels": row.channels,
                "numaNode": row.numa_node,
                "usable": row.usable,
                "reason": row.obstacle or None,
            }
        )
        for row in sorted(facts.engines, key=lambda row: not row.usable)[:ENGINES_MAX]
    ]
    return rows or None


def _statistics(view: View) -> dict[str, Any] | None:
    known, found = view.statistics, rates(view.statistics)
    document: dict[str, Any] = {TOTALS[name]: total for name, total in known.totals.items() if name in TOTALS}
    if not document:
        return None
    document |= {_RATES[name]: rate for name, rate in found.per_second.items() if name in _RATES}
    document |= {key: known.pressures[name] for name, key in PRESSURES.items() if name in known.pressures}
    offloads = bool(view.facts.running)
    return _without_none(
        {
            "since": view.since,
            "windowSeconds": found.window_seconds,
            **document,
            "fallbackShareMax": fallback_share_max(known) if offloads else None,
            "numaNodes": _numa_nodes(known.totals) or None,
        }
    )


def _numa_nodes(totals: Mapping[str, int]) -> list[dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    moved: dict[int, int] = {}
    for full_name, total in totals.items():
        number, name = split_numa_name(full_name)
        if number is not None:
            rows.setdefault(number, {"id": number})[TOTALS[name]] = total
            moved[number] = moved.get(number, 0) + total
    busiest = sorted(rows, key=lambda number: (-moved[number], number))[:NUMA_ROWS_MAX]
    return [rows[number] for number in sorted(busiest)]


def _without_none(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value is not None}
