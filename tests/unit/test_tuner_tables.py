# SPDX-License-Identifier: Apache-2.0
"""Tables of throughput that people hand to the tuner's model: read leniently, refused clearly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.tuner import __main__ as program
from benchmarks.tuner.tables import PUBLISHED, Table, TableError, Value, folio_bytes, median_spread, read
from numamigration_api.machinery.tuning.samples import BASELINE, Setting

pytestmark = pytest.mark.uncounted

HEADER = "system,engine,folio,channels,gbps,sd\n"
SIX = {"decisions", "not_slower_share", "worst_slowdown", "mean_regret", "p95_regret", "probes_share_of_grid"}


def written(folder: Path, text: str) -> Path:
    path = folder / "tables.csv"
    path.write_text(text)
    return path


def one(folder: Path, text: str) -> Table:
    [table] = read(written(folder, text))
    return table


def test_the_published_tables_are_read_as_they_are_published() -> None:
    zen3, *others = read(PUBLISHED)

    assert zen3.cells[BASELINE, 4096] == pytest.approx((3.73, 0.33 / 3.73))
    assert zen3.cells[Setting("DMA", 16), 2 << 20] == pytest.approx((63.69, 5.01 / 63.69))
    assert zen3.cells[Setting("CPUThreads", 1), 2 << 20] == Value(10.94, None)
    assert len(zen3.cells) == 13 * 8
    assert [table.system for table in others] == ["epyc-v1", "intel-e5", "grace"]
    assert median_spread([zen3]) == pytest.approx(0.0885, abs=1e-3)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4K", 4096),
        ("4KB", 4096),
        ("4 KiB", 4096),
        ("4096", 4096),
        ("4096B", 4096),
        ("64k", 65536),
        ("2M", 2 << 20),
        ("2MB", 2 << 20),
        ("2MiB", 2 << 20),
        ("0.5M", 1 << 19),
        ("1g", 1 << 30),
    ],
)
def test_a_folio_size_is_read_in_any_spelling(text: str, size: int) -> None:
    assert folio_bytes(text) == size


@pytest.mark.parametrize("text", ["", "4", "64", "K", "4X", "-4K", "4K2", "1.3"])
def test_what_is_no_folio_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size like 4K"):
        folio_bytes(text)


@pytest.mark.parametrize(
    ("engine", "setting"),
    [
        ("dma", Setting("DMA", 4)),
        ("DMA", Setting("DMA", 4)),
        ("dcbm", Setting("DMA", 4)),
        ("mt", Setting("CPUThreads", 4)),
        ("threads", Setting("CPUThreads", 4)),
        ("CPU_Threads", Setting("CPUThreads", 4)),
        ("cpu-mt", Setting("CPUThreads", 4)),
    ],
)
def test_an_engine_is_read_by_its_usual_names(tmp_path: Path, engine: str, setting: Setting) -> None:
    assert one(tmp_path, f"{HEADER}a,cpu,4K,0,1,\na,{engine},4K,4,2,\n").settings == [setting]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("engine;system;gbps;folio;sd;channels\ncpu;a;3;4K;.3;0\n", id="other order and semicolons"),
        pytest.param(
            "\ufeff# made by hand\n\nSystem, Engine, Folio, Channels, GBps, SD\na, cpu, 4K, 0, 3, 0.3\n",
            id="blanks, case",
        ),
        pytest.param(HEADER.replace(",sd", "") + "a,cpu,4K,0,3±.3\n", id="spread beside the number, no column sd"),
        pytest.param(HEADER + "a,baseline,4K,,3,10%\n", id="channels of plain copy left out, spread in percent"),
        pytest.param(HEADER + "a,cpu,4K,0,3,0.3,\na,dma,4K,1,,\na,dma,4K,2,n/a,\n", id="cells that were not measured"),
        pytest.param(HEADER + '"a","cpu","4K","0","3","0.3"\n', id="quotes"),
    ],
)
def test_a_table_is_read_where_its_meaning_is_clear(tmp_path: Path, text: str) -> None:
    [(at, value)] = one(tmp_path, text).cells.items()

    assert at == (BASELINE, 4096)
    assert value == pytest.approx((3, 0.1))


def test_a_cell_given_twice_is_the_mean_and_is_told(tmp_path: Path) -> None:
    table = one(tmp_path, f"{HEADER}a,cpu,4K,0,3,\na,cpu,4K,0,5,\n")

    assert table.cells[BASELINE, 4096].gbps == 4
    assert table.notes == ("a: 2 values for offload off at 4096 bytes; their mean is taken.",)


def test_a_baseline_that_is_missing_at_some_size_is_told(tmp_path: Path) -> None:
    assert one(tmp_path, f"{HEADER}a,cpu,4K,0,3,\na,dma,2M,1,5,\n").notes == (
        "a: no baseline at 2097152 bytes; it is interpolated.",
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("", ": empty; expected the header system,engine", id="empty"),
        pytest.param(HEADER, ": no rows below the header", id="header only"),
        pytest.param("a,b\n1,2\n", ":1: the header has a,b; expected system,engine", id="no header"),
        pytest.param(
            HEADER + "a,dma,4K,1,3,\n", ": system 'a' has no baseline; expected rows with engine cpu", id="no baseline"
        ),
        pytest.param(
            HEADER + "a,gpu,4K,1,3,\n", ":2: engine 'gpu'; expected cpu (the baseline), dma, or mt", id="engine"
        ),
        pytest.param(HEADER + "a,cpu,4,0,3,\n", ":2: folio '4'; expected a size like 4K", id="folio"),
        pytest.param(
            HEADER + "a,cpu,4K,8,3,\n", ":2: channels '8' of engine 'cpu'; expected 0", id="channels of plain copy"
        ),
        pytest.param(
            HEADER + "a,dma,4K,0,3,\n", ":2: channels '0' of engine 'dma'; expected 1 or more", id="no channels"
        ),
        pytest.param(HEADER + "a,dma,4K,two,3,\n", ":2: channels 'two'; expected a number", id="channels in words"),
        pytest.param(HEADER + "a,cpu,4K,0,fast,\n", ":2: gbps 'fast'; expected a number", id="gbps in words"),
        pytest.param(HEADER + "a,cpu,4K,0,-3,\n", ":2: gbps '-3'; expected GB/s", id="negative"),
        pytest.param(HEADER + "a,cpu,4K,0,3e9,\n", ":2: gbps '3e9'; expected GB/s", id="bytes per second"),
        pytest.param(HEADER + "a,cpu,4K,0,3,-1\n", ":2: sd '-1'; expected 0 or more, or nothing", id="negative spread"),
        pytest.param(HEADER + ",cpu,4K,0,3,\n", ":2: system is empty; expected a name", id="no name"),
        pytest.param(HEADER + "\n# x\na,cpu,4K,0,3,1,7\n", ":4: 7 columns; expected 6", id="too many columns"),
    ],
)
def test_what_is_not_clear_is_refused_with_file_line_and_what_was_expected(
    tmp_path: Path, text: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, text)

    assert program.main(["--tables", str(path), "--json", str(tmp_path / "out.json")]) == 2
    assert f"{path}{told}" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("name", ["nowhere.csv", "."])
def test_a_file_that_cannot_be_read_is_said_to_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(TableError, match="cannot be read: "):
        read(tmp_path / name)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tables.csv").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(TableError, match="not a text in UTF-8"):
        read(tmp_path / "tables.csv")


@pytest.mark.parametrize("flag", ["--noise=-1", "--noise=much", "--decisions=0", "--decisions=1.5"])
def test_a_flag_that_makes_no_sense_ends_with_2(flag: str) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(["--tables", str(PUBLISHED), flag])

    assert ended.value.code == 2


WINS = "a,cpu,4K,0,3,\na,dma,4K,4,9,\nb b,cpu,2M,0,3,\nb b,dma,2M,1,1,\n"


def test_a_file_is_judged_by_system_and_over_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = written(tmp_path, HEADER + WINS), tmp_path / "out.json"

    assert program.main(["--tables", str(path), "--json", str(out), "--decisions", "8"]) == 0
    found = json.loads(out.read_text())

    assert set(found["summary"]) == SIX
    assert {system: set(numbers) for system, numbers in found["systems"].items()} == {"a": SIX, "b b": SIX}
    assert (found["summary"]["decisions"], found["systems"]["a"]["decisions"]) == (16, 8)
    assert found["summary"]["not_slower_share"] == 1
    assert found["origin"] == "model"
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in told] == ["a", "b b", "all", f"model; the rest in {out}"]
    assert told[2].startswith("all: 100.00% of 16 decisions not slower")


def test_the_same_seed_judges_alike_and_another_does_not(tmp_path: Path) -> None:
    path, found = written(tmp_path, HEADER + WINS), []
    for number, seed in enumerate(("1", "1", "2")):
        out = tmp_path / f"{number}.json"
        program.main(["--tables", str(path), "--json", str(out), "--decisions", "6", "--seed", seed])
        found.append(json.loads(out.read_text())["summary"])

    assert found[0] == found[1] != found[2]
