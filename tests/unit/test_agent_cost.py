# SPDX-License-Identifier: Apache-2.0
"""What the agent's hot paths cost, in calls of functions: the same on every machine (`make bench-plan` has seconds).

Counted are functions of the agent and of what it shares with the operator, and what they call in C. The fake kernel and
the object that stands for the API server are not.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

import numamigration_agent
from numamigration_agent.baseline import Baselines
from numamigration_agent.cluster import StateSeen
from numamigration_agent.groups import Known
from numamigration_agent.kernel.probe import probe, probe_host
from numamigration_agent.plan import make_plan
from numamigration_agent.wishes import parse_spec
from numamigration_api import machinery
from tests.unit.agent_rig import OFFLOAD, FakeSysfs, Rig, wish
from tests.unit.calls import calls, fits

pytestmark = pytest.mark.uncounted

COUNTED: Final = tuple(Path(module.__path__[0]) for module in (numamigration_agent, machinery))
GROUPS: Final = {
    "offload": wish(OFFLOAD),
    "balancing": wish({"mode": "Tiering", "promoteRateLimitMBps": 2048}),
    "demotion": wish({"enabled": True}),
}
REST_SECONDS: Final = 1200.0


def look(rig: Rig) -> Callable[[], object]:
    """A look at the kernel files."""
    sysfs = FakeSysfs(rig.kernel)
    host = probe_host(sysfs)
    return lambda: probe(sysfs, host)


def decode(rig: Rig) -> Callable[[], object]:
    """A node state of the watch, read."""
    return lambda: parse_spec(rig.object)


def plan(rig: Rig) -> Callable[[], object]:
    """A plan of a node that is as it shall be."""
    sysfs, spec = FakeSysfs(rig.kernel), parse_spec(rig.object)
    facts = probe(sysfs, probe_host(sysfs))
    return lambda: make_plan(facts, spec, Known(Baselines(facts.host.boot_id)))


def report(rig: Rig) -> Callable[[], object]:
    """A status that somebody edited, told again."""

    def edited() -> None:
        state = copy.deepcopy(rig.object)
        state["status"]["offload"] = "edited"
        rig.send(StateSeen(state))

    return edited


def edit(rig: Rig) -> Callable[[], object]:
    """An edit: a spec read, a look, a plan, a knob written and read back, reports."""
    other = wish({"mode": "Tiering", "promoteRateLimitMBps": 1024})
    return lambda: rig.wish({**GROUPS, "balancing": other})


def rest(rig: Rig) -> Callable[[], object]:
    """Twenty minutes of looks, counters and reports, in which nothing changes."""
    return lambda: rig.pass_time(REST_SECONDS)


@pytest.mark.parametrize(
    ("work", "groups", "limit"),
    [
        pytest.param(look, GROUPS, 260, id="look"),
        pytest.param(decode, GROUPS, 323, id="spec read"),
        pytest.param(plan, GROUPS, 1939, id="plan"),
        pytest.param(report, GROUPS, 3755, id="report"),
        pytest.param(edit, GROUPS, 9893, id="edit"),
        pytest.param(rest, {}, 118854, id="twenty minutes of rest, nothing asked for"),
        pytest.param(rest, GROUPS, 215139, id="twenty minutes of rest, offload on"),
    ],
)
def test_a_hot_path_costs_no_more_calls_than_it_did(
    work: Callable[[Rig], Callable[[], object]], groups: dict[str, object], limit: int, tmp_path: Path
) -> None:
    rig = Rig(tmp_path / "state")
    rig.settle()
    rig.wish(groups)
    rig.pass_time(60)

    found = calls(work(rig), COUNTED)

    assert fits(found, limit), f"{found} calls"


def test_an_agent_that_nobody_asks_has_loaded_nothing_of_probes_and_metrics() -> None:
    """A node that does not probe pays nothing for those that do; what it does at rest is counted above."""
    program = "import sys, numamigration_agent.__main__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()

    later = {"tuner", "probing", "metrics", "kernel.timed_mover"}
    assert "numamigration_agent.loop" in loaded
    assert not {f"numamigration_agent.{name}" for name in later} & set(loaded)
    assert not [name for name in loaded if name.startswith("numamigration_api.machinery.tuning")]
