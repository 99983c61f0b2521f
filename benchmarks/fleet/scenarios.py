# SPDX-License-Identifier: Apache-2.0
"""What is done to a fleet: a table of names and functions, in the order in which they are played.

Each scenario finds a fleet at rest under one policy for all nodes, with one operator that is not paced, and leaves it
so; the node of the stand-alone agent has one more. ``install`` brings that about and is always played; ``switch-off``
and ``delete`` end it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from benchmarks.fleet import profiles
from benchmarks.fleet.bed import AT_ONCE, IN_WAVES, MAIN, OPERATOR, REAL, FleetBed
from benchmarks.fleet.extent import POOLS, STEADY, ZONES, pool
from benchmarks.fleet.operators import UNPACED, Start
from benchmarks.fleet.report import AGENT_WRITES, OPERATOR_WRITES, Cost, Push, Report
from benchmarks.fleet.states import Spec, Wanted
from benchmarks.observer import Json
from benchmarks.schema import Row, Unit, percentile
from numamigration_api.machinery.canonical import spec_revision
from numamigration_api.machinery.clock import timestamp
from tests.demo.stage import POLICIES, STATES
from tests.fleet.cast import ZONE
from tests.testbed.api import ApiError, poll

QUIET_SECONDS: Final = 3.0
"""After a start, in which nothing may be written; longer than decisions and open requests take."""
FLIPPED: Final = (0, 1)
"""Pools whose label is flipped: a tenth."""
LOST: Final = range(6)
"""Pools whose agents vanish: 30 %."""
BALANCING: Final = "balancing"
RATE: Final = "promoteRateLimitMBps"
FLIP: Final = "flip"
TENTH: Final = "tenth"
KILL_SHARE: Final = 0.3
"""Of the nodes are written when the leader is killed."""
TWENTY: Final = 20
REPORTS_A_SECOND: Final = 20
REPORTS_SECONDS: Final = 20.0
REPORTS: Final = int(REPORTS_A_SECOND * REPORTS_SECONDS)
EDITED: Final = 7
"""Of twenty policies, the one that is edited."""
GROWTH: Final = (1, 20, 200)
"""Policies beside the one for all nodes."""


FOR_REAL: Final[Json] = {
    "priority": 1000,
    "nodeSelector": {"matchLabels": {"pool": REAL}},
    "settings": {"offload": {"engine": "DMA", "channels": 4}},
    "verification": "Off",
    "acceptedRisks": ["UnverifiedEngine"],
}
"""Pages of a real process do not move between the NUMA nodes of a fake kernel, so nothing could be verified there."""


class Scenario(NamedTuple):
    """One row of the table: what it is, for people, and what plays it."""

    what: str
    play: Callable[[FleetBed, Report], None]


# --- what nodes shall have


def settings(rate: int) -> Json:
    """Return what the policy for all nodes asks for."""
    return {"offload": {"engine": "DMA", "channels": 4}, BALANCING: balancing(rate)}


def balancing(rate: int) -> Json:
    """Return the group that edits are about."""
    return {"mode": "Tiering", RATE: rate}


def has_rate(rate: int) -> Wanted:
    """Return whether a spec asks for this rate."""

    def wanted(spec: Spec) -> bool:
        group = spec.groups.get(BALANCING)
        return group is not None and group.settings.get(RATE) == rate

    return wanted


def is_off(spec: Spec) -> bool:
    """Tell whether a spec turns offload off."""
    group = spec.groups.get("offload")
    return group is not None and group.settings.get("engine") == "Off"


def is_released(spec: Spec) -> bool:
    """Tell whether a spec asks for nothing any more but what was before."""
    return all(group.mode == "Restore" for group in spec.groups.values())


def has_group(name: str, **values: Any) -> Wanted:
    """Return whether a spec has a group with these values."""

    def wanted(spec: Spec) -> bool:
        group = spec.groups.get(name)
        return group is not None and values.items() <= group.settings.items()

    return wanted


# --- scenarios


def install(bed: FleetBed, report: Report) -> None:
    """The operator meets nodes whose agents wait, and one policy for all of them."""
    rate, costs = bed.rate, list[Cost]()
    begun = time.monotonic()
    bed.await_watches()
    report.add("agents started until all watch", Unit.SECONDS, [time.monotonic() - begun])
    bed.make_policy(MAIN, {"nodeSelector": {}, "settings": settings(rate)})
    bed.make_policy(REAL, FOR_REAL)
    with bed.measured(costs):
        push = bed.push(has_rate(rate), bed.nodes, lambda: bed.operators.start().leading)
        lag = bed.status_lag(MAIN, bed.nodes)
    last = report.pushes("lease to written", [push])
    report.add("policy status lag", Unit.SECONDS, [lag])
    report.cost(costs)
    report.headline = f"all written {last.median:.1f} s after the lease, answered {push.answered[-1]:.1f} s"


def edit(bed: FleetBed, report: Report) -> None:
    """Product and bare loop in turn, with the same agents answering."""
    ours, bare = list[Push](), list[Push]()
    costs, bare_costs, lags = list[Cost](), list[Cost](), list[float]()
    for number in range(bed.extent.edits):
        bed.progress.tick(f"edit: {number} of {bed.extent.edits}")
        with bed.measured(costs):
            ours.append(_edit(bed))
            lags.append(bed.status_lag(MAIN, bed.nodes))
        bed.settle()
        bed.operators.stop()
        # The policy asks for the same: an operator that starts then finds it done, and has nothing to write.
        rate = bed.next_rate()
        bed.edit(MAIN, {BALANCING: balancing(rate)})
        with bed.bare_push(bed.documents(_with_rate(rate))) as begin, bed.measured(bare_costs):
            bare.append(bed.push(has_rate(rate), bed.nodes, begin))
        bed.operators.start()
        bed.await_ready(MAIN, bed.nodes)
        bed.settle()
    last = report.pushes("edit to written", ours, bare=bare)
    report.pushes("bare: edit to written", bare)
    report.add("policy status lag", Unit.SECONDS, lags)
    report.cost(costs)
    report.cost(bare_costs, ", bare")
    report.headline = f"last of {bed.nodes} written {last.median:.1f} s, {last.ratio:.2f} x bare applies"


def _edit(bed: FleetBed, **more: Json) -> Push:
    rate = bed.next_rate()
    return bed.push(has_rate(rate), bed.nodes, lambda: bed.edit(MAIN, {BALANCING: balancing(rate)}, **more))


def _with_rate(rate: int) -> Callable[[Json], None]:
    def change(spec: Json) -> None:
        spec["groups"][BALANCING]["settings"][RATE] = rate
        spec["revision"] = spec_revision(spec)

    return change


def unanswered(bed: FleetBed, report: Report) -> None:
    """One edit that no agent answers, as if there were none; beside it a bare push that none answers.

    It goes back to what every node had before: that is proven, so no canary has to answer first.
    """
    ours, bare = list[Cost](), list[Cost]()
    proven = bed.rate
    _edit(bed)
    bed.settle()
    with _silence(bed):
        with bed.measured(ours):
            push = _push_back(bed, proven)
        bed.operators.stop()
        rate = bed.next_rate()
        bed.edit(MAIN, {BALANCING: balancing(rate)})
        with bed.bare_push(bed.documents(_with_rate(rate))) as begin, bed.measured(bare):
            loop = bed.push(has_rate(rate), bed.nodes, begin, answers=False)
    bed.operators.start()
    bed.await_ready(MAIN, bed.nodes)
    bed.settle()
    last = report.pushes("edit to written", [push], bare=[loop])
    report.pushes("bare: edit to written", [loop])
    report.cost(ours)
    report.cost(bare, ", bare")
    report.headline = f"last of {bed.nodes} written {last.median:.1f} s, {last.ratio:.2f} x bare applies"


@contextmanager
def _silence(bed: FleetBed) -> Iterator[None]:
    """Only the stand-alone agent watches meanwhile."""
    bed.agents.tell("silent", range(POOLS))
    bed.await_watches(1, at_most=True)
    yield
    bed.agents.tell("start", range(POOLS))
    bed.await_watches()


def _push_back(bed: FleetBed, rate: int) -> Push:
    return bed.push(has_rate(rate), bed.nodes, lambda: bed.edit(MAIN, {BALANCING: balancing(rate)}), answers=False)


def profile(bed: FleetBed, report: Report) -> None:
    """An edit during which the API server says what its CPU time goes into."""
    file = bed.folder / "apiserver.pprof"
    with ThreadPoolExecutor(1) as thread:
        taken = thread.submit(profiles.take, bed.api, file)
        _edit(bed)
        taken.result()
    bed.settle()
    found = profiles.read(file)
    for part, percent in found.items():
        report.add(f"API server, {part}", Unit.PERCENT, [percent])
    report.headline = ", ".join(f"{part} {percent:.0f} %" for part, percent in found.items())


def paced(bed: FleetBed, report: Report) -> None:
    """One edit with the operator's own pace."""
    costs = list[Cost]()
    bed.settle()
    bed.operators.stop()
    bed.operators.start({})
    with bed.measured(costs):
        push = _edit(bed, rollout=IN_WAVES)
        lag = bed.status_lag(MAIN, bed.nodes)
    bed.settle()
    bed.operators.stop()
    bed.operators.start()
    bed.edit(MAIN, {}, rollout=AT_ONCE)
    bed.settle()
    last = report.pushes("edit to written", [push])
    report.add("policy status lag", Unit.SECONDS, [lag])
    report.cost(costs)
    report.headline = f"last of {bed.nodes} written {last.median:.1f} s, at 50 a second"


def twenty(bed: FleetBed, report: Report) -> None:
    """Twenty policies more, each for a tenth of its own pool; one is edited."""
    costs, before, mine = list[Cost](), _edit_back(bed), cells(TWENTY)
    edited = len(_nodes_of(bed, mine[EDITED : EDITED + 1]))
    made = _make(bed, mine)
    with bed.measured(costs):
        push = _edit_cell(bed, mine[EDITED])
        lag = bed.status_lag(mine[EDITED].name, edited)
    others = bed.states.changes - edited
    _delete_cells(bed, mine, before)
    last = report.pushes(f"edit to written, {edited} nodes", [push])
    report.pushes(f"twenty policies made to written, {len(made.written)} nodes", [made])
    report.add("policy status lag", Unit.SECONDS, [lag])
    report.add("specs written of other nodes", Unit.COUNT, [others])
    report.cost(costs)
    report.headline = f"{edited} of {len(made.written)} nodes written {last.median:.2f} s, {others} others"


def policies(bed: FleetBed, report: Report) -> None:
    """Policies more and more, each for a tenth of a pool; one is edited, the operator starts anew."""
    before, mine, found = _edit_back(bed), list[Cell](), list[Row]()
    for count in GROWTH:
        bed.progress.tick(f"policies: {count}")
        more, costs, who = cells(count)[len(mine) :], list[Cost](), f", {count} policies"
        made = _make(bed, more)
        mine += more
        pushes = list[Push]()
        for _ in range(bed.extent.edits):
            with bed.measured(costs):
                pushes.append(_edit_cell(bed, mine[0]))
                bed.await_ready(mine[0].name, len(pushes[-1].written))
        bed.settle()
        bed.operators.stop()
        start = bed.operators.start()
        found.append(report.pushes(f"edit of one to written{who}", pushes))
        report.pushes(f"made to written, {len(made.written)} nodes more{who}", [made])
        report.add(f"lease to ready{who}", Unit.SECONDS, [start.ready - start.leading])
        report.cost(costs, who)
    gone = list[Cost]()
    with bed.measured(gone):
        _delete_cells(bed, mine, before)
    report.add(f"deletion to gone, {len(mine)} policies", Unit.SECONDS, [gone[0].seconds])
    report.cost(gone, f", {len(mine)} policies deleted")
    report.headline = ", ".join(f"{row.median:.2f} s of {count}" for row, count in zip(found, GROWTH, strict=True))


class Cell(NamedTuple):
    """Nodes of one pool and zone, which a policy of their own may be for."""

    pool: str
    zone: str

    @property
    def name(self) -> str:
        """Of that policy."""
        return f"{self.pool}-{self.zone}"


def cells(count: int) -> list[Cell]:
    """Return so many, of all pools before those of the next zone."""
    return [Cell(pool(number % POOLS), ZONES[number // POOLS]) for number in range(count)]


def _nodes_of(bed: FleetBed, some: Sequence[Cell]) -> list[str]:
    return [name for cell in some for name in bed.agents.cell(*cell)]


def _make(bed: FleetBed, some: Sequence[Cell]) -> Push:
    rate = bed.next_rate()

    def make() -> None:
        for cell in some:
            selector = {"matchLabels": {"pool": cell.pool, ZONE: cell.zone}}
            spec = {"priority": 200, "nodeSelector": selector, "settings": {BALANCING: balancing(rate)}}
            bed.make_policy(cell.name, spec)

    push = bed.push(has_rate(rate), len(_nodes_of(bed, some)), make)
    bed.settle()
    return push


def _edit_cell(bed: FleetBed, cell: Cell) -> Push:
    rate = bed.next_rate()
    count = len(_nodes_of(bed, [cell]))
    return bed.push(has_rate(rate), count, lambda: bed.edit(cell.name, {BALANCING: balancing(rate)}))


def _delete_cells(bed: FleetBed, some: Sequence[Cell], before: Wanted) -> None:
    _delete(bed, [cell.name for cell in some], len(_nodes_of(bed, some)), before)


def _delete(bed: FleetBed, names: Sequence[str], count: int, before: Wanted) -> None:
    """Delete policies; return when they are gone, and so many nodes have what they had before."""

    def delete() -> None:
        for name in names:
            bed.api.delete(f"{POLICIES}/{name}")

    bed.push(before, count, delete)
    for name in names:
        bed.api.wait_gone(f"{POLICIES}/{name}", timeout=bed.patience)


def _edit_back(bed: FleetBed) -> Wanted:
    """Return what nodes have that have only the policy for all of them."""
    settings = bed.api.get(f"{POLICIES}/{MAIN}")["spec"]["settings"]
    rate: int = settings[BALANCING][RATE]
    return has_rate(rate)


def labels(bed: FleetBed, report: Report) -> None:
    """A tenth of the nodes comes under another policy, by their label."""
    names, rate, costs = bed.agents.members(FLIPPED), bed.next_rate(), list[Cost]()
    before = _edit_back(bed)
    selector = {"matchLabels": {FLIP: "on"}}
    bed.make_policy(FLIP, {"priority": 300, "nodeSelector": selector, "settings": {BALANCING: balancing(rate)}})
    bed.policies.wait("the policy's status", lambda policy: _is_of(policy, FLIP), bed.patience)
    with bed.label(names, {FLIP: "on"}) as begin, bed.measured(costs):
        push = bed.push(has_rate(rate), len(names), begin)
    with bed.label(names, {}) as begin:
        back = bed.push(before, len(names), begin)
    bed.api.delete(f"{POLICIES}/{FLIP}")
    bed.api.wait_gone(f"{POLICIES}/{FLIP}")
    last = report.pushes(f"first label to written, {len(names)} nodes", [push])
    report.pushes("labels back to written", [back])
    report.cost(costs)
    report.headline = f"{len(names)} nodes relabelled and written in {last.median:.2f} s"


def _is_of(policy: Json, name: str) -> bool:
    return bool(policy["metadata"]["name"] == name and policy.get("status", {}).get("observedGeneration"))


def steady(bed: FleetBed, report: Report) -> None:
    """Nothing is asked for; kernels migrate, agents report.

    Right after a push no report is due for minutes, and then all of them; so agents are told that it was long ago.
    """
    costs = list[Cost]()
    bed.settle()
    bed.agents.tell("age", range(POOLS))
    bed.states.expect(has_rate(-1))
    with bed.measured(costs):
        end = time.monotonic() + bed.extent.steady_seconds
        while (left := end - time.monotonic()) > 0:
            bed.progress.tick(f"steady: {left:.0f} s to go")
            bed.check()
            time.sleep(min(left, 5.0))
    [cost] = costs
    writes = cost.writes(OPERATOR_WRITES | AGENT_WRITES) / cost.seconds
    cpu = 100 * cost.cpu[OPERATOR] / cost.seconds
    report.add("writes", Unit.PER_SECOND, [writes])
    report.add("operator CPU", Unit.CORE_PERCENT, [cpu])
    report.add("specs written", Unit.COUNT, [bed.states.changes])
    report.cost(costs)
    rss = cost.peak[OPERATOR] / 2**20
    report.headline = f"{writes:.1f} writes/s, operator {cpu:.2f} % of a core, {rss:.0f} MiB"


def reports(bed: FleetBed, report: Report) -> None:
    """What one report costs the operator in which nothing but counters moved; told in the place of agents at rest."""
    bed.settle()
    names, cpu = bed.agents.members(range(POOLS)), list[float]()
    with _silence(bed):
        for number in range(bed.extent.edits):
            bed.progress.tick(f"reports: {number} of {bed.extent.edits}")
            cpu.append(_cost_of_reports(bed, names, number))
    bed.settle()
    found = report.add("operator CPU of a report", Unit.MICROSECONDS, cpu)
    report.headline = f"{found.median:.0f} µs of the operator's CPU a report, {REPORTS_A_SECOND} a second"


def _cost_of_reports(bed: FleetBed, names: Sequence[str], number: int) -> float:
    """Return what a report of a round costs the operator beyond what it does at rest, in µs of CPU."""
    quiet, busy = list[Cost](), list[Cost]()
    with bed.measured(quiet):
        time.sleep(REPORTS_SECONDS)
    with bed.measured(busy):
        _tell_reports(bed, names, number)
    [rest], [work] = quiet, busy
    more = work.cpu[OPERATOR] - rest.cpu[OPERATOR] * work.seconds / rest.seconds
    return 1e6 * more / REPORTS


def _tell_reports(bed: FleetBed, names: Sequence[str], number: int) -> None:
    begun = time.monotonic()
    for count in range(REPORTS):
        told = number * REPORTS + count
        moved = {"foliosMigrated": told << 20, "pagesMigrated": told << 29}
        status = {"statistics": moved, "reportedAt": timestamp(datetime.now(UTC))}
        bed.api.merge_patch(f"{STATES}/{names[count % len(names)]}/status", {"status": status})
        time.sleep(max(0.0, begun + count / REPORTS_A_SECOND - time.monotonic()))


def restart(bed: FleetBed, report: Report) -> None:
    """The operator ends and starts; beside it a process that only reads the same objects."""
    bed.settle()
    starts, bare, costs, to_ready = list[Start](), list[float](), list[Cost](), list[float]()
    for number in range(1 + bed.extent.starts):  # the first one warms up and counts for nothing
        bed.progress.tick(f"restart: {number} of {1 + bed.extent.starts}")
        bed.operators.stop()
        done = bed.bare_list()
        with bed.measured(costs):
            start = bed.operators.start()
            time.sleep(QUIET_SECONDS)
        if number:
            starts.append(start)
            bare.append(done.ended - done.begun)
    to_ready = [start.ready - start.leading for start in starts]
    found = report.add("lease to ready", Unit.SECONDS, to_ready, bare=("bare: paged lists", bare))
    report.add("bare: paged lists", Unit.SECONDS, bare)
    report.add("process start to ready", Unit.SECONDS, [start.ready - start.begun for start in starts])
    writes = sum(cost.writes(OPERATOR_WRITES) for cost in costs)
    report.add("writes of all starts", Unit.COUNT, [writes])
    report.cost(costs[1:])
    report.headline = f"ready {found.median:.2f} s after the lease, {found.ratio:.2f} x bare lists; {writes} writes"


def failover(bed: FleetBed, report: Report) -> None:
    """The leader is killed in the middle of a push; another operator stands by."""
    costs, rate = list[Cost](), bed.next_rate()
    standby = bed.operators.launch(UNPACED)
    bed.operators.await_line(standby, "standing by")
    with bed.measured(costs):
        bed.states.expect(has_rate(rate))
        bed.edit(MAIN, {BALANCING: balancing(rate)})
        bed.await_push(max(1, int(KILL_SHARE * bed.nodes)), answers=False)
        killed = bed.operators.kill()
        written = len(bed.states.written)
        start = bed.operators.await_leader(killed)
        bed.await_push(bed.nodes)
    last = max(bed.states.written.values())
    report.add("killed to lease", Unit.SECONDS, [start.leading - killed])
    report.add("lease to ready", Unit.SECONDS, [start.ready - start.leading])
    report.add("ready to last node written", Unit.SECONDS, [max(0.0, last - start.ready)])
    report.add("nodes written when it was killed", Unit.COUNT, [written])
    report.cost(costs)
    report.headline = f"leads {start.leading - killed:.1f} s after the kill, last written {last - killed:.1f} s"
    bed.status_lag(MAIN, bed.nodes)


def api_server(bed: FleetBed, report: Report) -> None:
    """The API server restarts; there is an edit for a tenth of the nodes as soon as it takes one."""
    costs, operators, before = list[Cost](), 0, _edit_back(bed)
    count, edit = _of_a_tenth(bed)
    begun = time.monotonic()
    bed.plane.stop_apiserver()
    stopped = time.monotonic()
    bed.plane.start_apiserver()
    ready = time.monotonic()
    with bed.measured(costs, after_restart=True):
        _until_taken(bed, edit)
        edited = time.monotonic()

        def answered() -> bool:
            nonlocal operators
            operators += bed.operators.revive()
            bed.check()
            return len(bed.states.answered) == count

        poll(answered, "an answer of every agent", timeout=bed.patience)
        push = bed.pushed(ready)
        bed.await_watches()
        watched = time.monotonic()
    report.pushes("ready to written", [push])
    report.add("ready to half of the answers", Unit.SECONDS, [percentile(push.answered, 50)])
    report.add("ready until all agents watch", Unit.SECONDS, [watched - ready])
    report.add("stop", Unit.SECONDS, [stopped - begun])
    report.add("start until ready", Unit.SECONDS, [ready - stopped])
    report.add("ready until an edit was taken", Unit.SECONDS, [edited - ready])
    report.add("operators that had to be started anew", Unit.COUNT, [operators])
    report.cost(costs)
    report.headline = f"ready after {ready - begun:.1f} s, all watch {watched - ready:.1f} s later"
    _delete(bed, [TENTH], count, before)


def _of_a_tenth(bed: FleetBed) -> tuple[int, Callable[[], None]]:
    """Make a policy for a tenth of the nodes; return how many these are, and an edit of it, which is expected now."""
    count = len(_nodes_of(bed, cells(POOLS)))
    made, rate = bed.next_rate(), bed.next_rate()
    spec = {
        "priority": 200,
        "nodeSelector": {"matchLabels": {ZONE: ZONES[0]}},
        "settings": {BALANCING: balancing(made)},
    }
    bed.push(has_rate(made), count, lambda: bed.make_policy(TENTH, spec))
    bed.settle()
    bed.states.expect(has_rate(rate))
    return count, lambda: bed.edit(TENTH, {BALANCING: balancing(rate)})


def _until_taken(bed: FleetBed, act: Callable[[], None]) -> None:
    def taken() -> bool:
        try:
            act()
        except (ApiError, OSError):
            return False
        return True

    poll(taken, "an edit being taken", timeout=bed.patience)


def vanish(bed: FleetBed, report: Report) -> None:
    """Agents of 30 % of the nodes end, and all come back at once; each reports once it knows its spec."""
    names, costs = bed.agents.members(LOST), list[Cost]()
    bed.agents.tell("silent", LOST)
    bed.await_watches(bed.nodes - len(names), at_most=True)
    bed.states.listen(names)
    with bed.measured(costs):
        back = time.monotonic()
        bed.agents.tell("start", LOST)
        told = time.monotonic()
        bed.states.await_heard(bed.patience, bed.check)
    heard = sorted(at - back for at in bed.states.heard.values())
    for name, percent in (("half of the reports", 50), ("last report", 100)):
        report.add(f"back to {name}", Unit.SECONDS, [percentile(heard, percent)])
    report.add("back to last agent started", Unit.SECONDS, [told - back])
    report.cost(costs)
    report.headline = f"{len(names)} agents back: all have reported {heard[-1]:.1f} s later"


def switch_off(bed: FleetBed, report: Report) -> None:
    """The fleet switch goes to off, and stays there; only the deletion comes after it."""
    costs = list[Cost]()
    with bed.measured(costs):
        push = bed.push(is_off, bed.nodes, lambda: bed.switch("off"))
    left = bed.agents.offloading()
    report.pushes("switch to written", [push])
    report.add("nodes that still offload", Unit.COUNT, [left])
    report.cost(costs)
    report.headline = f"off on the last node's kernel {push.answered[-1]:.1f} s after the switch; {left} left"


def delete(bed: FleetBed, report: Report) -> None:
    """The policy is deleted, and every node gets back what it had before."""
    costs = list[Cost]()
    with bed.measured(costs):
        begun = time.monotonic()
        push = bed.push(is_released, bed.nodes, lambda: _delete_all(bed))
        for name in (MAIN, REAL):
            bed.api.wait_gone(f"{POLICIES}/{name}", timeout=bed.patience)
        gone = time.monotonic() - begun
    left = bed.agents.offloading()
    report.pushes("deletion to written", [push])
    report.add("deletion to policy gone", Unit.SECONDS, [gone])
    report.add("nodes that still offload", Unit.COUNT, [left])
    report.cost(costs)
    report.headline = f"restored everywhere {push.answered[-1]:.1f} s later, gone {gone:.1f} s; {left} offload"


def _delete_all(bed: FleetBed) -> None:
    for name in (MAIN, REAL):
        bed.api.delete(f"{POLICIES}/{name}")


SCENARIOS: Final[dict[str, Scenario]] = {
    "install": Scenario("first install, all nodes at once", install),
    "edit": Scenario("edit of the policy, unpaced, beside a bare apply loop", edit),
    "unanswered": Scenario("edit of the policy that no agent answers, beside a bare apply loop", unanswered),
    "profile": Scenario("edit of the policy, with a CPU profile of the API server", profile),
    "paced": Scenario("edit of the policy at the operator's own pace", paced),
    "twenty": Scenario("one of twenty policies edited", twenty),
    "policies": Scenario("from one policy to 200, one of them edited", policies),
    "labels": Scenario("label flips on 10 % of the nodes", labels),
    STEADY: Scenario("nothing asked for, statistics moving", steady),
    "reports": Scenario("counters that move, at a pace of ours", reports),
    "restart": Scenario("restart of the operator, beside bare paged lists", restart),
    "failover": Scenario("leader killed in the middle of a push", failover),
    "api-server": Scenario("restart of the API server", api_server),
    "vanish": Scenario("30 % of the agents vanish and come back at once", vanish),
    "switch-off": Scenario("fleet switch to off", switch_off),
    "delete": Scenario("deletion with restore", delete),
}


def chosen(words: str, left_out: Collection[str] = ()) -> list[str]:
    """Return the scenarios of a list with commas, in the order of the table; an empty one means all but `left_out`.

    Raises:
        ValueError: a name that is not in the table.
    """
    names = {word.strip() for word in words.split(",") if word.strip()}
    if unknown := sorted(names - SCENARIOS.keys()):
        raise ValueError(f"no scenario {', '.join(unknown)}; these are: {', '.join(SCENARIOS)}")
    return [name for name in SCENARIOS if (name in names if names else name not in left_out)]
