# SPDX-License-Identifier: Apache-2.0
"""What is read of the kernel's counters, from files as they are and as they should never be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numamigration_agent.kernel.counters import (
    NUMA_NODES_MAX,
    VALUES,
    Look,
    look,
    parse_count,
    parse_pressure,
    parse_vmstat,
)
from numamigration_agent.kernel.sysfs import Sysfs
from numamigration_api.vocabulary import Dialect

PARAMETERS = "sys/module/dcbm/parameters"
NODES = "sys/devices/system/node"
THP = "sys/kernel/mm/transparent_hugepage/hpage_pmd_size"
PRESSURE = (
    "some avg10=27.43 avg60={avg60} avg300=41.33 total=248684526\nfull avg10=0.00 avg60=9.00 avg300=0.00 total=0\n"
)


def look_at(folder: Path, files: Mapping[str, str], dialect: Dialect = Dialect.V6, *, numa_nodes: bool = True) -> Look:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return look(Sysfs(folder), dialect, numa_nodes=numa_nodes)


def node_files(*numbers: int) -> dict[str, str]:
    text = "nr_free_pages 7\npgpromote_success {0}\npgpromote_candidate 99\npgdemote_kswapd {0}\npgdemote_direct 1\n"
    return {f"{NODES}/node{number}/vmstat": text.format(number) for number in numbers}


# --- one file


@pytest.mark.parametrize(
    ("text", "count"),
    [
        pytest.param("0\n", 0, id="zero"),
        pytest.param("18446744073709551615\n", VALUES - 1, id="the last value"),
        pytest.param("-1\n", VALUES - 1, id="the same, as a signed number"),
        pytest.param("-9223372036854775808\n", VALUES // 2, id="the first that is negative"),
        pytest.param("18446744073709551616\n", None, id="one past the end"),
        pytest.param("-9223372036854775809\n", None, id="one before the beginning"),
        pytest.param("9" * 10_000, None, id="more digits than int() takes"),
        pytest.param("", None, id="empty"),
        pytest.param("5\n6\n", None, id="two lines"),
        pytest.param("\u0665\n", None, id="a digit, but not one of the kernel's"),
        pytest.param("folios: 5\n", None, id="words"),
    ],
)
def test_a_counter_is_an_unsigned_long_or_unknown(text: str, count: int | None) -> None:
    assert parse_count(text) == count


@given(st.text())
def test_whatever_a_counter_says_it_is_read_or_unknown(text: str) -> None:
    count = parse_count(text)

    assert count is None or 0 <= count < VALUES


@pytest.mark.parametrize(
    ("text", "percent"),
    [
        pytest.param(PRESSURE.format(avg60="63.78"), "63.78", id="some, not full"),
        pytest.param(PRESSURE.format(avg60="100.00"), "100.00", id="all the time"),
        pytest.param("full avg10=0.00 avg60=9.00 avg300=0.00 total=0\n", None, id="no line of some"),
        pytest.param("some avg10=0.00\n", None, id="cut short"),
        pytest.param("", None, id="no such file, or psi=0 on the kernel's command line"),
    ],
)
def test_pressure_is_the_share_of_the_last_minute_in_which_some_task_waited(text: str, percent: str | None) -> None:
    assert parse_pressure(text) == percent


def test_a_number_of_vmstat_that_is_too_long_is_left_out() -> None:
    assert parse_vmstat(f"pgmigrate_success {'9' * 5000}\npgmigrate_fail 3\n") == {"pgmigrate_fail": 3}


# --- a whole look


def test_a_kernel_that_has_nothing_is_looked_at_and_nothing_is_known(tmp_path: Path) -> None:
    assert look_at(tmp_path, {}) == Look({}, {}, numa_nodes=True, thp_pages=None)


def test_huge_pages_that_migrated_and_that_were_split_are_counted(tmp_path: Path) -> None:
    vmstat = "thp_migration_success 3\nthp_migration_fail 9\nthp_migration_split 2\n"

    found = look_at(tmp_path, {"proc/vmstat": vmstat}, Dialect.NO_SERIES)

    assert found.counts == {"thps_migrated": 3, "thps_split": 2}


def test_what_a_fork_refuses_is_counted_where_it_says_so(tmp_path: Path) -> None:
    files = {f"{PARAMETERS}/batches_refused": "4\n", f"{PARAMETERS}/folios_gated": "6\n"}

    found = {
        dialect: look_at(tmp_path, files, dialect).counts for dialect in (Dialect.V6, Dialect.F_MID, Dialect.F_EXT)
    }

    assert found == {
        Dialect.V6: {},
        Dialect.F_MID: {"batches_refused": 4},
        Dialect.F_EXT: {"batches_refused": 4, "folios_refused": 6},
    }


def test_pressure_is_read_with_every_look(tmp_path: Path) -> None:
    files = {"proc/pressure/memory": PRESSURE.format(avg60="1.50"), "proc/pressure/cpu": PRESSURE.format(avg60="63.78")}

    found = look_at(tmp_path, files, numa_nodes=False)

    assert found.pressures == {"memory_pressure": "1.50", "cpu_pressure": "63.78"}


def test_promotion_and_demotion_are_read_of_each_numa_node_in_its_turn(tmp_path: Path) -> None:
    files = node_files(0, 1) | {f"{NODES}/possible": "0-7\n"}

    assert look_at(tmp_path, files, numa_nodes=False).counts == {}
    assert look_at(tmp_path, files).counts == {
        "node0.pages_promoted": 0,
        "node0.pages_demoted": 1,
        "node1.pages_promoted": 1,
        "node1.pages_demoted": 2,
    }


def test_a_numa_node_without_these_counters_is_unknown(tmp_path: Path) -> None:
    files = node_files(0) | {f"{NODES}/node1/vmstat": "nr_free_pages 7\n"}

    assert list(look_at(tmp_path, files).counts) == ["node0.pages_promoted", "node0.pages_demoted"]


def test_a_host_with_one_numa_node_tells_no_more_than_the_whole(tmp_path: Path) -> None:
    assert look_at(tmp_path, node_files(0)).counts == {}


def test_of_many_numa_nodes_those_with_the_lowest_ids_are_read(tmp_path: Path) -> None:
    """Promise 12."""
    found = look_at(tmp_path, node_files(*range(NUMA_NODES_MAX + 4))).counts

    assert len(found) == 2 * NUMA_NODES_MAX
    assert f"node{NUMA_NODES_MAX - 1}.pages_promoted" in found


def test_the_size_of_a_huge_page_is_told_in_base_pages(tmp_path: Path) -> None:
    assert look_at(tmp_path, {THP: f"{512 * os.sysconf('SC_PAGE_SIZE')}\n"}).thp_pages == 512
