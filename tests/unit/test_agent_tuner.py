# SPDX-License-Identifier: Apache-2.0
"""A probe of settings in the whole agent, on a fake kernel whose engine is faster or slower than plain copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakekernel.config import HostConfig
from tests.twin.timed import DMA_LOSES, DMA_WINS
from tests.unit.agent_rig import Rig, wish

OFF = {"engine": "Off"}
CANDIDATES = [{"engine": "DMA", "channels": channels} for channels in (1, 2, 4)]
PROBE = {"id": "one", "candidates": CANDIDATES}
VERIFIED = {"verification": "FirstUse", "acceptedRisks": []}

WINS = HostConfig(speeds=DMA_WINS)
LOSES = HostConfig(speeds=DMA_LOSES)

Start = Callable[..., Rig]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    def start(config: HostConfig = WINS) -> Rig:
        rig = Rig(tmp_path / "state", config)
        rig.settle()
        return rig

    return start


def ask(rig: Rig, settings: Any = OFF, probe: Any = PROBE, **changes: Any) -> None:
    """Wish for settings, and for a probe."""
    more = {} if probe is None else {"probe": probe}
    rig.wish({"offload": wish(settings, **{**VERIFIED, **changes})}, **more)


def knobs(rig: Rig) -> tuple[bool, int, tuple[str, ...]]:
    found = rig.kernel.snapshot()
    return found.offloading, found.nr_dma_chan, found.reasons


def rows(rig: Rig, **wanted: Any) -> list[Any]:
    found = rig.status["probe"].get("results", [])
    return [row for row in found if all(row[name] == value for name, value in wanted.items())]


def test_a_probe_measures_and_puts_everything_back(start: Start) -> None:
    rig = start()
    before = knobs(rig)

    ask(rig)
    rig.pass_time(120)

    print(rig.status["probe"], rig.stores[:20], len(rig.stores), rig.sent, rig.group())
    assert rig.status["probe"]["phase"] == "Done"
    assert knobs(rig) == before
