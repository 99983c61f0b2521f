# SPDX-License-Identifier: Apache-2.0
"""A probe measures what settings are worth on this node. Decided here: whether, with how much, and of what. Pure.

Bounds. A probe shall cost a calm node next to nothing and a busy one nothing at all:

* memory: the smallest of a quarter of what is free on either NUMA node, what is left until the next limit of the
  agent's control groups, and what the operator allows. Wanted are four times the last-level cache, since fewer pages
  would be copied within it; fewer are taken where there is no more, and the result says so.
* time: settings are other ones than wished for so many seconds, also as the sum of a day. CPU: half of one.
* calm: no task waits for memory or a CPU for longer than a share of the time (PSI). It is looked at before each sample,
  so that a node that is no longer calm waits for one sample at most. Without PSI the load average stands in, which
  tells less and later: then half of the time, half of the memory, and a quarter of a CPU.

What is measured are calls of move_pages(2) with 1, 32 and 512 folios, which is what the kernel's own callers hand over
at once (docs/published-numbers.md). The kernel cuts them into batches of 512 base pages, unless it was built otherwise.

The mix is an estimate from counters since boot, without the pages of probes. Shares are by bytes:

* NUMA balancing and promotion (numa_pages_migrated, else pgpromote_success) move one folio a call, demotion up to 32.
  The rest is everybody else, whose calls nobody counts: half is taken as 32 folios a call, half as 512.
* Huge folios have their share of all pages (thp_migration_success), and the same in each of the parts, for no counter
  tells more. Sizes in between have no counter: they are among the small ones.
* With few pages migrated, or without the counters, nothing is known, and every shape weighs the same.

Sources: Documentation/accounting/psi.rst; mm/migrate.c (migrate_misplaced_folio: both counters), mm/vmscan.c.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from math import fsum, sqrt
from typing import Any, Final, NamedTuple

from numamigration_agent.jobs import Timed
from numamigration_agent.kernel.codecs import Value, reason_names
from numamigration_agent.kernel.counters import Counts
from numamigration_agent.kernel.dialects import CHANNELS_FIELD, REASONS_FIELD, Knob
from numamigration_agent.kernel.pages import SYSCALL_OR_CPUSET
from numamigration_agent.kernel.probe import KernelFacts
from numamigration_agent.kernel.room import Room, Strain
from numamigration_agent.kernel.timed_moves import TimedAnswer
from numamigration_agent.wishes import ProbeRequest, Source, Wish
from numamigration_api.machinery.quantities import decimal_text, size_text
from numamigration_api.machinery.records import replace
from numamigration_api.machinery.tuning.samples import BASELINE, CPU, Mix, Part, Setting, Shape
from numamigration_api.vocabulary import (
    PROBE_ROWS_MAX,
    Engine,
    GroupMode,
    GroupState,
    MigrationReason,
    ProbePhase,
    ProbeReason,
    Reason,
    Release,
    SettingsGroup,
    Verification,
)

SAMPLE_SECONDS: Final = 0.1  # and the call under way then; a scheduler's slice is a few milliseconds
CPU_SHARE_MAX: Final = 0.5
FREE_SHARE_MAX: Final = 0.25
SET_BYTES_MIN: Final = 8 << 20  # one call of 512 small folios and one of 2 huge ones, a few times over
MIGRATORS: Final = 2  # at the same time, at most: each is a process
PROCESS_BYTES: Final = 12 << 20  # of one migrator, beside the pages that it moves
SET_SHARE: Final = 2 / 3  # of what is left; a call moves half a set at most, and that much is there twice meanwhile
CACHE_TIMES: Final = 4
SECONDS_MIN: Final = 5.0  # with less of a day's time left nothing can be found out
DAY_SECONDS: Final = 86_400.0
CAREFUL: Final = 0.5
"""So much of time, memory and CPU where the kernel does not tell pressure."""

GIBIBYTE: Final = 1 << 30

CALLS: Final = (32, 512)
"""Folios of the calls that can gain."""
MIX_PAGES_MIN: Final = 1 << 18  # 1 GiB of small ones; a boot moves some, and each trial of an engine a few thousand
ARRIVED_SHARE_MIN: Final = 0.9
OFFLOADED_SHARE_MIN: Final = 0.9
MIX_PARTS_MAX: Final = 8


class Halt(NamedTuple):
    """Why there is no probe, or why it ends; `lasting` when asking again comes to the same."""

    reason: ProbeReason
    message: str
    lasting: bool = False

    @property
    def phase(self) -> ProbePhase:
        """What to say of one that has not begun."""
        return ProbePhase.REFUSED if self.lasting else ProbePhase.WAITING


class Bounds(NamedTuple):
    """How much a probe may take.

    Attributes:
        set_bytes: of pages that are moved.
        seconds: for which settings may be other ones.
        cpu_share: of one CPU.
        cache_bound: the pages are too few for the last-level cache, or its size is not known.
    """

    set_bytes: int
    seconds: float
    cpu_share: float
    cache_bound: bool


# --- whether -----------------------------------------------------------------------------------------------------


def numa_pair(facts: KernelFacts) -> tuple[int, int] | None:
    """Return two NUMA nodes with memory, those with CPUs first; None when there are not two."""
    with_cpus = {int(name.removeprefix("node")) for name, has_cpus in facts.host.numa_nodes if has_cpus}
    nodes = sorted(facts.host.memory_nodes, key=lambda number: (number not in with_cpus, number))
    return (nodes[0], nodes[1]) if len(nodes) > 1 else None


def settings_of(request: ProbeRequest, facts: KernelFacts) -> list[Setting]:
    """Return the settings that can be measured here, the one with most channels first."""
    found = {
        Setting(Engine.DMA, channels)
        for engine, channels in request.candidates
        if engine == Engine.DMA and 0 < channels <= facts.channels_usable
    }
    return sorted(found, reverse=True)


def wish_of(setting: Setting, wish: Wish | None, request: ProbeRequest, facts: KernelFacts) -> Wish:
    """Return what offload shall be while a setting is measured, under the terms of the policy that wants to know.

    What it does not name stays as it is meanwhile (release Keep); ``wish_after`` brings that back too.
    """
    plain = wish or Wish(
        SettingsGroup.OFFLOAD, {}, Source("", "", 0), accepted_risks=request.accepted_risks, release=Release.RESTORE
    )
    settings = dict(plain.settings) | {"engine": str(Engine.OFF)}
    if setting.engine == Engine.DMA:
        settings |= {"engine": str(Engine.DMA), "channels": setting.channels}
        if facts.restricts_reasons:
            settings["reasons"] = [SYSCALL_OR_CPUSET]  # that of our own calls: nobody else's pages are needed
    elif facts.restricts_reasons:
        settings.pop("reasons", None)
        settings.pop("channels", None)
    first_use = plain.verification is not Verification.OFF
    return replace(
        plain,
        settings=settings,
        mode=GroupMode.APPLY,
        release=Release.KEEP,
        verification=Verification.FIRST_USE if first_use else plain.verification,
    )


def wish_after(wish: Wish | None, before: Mapping[str, Any] | None) -> Wish:
    """Return what offload shall be once no setting is measured any more, until that is so.

    Args:
        wish: of the spec; None when no policy has one any more.
        before: settings that were wished when the probe began; None when there were none.
    """
    if wish is None or wish.mode is GroupMode.RESTORE:
        return wish or Wish(SettingsGroup.OFFLOAD, {}, Source("", "", 0), mode=GroupMode.RESTORE)
    if wish.mode is GroupMode.APPLY:
        return replace(wish, release=Release.RESTORE)
    # Held, and perhaps edited since: what is held is what was there before.
    if before is None:
        return replace(wish, mode=GroupMode.RESTORE)
    return replace(wish, settings=before, mode=GroupMode.APPLY, release=Release.RESTORE)


_DISTRUST: Final = frozenset({Reason.ENGINE_STALLED, Reason.ENGINE_FAILING, Reason.CORRUPTION_DETECTED})


def halt_of_failure(reason: Reason, message: str) -> Halt:
    """Return why a setting did not come into force."""
    distrusted = reason in _DISTRUST
    told = ProbeReason.ENGINE_NOT_TRUSTED if distrusted else ProbeReason.SETTING_FAILED
    return Halt(told, f"{reason}: {message}", lasting=not distrusted or reason is Reason.CORRUPTION_DETECTED)


def halt_of(state: GroupState, reason: Reason, message: str) -> Halt | None:
    """Return why a setting cannot be measured, from what is said of its group; None while nothing is against it."""
    if state in {GroupState.READY, GroupState.PENDING}:
        return None
    if state is GroupState.FAILED or reason in _DISTRUST:
        return halt_of_failure(reason, message)
    return Halt(ProbeReason.SETTING_REFUSED, f"{reason}: {message}", lasting=True)


# --- with how much -----------------------------------------------------------------------------------------------


def bounds_of(
    room: Room, limit: int | None, strain: Strain, request: ProbeRequest, seconds_left: float
) -> Bounds | Halt:
    """Return how much a probe may take, or why that is too little.

    Args:
        room: what there is on the two NUMA nodes.
        limit: bytes to the next limit of the agent's control groups; None when there is none.
        strain: whether the kernel tells pressure.
        request: what the operator allows.
        seconds_left: of a day's time.
    """
    care = 1.0 if strain.pressures else CAREFUL
    free = int(min(room.free.values()) * FREE_SHARE_MAX) if len(room.free) > 1 else 0
    allowed = int(request.memory_bytes * care)
    least = allowed if limit is None else min(allowed, limit)
    limited = int((least - MIGRATORS * PROCESS_BYTES) * SET_SHARE)
    wanted = max(SET_BYTES_MIN, CACHE_TIMES * room.cache_bytes) if room.cache_bytes else limited
    size = min(wanted, free, limited)
    if size < SET_BYTES_MIN:
        return _too_little(free, limited, limit)
    cache_bound = not room.cache_bytes or size < CACHE_TIMES * room.cache_bytes
    seconds = min(request.seconds, seconds_left) * care
    return Bounds(size, seconds, CPU_SHARE_MAX * care, cache_bound)


def _too_little(free: int, limited: int, limit: int | None) -> Halt:
    least = size_text(SET_BYTES_MIN)
    if free < SET_BYTES_MIN:
        message = (
            f"a quarter of what is free on one of the NUMA nodes is {free >> 20} MiB, or not told; {least} are needed"
        )
        return Halt(ProbeReason.NO_FREE_MEMORY, message)
    where = "is allowed" if limit is None else "is left below the memory limit of the agent's container, or allowed"
    message = f"{max(0, limited) >> 20} MiB {where} for own pages, and {least} are needed"
    return Halt(ProbeReason.MEMORY_LIMIT, message, lasting=True)


# --- of what -----------------------------------------------------------------------------------------------------


def shapes_of(sizes: Iterable[int], set_bytes: int) -> list[Shape]:
    """Return the calls that can gain; none has more than half of the folios of the set, and no size is left out."""
    found = ((size, folios, set_bytes // (2 * size)) for size in sizes for folios in CALLS)
    return [
        Shape(size, min(folios, most))
        for size, folios, most in found
        if most > 1 and (folios <= most or folios == min(CALLS))
    ]


def mix_of(migrated: Mapping[str, int], own: tuple[int, int], shapes: Sequence[Shape], huge_pages: int) -> Mix | None:
    """Return what this node migrates; None when nobody knows.

    Args:
        migrated: counters since boot, by their names in /proc/vmstat.
        own: base pages and huge pages that probes have moved.
        shapes: that can be measured.
        huge_pages: base pages of a huge one; 0 where there is none.
    """
    if not {"pgmigrate_success", "thp_migration_success"} <= migrated.keys():
        return None
    total = migrated["pgmigrate_success"] - own[0]
    if total < MIX_PAGES_MIN:
        return None
    huge = min(1.0, max(0.0, (migrated["thp_migration_success"] - own[1]) * huge_pages / total))
    single: float = migrated.get("numa_pages_migrated", migrated.get("pgpromote_success", 0))
    single = min(single, total)
    demoted: float = min(sum(pages for name, pages in migrated.items() if name.startswith("pgdemote_")), total - single)
    rest = (total - single - demoted) / 2
    parts: list[tuple[float, int, str]] = [
        (single, 1, str(MigrationReason.NUMA_MISPLACED)),
        (demoted, 32, str(MigrationReason.DEMOTION)),
    ]
    parts += [(rest, 32, ""), (rest, 512, "")]
    sizes = sorted({shape.folio_bytes for shape in shapes})
    small, large = sizes[0], sizes[-1]
    by_size = ((small, 1.0 - huge), (large, huge)) if large > small else ((small, 1.0),)
    return Mix.of(
        Part(_nearest(Shape(size, folios), shapes), pages * share, reason)
        for pages, folios, reason in parts
        for size, share in by_size
    )


def _nearest(wanted: Shape, shapes: Sequence[Shape]) -> Shape:
    """Return the measured call of that size with at most so many folios; a single one is as it is."""
    if not wanted.can_gain:
        return wanted
    same = [shape for shape in shapes if shape.folio_bytes == wanted.folio_bytes]
    return max((shape for shape in same if shape.folios <= wanted.folios), default=same[0] if same else shapes[0])


def even_mix(shapes: Iterable[Shape]) -> Mix:
    """Return the mix of a node of which nothing is known."""
    return Mix.of(Part(shape, 1.0) for shape in shapes)


def has_channels_for(migrators: int, setting: Setting, channels_usable: int) -> bool:
    """Whether so many tasks may migrate at the same time and each get the channels of a setting."""
    return migrators * setting.channels <= channels_usable


# --- what came of it ---------------------------------------------------------------------------------------------


_ERRNOS: Final = {
    errno.ENOMEM: ProbeReason.NO_FREE_MEMORY,
    errno.EPERM: ProbeReason.CALL_FORBIDDEN,
    errno.ENOSYS: ProbeReason.CALL_FORBIDDEN,
    errno.EACCES: ProbeReason.CPUSET_FORBIDS,
    errno.ETIMEDOUT: ProbeReason.MOVE_STALLED,
}
_LASTING: Final = frozenset({ProbeReason.CALL_FORBIDDEN, ProbeReason.CPUSET_FORBIDS})


def halt_of_errno(number: int, cause: str) -> Halt:
    """Return why pages could not be moved."""
    reason = _ERRNOS.get(number, ProbeReason.MOVE_FAILED)
    return Halt(reason, cause, lasting=reason in _LASTING)


def judge_sample(setting: Setting, timed: Timed) -> Halt | None:
    """Return why a sample says nothing of its setting; None when it does.

    An engine that gets no channel leaves the pages to the CPU without a word, so its own counter must have grown.
    """
    answer = timed.answer
    if answer is None or answer.errno:
        return halt_of_errno(answer.errno, answer.cause) if answer else None
    total = answer.folios + answer.left
    if not answer.bytes or answer.seconds <= 0 or answer.folios < ARRIVED_SHARE_MIN * total:
        message = f"{answer.folios} of {total} folios arrived in {answer.seconds:g} s"
        return Halt(ProbeReason.SAMPLES_UNUSABLE, message)
    grown = _grown(timed.before, timed.after, "folios_migrated")
    if setting.engine == Engine.DMA and grown is not None and grown < OFFLOADED_SHARE_MIN * answer.folios:
        message = f"{setting}: folios_migrated grew by {grown} of our {answer.folios}; is a channel free?"
        return Halt(ProbeReason.ENGINE_INEFFECTIVE, message)
    return None


def _grown(before: Counts, after: Counts, name: str) -> int | None:
    return after[name] - before[name] if name in before and name in after else None


def knobs_of_setting(facts: KernelFacts) -> tuple[Knob, ...]:
    """Return the knobs that tell whether a setting is in force: the switches, channels and reasons."""
    named = {CHANNELS_FIELD, REASONS_FIELD}
    return tuple(knob for knob in facts.knobs if knob.is_engine or knob.field in named)


def holds(setting: Setting, knobs: Sequence[Knob], held: Sequence[Value | None]) -> bool:
    """Whether knobs held a setting; what is not looked at while no engine is on may be anything."""
    found = dict(zip((knob.field for knob in knobs), held, strict=True))
    on = [knob for knob in knobs if knob.is_engine and found[knob.field] != knob.off]
    if setting.engine == CPU:
        return not on
    mask = found.get(REASONS_FIELD, Value(SYSCALL_OR_CPUSET))
    counted = found.get(CHANNELS_FIELD, Value(str(setting.channels))) == str(setting.channels)
    by_it = bool(on) and all(knob.turns_on(setting.engine) for knob in on)
    return by_it and counted and mask is not None and SYSCALL_OR_CPUSET in reason_names(mask)


class Table:
    """What samples came to, by setting and shape: bytes per second, and CPU seconds for each GiB."""

    def __init__(self) -> None:
        self._samples: dict[tuple[Setting, Shape], list[tuple[float, float]]] = {}

    def add(self, setting: Setting, shape: Shape, answer: TimedAnswer) -> None:
        """Take a sample that is one."""
        found = answer.bytes / answer.seconds, answer.cpu_seconds * GIBIBYTE / answer.bytes
        self._samples.setdefault((setting, shape), []).append(found)

    def rows(self, weights: Mapping[Shape, float]) -> list[dict[str, Any]]:
        """Return the rows for the status: the heaviest shapes first, and within one the plain copy first."""
        keys = sorted(self._samples, key=lambda key: (-weights.get(key[1], 0.0), key[1], key[0]))
        return [_row(*key, self._samples[key]) for key in keys[:PROBE_ROWS_MAX]]


def _row(setting: Setting, shape: Shape, samples: Sequence[tuple[float, float]]) -> dict[str, Any]:
    number = len(samples)
    mean, cpu = (fsum(column) / number for column in zip(*samples, strict=True))
    squares = fsum((speed - mean) ** 2 for speed, _ in samples)
    return {
        "engine": setting.engine,
        "channels": setting.channels,
        "folioBytes": shape.folio_bytes,
        "folios": shape.folios,
        "migrators": shape.migrators,
        "bytesPerSecond": round(mean),
        "standardDeviation": round(sqrt(squares / max(1, number - 1))),
        "samples": number,
        "cpuSecondsPerGiB": decimal_text(cpu),
    }


def mix_json(mix: Mix) -> list[dict[str, Any]]:
    """Return the mix for the status, the largest share first."""
    parts = sorted(mix.parts, key=lambda part: -part.weight)[:MIX_PARTS_MAX]
    return [
        {
            "folioBytes": part.shape.folio_bytes,
            "folios": part.shape.folios,
            "share": decimal_text(part.weight),
            **({"reason": part.reason} if part.reason else {}),
        }
        for part in parts
    ]


def extras(best: Setting | None, shapes: Sequence[Shape], channels_usable: int) -> list[tuple[Setting, Shape]]:
    """Return what is measured besides the search, for people: what one folio takes, and two tasks at the same time."""
    settings = [BASELINE, *([best] if best and best != BASELINE else [])]
    singles = [Shape(size, 1) for size in dict.fromkeys(shape.folio_bytes for shape in shapes)]
    crowded = [shape._replace(migrators=MIGRATORS) for shape in shapes[:1]]
    wanted = [(setting, shape) for shape in (*singles, *crowded) for setting in settings]
    return [
        (setting, shape) for setting, shape in wanted if has_channels_for(shape.migrators, setting, channels_usable)
    ]
