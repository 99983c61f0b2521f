# SPDX-License-Identifier: Apache-2.0
"""The risk table: every known hazard of the series is one row. Guards, messages and docs/hazards.md come from here.

* A hazard with an ``AcceptedRisk`` is refused unless the policy names it (promise 5); which dialects have it says the
  dialect's row, and whether this kernel shows it says ``shows``.
* A trap (``scripts/traps.py``) needs no consent: the agent walks round it, whatever is accepted.
* Nothing here looks at the name of a dialect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from numamigration_agent.kernel.dialects import Evidence
from numamigration_agent.kernel.engines import DMA_DRIVERS, DmaDriver
from numamigration_agent.kernel.probe import DriverState
from numamigration_agent.situation import Situation
from numamigration_api.machinery.records import dataclass
from numamigration_api.vocabulary import AcceptedRisk, MigrationReason, Verification


@dataclass(frozen=True, slots=True)
class Hazard:
    """One row.

    Attributes:
        risk: the word that accepts it.
        detected: how the agent knows of it.
        refused: what it does not do then.
        accepting: what happens once the policy names it.
        source: in public words.
        shows: what of a situation shows it, in words; empty when it is not there.
    """

    risk: AcceptedRisk
    detected: str
    refused: str
    accepting: str
    evidence: Evidence
    source: str
    shows: Callable[[Situation], str]


def _of_the_dialect(hazard: str) -> Callable[[Situation], str]:
    return lambda case: f"dialect {case.facts.dialect} {hazard}"


def _of_engines(hazardous: Callable[[DmaDriver], bool], hazard: str) -> Callable[[Situation], str]:
    def shows(case: Situation) -> str:
        usable = {row.driver for row in case.facts.engines if row.usable and row.driver in DMA_DRIVERS}
        drivers = sorted(driver for driver in usable if hazardous(DMA_DRIVERS[driver]))
        return f"DMA engine {', '.join(drivers)} {hazard}" if drivers and case.by_dma else ""

    return shows


def _memory_failure(case: Situation) -> str:
    if not case.reasons_known and case.wish.settings.get("reasons") is None:
        return f"dialect {case.facts.dialect} may offload memory_failure too, and cannot be told not to"
    if MigrationReason.MEMORY_FAILURE in case.eligible_reasons:
        return "memory_failure is among the reasons, and DMA cannot recover from it"
    return ""


def _built_in(case: Situation) -> str:
    return "dcbm is built into this kernel" if case.facts.driver is DriverState.BUILT_IN else ""


def _unverified(case: Situation) -> str:
    return "verification is Off" if case.wish.verification is Verification.OFF else ""


HAZARDS: Final = (
    Hazard(
        AcceptedRisk.DIRECT_IO_LOST_WRITE,
        detected="by the dialect: the series of spring 2026 copies a folio before it looks at its references",
        refused="turning offload on",
        accepting="Offload goes on. Bytes that direct I/O or RDMA writes while a folio migrates may be lost.",
        evidence=Evidence.SEEN,
        source="mm/migrate.c of [PATCH 0/7], 2026-04-28; run with a module as writer; V4 was not run, held alike",
        shows=_of_the_dialect("can lose bytes that direct I/O writes while a folio migrates"),
    ),
    Hazard(
        AcceptedRisk.UNBOUNDED_STALL,
        detected="by the dialect: its driver waits for a descriptor without a time-out",
        refused="turning offload on",
        accepting="Nothing in this release: it only turns the dialect off. The word is kept for one that does more.",
        evidence=Evidence.CODE,
        source="byrnedj/linux, drivers/migrate_offload/dcbm/dcbm.c at 315003dc",
        shows=_of_the_dialect("waits for a hung engine for ever"),
    ),
    Hazard(
        AcceptedRisk.OUT_OF_ORDER_ENGINE,
        detected="by the driver's name in /sys/class/dma/*/device/driver: idxd",
        refused="turning on the engine DMA, also while a sound engine stands beside it: the kernel chooses",
        accepting="Offload goes on. Folios may be counted as copied before they are: corruption no counter shows.",
        evidence=Evidence.MAIL,
        source="review of [PATCH RFC v6 4/5], 2026-06-30; drivers/dma/idxd marks itself as completing without order",
        shows=_of_engines(lambda known: not known.in_order, "completes out of order"),
    ),
    Hazard(
        AcceptedRisk.SHARED_ENGINE,
        detected="by the driver's name in /sys/class/dma/*/device/driver: ioatdma, sdxi",
        refused="turning on the engine DMA",
        accepting="Offload goes on. Others use the channels too, and once one has called dmaengine_get() it silently "
        "stops. Of sdxi: a kernel that was not made for it can hang when its ring overflows.",
        evidence=Evidence.SEEN,
        source="drivers/dma/dmaengine.c (DMA_PRIVATE); run with a public engine",
        shows=_of_engines(lambda known: not known.exclusive, "is shared"),
    ),
    Hazard(
        AcceptedRisk.MEMORY_FAILURE_OFFLOAD,
        detected="memory_failure is among the reasons asked for or fixed, or the dialect does not tell its reasons",
        refused="turning offload on",
        accepting="Offload goes on. A machine check in a source page that is being saved may not be survived.",
        evidence=Evidence.MAIL,
        source='list of things to do in the cover letter of 2025-03-19 ("machine check")',
        shows=_memory_failure,
    ),
    Hazard(
        AcceptedRisk.BUILT_IN_DRIVER_STALL,
        detected="/sys/module/dcbm has no refcnt",
        refused="turning offload on",
        accepting="Offload goes on. While a turn-off waits for a hung engine, those modules' parameters all block.",
        evidence=Evidence.SEEN,
        source="kernel/params.c (one lock for all built-in modules)",
        shows=_built_in,
    ),
    Hazard(
        AcceptedRisk.UNVERIFIED_ENGINE,
        detected="the policy says verification: Off",
        refused="turning offload on",
        accepting="Offload goes on with an engine that has copied no test page on this boot; corruption shows nowhere.",
        evidence=Evidence.SEEN,
        source="engines that lie were run: 512 of 512 folios wrong, folios_failures 0",
        shows=_unverified,
    ),
)
"""In the order in which they are asked, and people read the first."""
