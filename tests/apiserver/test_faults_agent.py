# SPDX-License-Identifier: Apache-2.0
"""What goes wrong between the agent's process and the API server, and what the kernel then still says."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from numamigration_api.machinery.canonical import spec_revision
from numamigration_api.vocabulary import MigrationReason
from tests.apiserver.agent_process import NodeUnderTest, group_state
from tests.apiserver.operator_process import NAMESPACE, install_rights
from tests.fakekernel.config import HostConfig, Workload
from tests.fakekernel.control import Drift, SetWorkloads
from tests.fakekernel.host import FakeHost
from tests.testbed.api import Api, Json, condition, poll
from tests.testbed.controlplane import ControlPlane
from tests.testbed.faultproxy import (
    Answer,
    Cut,
    CutAnswer,
    CutWatch,
    FailWatch,
    Fault,
    FaultProxy,
    Match,
    Stall,
    Trickle,
)
from tests.testbed.fixtures import CRD_FOLDER
from tests.unit.agent_rig import OFFLOAD, wish

LIST: Final = Match("GET", watch=False)
WATCH: Final = Match("GET", watch=True)
STATUS: Final = Match("PATCH", "/status")
CHANNELS: Final = "/sys/module/dcbm/parameters/nr_dma_chan"
ONLY_NEWS: Final = ("--report-interval-seconds-min=600", "--report-interval-seconds-max=600")
"""No report but for a change, so that writes can be counted."""

UniqueName = Callable[[str], str]
pytestmark = [pytest.mark.usefixtures("crds"), pytest.mark.uncounted]


@pytest.fixture
def host() -> Iterator[FakeHost]:
    with FakeHost(HostConfig()) as running:
        yield running


@pytest.fixture
def proxy(control_plane: ControlPlane) -> Iterator[FaultProxy]:
    with FaultProxy.before(control_plane) as running:
        yield running


@pytest.fixture
def node(
    control_plane: ControlPlane, proxy: FaultProxy, host: FakeHost, unique_name: UniqueName, tmp_path: Path
) -> Iterator[NodeUnderTest]:
    """A node whose agent runs."""
    node = NodeUnderTest(control_plane, host, unique_name("node"), tmp_path, server=proxy.url)
    node.start(*ONLY_NEWS)
    yield node
    node.kill()


@pytest.fixture
def settled(node: NodeUnderTest) -> NodeUnderTest:
    """A node whose first wish is in force."""
    node.push(offload=wish(OFFLOAD))
    node.until(is_ready)
    return node


def is_ready(status: Json) -> bool:
    return {group["state"] for group in status["groups"].values()} == {"Ready"}


def writes(node: NodeUnderTest, since: int = 0) -> list[tuple[str, str]]:
    return [(store.name, store.text.strip()) for store in node.host.stores[since:]]


def demotion(enabled: bool) -> dict[str, Any]:
    return {"offload": wish(OFFLOAD), "demotion": wish({"enabled": enabled})}


# --- away, and back ----------------------------------------------------------------------------------------------


def test_without_an_api_server_the_node_stays_as_it_is_and_the_wish_of_meanwhile_arrives(
    settled: NodeUnderTest, proxy: FaultProxy
) -> None:
    """Promise 6: losing the API server changes no knob; drift is corrected and counters are read meanwhile."""
    proxy.refuse()
    before = len(settled.host.stores)
    settled.host.do(SetWorkloads((Workload(MigrationReason.DAMON, 5000),)))
    settled.host.do(Drift(CHANNELS, "1"))
    poll(lambda: settled.host.snapshot().nr_dma_chan == 4, "drift corrected")
    poll(lambda: settled.host.snapshot().folios_migrated > 10_000, "four windows of counters")
    assert writes(settled, before) == [("nr_dma_chan", "1"), ("nr_dma_chan", "4")]  # the drift itself, and its end
    before = len(settled.host.stores)

    settled.push(**demotion(enabled=True))
    back = proxy.mark()
    proxy.accept()

    status = settled.until(is_ready)
    assert writes(settled, before) == [("demotion_enabled", "1")]
    assert float(status["statistics"]["foliosPerSecond"]) > 0  # from samples of the time without API server
    # What happened meanwhile, the baseline of the new group, its result: not one for each try.
    assert len(proxy.seen(STATUS, since=back)) <= 3


def test_a_silent_api_server_keeps_the_agent_neither_from_its_work_nor_from_its_end(
    settled: NodeUnderTest, proxy: FaultProxy
) -> None:
    """Promise 10: what waits for the API server waits on threads of its own."""
    proxy.inject(Fault(Match(), Stall()))
    proxy.cut_connections()
    proxy.wait_seen(Match(), since=proxy.mark())

    settled.host.do(Drift(CHANNELS, "1"))
    poll(lambda: settled.host.snapshot().nr_dma_chan == 4, "drift corrected")
    proxy.wait_seen(STATUS, since=0)

    assert settled.agent is not None
    settled.agent.terminate()
    assert settled.agent.wait(15) == 0  # a request may take 30 s
    assert settled.host.snapshot().offloading


# --- lists and watches -------------------------------------------------------------------------------------------

EXPIRED_ONCE: Final = Fault(WATCH, Answer(410), times=1)
"""Makes the agent list again."""


@pytest.fixture(scope="module")
def place(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[NodeUnderTest, FaultProxy]]:
    """One node for all rows; each row asks for the opposite of the one before."""
    folder = tmp_path_factory.mktemp("node")
    with FaultProxy.before(control_plane) as proxy, FakeHost(HostConfig()) as host:
        node = NodeUnderTest(control_plane, host, "node-of-many-faults", folder, server=proxy.url)
        node.start(*ONLY_NEWS)
        node.push(**demotion(enabled=False))
        node.until(is_ready)
        yield node, proxy
        node.kill()


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([EXPIRED_ONCE], id="history expired, told by the answer"),
        pytest.param([Fault(WATCH, FailWatch(410), times=1)], id="history expired, told by an event"),
        pytest.param([Fault(WATCH, FailWatch(500), times=2)], id="watch fails with an event"),
        pytest.param([Fault(WATCH, CutWatch(), times=1)], id="watch cut in the middle of a line"),
        pytest.param([Fault(WATCH, Cut(), times=2)], id="watch cut before the answer"),
        pytest.param([Fault(WATCH, Answer(503), times=2)], id="watch not served"),
        pytest.param([EXPIRED_ONCE, Fault(LIST, CutAnswer(), times=1)], id="list cut in the middle"),
        pytest.param([EXPIRED_ONCE, Fault(LIST, Cut(forward=True), times=1)], id="list cut before the answer"),
        pytest.param([EXPIRED_ONCE, Fault(LIST, Trickle(400, 0.01), times=1)], id="list trickles"),
        pytest.param([EXPIRED_ONCE, Fault(LIST, Answer(410), times=1)], id="list expired as well"),
        pytest.param([EXPIRED_ONCE, Fault(LIST, Answer(429, retry_after=1), times=1)], id="list told to wait"),
        pytest.param([EXPIRED_ONCE, Fault(LIST, Answer(500), times=1)], id="list fails"),
    ],
)
def test_a_wish_arrives_and_nothing_else_is_written(
    place: tuple[NodeUnderTest, FaultProxy], faults: list[Fault]
) -> None:
    """Promise 6: a list or watch that fails is no wish that ended."""
    node, proxy = place
    before, enabled = len(node.host.stores), not node.host.snapshot().demotion_enabled
    proxy.inject(*faults)
    proxy.cut_connections()

    node.push(**demotion(enabled=enabled))

    node.until(is_ready)
    assert writes(node, before) == [("demotion_enabled", str(int(enabled)))]
    assert not proxy.active  # every fault was met


def test_an_expired_watch_costs_one_list(settled: NodeUnderTest, proxy: FaultProxy) -> None:
    mark = proxy.mark()
    proxy.inject(EXPIRED_ONCE)
    proxy.cut_connections()

    settled.push(**demotion(enabled=True))

    settled.until(is_ready)
    assert len(proxy.seen(LIST, since=mark)) == 1


# --- writing -----------------------------------------------------------------------------------------------------


def test_nothing_is_written_to_the_kernel_before_the_baseline_is_in_the_status(
    node: NodeUnderTest, proxy: FaultProxy
) -> None:
    """Promise 1: an API server that takes no status delays the change."""
    proxy.inject(Fault(STATUS, Answer(503)))
    node.push(offload=wish(OFFLOAD))
    told = proxy.wait_seen(STATUS, 3)
    assert writes(node) == []
    assert any("baseline" in knob for knob in told[-1].json["status"]["knobs"])

    proxy.clear()

    node.until(is_ready)
    assert node.host.snapshot().offloading


@pytest.mark.parametrize("status", [409, 429, 500, 503])
def test_a_report_that_is_refused_for_a_while_arrives(settled: NodeUnderTest, proxy: FaultProxy, status: int) -> None:
    """Promise 6: the agent goes on; what it has to say is not lost."""
    mark = proxy.mark()
    proxy.inject(Fault(STATUS, Answer(status), times=2))

    settled.push(**demotion(enabled=True))

    settled.until(is_ready)
    assert [one.status for one in proxy.seen(STATUS, since=mark)[:3]] == [status, status, 200]


def test_retry_after_is_obeyed(settled: NodeUnderTest, proxy: FaultProxy) -> None:
    mark = proxy.mark()
    proxy.inject(Fault(STATUS, Answer(429, retry_after=2), times=1))

    settled.push(**demotion(enabled=True))

    settled.until(is_ready)
    refused, following, *_ = proxy.seen(STATUS, since=mark)
    assert refused.ended_at is not None
    assert following.at >= refused.ended_at + 2


def test_a_report_whose_answer_was_lost_is_told_again_and_changes_nothing(
    settled: NodeUnderTest, proxy: FaultProxy
) -> None:
    """Promise 2, towards the API server: the same status twice is one version of the object."""
    mark, before = proxy.mark(), len(settled.host.stores)
    proxy.inject(Fault(STATUS, Cut(forward=True), times=1))

    settled.push(**demotion(enabled=True))

    settled.until(is_ready)
    lost, again, *_ = proxy.seen(STATUS, since=mark)
    assert (lost.status, again.status) == (None, 200)
    assert again.body == lost.body
    assert writes(settled, before) == [("demotion_enabled", "1")]


# --- credentials -------------------------------------------------------------------------------------------------


def test_a_rotated_token_is_taken_from_its_file(
    control_plane: ControlPlane, proxy: FaultProxy, host: FakeHost, unique_name: UniqueName, tmp_path: Path
) -> None:
    """Promise 6: neither the refused token nor the new one needs a restart."""
    install_rights(control_plane.api)
    name = unique_name("node")
    old, new = (control_plane.node_bound_token(NAMESPACE, "numamigration-agent", name) for _ in range(2))
    node = NodeUnderTest(control_plane, host, name, tmp_path, server=proxy.url)
    node.token_file.write_text(old)
    node.start(*ONLY_NEWS)
    try:
        node.push(offload=wish(OFFLOAD))
        node.until(is_ready)
        mark = proxy.mark()
        proxy.inject(Fault(Match(token=old), Answer(401)))
        proxy.cut_connections()
        proxy.wait_seen(Match(token=old), since=mark, status=401)
        node.token_file.write_text(new)

        node.push(**demotion(enabled=True))

        node.until(is_ready)
        assert proxy.seen(Match(token=new), since=mark)
        assert node.agent is not None
        assert node.agent.poll() is None
    finally:
        node.kill()


# --- what people do to the object --------------------------------------------------------------------------------


def test_a_node_state_that_is_deleted_and_comes_back_changes_no_knob_and_loses_no_baseline(
    settled: NodeUnderTest, api: Api, proxy: FaultProxy
) -> None:
    """Promises 6 and 7: without a node state nothing is written and nothing forgotten."""
    before, stores = settled.host.config, len(settled.host.stores)
    mark = proxy.mark()
    api.delete(settled.path)
    settled.push(offload=wish(OFFLOAD))
    settled.until(is_ready)
    assert writes(settled, stores) == []
    assert proxy.seen(STATUS, since=mark)

    settled.push(offload=wish(OFFLOAD, mode="Restore"))

    settled.until(lambda status: group_state(status) == "Restored")
    after = settled.host.snapshot()
    assert (after.offloading, after.nr_dma_chan) == (False, 1)
    assert after.numa_balancing == before.numa_balancing


def test_a_node_state_that_comes_back_empty_is_no_wish(settled: NodeUnderTest, api: Api) -> None:
    """Promise 7: an object that the operator has not filled yet must not make the agent forget what was before."""
    stores = len(settled.host.stores)
    api.delete(settled.path)
    api.create(
        settled.path.rpartition("/")[0],
        {"apiVersion": "numamigration.dev/v1alpha1", "kind": "NodeMigrationState", "metadata": {"name": settled.name}},
    )
    api.watch_until(settled.path, lambda state: "observedGeneration" in state.get("status", {}))
    assert writes(settled, stores) == []

    settled.push(offload=wish(OFFLOAD, mode="Restore"))

    settled.until(lambda status: group_state(status) == "Restored")
    assert not settled.host.snapshot().offloading


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(None, id="removed"),
        pytest.param({"bootID": "00000000-0000-0000-0000-000000000000"}, id="of another boot"),
        pytest.param({"knobs": None}, id="without its baselines"),
    ],
)
def test_a_status_that_somebody_spoilt_is_told_again(settled: NodeUnderTest, api: Api, edit: Json | None) -> None:
    """Promise 1: the second copy of the baselines comes back at once."""
    told = api.get(settled.path)["status"]

    api.merge_patch(settled.path, {"status": edit}, subresource="status")

    status = settled.until(lambda status: status.get("bootID") == told["bootID"] and bool(status.get("knobs")))
    assert status["knobs"] == told["knobs"]


def test_a_baseline_that_somebody_forged_in_the_status_is_not_restored(settled: NodeUnderTest, api: Api) -> None:
    """Promise 7: the file of this boot knows better."""
    knobs = api.get(settled.path)["status"]["knobs"]
    forged = [knob | {"baseline": "3"} if knob["field"] == "offload.channels" else knob for knob in knobs]
    api.merge_patch(settled.path, {"status": {"knobs": forged}}, subresource="status")

    settled.push(offload=wish(OFFLOAD, mode="Restore"))

    settled.until(lambda status: group_state(status) == "Restored")
    assert settled.host.snapshot().nr_dma_chan == 1


# --- CRDs of another release -------------------------------------------------------------------------------------


def definitions() -> list[Json]:
    return [yaml.safe_load(path.read_text()) for path in sorted(CRD_FOLDER.glob("*.yaml"))]


def changed_states(change: Callable[[Json], None]) -> Json:
    """Return the CRD of node states with its schema's properties changed."""
    found = next(one for one in definitions() if one["spec"]["names"]["kind"] == "NodeMigrationState")
    crd = copy.deepcopy(found)
    change(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"])
    return crd


def test_a_status_field_of_later_is_left_out_and_comes_with_the_crd(
    changed_bed: ControlPlane, host: FakeHost, tmp_path: Path
) -> None:
    """Promise 11: an older CRD hides one field, not the node; it heals with the next report."""
    changed_bed.api.install_crd(changed_states(lambda schema: schema["status"]["properties"].pop("hardwareClass")))
    node = NodeUnderTest(changed_bed, host, "node-a", tmp_path)
    node.start()
    try:
        node.push(offload=wish(OFFLOAD))
        assert "hardwareClass" not in node.until(is_ready)

        for crd in definitions():
            changed_bed.api.install_crd(crd)

        node.until(lambda status: bool(status.get("hardwareClass")))
    finally:
        node.kill()


def without_reasons(schema: Json) -> None:
    settings = schema["spec"]["properties"]["groups"]["properties"]["offload"]["properties"]["settings"]
    del settings["properties"]["reasons"]
    rules = settings["x-kubernetes-validations"]
    settings["x-kubernetes-validations"] = [rule for rule in rules if "reasons" not in rule["rule"]]


def test_an_engine_stays_off_under_a_crd_that_dropped_what_restricts_it(
    changed_bed: ControlPlane, host: FakeHost, tmp_path: Path
) -> None:
    """Promise 3: without its reasons the wish would be for every reason; with the CRD of this release it is applied."""
    changed_bed.api.install_crd(changed_states(without_reasons))
    node = NodeUnderTest(changed_bed, host, "node-c", tmp_path)
    groups = {"offload": wish({**OFFLOAD, "reasons": ["damon"]})}
    cut = {"spec": {"revision": spec_revision({"groups": groups}), "groups": groups}}
    node.push()
    changed_bed.api.merge_patch(node.path, cut, query={"fieldValidation": "Ignore"})  # as the operator does
    node.start()
    try:
        status = node.until(lambda status: group_state(status) == "Pending")
        assert status["groups"]["offload"]["reason"] == "VersionSkew"
        assert not host.snapshot().offloading

        for crd in definitions():
            changed_bed.api.install_crd(crd)
        node.push(**groups)

        node.until(is_ready)
        assert host.snapshot().offloading
    finally:
        node.kill()


def later_release(schema: Json) -> None:
    groups = schema["spec"]["properties"]["groups"]["properties"]
    groups["demotion"]["properties"]["mode"]["enum"].append("Sometimes")
    groups["balancing"]["properties"]["settings"]["properties"]["fromTheFuture"] = {"type": "integer"}


def test_words_of_a_later_release_are_shown_and_the_rest_is_applied(
    changed_bed: ControlPlane, host: FakeHost, tmp_path: Path
) -> None:
    """Promise 14: what this agent does not know is not guessed, and keeps nothing else from being applied."""
    changed_bed.api.install_crd(changed_states(later_release))
    node = NodeUnderTest(changed_bed, host, "node-b", tmp_path)
    node.start()
    try:
        before = host.snapshot()
        node.push(
            offload=wish(OFFLOAD),
            demotion=wish({"enabled": True}, mode="Sometimes"),
            balancing=wish({"mode": "Tiering", "fromTheFuture": 1}),
        )

        status = node.until(lambda status: group_state(status) == group_state(status, "balancing") == "Ready")

        assert status["groups"]["demotion"]["reason"] == "VersionSkew"
        assert condition({"status": status}, "Ready")["reason"] == "VersionSkew"
        unknown = next(knob for knob in status["knobs"] if knob["field"] == "balancing.fromTheFuture")
        assert unknown["outcome"] == "Unsupported"
        after = host.snapshot()
        assert (after.demotion_enabled, after.numa_balancing) == (before.demotion_enabled, 2)
    finally:
        node.kill()
