# SPDX-License-Identifier: Apache-2.0
"""Reads tables of throughput: CSV with the header ``system,engine,folio,channels,gbps,sd``.

Lenient where the meaning is clear: columns in any order, ``,`` ``;`` or tab between them, comments (``#``), blank
lines, a byte order mark, sizes as 4K, 4KB, 4KiB or 4096, engines by their usual names, an empty cell for one that was
not measured, a cell given twice (its mean). Where it is not, an error names file, line and what was expected.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from numamigration_api.machinery.tuning.samples import BASELINE, CPU, Setting
from numamigration_api.vocabulary import Engine

HEADER: Final = ("system", "engine", "folio", "channels", "gbps", "sd")
OPTIONAL: Final = frozenset({"sd"})
ENGINES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("cpu", "baseline", "base", "none", "off", "plain", "vanilla"), CPU),
    **dict.fromkeys(("dma", "dcbm", "ptdma", "ae4dma", "sdxi"), str(Engine.DMA)),
    **dict.fromkeys(
        ("mt", "threads", "thread", "cputhreads", "cputhread", "cpumt", "mtcopy", "multithreaded", "multithread"),
        str(Engine.CPU_THREADS),
    ),
}
"""By name in lower case, without blanks, dashes and underscores."""
EMPTY: Final = frozenset({"", "-", "na", "n/a", "nan", "none", "null"})
FACTORS: Final[Mapping[str, int]] = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmg]?)(i?b|bytes?)?", re.IGNORECASE)
FOLIO_BYTES_MIN: Final = 1 << 10
"""Smaller is no folio but a number whose unit was forgotten."""
GBPS_MIN: Final = 1e-6
GBPS_MAX: Final = 1e5
PUBLISHED: Final = Path(__file__).with_name("published.csv")


class TableError(Exception):
    """A table that cannot be understood; the text says where, what, and what was expected."""


class Value(NamedTuple):
    """One cell.

    Attributes:
        gbps: its throughput.
        spread: standard deviation as a share of it; None where the table has none.
    """

    gbps: float
    spread: float | None


class Table(NamedTuple):
    """All that is known of one system.

    Attributes:
        cells: by (setting, bytes of a folio); the baseline is among them at one size at least.
        notes: what was read leniently, a sentence each.
    """

    system: str
    cells: Mapping[tuple[Setting, int], Value]
    notes: tuple[str, ...] = ()

    @property
    def folios(self) -> list[int]:
        """Sizes that it speaks of, the smallest first."""
        return sorted({folio for _, folio in self.cells})

    @property
    def settings(self) -> list[Setting]:
        """Candidates that it speaks of."""
        return sorted({setting for setting, _ in self.cells} - {BASELINE})


def read(path: Path) -> list[Table]:
    """Read all systems of a file, in their order.

    Raises:
        TableError: it cannot be read or understood, or a system has no baseline.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: cannot be read: {_why(error)}") from error
    found: dict[str, dict[tuple[Setting, int], list[Value]]] = {}
    for line, row in _rows(path, text):
        try:
            _take(found, row)
        except ValueError as error:
            raise TableError(f"{path}:{line}: {error}") from None
    if not found:
        raise TableError(f"{path}: no rows below the header; expected {','.join(HEADER)} and a line for each cell")
    return [_table(path, system, cells) for system, cells in found.items()]


def median_spread(tables: Iterable[Table]) -> float:
    """Return the median of all relative standard deviations that tables have."""
    return statistics.median(
        value.spread for table in tables for value in table.cells.values() if value.spread is not None
    )


def _why(error: Exception) -> str:
    return str(error.strerror) if isinstance(error, OSError) and error.strerror else "not a text in UTF-8"


def _rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row with its line, as a mapping by column."""
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and line.lstrip()[0] != "#"]
    if not lines:
        raise TableError(f"{path}: empty; expected the header {','.join(HEADER)} and a line for each cell")
    between = max(",;\t", key=lines[0][1].count)
    head = [name.strip().strip('"').strip().lower() for name in lines[0][1].split(between)]
    missing = [name for name in HEADER if name not in head and name not in OPTIONAL]
    if missing or len(set(head)) < len(head):
        raise TableError(
            f"{path}:{lines[0][0]}: the header has {','.join(head)}; expected {','.join(HEADER)}"
            + (f", so {', '.join(missing)} is missing" if missing else ", each once")
        )
    for number, line in lines[1:]:
        cells = [cell.strip().strip('"').strip() for cell in line.split(between)]
        if len(cells) > len(head) and any(cells[len(head) :]):
            raise TableError(f"{path}:{number}: {len(cells)} columns; expected {len(head)}: {','.join(head)}")
        yield number, dict(zip(head, cells + [""] * (len(head) - len(cells)), strict=False))


def _take(found: dict[str, dict[tuple[Setting, int], list[Value]]], row: Mapping[str, str]) -> None:
    """Put one row where it belongs; raise ValueError when it cannot be understood."""
    if not row["system"]:
        raise ValueError("system is empty; expected a name")
    cells = found.setdefault(row["system"], {})
    setting, folio = _setting(row["engine"], row["channels"]), folio_bytes(row["folio"])
    if (value := _value(row["gbps"], row.get("sd", ""))) is not None:
        cells.setdefault((setting, folio), []).append(value)


def _setting(engine: str, channels: str) -> Setting:
    name = ENGINES.get(re.sub(r"[\s_-]", "", engine.lower()))
    if name is None:
        raise ValueError(f"engine {engine!r}; expected cpu (the baseline), dma, or mt (CPU threads)")
    number = 0.0 if name == CPU and channels.lower() in EMPTY else _number("channels", channels)
    if number != int(number) or (number == 0) != (name == CPU) or number < 0:
        wanted = "0, for plain copy has none (copying by threads is engine mt)" if name == CPU else "1 or more"
        raise ValueError(f"channels {channels!r} of engine {engine!r}; expected {wanted}")
    return Setting(name, int(number))


def folio_bytes(text: str) -> int:
    """Return the bytes of a folio size, units being binary however they are spelled.

    Raises:
        ValueError: no size.
    """
    match = SIZE.fullmatch(text.strip())
    count = float(match[1]) * FACTORS[match[2].lower()] if match else 0.0
    if count < FOLIO_BYTES_MIN or count != int(count):
        raise ValueError(f"folio {text!r}; expected a size like 4K, 64KiB, 2MB or 2097152 (bytes)")
    return int(count)


def _value(gbps: str, sd: str) -> Value | None:
    """Return one cell; None when it was not measured. The spread may stand beside either number."""
    mean, _, beside = gbps.replace("+/-", "±").replace("+-", "±").partition("±")
    if mean.strip().lower() in EMPTY:
        return None
    number = _number("gbps", mean)
    if not GBPS_MIN <= number <= GBPS_MAX:
        raise ValueError(f"gbps {gbps!r}; expected GB/s, more than 0 and at most {GBPS_MAX:g}")
    text = (sd or beside).strip().lstrip("±").strip()
    if text.lower() in EMPTY:
        return Value(number, None)
    spread = _number("sd", text.removesuffix("%")) / (100 if text.endswith("%") else number)
    if spread < 0:
        raise ValueError(f"sd {sd!r}; expected 0 or more, or nothing")
    return Value(number, spread)


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} {text!r}; expected a number")
    return number


def _table(path: Path, system: str, cells: Mapping[tuple[Setting, int], list[Value]]) -> Table:
    known = sorted({folio for setting, folio in cells if setting == BASELINE})
    if not known:
        raise TableError(f"{path}: system {system!r} has no baseline; expected rows with engine cpu and channels 0")
    notes = [f"{system}: {len(values)} values for {at[0]} at {at[1]} bytes; their mean is taken."
             for at, values in cells.items() if len(values) > 1]  # fmt: skip
    lacking = sorted({folio for _, folio in cells} - set(known))
    if lacking:
        notes.append(f"{system}: no baseline at {', '.join(map(str, lacking))} bytes; it is interpolated.")
    return Table(system, {at: _mean(values) for at, values in cells.items()}, tuple(notes))


def _mean(values: list[Value]) -> Value:
    spreads = [value.spread for value in values if value.spread is not None]
    return Value(
        statistics.fmean(value.gbps for value in values), statistics.fmean(spreads) if spreads else None
    )  # fmt: skip
