# SPDX-License-Identifier: Apache-2.0
"""Two operators as real processes on a real kube-apiserver: one acts, whatever happens to it."""

from __future__ import annotations

import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from numamigration_operator.metrics import PREFIX
from tests.apiserver.operator_process import (
    ACCOUNT,
    LEASE,
    LEASES,
    NAMESPACE,
    POLICIES,
    STATES,
    STOP_SECONDS_MAX,
    OperatorProcess,
    account,
    forget_leader,
    groups,
    is_through,
    join,
    make_node,
    make_policy,
    report,
    report_in,
    versions,
)
from tests.testbed.api import Api, ApiError, Json, condition, poll
from tests.testbed.controlplane import ControlPlane

EPOCH: Final = "numamigration.dev/leader-epoch"
EVENTS: Final = "/apis/events.k8s.io/v1/events"
LEASE_SECONDS: Final = 2
CONTINUES_SECONDS_MAX: Final = LEASE_SECONDS + 5.0
SHORT: Final = (
    *("--lease-duration-seconds", str(LEASE_SECONDS)),
    *("--lease-renew-deadline-seconds", "1.5"),
    *("--lease-retry-seconds", "0.3"),
)
NOT_LEADING: Final = 3

Start = Callable[..., OperatorProcess]
UniqueName = Callable[[str], str]


@pytest.fixture
def start(bed: ControlPlane, tmp_path: Path) -> Iterator[Start]:
    """Start operators; in the end they are gone, and so is their Lease."""
    running: list[OperatorProcess] = []

    def begin(*flags: str, kubeconfig: Path | None = None) -> OperatorProcess:
        config = kubeconfig or bed.kubeconfig_for(account(bed), name=ACCOUNT)
        running.append(OperatorProcess(config, tmp_path / f"log-{len(running)}", *flags))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
    forget_leader(bed.api)


def start_pair(start: Start, *flags: str) -> tuple[OperatorProcess, OperatorProcess]:
    """Start one that leads and one that stands by."""
    first = start(*flags)
    first.wait_line("ready:")
    second = start(*flags)
    second.wait_line("standing by")
    return first, second


def epoch(api: Api) -> int:
    return int(api.get(LEASE)["metadata"]["annotations"][EPOCH])


def demotion(api: Api, node: str, *, enabled: bool, timeout: float = 30.0) -> Json:
    """Return the node state once it asks for this."""
    wanted = {"enabled": enabled}
    return api.watch_until(
        f"{STATES}/{node}", lambda obj: groups(obj).get("demotion", {}).get("settings") == wanted, timeout=timeout
    )


def is_pushed(api: Api, node: str) -> bool:
    return "demotion" in groups(api.get(f"{STATES}/{node}"))


def edit(api: Api, policy: str, *, enabled: bool) -> None:
    api.merge_patch(f"{POLICIES}/{policy}", {"spec": {"settings": {"demotion": {"enabled": enabled}}}})


# --- one acts -----------------------------------------------------------------------------------------------------


def test_of_two_operators_one_acts_and_the_other_reads_nothing_but_the_lease(
    bed: ControlPlane, start: Start, unique_name: UniqueName
) -> None:
    """Promise 8: the second one has no right but the Lease, and misses nothing."""
    standby = bed.kubeconfig_for(standby_account(bed), name="standby")
    leader = start()
    leader.wait_line("ready:")
    second = start(kubeconfig=standby)
    second.wait_line("standing by")
    node, policy = unique_name("node"), unique_name("policy")
    join(bed.api, node)
    make_policy(bed.api, policy, node, onDelete="Keep")

    demotion(bed.api, node, enabled=True)

    assert second.stop() == 0
    assert second.lines("WARNING") == []
    assert "leading" not in second.log.read_text()
    bed.api.delete(f"{POLICIES}/{policy}")


def standby_account(bed: ControlPlane) -> str:
    metadata = {"name": "standby", "namespace": NAMESPACE}
    bed.api.create(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"metadata": metadata})
    binding = {
        "metadata": metadata,
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Role",
            "name": "numamigration-operator-lease",
        },
        "subjects": [{"kind": "ServiceAccount", **metadata}],
    }
    bed.api.create(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/rolebindings", binding)
    return account(bed, "standby")


def test_the_epoch_stands_on_the_lease_before_it_stands_anywhere_else(
    bed: ControlPlane, start: Start, unique_name: UniqueName
) -> None:
    """Promise 8: whoever leads next takes a greater one, whatever the last leader had time to write."""
    node, policy = unique_name("node"), unique_name("policy")
    make_node(bed.api, node)
    make_policy(bed.api, policy, node, onDelete="Keep")
    start()
    report_in(bed.api, node)

    state = demotion(bed.api, node, enabled=True)
    shown = bed.api.watch_until(f"{POLICIES}/{policy}", lambda obj: bool(condition(obj, "Ready")))

    now = epoch(bed.api)
    assert state["spec"]["leaderEpoch"] == now
    assert shown["status"]["rollout"]["leaderEpoch"] == now
    bed.api.delete(f"{POLICIES}/{policy}")


# --- the other continues ------------------------------------------------------------------------------------------


def test_when_the_leader_is_killed_the_other_continues_within_the_lease_and_5_seconds(
    bed: ControlPlane, start: Start, unique_name: UniqueName
) -> None:
    leader, _ = start_pair(start, *SHORT)
    before = epoch(bed.api)
    leader.kill()
    node = unique_name("node")
    make_node(bed.api, node)

    state = bed.api.watch_until(f"{STATES}/{node}", bool, timeout=CONTINUES_SECONDS_MAX)

    assert state["spec"]["leaderEpoch"] == before + 1


def test_a_leader_that_is_stopped_in_good_order_hands_over_at_once(bed: ControlPlane, start: Start) -> None:
    """The lease of these two lasts for two minutes."""
    leader, second = start_pair(start)

    assert leader.stop() == 0

    second.wait_line("ready:")
    assert bed.api.get(LEASE)["spec"]["leaseTransitions"] == 1


def test_a_takeover_writes_nothing_when_nothing_changed(
    bed: ControlPlane, start: Start, unique_name: UniqueName
) -> None:
    """Promise 12: a greater epoch alone is no reason to write."""
    node, policy = unique_name("node"), unique_name("policy")
    make_node(bed.api, node)
    make_policy(bed.api, policy, node)
    leader, second = start_pair(start)
    report_in(bed.api, node)
    report(bed.api, demotion(bed.api, node, enabled=True), "Ready")
    bed.api.watch_until(f"{POLICIES}/{policy}", is_through)
    leader.stop()
    before, events = versions(bed.api), len(bed.api.list_items(EVENTS))

    second.wait_line("ready:")
    # A node that comes now is decided after everything that was known at the start.
    witness = unique_name("node")
    make_node(bed.api, witness)
    state = bed.api.watch_until(f"{STATES}/{witness}", bool)

    assert {key: value for key, value in versions(bed.api).items() if witness not in key} == before
    assert len(bed.api.list_items(EVENTS)) == events
    assert state["spec"]["leaderEpoch"] == epoch(bed.api)
    bed.api.merge_patch(f"{POLICIES}/{policy}", {"spec": {"onDelete": "Keep"}})
    bed.api.watch_until(f"{POLICIES}/{policy}", lambda obj: "finalizers" not in obj["metadata"])
    bed.api.delete(f"{POLICIES}/{policy}")


def test_a_leader_that_was_frozen_beyond_its_lease_sends_nothing_of_its_queue_and_ends(
    bed: ControlPlane, start: Start, unique_name: UniqueName
) -> None:
    """Promise 8: it wakes up with writes that it decided when it led."""
    policy, label = unique_name("policy"), unique_name("frozen")
    names = [unique_name("node") for _ in range(20)]
    before_it = start(*SHORT)
    for name in names:
        join(bed.api, name, role=label)
    before_it.stop()
    leader = start(*SHORT, "--apply-burst", "8", "--apply-rate-per-second", "1", "--log-level", "debug")
    leader.wait_line("ready:")
    second = start(*SHORT)
    second.wait_line("standing by")
    make_policy(bed.api, policy, "", nodeSelector={"matchLabels": {"role": label}}, onDelete="Keep")
    # With the revision and the reservation the burst is through, so from here on at most one request is on its way.
    poll(lambda: sum(is_pushed(bed.api, name) for name in names) > 6, "its first pushes")

    leader.process.send_signal(signal.SIGSTOP)
    second.wait_line("ready:")
    for name in names:
        report(bed.api, demotion(bed.api, name, enabled=True), "Ready")
    bed.api.watch_until(f"{POLICIES}/{policy}", is_through)
    before = versions(bed.api)
    leader.process.send_signal(signal.SIGCONT)

    assert leader.process.wait(STOP_SECONDS_MAX) == NOT_LEADING
    assert versions(bed.api) == before
    told = leader.log.read_text()
    assert "not leading any more" in told
    assert told.count("a newer leader wrote this object") <= 1, "what was on its way may meet the fence; no queue may"
    assert second.process.poll() is None
    bed.api.delete(f"{POLICIES}/{policy}")


# --- the fence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["node state", "policy status"])
def test_a_leader_whose_epoch_is_too_old_is_refused_and_ends_and_the_next_one_is_well(
    bed: ControlPlane, start: Start, unique_name: UniqueName, where: str
) -> None:
    """Promise 8, and the way back from an epoch that a person raised by hand."""
    node, policy = unique_name("node"), unique_name("policy")
    make_node(bed.api, node)
    make_policy(bed.api, policy, node, onDelete="Keep")
    leader = start(*SHORT)
    report_in(bed.api, node)
    demotion(bed.api, node, enabled=True)
    bed.api.watch_until(f"{POLICIES}/{policy}", lambda obj: bool(condition(obj, "Ready")))
    raised = epoch(bed.api) + 1000
    if where == "node state":
        bed.api.merge_patch(f"{STATES}/{node}", {"spec": {"leaderEpoch": raised}})
    else:
        bed.api.merge_patch(
            f"{POLICIES}/{policy}", {"status": {"rollout": {"leaderEpoch": raised}}}, subresource="status"
        )
    edit(bed.api, policy, enabled=False)

    assert leader.process.wait(STOP_SECONDS_MAX) == NOT_LEADING
    assert any("another operator leads now" in line for line in leader.lines("ERROR"))

    start(*SHORT).wait_line("ready:")
    demotion(bed.api, node, enabled=False)
    bed.api.watch_until(
        f"{POLICIES}/{policy}", lambda obj: obj.get("status", {}).get("rollout", {}).get("leaderEpoch") == raised + 1
    )
    assert epoch(bed.api) == raised + 1
    bed.api.delete(f"{POLICIES}/{policy}")


def test_a_whole_status_that_is_taken_away_does_not_take_the_epoch_with_it(
    bed: ControlPlane, unique_name: UniqueName
) -> None:
    name = unique_name("policy")
    make_policy(bed.api, name, "none")
    path = f"{POLICIES}/{name}"
    bed.api.merge_patch(path, {"status": {"rollout": {"leaderEpoch": 5}}}, subresource="status")

    with pytest.raises(ApiError, match="another operator leads now"):
        bed.api.merge_patch(path, {"status": None}, subresource="status")

    assert bed.api.get(path)["status"]["rollout"] == {"leaderEpoch": 5}
    bed.api.delete(path)


# --- bad input ----------------------------------------------------------------------------------------------------


def test_a_lease_that_is_deleted_by_hand_comes_back_and_its_epoch_does_not_fall(
    bed: ControlPlane, start: Start
) -> None:
    leader, second = start_pair(start)
    before, holder = epoch(bed.api), bed.api.get(LEASE)["spec"]["holderIdentity"]

    bed.api.delete(LEASE)

    again = bed.api.watch_until(LEASE, bool)
    assert again["spec"]["holderIdentity"] == holder
    assert epoch(bed.api) == before
    assert leader.stop() == 0
    second.wait_line("ready:")
    assert epoch(bed.api) > before


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"leaseDurationSeconds": LEASE_SECONDS}, id="no times"),
        pytest.param({"renewTime": "2099-01-01T00:00:00.000000Z"}, id="no duration, renewed in the future"),
    ],
)
def test_a_lease_of_somebody_unknown_is_said_and_waited_out(
    bed: ControlPlane, start: Start, spec: dict[str, Any]
) -> None:
    lease = {
        "metadata": {"name": "numamigration-operator", "annotations": {EPOCH: "garbage"}},
        "spec": {"holderIdentity": "somebody", **spec},
    }
    bed.api.create(LEASES, lease)
    operator = start(*SHORT)

    operator.wait_line("standing by: another operator holds the lease")
    operator.wait_line("not as an operator of this release writes it")
    operator.wait_line("ready:")

    assert bed.api.get(LEASE)["spec"]["leaseTransitions"] == 1
    assert epoch(bed.api) >= 1


def test_without_the_right_to_the_lease_it_says_so_and_stands_by(
    bed: ControlPlane, start: Start, unique_name: UniqueName
) -> None:
    name = unique_name("nobody")
    bed.api.create(
        f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"metadata": {"name": name, "namespace": NAMESPACE}}
    )
    operator = start(*SHORT, kubeconfig=bed.kubeconfig_for(account(bed, name), name=name))

    operator.wait_line("deploy/rbac.yaml")

    assert len(operator.lines("WARNING")) == 1
    assert operator.stop() == 0


# --- health -------------------------------------------------------------------------------------------------------


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def asked(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode().strip()


def test_health_is_told_over_http_by_leader_and_standby(start: Start) -> None:
    address, other = free_address(), free_address()
    leader = start("--health-address", address)
    leader.wait_line("ready:")
    second = start("--health-address", other)
    second.wait_line("standing by")

    assert asked(address, "/healthz") == (200, "leading")
    assert asked(address, "/readyz") == (200, "leading")
    assert asked(other, "/healthz") == (200, "standing by")
    assert asked(other, "/readyz") == (200, "standing by")
    assert asked(other, "/")[0] == 404


def test_a_scrape_during_an_edit_tells_of_it_and_a_standby_tells_of_itself_alone(
    bed: ControlPlane, start: Start, unique_name: UniqueName
) -> None:
    node, name = unique_name("node"), unique_name("policy")
    address, other = free_address(), free_address()
    start("--health-address", address).wait_line("ready:")
    start("--health-address", other).wait_line("standing by")
    join(bed.api, node)
    make_policy(bed.api, name, node, onDelete="Keep")
    bed.api.watch_until(f"{STATES}/{node}", lambda obj: "demotion" in groups(obj))
    stored = ("write_results_total", ("kind", "StateSpec"), ("verdict", "Done"))
    poll(lambda: scraped(address)[stored] >= 1, "the first push being counted")
    before = scraped(address)

    bed.api.merge_patch(f"{POLICIES}/{name}", {"spec": {"settings": {"demotion": {"enabled": False}}}})

    poll(lambda: scraped(address)[stored] > before[stored], "the push of the edit being counted")
    now, standby = scraped(address), scraped(other)
    shown = {key[1][1]: count for key, count in now.items() if key[0] == "policy_nodes" and key[2][1] == name}
    assert shown["pending"] == sum(shown.values()) == 1
    assert now["decision_duration_seconds_count",] > before["decision_duration_seconds_count",]
    assert now["lease_renewals_total",] >= 1
    assert now["reader_lists_total", ("reader", "nodes")] >= 1
    call = ("api_requests_total", ("code", "200"))
    assert now[*call, ("resource", "nodemigrationstates"), ("verb", "patch")] >= 1
    assert now[*call, ("resource", "migrationpolicies"), ("verb", "watch")] >= 1
    assert (now["leader",], standby["leader",]) == (1, 0)
    assert ("nodes",) not in standby
    bed.api.delete(f"{POLICIES}/{name}")


def scraped(address: str) -> dict[tuple[Any, ...], float]:
    """Return the operator's own samples: name without prefix and sorted labels, to value."""
    code, text = asked(address, "/metrics")
    assert code == 200
    return {
        (sample.name.removeprefix(PREFIX), *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text + "\n")
        for sample in family.samples
        if sample.name.startswith(PREFIX)
    }


def test_an_address_that_is_taken_is_one_line_and_exit_code_2(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        operator = start("--health-address", f"127.0.0.1:{listener.getsockname()[1]}")
        assert operator.process.wait(STOP_SECONDS_MAX) == 2

    (line,) = [one for one in operator.log.read_text().splitlines() if "health_address" in one]
    assert "cannot listen" in line
