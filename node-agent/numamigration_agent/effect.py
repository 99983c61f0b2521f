# SPDX-License-Identifier: Apache-2.0
"""Whether folios go through the engine at all: own pages are moved under an enabled reason, and the counters looked at.

The kernel says "on" and copies by CPU, without a counter or a line in its log, when it gets no channel. Traffic of
other reasons, or of hugetlb pages, shows the same numbers and is right. Only pages of which we know that they are
eligible tell the two apart.

* Only reasons that a system call of ours causes can be used: move_pages(2) and mbind(2). With none of them enabled
  nothing can be said, and that is what is said.
* A few pages between two NUMA nodes that have memory, those with CPUs first, and never while tasks wait for memory. A
  kernel without PSI does not tell; then so few pages are no harm.

Sources: Documentation/accounting/psi.rst; "[PATCH RFC v6 0/5]" of the batch copy offload series, 2/5 and 3/5.
"""

from __future__ import annotations

from random import Random
from typing import Final

from numamigration_agent.jobs import Moved
from numamigration_agent.kernel.codecs import reason_names
from numamigration_agent.kernel.counters import Counts
from numamigration_agent.kernel.dialects import REASONS_FIELD
from numamigration_agent.kernel.pages import Batch, MoveRequest
from numamigration_agent.kernel.probe import KernelFacts
from numamigration_agent.verify import CAUSABLE
from numamigration_agent.watch import PROBE_PAGES, Probed

SECONDS_MAX: Final = 2.0  # less than the watch waits before it calls the engine stalled


def probe_request(facts: KernelFacts, rng: Random) -> MoveRequest | str:
    """Return what to move on this host, or why nothing can be moved that would tell."""
    enabled = _enabled_reasons(facts)
    reason = next((reason for reason in CAUSABLE if reason in enabled), None)
    if reason is None:
        return f"no enabled reason ({', '.join(sorted(enabled)) or 'none'}) is one that a program can cause"
    with_cpus = {int(name.removeprefix("node")) for name, has_cpus in facts.host.numa_nodes if has_cpus}
    nodes = sorted(facts.host.memory_nodes, key=lambda number: number not in with_cpus)
    if len(nodes) < 2:
        return f"{len(nodes) or 'no'} NUMA node has memory, and pages of our own are moved between two"
    source, destination = nodes[:2]
    return MoveRequest(reason, (Batch(source, destination, small=PROBE_PAGES),), rng.getrandbits(32), SECONDS_MAX)


def _enabled_reasons(facts: KernelFacts) -> frozenset[str]:
    if facts.fixed_reasons is not None:
        return facts.fixed_reasons
    mask = next((facts.value(knob) for knob in facts.knobs if knob.field == REASONS_FIELD), None)
    return reason_names(mask) if mask else frozenset()


def probed(moved: Moved) -> Probed:
    """Say whether the engine's counters took notice of own pages that were moved."""
    answer = moved.answer
    if answer is None:
        return Probed(postponed=True)
    before, after = _folios(moved.before), _folios(moved.after)
    pages = sum(passage.folios for passage in answer.passages)
    causes = (answer.cause, *(passage.cause for passage in answer.passages), "none arrived")
    obstacle = "" if pages else next(cause for cause in causes if cause)
    return Probed(pages, None if before is None or after is None else after - before, obstacle)


def _folios(counts: Counts) -> int | None:
    found = [counts[name] for name in ("folios_migrated", "folios_failed") if name in counts]
    return sum(found) if found else None
