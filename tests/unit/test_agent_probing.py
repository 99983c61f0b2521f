# SPDX-License-Identifier: Apache-2.0
"""What bounds a probe, what it measures, and what a sample is good for: decided from plain data."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from numamigration_agent.baseline import Baselines
from numamigration_agent.jobs import Timed
from numamigration_agent.kernel.cgroups import memory_room
from numamigration_agent.kernel.probe import probe, probe_host
from numamigration_agent.kernel.room import Room, Strain, not_calm, read_room, read_strain
from numamigration_agent.kernel.timed_moves import TimedAnswer
from numamigration_agent.probe_record import FILE_NAME, ProbeFile, ProbeRecord
from numamigration_agent.probing import (
    CAREFUL,
    SET_BYTES_MIN,
    Bounds,
    Halt,
    Table,
    bounds_of,
    extras,
    holds,
    judge_sample,
    knobs_of_setting,
    mix_json,
    mix_of,
    shapes_of,
    wish_after,
    wish_of,
)
from numamigration_agent.status import WITH_RESULTS_BYTES_MAX, build_status
from numamigration_agent.view import View
from numamigration_agent.wishes import ProbeRequest, Source, Spec, Wish, parse_spec
from numamigration_api.machinery.tuning.samples import BASELINE, Setting, Shape
from numamigration_api.models.node_state import NodeMigrationStateStatus
from numamigration_api.vocabulary import (
    PROBE_MEANING,
    PROBE_ROWS_MAX,
    Dialect,
    GroupMode,
    ProbeReason,
    Release,
    SettingsGroup,
    Verification,
)
from tests.fakekernel.config import HostConfig
from tests.fakekernel.model import FakeKernel
from tests.unit.agent_rig import FakeSysfs

MIB = 1 << 20
CALM = Strain({"memory_pressure": 0.0, "cpu_pressure": 0.0})
UNTOLD = Strain(load=0.1)
PLENTY = Room({0: 1 << 40, 1: 1 << 40}, cache_bytes=32 * MIB, folio_sizes=(4096, 2 << 20))
REQUEST = ProbeRequest("one", (("DMA", 4),))
DMA4 = Setting("DMA", 4)
SMALL, HUGE = Shape(4096, 512), Shape(2 << 20, 32)


def facts_of(config: HostConfig | None = None) -> Any:
    sysfs = FakeSysfs(FakeKernel(config or HostConfig(), random.Random(1)))
    return probe(sysfs, probe_host(sysfs))


# --- calm


@pytest.mark.parametrize(
    ("strain", "own", "is_calm"),
    [
        pytest.param(CALM, False, True, id="nobody waits"),
        pytest.param(Strain({"memory_pressure": 10.0}), False, True, id="at the limit"),
        pytest.param(Strain({"memory_pressure": 10.1}), False, False, id="beyond it"),
        pytest.param(Strain({"memory_pressure": 10.1}), True, False, id="memory is never our own strain"),
        pytest.param(Strain({"cpu_pressure": 20.1}), False, False, id="tasks wait for a CPU"),
        pytest.param(Strain({"cpu_pressure": 40.0}), True, True, id="we may be among those who wait"),
        pytest.param(Strain({"cpu_pressure": 40.1}), True, False, id="others are too"),
        pytest.param(Strain(load=0.5), False, True, id="no PSI, and little load"),
        pytest.param(Strain(load=0.51), False, False, id="no PSI, and load"),
        pytest.param(Strain(load=1.5), True, True, id="we are a part of the load"),
        pytest.param(Strain(load=1.51), True, False, id="more load than ours"),
        pytest.param(Strain(), False, False, id="nobody tells"),
    ],
)
def test_a_node_is_calm_up_to_a_limit(strain: Strain, own: bool, is_calm: bool) -> None:
    assert (not_calm(strain, own=own) == "") is is_calm


def test_strain_and_room_are_read_from_the_kernels_files() -> None:
    kernel = FakeKernel(HostConfig(cache_kib=1024, free_kib=2048), random.Random(1))
    kernel.set_pressure("cpu", 0.25)
    kernel.set_counter("/proc/vmstat", 7, "pgmigrate_success")

    strain, room = read_strain(FakeSysfs(kernel)), read_room(FakeSysfs(kernel), (0, 1))

    assert strain == Strain({"memory_pressure": 0.0, "cpu_pressure": 25.0})
    assert (room.free, room.cache_bytes) == ({0: 2 * MIB, 1: 2 * MIB}, MIB)
    assert room.folio_sizes == (4096, 2 * MIB)
    assert room.migrated["pgmigrate_success"] == 7


@pytest.mark.parametrize(
    ("chosen", "sizes"),
    [
        pytest.param({"2048": "[inherit]"}, (4096, 2 * MIB), id="huge ones as the whole says"),
        pytest.param({"2048": "[never]"}, (4096,), id="none"),
        pytest.param({"64": "[madvise]", "2048": "[never]"}, (4096, 65536), id="one in between"),
        pytest.param({"64": "[always]", "128": "[inherit]", "2048": "[always]"}, (4096, 131072, 2 * MIB), id="largest"),
        pytest.param({"64": "[never]", "128": "[never]"}, (4096, 2 * MIB), id="sizes are there and none is wanted"),
    ],
)
def test_sizes_of_folios_are_those_that_the_kernel_makes_when_asked(
    chosen: Mapping[str, str], sizes: tuple[int, ...]
) -> None:
    thp = "/sys/kernel/mm/transparent_hugepage"
    files = {f"{thp}/hugepages-{size}kB/enabled": f"always never {word}\n" for size, word in chosen.items()}

    room = read_room(FakeSysfs(FakeKernel(HostConfig(extra_files=files), random.Random(1))), (0, 1))

    assert room.folio_sizes == sizes


# --- the limits of control groups

V1_UNLIMITED = "9223372036854771712"


@pytest.mark.parametrize(
    ("files", "room"),
    [
        pytest.param({}, None, id="nothing can be read"),
        pytest.param({"/proc/self/cgroup": "0::/\n"}, None, id="version 2 at its root, which has no limit"),
        pytest.param(
            {
                "/proc/self/cgroup": "0::/pod/one\n",
                "/sys/fs/cgroup/pod/one/memory.max": "max\n",
                "/sys/fs/cgroup/pod/one/memory.current": "5\n",
            },
            None,
            id="version 2, no limit",
        ),
        pytest.param(
            {
                "/proc/self/cgroup": "0::/pod/one\n",
                "/sys/fs/cgroup/pod/one/memory.max": "1000\n",
                "/sys/fs/cgroup/pod/one/memory.current": "400\n",
                "/sys/fs/cgroup/pod/one/memory.stat": "anon 1\ninactive_file 100\n",
            },
            700,
            id="version 2, idle file pages are given back",
        ),
        pytest.param(
            {
                "/proc/self/cgroup": "0::/pod/one\n",
                "/sys/fs/cgroup/pod/one/memory.max": "1000\n",
                "/sys/fs/cgroup/pod/one/memory.current": "100\n",
                "/sys/fs/cgroup/pod/memory.max": "500\n",
                "/sys/fs/cgroup/pod/memory.current": "450\n",
            },
            50,
            id="version 2, the pod's limit is nearer",
        ),
        pytest.param(
            {
                "/proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/kubepods/pod/one\n0::/\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": "1000\n",
                "/sys/fs/cgroup/memory/memory.usage_in_bytes": "300\n",
                "/sys/fs/cgroup/memory/memory.stat": "total_inactive_file 50\n",
            },
            750,
            id="version 1 in a container, whose own group is the root of its mount",
        ),
        pytest.param(
            {
                "/proc/self/cgroup": "4:memory:/\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": V1_UNLIMITED,
                "/sys/fs/cgroup/memory/memory.usage_in_bytes": "300\n",
            },
            None,
            id="version 1, no limit",
        ),
        pytest.param(
            {
                "/proc/self/cgroup": "0::/\n",
                "/sys/fs/cgroup/memory.max": "100\n",
                "/sys/fs/cgroup/memory.current": "200\n",
            },
            0,
            id="beyond the limit",
        ),
        pytest.param({"/proc/self/cgroup": "garbage\n::\n0::/../..\n"}, None, id="garbage"),
    ],
)
def test_the_nearest_limit_of_all_groups_bounds_the_memory(files: Mapping[str, str], room: int | None) -> None:
    assert memory_room(files.get) == room


# --- bounds


def bounds(room: Room = PLENTY, limit: int | None = None, strain: Strain = CALM, **changes: Any) -> Bounds | Halt:
    return bounds_of(room, limit, strain, REQUEST._replace(**changes), 60.0)


def size(found: Bounds | Halt) -> int:
    assert isinstance(found, Bounds), found
    return found.set_bytes


def test_four_times_the_cache_are_wanted_and_no_more() -> None:
    assert size(bounds()) == 4 * 32 * MIB


def test_a_quarter_of_what_is_free_on_the_fuller_node_is_the_most() -> None:
    assert size(bounds(PLENTY._replace(free={0: 1 << 40, 1: 64 * MIB}))) == 16 * MIB


def test_what_the_operator_allows_holds_the_copies_and_the_processes_too() -> None:
    assert size(bounds(memory_bytes=60 * MIB)) <= (60 - 2 * 12) * MIB * 2 / 3


def test_the_limit_of_the_container_is_kept() -> None:
    assert size(bounds(limit=60 * MIB)) <= (60 - 2 * 12) * MIB * 2 / 3


@pytest.mark.parametrize(
    ("changes", "reason", "lasting"),
    [
        pytest.param({"room": PLENTY._replace(free={0: MIB, 1: MIB})}, ProbeReason.NO_FREE_MEMORY, False, id="full"),
        pytest.param({"room": PLENTY._replace(free={0: 1 << 40})}, ProbeReason.NO_FREE_MEMORY, False, id="untold"),
        pytest.param({"room": PLENTY._replace(free={})}, ProbeReason.NO_FREE_MEMORY, False, id="nothing told"),
        pytest.param({"limit": 20 * MIB}, ProbeReason.MEMORY_LIMIT, True, id="small container"),
        pytest.param({"limit": 0}, ProbeReason.MEMORY_LIMIT, True, id="full container"),
        pytest.param({"memory_bytes": MIB}, ProbeReason.MEMORY_LIMIT, True, id="little is allowed"),
    ],
)
def test_too_little_memory_is_told_with_whose_it_is(changes: Any, reason: ProbeReason, lasting: bool) -> None:
    found = bounds(**changes)

    assert isinstance(found, Halt)
    assert (found.reason, found.lasting) == (reason, lasting)


@pytest.mark.parametrize(
    ("room", "bound"),
    [
        pytest.param(PLENTY, False, id="four times the cache"),
        pytest.param(PLENTY._replace(cache_bytes=0), True, id="nobody knows the cache"),
        pytest.param(PLENTY._replace(cache_bytes=1 << 30), True, id="a cache too large"),
    ],
)
def test_a_set_that_a_cache_holds_is_marked(room: Room, bound: bool) -> None:
    found = bounds(room)

    assert isinstance(found, Bounds)
    assert found.cache_bound is bound


def test_where_nobody_tells_pressure_half_is_taken_of_everything() -> None:
    whole, half = bounds(PLENTY._replace(cache_bytes=0)), bounds(PLENTY._replace(cache_bytes=0), strain=UNTOLD)

    assert isinstance(whole, Bounds)
    assert isinstance(half, Bounds)
    assert half.set_bytes < whole.set_bytes * CAREFUL
    assert (half.seconds, half.cpu_share) == (whole.seconds * CAREFUL, whole.cpu_share * CAREFUL)


# --- shapes and mix


def test_no_call_moves_more_than_half_of_the_set_and_no_size_is_left_out() -> None:
    for set_bytes in (SET_BYTES_MIN, 64 * MIB, 1 << 30):
        shapes = shapes_of((4096, 2 * MIB), set_bytes)

        assert {shape.folio_bytes for shape in shapes} == {4096, 2 * MIB}
        assert all(2 * shape.folio_bytes * shape.folios <= set_bytes for shape in shapes)
        assert all(shape.can_gain for shape in shapes)
        assert len(set(shapes)) == len(shapes)


COUNTERS = {
    "pgmigrate_success": 1_000_000,
    "thp_migration_success": 0,
    "numa_pages_migrated": 200_000,
    "pgpromote_success": 150_000,
    "pgdemote_kswapd": 250_000,
    "pgdemote_direct": 50_000,
}
SHAPES = [Shape(4096, 32), Shape(4096, 512), HUGE]


def test_callers_have_their_share_by_their_own_counters() -> None:
    mix = mix_of(COUNTERS, (0, 0), SHAPES, 512)

    assert mix is not None
    found = {(part.shape.folios, part.reason): round(part.weight, 3) for part in mix.parts}
    assert found == {(1, "numa_misplaced"): 0.2, (32, "demotion"): 0.3, (32, ""): 0.25, (512, ""): 0.25}


def test_promotion_stands_in_where_balancing_is_not_counted() -> None:
    counters = {name: count for name, count in COUNTERS.items() if name != "numa_pages_migrated"}

    mix = mix_of(counters, (0, 0), SHAPES, 512)

    assert mix is not None
    assert mix.single_folio_share == pytest.approx(0.15)


def test_huge_folios_have_their_share_of_all_bytes() -> None:
    mix = mix_of(COUNTERS | {"thp_migration_success": 1000}, (0, 0), SHAPES, 512)

    assert mix is not None
    assert sum(part.weight for part in mix.parts if part.shape.folio_bytes == 2 * MIB) == pytest.approx(0.512)


@pytest.mark.parametrize(
    ("counters", "own"),
    [
        pytest.param({}, (0, 0), id="no counters"),
        pytest.param({"pgmigrate_success": 1 << 30}, (0, 0), id="huge ones are not counted"),
        pytest.param(COUNTERS | {"pgmigrate_success": 1000}, (0, 0), id="hardly anything migrated"),
        pytest.param(COUNTERS, (900_000, 0), id="all but little was our own"),
        pytest.param(COUNTERS, (2_000_000, 0), id="counters were reset"),
    ],
)
def test_what_is_not_known_is_no_mix(counters: Mapping[str, int], own: tuple[int, int]) -> None:
    assert mix_of(counters, own, SHAPES, 512) is None


def test_more_pages_balanced_than_migrated_make_no_negative_share() -> None:
    mix = mix_of(COUNTERS | {"numa_pages_migrated": 1 << 40}, (0, 0), SHAPES, 512)

    assert mix is not None
    assert [part.reason for part in mix.parts] == ["numa_misplaced"]


def test_two_migrators_are_measured_where_there_are_channels_for_both() -> None:
    crowded = SMALL._replace(migrators=2)

    assert (DMA4, crowded) in extras(DMA4, [SMALL], 8)
    assert (DMA4, crowded) not in extras(DMA4, [SMALL], 7)
    assert (BASELINE, crowded) in extras(DMA4, [SMALL], 7)


# --- samples


def sample(answer: TimedAnswer, grown: int | None = 512) -> Timed:
    before = {} if grown is None else {"folios_migrated": 100}
    after = {} if grown is None else {"folios_migrated": 100 + grown}
    return Timed(answer, CALM, before, after)


GOOD = TimedAnswer(512 * 4096, 512, 0, 0.1, 0.05)


@pytest.mark.parametrize(
    ("setting", "timed", "reason"),
    [
        pytest.param(DMA4, sample(GOOD), None, id="the engine copied them"),
        pytest.param(DMA4, sample(GOOD, 470), None, id="nearly all of them"),
        pytest.param(DMA4, sample(GOOD, 400), ProbeReason.ENGINE_INEFFECTIVE, id="too few of them"),
        pytest.param(DMA4, sample(GOOD, 0), ProbeReason.ENGINE_INEFFECTIVE, id="none of them"),
        pytest.param(DMA4, sample(GOOD, -5), ProbeReason.ENGINE_INEFFECTIVE, id="somebody reset the counter"),
        pytest.param(DMA4, sample(GOOD, None), None, id="a kernel that does not count"),
        pytest.param(BASELINE, sample(GOOD, 0), None, id="plain copy has no engine"),
        pytest.param(DMA4, sample(GOOD._replace(left=60)), ProbeReason.SAMPLES_UNUSABLE, id="some stayed"),
        pytest.param(DMA4, sample(GOOD._replace(left=50)), None, id="a few stayed"),
        pytest.param(DMA4, sample(GOOD._replace(seconds=0.0)), ProbeReason.SAMPLES_UNUSABLE, id="no time"),
        pytest.param(DMA4, sample(GOOD._replace(seconds=-1.0)), ProbeReason.SAMPLES_UNUSABLE, id="time backwards"),
        pytest.param(DMA4, sample(TimedAnswer()), ProbeReason.SAMPLES_UNUSABLE, id="nothing"),
    ],
)
def test_a_sample_counts_only_when_pages_arrived_by_the_engine_that_is_measured(
    setting: Setting, timed: Timed, reason: ProbeReason | None
) -> None:
    found = judge_sample(setting, timed)

    assert (found and found.reason) == reason


@pytest.mark.parametrize(
    ("setting", "held", "expected"),
    [
        pytest.param(BASELINE, ("0", "4", "none"), True, id="off, whatever the rest"),
        pytest.param(BASELINE, ("1", "4", "syscall_or_cpuset"), False, id="on"),
        pytest.param(DMA4, ("1", "4", "syscall_or_cpuset"), True, id="on with its channels"),
        pytest.param(DMA4, ("1", "4", "demotion,syscall_or_cpuset"), True, id="on, and for others too"),
        pytest.param(DMA4, ("0", "4", "syscall_or_cpuset"), False, id="off by somebody"),
        pytest.param(DMA4, ("1", "8", "syscall_or_cpuset"), False, id="other channels"),
        pytest.param(DMA4, ("1", "4", "demotion"), False, id="own pages are not eligible"),
        pytest.param(DMA4, ("1", None, "syscall_or_cpuset"), False, id="unreadable"),
        pytest.param(DMA4, ("1", "4", None), False, id="mask unreadable"),
    ],
)
def test_a_sample_counts_only_when_the_knobs_held_its_setting(setting: Setting, held: Any, expected: bool) -> None:
    knobs = knobs_of_setting(facts_of())
    order = {knob.field: index for index, knob in enumerate(knobs)}
    values: list[Any] = [None] * len(knobs)
    for name, value in zip(("offload.engine", "offload.channels", "offload.reasons"), held, strict=True):
        values[order[name]] = value

    assert holds(setting, knobs, values) is expected


# --- wishes

POLICY = Wish(
    SettingsGroup.OFFLOAD,
    {"engine": "DMA", "channels": 2, "reasons": ["demotion"]},
    Source("p", "u", 1),
    verification=Verification.ALWAYS,
    accepted_risks=frozenset({"SharedEngine"}),
    revision="r",
)


def test_a_setting_is_measured_under_the_terms_of_the_policy() -> None:
    """Promise 5."""
    found = wish_of(DMA4, POLICY, REQUEST, facts_of())

    assert found.settings == {"engine": "DMA", "channels": 4, "reasons": ["syscall_or_cpuset"]}
    assert (found.accepted_risks, found.revision, found.mode) == (POLICY.accepted_risks, "r", GroupMode.APPLY)


def test_without_a_wish_the_request_names_the_risks_and_the_engine_is_verified() -> None:
    """Promise 15."""
    found = wish_of(DMA4, None, REQUEST._replace(accepted_risks=frozenset({"SharedEngine"})), facts_of())

    assert found.accepted_risks == {"SharedEngine"}
    assert found.verification is Verification.FIRST_USE


def test_reasons_that_cannot_be_restricted_stay_as_the_policy_has_them() -> None:
    """Promise 3: so the guards refuse what they refuse to the policy."""
    found = wish_of(DMA4, POLICY, REQUEST, facts_of(HostConfig(dialect=Dialect.V5)))

    assert found.settings["reasons"] == ["demotion"]


@pytest.mark.parametrize(
    ("wish", "before", "mode", "settings"),
    [
        pytest.param(POLICY, {"engine": "Off"}, GroupMode.APPLY, POLICY.settings, id="what is wished now"),
        pytest.param(None, None, GroupMode.RESTORE, {}, id="nobody wishes anything"),
        pytest.param(
            Wish(SettingsGroup.OFFLOAD, {"engine": "DMA"}, Source("p", "u", 1), mode=GroupMode.HOLD),
            {"engine": "Off"},
            GroupMode.APPLY,
            {"engine": "Off"},
            id="held: what was wished before",
        ),
        pytest.param(
            Wish(SettingsGroup.OFFLOAD, {"engine": "DMA"}, Source("p", "u", 1), mode=GroupMode.HOLD),
            None,
            GroupMode.RESTORE,
            {"engine": "DMA"},
            id="held, and nothing was wished before",
        ),
    ],
)
def test_afterwards_all_goes_back_to_what_is_wished_or_was(
    wish: Wish | None, before: Any, mode: GroupMode, settings: Any
) -> None:
    """Promise 7."""
    found = wish_after(wish, before)

    assert (found.mode, found.settings) == (mode, settings)
    assert mode is GroupMode.RESTORE or found.release is Release.RESTORE


def test_a_request_is_read_with_its_defaults_and_what_is_broken_asks_for_nothing() -> None:
    whole = {"id": "a", "candidates": [{"engine": "DMA", "channels": 2}, "x"], "secondsMax": 5, "memoryBytesMax": 7}

    assert parse_spec({"spec": {"probe": whole}}).probe == ProbeRequest("a", (("DMA", 2),), 5.0, 7)
    assert parse_spec({"spec": {"probe": {"id": "a"}}}).probe == ProbeRequest("a", ())
    assert parse_spec({"spec": {"probe": {"id": 5}}}).probe is None
    assert parse_spec({"spec": {"probe": []}}).probe is None


# --- what is told


def full_table() -> Table:
    table = Table()
    settings = [BASELINE, *(Setting("DMA", channels) for channels in range(1, 9))]
    for number, shape in enumerate(Shape(4096 << n, 512, 2) for n in range(9)):
        for setting in settings:
            table.add(setting, shape, GOOD._replace(seconds=0.1 + number / 7))
    return table


def test_results_are_at_most_forty_with_the_heaviest_shapes_first() -> None:
    heavy = Shape(4096 << 3, 512, 2)

    rows = full_table().rows({heavy: 1.0})

    assert len(rows) == PROBE_ROWS_MAX
    assert {row["folioBytes"] for row in rows[:9]} == {heavy.folio_bytes}
    assert [row["engine"] for row in rows[:2]] == ["CPU", "DMA"]


def test_equal_samples_have_no_deviation_and_scattered_ones_theirs() -> None:
    table = Table()
    for seconds in (0.1, 0.1, 0.2):
        table.add(DMA4, SMALL, GOOD._replace(seconds=seconds))
    table.add(BASELINE, SMALL, GOOD)

    scattered, plain = sorted(table.rows({}), key=lambda row: -int(row["samples"]))

    assert (scattered["samples"], plain["samples"]) == (3, 1)
    assert scattered["standardDeviation"] == pytest.approx(512 * 4096 / 0.2 / 3**0.5, rel=0.001)
    assert plain["standardDeviation"] == 0


def test_a_status_with_many_results_stays_below_its_bound() -> None:
    """Promise 12: the lightest shapes are left out, and the spec that asked has room beside them."""
    facts = facts_of(HostConfig(dialect=Dialect.F_EXT))
    rows = full_table().rows({})
    told = {"id": "x" * 64, "phase": "Done", "reason": "Measured", "message": "m" * 512, "results": rows}
    mix = mix_of(COUNTERS, (0, 0), SHAPES, 512)
    assert mix is not None
    view = View(Spec(), facts, baselines=Baselines(facts.host.boot_id).values, probe=told | {"mix": mix_json(mix)})

    status = build_status(view, now=datetime(2026, 1, 1, tzinfo=UTC), conditions=())

    assert len(json.dumps(status)) <= WITH_RESULTS_BYTES_MAX
    kept = status["probe"]["results"]
    assert 8 < len(kept) <= PROBE_ROWS_MAX
    assert kept == rows[: len(kept)]
    NodeMigrationStateStatus.model_validate_json(json.dumps(status))


def test_every_reason_of_a_probe_tells_what_to_do() -> None:
    assert set(PROBE_MEANING) == set(ProbeReason)
    assert all(text.endswith((".", "?")) for text in PROBE_MEANING.values())


# --- what is remembered


def test_what_is_remembered_comes_back_whole_on_the_same_boot(tmp_path: Path) -> None:
    record = ProbeRecord("one", True, {"engine": "Off"}, {"phase": "Done"}, 5, 6, 7.5, 8.5)

    assert ProbeFile(tmp_path).save(record, "boot") == ""

    assert ProbeFile(tmp_path).load("boot") == record
    assert ProbeFile(tmp_path).load("other") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 1, "bootID": "boot", "probe": {"spent": "nan"}}'])
def test_a_file_that_is_none_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)

    assert ProbeFile(tmp_path).load("boot") is None
