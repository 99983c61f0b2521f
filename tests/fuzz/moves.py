# SPDX-License-Identifier: Apache-2.0
"""What may happen to a node, as plain data: no move looks at the world, so leaving one out leaves the others alone.

A move that makes no sense where it stands (loading what is loaded) does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

from numamigration_api.vocabulary import Dialect
from tests.fakekernel.config import REASONS_7_2, REASONS_7_3, DmaEngine, HostConfig

Settings = dict[str, Any]

KNOWN_REASONS: Final = ("demotion", "damon", "compaction", "syscall_or_cpuset", "numa_misplaced", "memory_failure")
RISKS: Final = (
    "UnverifiedEngine",
    "OutOfOrderEngine",
    "SharedEngine",
    "MemoryFailureOffload",
    "BuiltInDriverStall",
    "DirectIOLostWrite",
)
ENGINES: Final = {
    "four": (DmaEngine("ptdma", channels=4),),
    "two": (DmaEngine("ptdma", numa_node=0), DmaEngine("ptdma", numa_node=1)),
    "none": (),
    "serial": (DmaEngine("dw_dmac", channels=8, memcpy=False),),
    "out of order": (DmaEngine("idxd", channels=8),),
    "shared": (DmaEngine("ioatdma", channels=4, public=True),),
    "mixed": (DmaEngine("ptdma", channels=2), DmaEngine("idxd", channels=2)),
    "hanging": (DmaEngine("ptdma", channels=2, hangs=True),),
    "slow": (DmaEngine("ptdma", channels=4, copy_seconds=4.0),),
    "failing": (DmaEngine("ptdma", channels=4, error_share=0.5),),
    "corrupting": (DmaEngine("ptdma", channels=4, wrong_share=1.0),),
    "corrupting slowly": (DmaEngine("ptdma", channels=4, copy_seconds=0.5, wrong_share=1.0),),
    "broken": (DmaEngine("ptdma", channels=4, error_share=1.0),),
    "sdxi": (DmaEngine("sdxi", channels=2, public=True),),
}
FAULTS: Final = ("EACCES", "EROFS", "EROFS", "EIO", "EINVAL", "EINVAL", "ENODEV", "ENOENT", "junk", "empty", "huge")
IGNORING: Final = ("ignored", "clamped")
EDITS: Final = ("clear", "no baselines", "other baselines", "no conditions", "old copy", "other result", "nonsense")
FILE_LOSSES: Final = ("folder", "cut", "empty", "of another boot")
ANSWERS: Final = ("retry", "conflict", "skew", "gone", "forbidden", "lost")
DRIFTS: Final = {
    "offload.engine": ("0", "1"),
    "offload.channels": ("1", "2", "3", "8"),
    "offload.reasons": ("all", "none", "demotion", "compaction,damon"),
    "balancing.mode": ("0", "1", "2", "3"),
    "balancing.promoteRateLimitMBps": ("0", "100", "65536"),
    "demotion.enabled": ("0", "1"),
    "offload.engine/CPUThreads": ("0", "1"),
    "cpuThreads.count": ("2", "8"),
    "batch.minSize": ("16384", "131072"),
    "mapCache.enabled": ("Y", "N"),
}


POSTED_SHARE: Final = 0.45
"""Of hosts, those of the two dialects that were seen running."""


class Move(NamedTuple):
    """One thing that happens: a method of the world and its arguments."""

    name: str
    args: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.args))})"


class History(NamedTuple):
    """A host and what happens to it."""

    seed: int
    host: HostConfig
    moves: tuple[Move, ...]


def some_host(rng: Random, dialects: tuple[Dialect, ...]) -> HostConfig:
    """Return a host of one of the dialects; every tenth has no series."""
    posted = [dialect for dialect in dialects if dialect in {Dialect.V5, Dialect.V6}]
    drawn = rng.choice(posted if posted and rng.random() < POSTED_SHARE else dialects)
    dialect = Dialect.NO_SERIES if rng.random() < 0.1 else drawn
    kind = (
        "sdxi" if dialect is Dialect.V6_SDXI and rng.random() < 0.7 else rng.choice(["four", "four", "two", *ENGINES])
    )
    return HostConfig(
        dialect=dialect,
        built_in=dialect is Dialect.V6 and rng.random() < 0.1,
        loaded=rng.random() < 0.9,
        engines=ENGINES[kind],
        parameters={"offloading": "1", "nr_dma_chan": "3"} if dialect is Dialect.V6 and rng.random() < 0.15 else {},
        numa_balancing=rng.choice([0, 1, 2, 3]),
        demotion_enabled=rng.random() < 0.3,
        reason_names=rng.choice([REASONS_7_3, REASONS_7_3, REASONS_7_2[:9]]),
    )


def some_groups(rng: Random) -> dict[str, Any]:
    """Return the wishes of a spec; a group that is not among them is not to be touched."""
    makers = {"offload": _some_offload, "balancing": _some_balancing, "demotion": _some_demotion}
    rare = {"cpuThreads": _some_threads, "batch": _some_batch, "mapCache": _some_map_cache}
    groups = {name: _some_wish(rng, make(rng)) for name, make in makers.items() if rng.random() < 0.75}
    return groups | {name: _some_wish(rng, make(rng)) for name, make in rare.items() if rng.random() < 0.12}


def _some_wish(rng: Random, settings: Settings) -> dict[str, Any]:
    unverified = {"verification": "Off", "acceptedRisks": ["UnverifiedEngine"]}
    verified = {"verification": rng.choice(["FirstUse", "FirstUse", "Always"]), "acceptedRisks": []}
    risks = sorted({"UnverifiedEngine", *rng.sample(RISKS, rng.randint(0, len(RISKS)))}) if rng.random() < 0.5 else None
    return {
        "settings": settings,
        "source": {"policy": "database", "uid": "uid-1", "generation": 1},
        "mode": rng.choices(["Apply", "Hold", "Restore"], [7, 1, 2])[0],
        "drift": rng.choices(["Correct", "Report", "Ignore"], [6, 1, 1])[0],
        "unsupported": rng.choices(["BestEffort", "Strict"], [5, 1])[0],
        "release": rng.choices(["Restore", "Keep"], [3, 1])[0],
        **(unverified if rng.random() < 0.6 else verified),
        **({"acceptedRisks": risks} if risks else {}),
    }


def _some_offload(rng: Random) -> Settings:
    if rng.random() < 0.2:
        return {"engine": "Off"}
    settings: Settings = {"engine": rng.choices(["DMA", "CPUThreads"], [8, 2])[0]}
    if rng.random() < 0.8:
        settings["channels"] = rng.choice([1, 2, 3, 4, 8, 16, 24])
    if rng.random() < 0.6:
        settings["reasons"] = rng.sample(KNOWN_REASONS, rng.randint(1, 4))
    return settings


def _some_threads(rng: Random) -> Settings:
    return {"count": rng.choice([1, 4, 32, 64]), "placement": rng.choice(["Push", "Pull", "Fill", "Spread"])}


def _some_batch(rng: Random) -> Settings:
    every = {"minSize": "64Ki", "chunkMinSize": "128Ki", "chunkMaxSize": "4Mi", "sgElements": 16}
    return {name: every[name] for name in rng.sample(sorted(every), rng.randint(1, 4))}


def _some_map_cache(rng: Random) -> Settings:
    every = {"enabled": rng.random() < 0.5, "capMiB": 1024, "minKiB": 128, "quantumKiB": rng.choice([0, 512])}
    return {name: every[name] for name in rng.sample(sorted(every), rng.randint(1, 4))}


def _some_balancing(rng: Random) -> Settings:
    rate = {"promoteRateLimitMBps": rng.choice([0, 1024, 2048])} if rng.random() < 0.6 else {}
    return {"mode": rng.choice(["Off", "Normal", "Tiering"]), **rate}


def _some_demotion(rng: Random) -> Settings:
    return {"enabled": rng.random() < 0.6}


def _drift(rng: Random) -> tuple[Any, ...]:
    name = rng.choice(list(DRIFTS))
    return name, rng.choice(DRIFTS[name])


MOVES: Final[dict[str, tuple[float, Callable[[Random], tuple[Any, ...]]]]] = {
    "work": (40, lambda rng: (rng.choice([1, 1, 2, 3, 5, 9]), rng.randrange(1 << 16))),
    "settle": (10, lambda _: ()),
    "pass_time": (9, lambda rng: (rng.choice([0.5, 4.0, 16.0, 61.0, 310.0]),)),
    "wish": (10, lambda rng: (some_groups(rng),)),
    "turn": (5, lambda rng: (rng.choice(["Restore", "Hold", "Apply", "absent"]),)),
    "crash": (5, lambda _: ()),
    "lose_file": (1, lambda rng: (rng.choice(FILE_LOSSES),)),
    "delete_state": (1.5, lambda _: ()),
    "make_state": (0.7, lambda _: ()),
    "edit_spec": (1, lambda _: ()),
    "edit_status": (1.5, lambda rng: (rng.choice(EDITS),)),
    "answer": (2, lambda rng: (rng.choice(ANSWERS), rng.randint(1, 3))),
    "room": (1, lambda rng: (rng.random() < 0.5,)),
    "fault": (4, lambda rng: (rng.choice(list(DRIFTS)), rng.choice(FAULTS + IGNORING), rng.choice([1, 2, 5, 50]))),
    "heal": (3, lambda _: ()),
    "read_only": (1, lambda rng: (rng.random() < 0.5,)),
    "drift": (5, _drift),
    "load": (2, lambda rng: ({"nr_dma_chan": "3"} if rng.random() < 0.3 else {},)),
    "unload": (2.5, lambda _: ()),
    "begin_unload": (0.5, lambda _: ()),
    "reboot": (1, lambda rng: (rng.random() < 0.5,)),
    "verify_anew": (1, lambda _: ()),
    "engines": (3, lambda rng: (rng.choice(list(ENGINES)),)),
    "workload": (3, lambda rng: (rng.choice(["none", "demotion", "promotion", "syscall"]),)),
    "other_migrator": (1.5, lambda rng: (rng.random() < 0.5,)),
    "calm": (0.5, lambda _: ()),
}
"""By name of the world's method: how often, and with what."""


AMIDST: Final = (
    *("crash", "crash", "crash", "delete_state", "edit_status", "lose_file", "turn", "turn", "drift", "drift", "fault"),
    *("fault", "unload", "answer", "other_migrator", "wish"),
)
"""What falls into the middle of a change."""
BURST_SHARE: Final = 0.25
TRIED_SHARE: Final = 0.3
WATCH_SHARE: Final = 0.08
COPIES_BY_THREADS: Final = frozenset({Dialect.V3, Dialect.ZY})


def _burst(rng: Random) -> tuple[Move, ...]:
    """Return a wish, and something in the middle of what follows from it."""
    amidst = [rng.choice(AMIDST) for _ in range(rng.randint(1, 2))]
    begins = [Move("settle"), Move("wish", (some_groups(rng),)), _work_some(rng)]
    return (*begins, *(_some_move(rng, name) for name in amidst), _work_some(rng))


def _tried(rng: Random, dialect: Dialect) -> tuple[Move, ...]:
    """Return a wish that is granted, as far as this kernel can, with work for its engine."""
    engine = "CPUThreads" if dialect in COPIES_BY_THREADS and rng.random() < 0.7 else "DMA"
    settings = {"engine": engine, **({"channels": rng.choice([1, 2, 4])} if rng.random() < 0.7 else {})}
    if dialect in {Dialect.V5, Dialect.V6} and rng.random() < 0.5:
        settings["reasons"] = ["syscall_or_cpuset", "demotion", "compaction", "numa_misplaced"]
    wish = {**_some_wish(rng, settings), "mode": "Apply", "unsupported": "BestEffort", "acceptedRisks": sorted(RISKS)}
    workload = Move("workload", (rng.choice(["syscall", "syscall", "demotion"]),))
    return (*(Move("heal"), Move("load", ({},)), Move("wish", ({"offload": wish},)), Move("settle")), workload)


def _watched(rng: Random, dialect: Dialect) -> tuple[Move, ...]:
    """Return engines that go on with work to do, and time to see what they do; the API server may be away."""
    kind = rng.choice(["hanging", "hanging", "broken", "broken", "corrupting", "corrupting slowly", "slow", "failing"])
    changed = [Move("engines", (kind,)), Move("pass_time", (61.0,))] if rng.random() < 0.7 else []
    away = [Move("answer", ("retry", 50))] if rng.random() < 0.4 else []
    waits = (Move("pass_time", (rng.choice([4.0, 16.0, 61.0]),)) for _ in range(2))
    return (*changed, *_tried(rng, dialect), *away, *waits)


def _work_some(rng: Random) -> Move:
    return Move("work", (rng.randint(1, 24), rng.getrandbits(24)))


def _some_move(rng: Random, name: str) -> Move:
    return Move(name, MOVES[name][1](rng))


def make_history(seed: int, length: int, dialects: tuple[Dialect, ...]) -> History:
    """Return the history of a seed; it ends in calm."""
    rng = Random(seed)
    host = some_host(rng, dialects)
    names, weights = list(MOVES), [weight for weight, _ in MOVES.values()]
    moves = [*_tried(rng, host.dialect)] if rng.random() < TRIED_SHARE else [Move("wish", (some_groups(rng),))]
    while len(moves) < length - 1:
        drawn = rng.random()
        if drawn < WATCH_SHARE:
            moves += rng.choice([_tried, _watched, _watched])(rng, host.dialect)
        elif drawn < WATCH_SHARE + BURST_SHARE:
            moves += _burst(rng)
        else:
            moves.append(_some_move(rng, rng.choices(names, weights)[0]))
    return History(seed, host, (*moves[: length - 1], Move("calm")))
