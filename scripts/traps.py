# SPDX-License-Identifier: Apache-2.0
"""What each trap of the kernel's files is, and how the agent walks round it; docs/hazards.md comes from here.

Which dialects have it says the dialect's row. No agent needs these words, so they are not in its image.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from numamigration_agent.kernel.dialects import Evidence, Trap


class TrapRow(NamedTuple):
    """One trap.

    Attributes:
        happens: what the kernel does.
        answer: what the agent does, so that it does no harm.
    """

    trap: Trap
    happens: str
    answer: str
    evidence: Evidence
    source: str


TRAPS: Final = (
    TrapRow(
        Trap.SILENT_CPU_COPY,
        happens="Without a free DMA channel a batch is copied by CPU: no counter, no log line, offload reads on. So it "
        "is when tasks that migrate at once ask for more channels than there are.",
        answer="Without a usable channel offload is not turned on (NoDmaChannel); channels are clamped to the host's. "
        "While pages migrate and no folio is counted, own pages tell (OffloadIneffective, ChannelsExhausted).",
        evidence=Evidence.SEEN,
        source="[PATCH RFC v6 4/5]",
    ),
    TrapRow(
        Trap.BLOCKING_TURN_OFF,
        happens="Turning off waits for all batches in flight: 10 s per channel with a hung engine, uninterruptible.",
        answer="Kernel files are touched on threads that can be left behind; the status says which file blocks.",
        evidence=Evidence.SEEN,
        source="[PATCH RFC v6 2/5] (SRCU); kernel/params.c",
    ),
    TrapRow(
        Trap.LAST_START_WINS,
        happens="Each of two switches can read 1 while only the engine that was started last works.",
        answer="The other engine goes off first. Where both read 1, both go off and the wished one on again.",
        evidence=Evidence.CODE,
        source="RFC 0/9 of 2025-09-23: the result of the core's start call is ignored",
    ),
    TrapRow(
        Trap.SHORT_WRITE,
        happens="A write answers 4, the size of an int, whatever was given; other whole numbers are taken and ignored.",
        answer="One os.write() of 0 or 1, never repeated; the read-back tells.",
        evidence=Evidence.CODE,
        source="drivers/migoffcopy/dcbm/dcbm.c of 2025-03-19; RFC 0/5 of 2024-06-14",
    ),
    TrapRow(
        Trap.SILENT_CLAMP,
        happens="16 and more channels are clamped to 16, and the write succeeds.",
        answer="A dialect that clamps is only turned off; else what is read back counts, and a difference is undone.",
        evidence=Evidence.CODE,
        source="drivers/migoffcopy/dcbm/dcbm.c of 2025-03-19",
    ),
    TrapRow(
        Trap.COUNTER_RESET,
        happens="Any write to a counter, garbage too, sets it to 0.",
        answer="Counters stand in another table than knobs and are never written; a drop counts as a reset.",
        evidence=Evidence.SEEN,
        source="[PATCH RFC v6 4/5]",
    ),
    TrapRow(
        Trap.EMPTY_MASK,
        happens="An empty line in reason_mask succeeds and means none: offload on, nothing eligible.",
        answer="No reason is always spelled none, and a wish that leaves no reason is refused.",
        evidence=Evidence.SEEN,
        source="[PATCH RFC v6 4/5]",
    ),
    TrapRow(
        Trap.ZERO_SEGMENTS,
        happens="sg_elems 0 is taken and not guarded against.",
        answer="0 is never written, not even to restore; a node that had 0 before keeps what is there, and says so.",
        evidence=Evidence.CODE,
        source="byrnedj/linux, dcbm.c at 315003dc and 09ba0a66",
    ),
)
