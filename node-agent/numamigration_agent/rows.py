# SPDX-License-Identifier: Apache-2.0
"""The rows of a plan: for each field of a wish, the kernel file that serves it, and what that shall hold. Pure.

* What this kernel has nothing for is Unsupported, what it takes only in part is Clamped, and both say so.
* A value that is never written (``Knob.never``) is not put back either.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from numamigration_agent.baseline import Baselines
from numamigration_agent.kernel.codecs import ReasonMask, Size, UInt, Value, Words, reasons_value
from numamigration_agent.kernel.dialects import CHANNELS_FIELD, REASONS_FIELD, Knob
from numamigration_agent.kernel.probe import KernelFacts
from numamigration_agent.kernel.sysfs import STALE, Absent, Denied, explain_errno
from numamigration_agent.situation import Situation, in_words
from numamigration_api.machinery.quantities import size_bytes
from numamigration_api.machinery.records import dataclass, replace
from numamigration_api.vocabulary import Outcome, Reason, SettingsGroup

ERRNO_REASONS: Final = {
    errno.EACCES: Reason.PERMISSION_DENIED,
    errno.EPERM: Reason.PERMISSION_DENIED,
    errno.EROFS: Reason.READ_ONLY_FILE_SYSTEM,
    errno.EINVAL: Reason.INVALID_VALUE,
    errno.ERANGE: Reason.INVALID_VALUE,
    errno.ENODEV: Reason.NOT_LOADED,  # its driver is being unloaded; what else it may mean stands with the knob
    STALE: Reason.NOT_LOADED,
}
"""What an errno of a knob's file means; any other one is a KernelError."""


@dataclass(frozen=True, slots=True)
class KnobPlan:
    """One field of a wish on this kernel.

    Attributes:
        knob: None when the kernel lacks it.
        asked: as people say it; empty when nothing is asked.
        target: what the kernel shall hold; None when it is not to be written.
        outcome: None while it has yet to be written.
    """

    field: str
    knob: Knob | None = None
    asked: str = ""
    target: Value | None = None
    observed: Value | None = None
    baseline: Value | None = None
    outcome: Outcome | None = None
    reason: Reason | None = None
    message: str = ""

    @property
    def differs(self) -> bool:
        """Whether the kernel does not hold what it shall."""
        return self.target is not None and self.observed != self.target


class KnobWrite(NamedTuple):
    """One knob to write.

    Attributes:
        life: what told its driver from that of another load when this was planned; None where nothing does.
    """

    knob: Knob
    target: Value
    life: int | None = None

    @property
    def turns_off(self) -> bool:
        """Whether it turns an engine off."""
        return self.knob.is_engine and self.target == self.knob.off


def write_of(facts: KernelFacts, knob: Knob, target: Value) -> KnobWrite:
    """Return the write of a knob, of the driver that is there now."""
    return KnobWrite(knob, target, facts.life(knob))


def writes_of(facts: KernelFacts, rows: Iterable[KnobPlan]) -> tuple[KnobWrite, ...]:
    """Return the writes that rows ask for."""
    return tuple(write_of(facts, row.knob, row.target) for row in rows if row.knob and row.target is not None)


def rows_of(case: Situation, baselines: Baselines) -> tuple[KnobPlan, ...]:
    """Return a row for each kernel file that serves a field of the wish, and for each field that none serves."""
    settings = dict(case.wish.settings)
    if case.wish.group is SettingsGroup.OFFLOAD and case.by_dma and case.facts.restricts_reasons:
        settings.setdefault("reasons", None)
    named = ((f"{case.wish.group}.{key}", wanted) for key, wanted in settings.items())
    return tuple(row for setting, wanted in named for row in _rows_for(case, setting, wanted, baselines))


def _rows_for(case: Situation, setting: str, wanted: Any, baselines: Baselines) -> Iterable[KnobPlan]:
    """Yield a row for each kernel file that serves a setting; two engines have a switch each."""
    if setting == REASONS_FIELD and case.facts.fixed_reasons is not None:
        yield _fixed_reasons_row(setting, frozenset(wanted), case.facts.fixed_reasons)
        return
    knobs = case.knobs(setting)
    for knob in knobs:
        yield _row(case, knob, wanted, baselines)
    if not knobs:
        yield KnobPlan(setting, asked=in_words(wanted), outcome=Outcome.UNSUPPORTED, reason=Reason.FIELD_UNSUPPORTED)


def _row(case: Situation, knob: Knob, wanted: Any, baselines: Baselines) -> KnobPlan:
    name = knob.field
    observed, before = case.facts.value(knob), baselines.values.get(name)
    if observed is None:
        reason, message = why_unreadable(knob, case.facts)
        return KnobPlan(name, knob, in_words(wanted), None, None, before, Outcome.REJECTED, reason, message)
    target, clamp = _target(case, knob, wanted)
    if target is None:
        row = KnobPlan(name, knob, in_words(wanted), None, observed, before, message=clamp)
        return replace(row, outcome=Outcome.UNSUPPORTED, reason=Reason.FIELD_UNSUPPORTED)
    asked = knob.codec.show(target) if wanted is None or knob.is_engine else in_words(wanted)
    row = KnobPlan(name, knob, asked, target, observed, before, message=clamp)
    if row.differs:
        return row
    if clamp:
        return replace(row, outcome=Outcome.CLAMPED, reason=Reason.CLAMPED)
    ours = before is not None and before != observed
    return replace(row, outcome=Outcome.APPLIED if ours else Outcome.ALREADY_SET)


def _fixed_reasons_row(name: str, asked: frozenset[str], fixed: frozenset[str]) -> KnobPlan:
    row = KnobPlan(name, asked=reasons_value(asked), observed=reasons_value(fixed), outcome=Outcome.ALREADY_SET)
    surplus = sorted(asked - fixed)
    if not surplus:
        return row
    message = f"fixed in this kernel, never offloaded: {', '.join(surplus)}"
    return replace(row, outcome=Outcome.CLAMPED, reason=Reason.CLAMPED, message=message)


def _target(case: Situation, knob: Knob, wanted: Any) -> tuple[Value | None, str]:
    """Return what the kernel shall hold, and why it is not just what was asked; None: it has nothing like that."""
    match knob.codec:
        case UInt() as codec:
            usable = case.facts.channels_usable if knob.field == CHANNELS_FIELD else 0
            if 0 < usable < codec.highest:
                return _clamped(int(wanted), codec.lowest, usable, f"the host has {usable} DMA channels")
            return _clamped(int(wanted), codec.lowest, codec.highest, _bounds(knob))
        case Size() as codec:
            return _clamped(size_bytes(str(wanted)), codec.lowest, codec.highest, _bounds(knob))
        case ReasonMask():
            dropped = sorted(frozenset(wanted or ()) - case.facts.reasons_seen)
            clamp = f"not known to this kernel, left out: {', '.join(dropped)}" if dropped else ""
            return reasons_value(case.eligible_reasons), clamp
        case Words() as words:
            # A switch knows only its own engine's name, and every other one means off to it.
            target = words.unshow(in_words(wanted)) or (knob.off if knob.is_engine else None)
            return target, "" if target is not None else _bounds(knob)


def _clamped(wanted: int, lowest: int, highest: int, why: str) -> tuple[Value, str]:
    target = max(lowest, min(wanted, highest))
    return Value(str(target)), why if target != wanted else ""


def _bounds(knob: Knob) -> str:
    return f"{knob.path} takes {knob.codec.legal}"


def why_unreadable(knob: Knob, facts: KernelFacts) -> tuple[Reason, str]:
    """Say why a knob does not show a value."""
    reading = facts.readings.get(knob.field, Absent())
    if isinstance(reading, Denied):
        reason = ERRNO_REASONS.get(reading.errno, Reason.KERNEL_ERROR)
        return reason, f"{knob.path}: cannot be read: {explain_errno(reading.errno)}"
    return Reason.KERNEL_ERROR, f"{knob.path}: says what no {knob.field} is: {str(reading)[:80]}"


def row_to_baseline(facts: KernelFacts, knob: Knob, before: Value) -> KnobPlan:
    """Return the row of a knob that goes back to what it held before this project."""
    asked, observed = knob.codec.show(before), facts.value(knob)
    if before in knob.never:
        message = f"{knob.path}: held {before} before, which is never written; it stays as it is"
        return KnobPlan(knob.field, knob, asked, None, observed, before, Outcome.REFUSED, message=message)
    return KnobPlan(knob.field, knob, asked, before, observed, before)
