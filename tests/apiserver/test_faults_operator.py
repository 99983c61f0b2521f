# SPDX-License-Identifier: Apache-2.0
"""What goes wrong between the operator's process and the API server, and what node states and kernels then still say.

One operator at a time: a second one would stand by.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.apiserver.agent_process import NodeUnderTest
from tests.apiserver.operator_process import (
    ACCOUNT,
    NODES,
    POLICIES,
    STATES,
    OperatorProcess,
    account,
    buckets,
    content,
    documents,
    forget_leader,
    groups,
    install_crds,
    join,
    make_node,
    make_policy,
    report,
    report_in,
)
from tests.fakekernel.config import HostConfig
from tests.fakekernel.host import FakeHost
from tests.testbed.api import Api, Json, condition, poll
from tests.testbed.controlplane import ControlPlane
from tests.testbed.faultproxy import (
    Answer,
    Cut,
    CutAnswer,
    CutWatch,
    Exchange,
    FailWatch,
    Fault,
    FaultProxy,
    Match,
    SmallPages,
    Stall,
    Trickle,
)
from tests.testbed.fixtures import CRD_FOLDER

pytestmark = pytest.mark.uncounted

STATE_WRITE: Final = Match("PATCH", "/nodemigrationstates/")
APPLIER: Final = Match("PATCH", "^/apis/(numamigration.dev|apps)/")  # not the Lease
POLICY_LIST: Final = Match("GET", r"/migrationpolicies\?limit", watch=False)
FAST_LISTS: Final = ("--policy-resync-seconds=1",)
ONE_AT_A_TIME: Final = (*FAST_LISTS, "--apply-requests-open-max=1")
FLEET: Final = 50

UniqueName = Callable[[str], str]


class Keeper:
    """Keeps one operator running behind the proxy; another set of flags replaces it."""

    def __init__(self, bed: ControlPlane, proxy: FaultProxy, folder: Path) -> None:
        self._bed, self._proxy, self._folder = bed, proxy, folder
        self._running: OperatorProcess | None = None
        self._flags: tuple[str, ...] = ()

    def run(self, *flags: str, fresh: bool = False) -> OperatorProcess:
        """Return an operator with these flags that is ready; `fresh` for one that knows nothing yet."""
        alive = self._running is not None and self._running.process.poll() is None
        if self._running is None or not alive or fresh or flags != self._flags:
            self.kill()
            self.write_token(account(self._bed))
            log = self._folder / f"log-{len(list(self._folder.iterdir()))}"
            self._running, self._flags = OperatorProcess(self.kubeconfig, log, *flags), flags
            self._running.wait_line("ready:")
        return self._running

    def write_token(self, token: str) -> None:
        self.token = token
        self.kubeconfig = self._bed.kubeconfig_for(token, name=ACCOUNT, server=self._proxy.url)

    def kill(self) -> None:
        if self._running is not None:
            self._running.kill()
            forget_leader(self._bed.api)


@pytest.fixture(scope="module")
def api(bed: ControlPlane) -> Api:
    return bed.api


@pytest.fixture(scope="module")
def lasting_proxy(bed: ControlPlane) -> Iterator[FaultProxy]:
    with FaultProxy.before(bed) as running:
        yield running


@pytest.fixture
def proxy(lasting_proxy: FaultProxy) -> Iterator[FaultProxy]:
    yield lasting_proxy
    lasting_proxy.clear()


@pytest.fixture(scope="module")
def keeper(bed: ControlPlane, lasting_proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    keeper = Keeper(bed, lasting_proxy, tmp_path_factory.mktemp("operators"))
    yield keeper
    keeper.kill()


@pytest.fixture
def operator(keeper: Keeper) -> OperatorProcess:
    return keeper.run(*FAST_LISTS)


def target(exchange: Exchange) -> str:
    return exchange.path.rpartition("/")[2]


def until_enabled(api: Api, node: str, enabled: bool = True) -> Json:
    return api.watch_until(
        f"{STATES}/{node}", lambda obj: groups(obj).get("demotion", {}).get("settings") == {"enabled": enabled}
    )


def edit(api: Api, policy: str, enabled: bool) -> None:
    api.merge_patch(f"{POLICIES}/{policy}", {"spec": {"settings": {"demotion": {"enabled": enabled}}}})


def await_lists(proxy: FaultProxy, count: int = 2) -> None:
    """Return when policies were listed anew: what came before the first of two lists is decided by the second."""
    proxy.wait_seen(POLICY_LIST, count, since=proxy.mark(), status=200)


# --- away, and back ----------------------------------------------------------------------------------------------


def test_what_changed_while_the_api_server_was_away_arrives_with_one_write_a_node(
    api: Api, proxy: FaultProxy, keeper: Keeper, unique_name: UniqueName
) -> None:
    """Promise 6: nothing is lost, nothing is written twice, and nobody restarts anything."""
    operator = keeper.run(*FAST_LISTS, fresh=True)
    kept, edited = unique_name("node"), unique_name("node")
    for name in (kept, edited):
        join(api, name)
        make_policy(api, name, name, onDelete="Keep")
        until_enabled(api, name)
    proxy.refuse()
    operator.wait_line("API server does not answer")
    edit(api, edited, enabled=False)

    back = proxy.mark()
    proxy.accept()

    until_enabled(api, edited, enabled=False)
    operator.wait_line("API server answers again")
    await_lists(proxy)
    assert [target(one) for one in proxy.seen(STATE_WRITE, since=back)] == [edited]


# --- lists and watches -------------------------------------------------------------------------------------------


def again(path: str, *faults: Fault) -> list[Fault]:
    """Return the faults that come after the watch of a collection expired and it is listed again."""
    return [Fault(Match("GET", path, watch=True), Answer(410), times=1), *faults]


def watching(path: str, action: CutWatch | FailWatch) -> list[Fault]:
    return [Fault(Match("GET", path, watch=True), action, times=1)]


def second_page(path: str, fault: Answer | Cut | CutAnswer) -> list[Fault]:
    return [
        Fault(Match("GET", f"{path}.*continue=", watch=False), fault, times=1),
        Fault(Match("GET", path, watch=False), SmallPages(2)),
    ]


def listed(path: str) -> Match:
    return Match("GET", f"{path}\\?", watch=False)


@pytest.mark.parametrize(
    ("path", "faults"),
    [
        pytest.param(STATES, again(STATES), id="states: history expired, told by the answer"),
        pytest.param(STATES, watching(STATES, FailWatch(410)), id="states: history expired, told by an event"),
        pytest.param(STATES, watching(STATES, CutWatch()), id="states: watch cut in the middle of a line"),
        pytest.param(STATES, again(STATES, *second_page(STATES, Answer(410))), id="states: page 2 expired"),
        pytest.param(NODES, again(NODES, *second_page(NODES, Answer(500))), id="nodes: page 2 fails"),
        pytest.param(NODES, again(NODES, Fault(listed(NODES), Trickle(500, 0.005), times=1)), id="nodes: trickle"),
        pytest.param(POLICIES, second_page(POLICIES, CutAnswer()), id="policies: page 2 cut"),
        pytest.param(POLICIES, watching(POLICIES, FailWatch(410)), id="policies: history expired, told by an event"),
    ],
)
@pytest.mark.usefixtures("operator")
def test_half_a_list_ends_no_wish(
    api: Api, proxy: FaultProxy, unique_name: UniqueName, path: str, faults: list[Fault]
) -> None:
    """Promise 6: what was not read is not taken for gone, and an edit made meanwhile arrives."""
    names = [unique_name("node") for _ in range(3)]
    for name in names:
        join(api, name)
        make_policy(api, name, name)
        until_enabled(api, name)
    # An answer that is cut off is asked for again, which is not what is counted here.
    poll(lambda: all(one.ended_at for one in proxy.seen(STATE_WRITE)), "every write answered")
    mark = proxy.mark()
    proxy.inject(*faults)
    proxy.cut_connections()
    edit(api, names[0], enabled=False)

    until_enabled(api, names[0], enabled=False)
    poll(lambda: all(fault.times is None for fault in proxy.active), "every fault met")
    whole = Match("GET", path, watch=True) if path != POLICIES else POLICY_LIST
    proxy.wait_seen(whole, since=mark, status=200)
    await_lists(proxy)
    assert {target(one) for one in proxy.seen(STATE_WRITE, since=mark)} == {names[0]}
    assert all(groups(api.get(f"{STATES}/{name}"))["demotion"]["mode"] == "Apply" for name in names)


# --- writing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [409, 429, 500, 503])
@pytest.mark.usefixtures("operator")
def test_a_storm_of_refusals_loses_nothing(api: Api, proxy: FaultProxy, unique_name: UniqueName, status: int) -> None:
    """Promise 6: each write that was refused for a while arrives, once it is taken.

    A push that had a 409 is decided anew. Until its node is reserved again, what is there may be written once more, so
    that no earlier request of the push can arrive any more: at most once for each 409. The push that follows goes only
    onto what was seen, so it may have a 409 of the API server itself while the write before it is not shown yet.
    """
    label = unique_name("label")
    names = [unique_name("node") for _ in range(5)]
    for name in names:
        join_labelled(api, name, label)
    mark = proxy.mark()
    proxy.inject(Fault(STATE_WRITE, Answer(status), times=12))

    make_policy(api, label, label, onDelete="Keep")

    for name in names:
        until_enabled(api, name)
    taken = Counter(target(one) for one in proxy.wait_seen(STATE_WRITE, len(names), since=mark, status=200))
    decided_anew = Counter(target(one) for one in proxy.seen(STATE_WRITE, since=mark, status=409))
    assert set(taken) == set(names)
    assert not taken - Counter(names) - decided_anew


def join_labelled(api: Api, name: str, label: str) -> None:
    """Make a Node that a policy of `label` selects, whose agent has reported."""
    api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"name": label}}})
    report_in(api, name)


def test_retry_after_holds_every_write_back(
    api: Api, proxy: FaultProxy, keeper: Keeper, unique_name: UniqueName
) -> None:
    keeper.run(*ONE_AT_A_TIME)
    label = unique_name("label")
    names = [unique_name("node") for _ in range(3)]
    for name in names:
        join_labelled(api, name, label)
    mark = proxy.mark()
    proxy.inject(Fault(STATE_WRITE, Answer(429, retry_after=2), times=1))

    make_policy(api, label, label, onDelete="Keep")

    for name in names:
        until_enabled(api, name)
    (refused,) = proxy.seen(STATE_WRITE, since=mark, status=429)
    following = [one for one in proxy.seen(APPLIER, since=mark) if one.at > refused.at]
    assert refused.ended_at is not None
    assert min(one.at for one in following) >= refused.ended_at + 2


def test_what_turns_off_goes_before_what_turns_on(
    api: Api, proxy: FaultProxy, keeper: Keeper, unique_name: UniqueName
) -> None:
    """Promise 17: behind an API server that was slow, the safe direction has the right of way."""
    keeper.run(*ONE_AT_A_TIME)
    leaving, label = unique_name("node"), unique_name("label")
    coming = {unique_name("node") for _ in range(2)}
    for name in coming:
        join_labelled(api, name, label)
    join(api, leaving)
    make_policy(api, leaving, leaving)
    until_enabled(api, leaving)
    mark = proxy.mark()
    proxy.inject(Fault(STATE_WRITE, Stall(), times=1))
    make_policy(api, label, label, onDelete="Keep")
    proxy.wait_seen(STATE_WRITE, since=mark)
    api.delete(f"{POLICIES}/{leaving}")
    await_lists(proxy)

    proxy.clear()

    for name in coming:
        until_enabled(api, name)
    stalled, first, *_ = proxy.seen(STATE_WRITE, since=mark)
    assert target(stalled) in coming
    assert target(first) == leaving
    assert first.json["spec"]["groups"]["demotion"]["mode"] == "Restore"


@pytest.mark.usefixtures("operator")
def test_a_write_whose_answer_was_lost_is_repeated_and_harmless(
    api: Api, proxy: FaultProxy, unique_name: UniqueName
) -> None:
    """Promise 2, towards the API server: the second one changes nothing."""
    name = unique_name("node")
    join(api, name)
    match = Match("PATCH", f"{STATES}/{name}")
    mark = proxy.mark()
    proxy.inject(Fault(match, Cut(forward=True), times=1))

    make_policy(api, name, name, onDelete="Keep")

    lost, again = proxy.wait_seen(match, 2, since=mark)
    assert lost.body == again.body
    proxy.wait_seen(match, since=mark, status=200)
    assert until_enabled(api, name)["metadata"]["generation"] == 2
    await_lists(proxy)
    assert len(proxy.seen(match, since=mark)) == 2


def test_an_operator_that_is_killed_in_mid_push_is_followed_by_one_that_goes_on_and_asks_for_nothing_else(
    api: Api, proxy: FaultProxy, keeper: Keeper, unique_name: UniqueName
) -> None:
    """Promises 6 and 8: whom the dead one had reserved gets the same once more, with an epoch that shuts it out."""
    keeper.run(*FAST_LISTS)
    label = unique_name("label")
    names = [f"{label}-{number:02d}" for number in range(FLEET)]
    for name in names:
        join_labelled(api, name, label)
    mark = proxy.mark()
    make_policy(api, label, label, onDelete="Keep")
    proxy.wait_seen(STATE_WRITE, FLEET // 3, since=mark, status=200)
    keeper.kill()
    assert len(proxy.seen(STATE_WRITE, since=mark)) < FLEET

    keeper.run(*FAST_LISTS)

    for name in names:
        until_enabled(api, name)
    await_lists(proxy)
    taken = proxy.seen(STATE_WRITE, since=mark, status=200)
    asked = [one.json for one in taken]
    pushes = Counter((target(one), one.json["spec"]["leaderEpoch"]) for one in taken if groups(one.json))
    assert set(pushes.values()) == {1}
    assert {name for name, _ in pushes} == set(names)
    found = [api.get(f"{STATES}/{name}") for name in names]
    assert len({json.dumps(content(one), sort_keys=True) for one in (*asked, *found) if groups(one)}) == 1


# --- credentials -------------------------------------------------------------------------------------------------


def test_a_rotated_token_is_taken_from_the_configuration(
    bed: ControlPlane, api: Api, proxy: FaultProxy, keeper: Keeper, unique_name: UniqueName
) -> None:
    """Promise 6: neither the refused token nor the new one needs a restart."""
    operator = keeper.run(*FAST_LISTS)
    name, old = unique_name("node"), keeper.token
    keeper.write_token(account(bed))
    proxy.inject(Fault(Match(token=old), Answer(401)))
    proxy.cut_connections()
    join(api, name)

    make_policy(api, name, name, onDelete="Keep")

    until_enabled(api, name)
    assert proxy.seen(Match(token=keeper.token))
    assert operator.process.poll() is None


# --- what people do to objects, with an agent --------------------------------------------------------------------

BOTH: Final = {"demotion": {"enabled": True}, "balancing": {"mode": "Tiering"}}


@pytest.fixture
def node(bed: ControlPlane, unique_name: UniqueName, tmp_path: Path) -> Iterator[NodeUnderTest]:
    """A Node whose agent runs."""
    with FakeHost(HostConfig()) as host:
        node = NodeUnderTest(bed, host, unique_name("node"), tmp_path)
        make_node(bed.api, node.name)
        node.start()
        yield node
        node.kill()


@pytest.fixture
def settled(operator: OperatorProcess, api: Api, node: NodeUnderTest) -> NodeUnderTest:  # noqa: ARG001
    """A Node whose policy, of the same name, is in force."""
    make_policy(api, node.name, node.name, settings=BOTH)
    until_ready(api, node)
    return node


def until_ready(api: Api, node: NodeUnderTest) -> None:
    api.watch_until(node.path, lambda state: reported(state) == {"demotion": "Ready", "balancing": "Ready"})
    api.watch_until(f"{POLICIES}/{node.name}", lambda policy: buckets(policy) == {"ready": 1})


def reported(state: Json) -> dict[str, str]:
    """Return what the agent says of each group of the present spec."""
    status = state.get("status", {})
    if status.get("observedGeneration") != state.get("metadata", {}).get("generation"):
        return {}
    return {name: group["state"] for name, group in status.get("groups", {}).items()}


def in_force(node: NodeUnderTest) -> tuple[bool, int]:
    kernel = node.host.snapshot()
    return kernel.demotion_enabled, kernel.numa_balancing


OURS: Final = (True, 2)
BEFORE: Final = (False, 1)


def delete_policy(api: Api, node: NodeUnderTest) -> None:
    api.delete(f"{POLICIES}/{node.name}")
    api.wait_gone(f"{POLICIES}/{node.name}")


def test_a_node_state_that_is_deleted_comes_back_and_changes_no_knob(settled: NodeUnderTest, api: Api) -> None:
    """Promises 6 and 7: deleting the object is no wish, and its baselines are not lost."""
    stores, uid = len(settled.host.stores), api.get(settled.path)["metadata"]["uid"]

    api.delete(settled.path)

    api.watch_until(settled.path, lambda state: bool(state) and state["metadata"]["uid"] != uid)
    until_ready(api, settled)
    assert len(settled.host.stores) == stores
    delete_policy(api, settled)
    assert in_force(settled) == BEFORE


@pytest.mark.usefixtures("operator")
def test_a_node_state_that_is_deleted_in_mid_push_is_pushed_again(node: NodeUnderTest, api: Api) -> None:
    """Promise 6: the wish does not end with the object that carries it."""
    node.until(lambda status: bool(status.get("dialect")))
    node.stop()
    make_policy(api, node.name, node.name, settings=BOTH)
    until_enabled(api, node.name)

    api.delete(node.path)
    node.start()

    until_ready(api, node)
    assert in_force(node) == OURS


def test_a_node_state_that_is_deleted_in_mid_restore_is_restored_all_the_same(settled: NodeUnderTest, api: Api) -> None:
    """Promises 7 and 13: the deletion of the policy ends with what was before."""
    settled.stop()
    api.delete(f"{POLICIES}/{settled.name}")
    api.watch_until(settled.path, lambda state: groups(state).get("demotion", {}).get("mode") == "Restore")

    api.delete(settled.path)
    settled.start()

    api.wait_gone(f"{POLICIES}/{settled.name}")
    assert in_force(settled) == BEFORE


def test_a_node_that_is_deleted_and_back_is_the_same_for_its_kernel(settled: NodeUnderTest, api: Api) -> None:
    """Promises 6 and 7: the new Node owns a new node state; the values of before are those of before."""
    stores = len(settled.host.stores)
    api.delete(f"{NODES}/{settled.name}")
    api.delete(settled.path)  # as the garbage collector does
    api.watch_until(f"{POLICIES}/{settled.name}", lambda policy: policy["status"]["nodes"]["matched"] == 0)

    make_node(api, settled.name)

    until_ready(api, settled)
    owner = api.get(settled.path)["metadata"]["ownerReferences"][0]["uid"]
    assert owner == api.get(f"{NODES}/{settled.name}")["metadata"]["uid"]
    assert len(settled.host.stores) == stores
    delete_policy(api, settled)
    assert in_force(settled) == BEFORE


@pytest.mark.parametrize(
    ("release", "left"), [pytest.param("Restore", BEFORE, id="Restore"), pytest.param("Keep", OURS, id="Keep")]
)
@pytest.mark.usefixtures("operator")
def test_a_node_that_is_relabelled_is_released_and_can_come_back(
    node: NodeUnderTest, api: Api, release: str, left: tuple[bool, int]
) -> None:
    """Promise 7: leaving the selector is the same as the end of the policy."""
    make_policy(api, node.name, node.name, settings=BOTH, onDelete=release)
    until_ready(api, node)

    api.merge_patch(f"{NODES}/{node.name}", {"metadata": {"labels": {"name": "nobody"}}})
    api.watch_until(node.path, lambda state: not groups(state))
    assert in_force(node) == left

    api.merge_patch(f"{NODES}/{node.name}", {"metadata": {"labels": {"name": node.name}}})
    until_ready(api, node)
    assert in_force(node) == OURS
    api.delete(f"{POLICIES}/{node.name}")


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"groups": {"demotion": {"settings": {"enabled": False}}}}, id="a wish changed"),
        pytest.param({"groups": {"balancing": {"mode": "Restore"}}}, id="a restore asked for"),
        pytest.param({"revision": "0" * 16}, id="another revision"),
        pytest.param({"groups": None}, id="every group taken out"),
    ],
)
def test_a_spec_that_somebody_edits_is_put_right(settled: NodeUnderTest, api: Api, spec: Json) -> None:
    """Promise 11: the node state says what the policies wish, and nothing else."""
    right = content(api.get(settled.path))

    api.merge_patch(settled.path, {"spec": spec})

    api.watch_until(settled.path, lambda state: content(state) == right)
    until_ready(api, settled)
    assert in_force(settled) == OURS
    delete_policy(api, settled)
    assert in_force(settled) == BEFORE


def test_a_policy_status_that_somebody_edits_is_put_right(settled: NodeUnderTest, api: Api) -> None:
    """Promise 11: the counts are a partition of the nodes that there are."""
    path = f"{POLICIES}/{settled.name}"

    api.merge_patch(path, {"status": {"nodes": {"matched": 7, "ready": 3, "failed": 4}}}, subresource="status")

    api.watch_until(path, lambda policy: policy["status"]["nodes"]["matched"] == 1)
    assert buckets(api.get(path)) == {"ready": 1}
    delete_policy(api, settled)


# --- CRDs of another release -------------------------------------------------------------------------------------


def older_states() -> Json:
    """Return the CRD of node states as a release had it that knew no `drift`."""
    (crd,) = documents(CRD_FOLDER / "nodemigrationstates.yaml")
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    for group in schema["groups"]["properties"].values():
        group["properties"].pop("drift")
    return crd


@pytest.mark.usefixtures("operator")
def test_a_crd_that_is_too_old_is_shown_and_its_upgrade_is_noticed(
    changed_bed: ControlPlane, unique_name: UniqueName
) -> None:
    """Promise 11: a node that cannot be told everything is pending for VersionSkew, and heals by itself."""
    api = changed_bed.api
    api.install_crd(older_states())
    names = [unique_name("node") for _ in range(3)]
    label = unique_name("label")
    for name in names:
        join_labelled(api, name, label)
    make_policy(api, label, label, onDelete="Keep", drift="Report")
    for name in names:
        state = until_enabled(api, name)
        assert "drift" not in groups(state)["demotion"]
        report(api, state, "Ready")
    api.watch_until(
        f"{POLICIES}/{label}",
        lambda obj: condition(obj, "Ready").get("reason") == "VersionSkew" and buckets(obj) == {"pending": 3},
    )

    install_crds(api)

    for name in names:
        api.watch_until(f"{STATES}/{name}", lambda obj: "drift" in groups(obj)["demotion"])
    api.watch_until(f"{POLICIES}/{label}", lambda obj: condition(obj, "Ready")["reason"] != "VersionSkew")


def later_states() -> Json:
    """Return the CRD of node states as a later release may have it: one more status field, one more reason."""
    (crd,) = documents(CRD_FOLDER / "nodemigrationstates.yaml")
    status = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    status["fromTheFuture"] = {"type": "integer"}
    status["groups"]["properties"]["demotion"]["properties"]["reason"]["enum"].append("FromTheFuture")
    return crd


def test_the_report_of_a_later_agent_is_read_but_for_what_only_it_knows(
    changed_bed: ControlPlane, operator: OperatorProcess, api: Api, unique_name: UniqueName
) -> None:
    """Promise 11: a field of later is no news, and a word of later leaves the node as it was last understood."""
    changed_bed.api.install_crd(later_states())
    name = unique_name("node")
    join(api, name)
    make_policy(api, name, name, onDelete="Keep")

    report(api, until_enabled(api, name), "Ready", fromTheFuture=7)
    api.watch_until(f"{POLICIES}/{name}", lambda policy: buckets(policy) == {"ready": 1})
    word = {"groups": {"demotion": {"state": "Failed", "reason": "FromTheFuture"}}}
    api.merge_patch(f"{STATES}/{name}", {"status": word}, subresource="status")
    operator.wait_line("object cannot be read; it is left as it was known")

    other = unique_name("node")
    join(api, other)
    make_policy(api, other, other, onDelete="Keep")
    report(api, until_enabled(api, other), "Ready")
    api.watch_until(f"{POLICIES}/{other}", lambda policy: buckets(policy) == {"ready": 1})
    assert buckets(api.get(f"{POLICIES}/{name}")) == {"ready": 1}
    assert operator.process.poll() is None


@pytest.mark.usefixtures("operator")
def test_the_report_of_an_older_agent_is_read_and_proves_nothing_that_it_does_not_say(
    api: Api, unique_name: UniqueName
) -> None:
    """Promise 8: an agent that knows no soaking, no windows and no verification leaves its node unproven."""
    names, label = [unique_name("node") for _ in range(2)], unique_name("label")
    for name in names:
        join_labelled(api, name, label)
    one_by_one = {"canary": {"nodes": 1, "soakSeconds": 1}, "maxUnproven": 1}
    make_policy(api, label, label, onDelete="Keep", rollout=one_by_one)
    pushed = poll(lambda: next((one for name in names if groups(one := api.get(f"{STATES}/{name}"))), None), "a canary")
    assert pushed
    first = pushed["metadata"]["name"]
    (second,) = {*names} - {first}

    report(api, pushed, "Ready", soaked=False)

    shown = api.watch_until(f"{POLICIES}/{label}", lambda policy: reasons_of(policy) == {first: "Soaking"})
    assert buckets(shown) == {"pending": 2}
    assert groups(api.get(f"{STATES}/{second}")) == {}
    report(api, pushed, "Ready")  # as after its upgrade
    api.watch_until(f"{STATES}/{second}", lambda state: bool(groups(state)))


def reasons_of(policy: Json) -> dict[str, str]:
    """Return why nodes are pending that have been pushed."""
    worst = policy.get("status", {}).get("worstNodes", [])
    return {row["node"]: row["reason"] for row in worst if row["reason"] != "AwaitingRollout"}
