# SPDX-License-Identifier: Apache-2.0
"""Whether folios go through the engine at all: own pages are moved under an enabled reason, and the counters looked at.

The kernel says "on" and copies by CPU, without a counter or a line in its log, when it gets no channel. Traffic of
other reasons, or of hugetlb pages, shows the same numbers and is right. Only pages of which we know that they are
eligible tell the two apart.

* Only reasons that a system call of ours causes can be used: move_pages(2) and mbind(2). With none of them enabled
  nothing can be said, and that is what is said.
* A few pages between two NUMA nodes, never while tasks wait for memory. A kernel without PSI does not tell; then so few
  pages are no harm.

Sources: Documentation/accounting/psi.rst; "[PATCH RFC v6 0/5]" of the batch copy offload series, 2/5 and 3/5.
"""

from __future__ import annotations

import re
from random import Random
from typing import Final

from numamigration_agent.kernel.codecs import reason_names
from numamigration_agent.kernel.counters import Counts, read_counters
from numamigration_agent.kernel.dialects import REASONS_FIELD
from numamigration_agent.kernel.pages import Batch, Mover, MoveRequest
from numamigration_agent.kernel.probe import KernelFacts
from numamigration_agent.kernel.sysfs import Present, Sysfs
from numamigration_agent.verify import CAUSABLE
from numamigration_agent.watch import PROBE_PAGES, Probed
from numamigration_api.vocabulary import Dialect

PRESSURE_PATH: Final = "/proc/pressure/memory"
PRESSURE_PERCENT_MAX: Final = 10.0
_SOME_AVG10: Final = re.compile(r"^some avg10=([0-9.]+) ", re.MULTILINE)


def probe_request(facts: KernelFacts, rng: Random) -> MoveRequest | str:
    """Return what to move on this host, or why nothing can be moved that would tell."""
    enabled = _enabled_reasons(facts)
    reason = next((reason for reason in CAUSABLE if reason in enabled), None)
    if reason is None:
        return f"no enabled reason ({', '.join(sorted(enabled)) or 'none'}) is one that a program can cause"
    nodes = sorted(facts.host.numa_nodes, key=lambda row: not row[1])
    if len(nodes) < 2:
        return "there is one NUMA node only"
    source, destination = (int(name.removeprefix("node")) for name, _ in nodes[:2])
    return MoveRequest(reason, (Batch(source, destination, small=PROBE_PAGES),), rng.getrandbits(32))


def _enabled_reasons(facts: KernelFacts) -> frozenset[str]:
    if facts.fixed_reasons is not None:
        return facts.fixed_reasons
    mask = next((facts.value(knob) for knob in facts.knobs if knob.field == REASONS_FIELD), None)
    return reason_names(mask) if mask else frozenset()


def move_and_count(sysfs: Sysfs, move: Mover, request: MoveRequest, dialect: Dialect) -> Probed:
    """Move own pages and see whether the engine's counters took notice; may block."""
    if memory_pressure(sysfs) > PRESSURE_PERCENT_MAX:
        return Probed(postponed=True)
    before = _folios(read_counters(sysfs, dialect))
    answer = move(request)
    after = _folios(read_counters(sysfs, dialect))
    pages = sum(passage.folios for passage in answer.passages)
    causes = (answer.cause, *(passage.cause for passage in answer.passages), "none arrived")
    obstacle = "" if pages else next(cause for cause in causes if cause)
    return Probed(pages, None if before is None or after is None else after - before, obstacle)


def memory_pressure(sysfs: Sysfs) -> float:
    """Return the share of time in which some task waited for memory, in percent over 10 s; 0 where none is told."""
    reading = sysfs.read(PRESSURE_PATH)
    found = _SOME_AVG10.search(reading.text) if isinstance(reading, Present) else None
    try:
        return float(found[1]) if found else 0.0
    except ValueError:
        return 0.0


def _folios(counts: Counts) -> int | None:
    found = [counts[name] for name in ("folios_migrated", "folios_failed") if name in counts]
    return sum(found) if found else None
