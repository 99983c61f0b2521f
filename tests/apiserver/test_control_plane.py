# SPDX-License-Identifier: Apache-2.0
"""The test bed's control plane is a real one, survives what tests do to it, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.observer import Observer
from tests.apiserver.operator_process import POLICIES, await_served, install_crds, make_policy
from tests.testbed import golang
from tests.testbed.api import CRDS, WAIT_SECONDS_MAX, Api, ApiError, Json
from tests.testbed.binaries import KUBE_APISERVER, Binaries, cache_folder, pinned_version, version_of
from tests.testbed.controlplane import ADDRESS_IN_USE, ControlPlane
from tests.testbed.errors import WaitTimeoutError
from tests.testbed.recorder import Recorder

pytestmark = pytest.mark.uncounted

ROOT = Path(__file__).parents[2]
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"

UniqueName = Callable[[str], str]


@pytest.fixture(scope="module")
def own_control_plane(binaries: Binaries) -> Iterator[ControlPlane]:
    """One whose servers may be stopped."""
    with ControlPlane(binaries) as running:
        yield running


def config_map(name: str, **data: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def whoami(api: Api) -> Json:
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    user: Json = api.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)["status"]["userInfo"]
    return user


def widget_crd(name: str) -> Json:
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer", "maximum": 3}}}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{name}s.test.invalid"},
        "spec": {
            "group": "test.invalid",
            "scope": "Cluster",
            "names": {"plural": f"{name}s", "singular": name, "kind": name.title().replace("-", "")},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


# --- it is a real one --------------------------------------------------------------------------------------------


def test_every_readiness_check_passes(api: Api) -> None:
    assert "readyz check passed" in api.text("/readyz?verbose")


def test_server_tells_the_version_that_was_built(api: Api, binaries: Binaries) -> None:
    told = golang.parse_version(api.get("/version")["gitVersion"])

    assert told == version_of(binaries.kube_apiserver)
    assert told
    assert told >= KUBE_APISERVER.oldest


def test_our_own_build_is_the_pinned_kubernetes(api: Api, binaries: Binaries) -> None:
    """Without the linker's stamp a build says v0.0.0-master, and clients judge its age by that."""
    told = api.get("/version")["gitVersion"]
    ours = cache_folder(os.environ) in binaries.kube_apiserver.parents

    assert told == (pinned_version(KUBE_APISERVER) if ours else told)


def test_token_bound_to_a_pod_carries_the_name_of_its_node(
    control_plane: ControlPlane, unique_name: UniqueName
) -> None:
    """Promise 9 stands on this claim."""
    node = unique_name("node")
    token = control_plane.node_bound_token("default", unique_name("agent"), node)

    extra = whoami(control_plane.api_as(token))["extra"]

    assert extra["authentication.kubernetes.io/node-name"] == [node]


def test_token_not_bound_to_a_pod_carries_no_node(control_plane: ControlPlane, unique_name: UniqueName) -> None:
    name = unique_name("agent")
    control_plane.node_bound_token("default", name, unique_name("node"))
    token = control_plane.service_account_token("default", name)

    user = whoami(control_plane.api_as(token))

    assert user["username"] == f"system:serviceaccount:default:{name}"
    assert "authentication.kubernetes.io/node-name" not in user["extra"]


def test_token_for_another_audience_is_refused(control_plane: ControlPlane, unique_name: UniqueName) -> None:
    name = unique_name("agent")
    control_plane.node_bound_token("default", name, unique_name("node"))
    token = control_plane.service_account_token("default", name, audience="somebody-else")

    with pytest.raises(ApiError) as refusal:
        whoami(control_plane.api_as(token))

    assert refusal.value.status == 401


def test_service_account_without_a_role_may_write_nothing(control_plane: ControlPlane, unique_name: UniqueName) -> None:
    token = control_plane.node_bound_token("default", unique_name("agent"), unique_name("node"))

    with pytest.raises(ApiError) as refusal:
        control_plane.api_as(token).create(CONFIG_MAPS, config_map(unique_name("map")))

    assert (refusal.value.status, refusal.value.reason) == (403, "Forbidden")


def test_kubectl_works_with_the_kubeconfig(control_plane: ControlPlane, tmp_path: Path) -> None:
    answer = kubectl(control_plane, tmp_path, "get", "namespace", "default", "--output=name")

    assert answer == "namespace/default\n"


def test_kubeconfig_is_readable_by_its_owner_only(control_plane: ControlPlane) -> None:
    assert control_plane.kubeconfig.stat().st_mode & 0o777 == 0o600


def kubectl(control_plane: ControlPlane, cache: Path, *arguments: str) -> str:
    command: list[str | Path] = [
        control_plane.binaries.kubectl,
        f"--kubeconfig={control_plane.kubeconfig}",
        f"--cache-dir={cache}",
        *arguments,
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


# --- the client --------------------------------------------------------------------------------------------------


def test_installed_crd_can_be_used_by_kubectl_at_once(
    control_plane: ControlPlane, unique_name: UniqueName, tmp_path: Path
) -> None:
    name = unique_name("widget")
    control_plane.api.install_crd(widget_crd(name))

    assert kubectl(control_plane, tmp_path, "get", f"{name}s.test.invalid", "--output=name") == ""


def test_a_schema_that_was_changed_is_in_force_at_once(api: Api, unique_name: UniqueName) -> None:
    name = unique_name("widget")
    collection, kind = f"/apis/test.invalid/v1/{name}s", name.title().replace("-", "")
    for number in range(3):
        crd = widget_crd(name)
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        schema["properties"]["spec"]["properties"][f"field{number}"] = {"type": "integer"}
        api.install_crd(crd)
        widget = {"apiVersion": "test.invalid/v1", "kind": kind, "metadata": {"name": f"w{number}"}}

        assert api.create(collection, {**widget, "spec": {f"field{number}": 1}})["spec"] == {f"field{number}": 1}


def test_refusal_carries_status_reason_and_message(api: Api, unique_name: UniqueName) -> None:
    name = unique_name("widget")
    api.install_crd(widget_crd(name))
    widget = {"apiVersion": "test.invalid/v1", "kind": name.title().replace("-", ""), "metadata": {"name": "a"}}

    with pytest.raises(ApiError, match=r"spec\.size") as refusal:
        api.create(f"/apis/test.invalid/v1/{name}s", {**widget, "spec": {"size": 4}})

    assert (refusal.value.status, refusal.value.reason) == (422, "Invalid")


def test_unknown_field_is_refused(api: Api, unique_name: UniqueName) -> None:
    with pytest.raises(ApiError, match="unknown field") as refusal:
        api.create(CONFIG_MAPS, {**config_map(unique_name("map")), "typo": 1})

    assert refusal.value.status == 400


def test_apply_over_another_managers_field_conflicts_until_forced(api: Api, unique_name: UniqueName) -> None:
    name = unique_name("map")
    path = f"{CONFIG_MAPS}/{name}"
    api.apply(path, config_map(name, key="ours"), "first")
    with pytest.raises(ApiError) as refusal:
        api.apply(path, config_map(name, key="theirs"), "second")
    forced = api.apply(path, config_map(name, key="theirs"), "second", force=True)

    assert (refusal.value.status, forced["data"]) == (409, {"key": "theirs"})


def test_apply_to_a_subresource_leaves_the_rest_alone(api: Api, unique_name: UniqueName) -> None:
    name = unique_name("node")
    node: Json = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    api.create("/api/v1/nodes", node)
    status = {"status": {"capacity": {"cpu": "7"}}, "spec": {"unschedulable": True}}

    applied = api.apply(f"/api/v1/nodes/{name}", {**node, **status}, "kubelet", subresource="status")

    assert applied["status"]["capacity"] == {"cpu": "7"}
    assert "unschedulable" not in applied["spec"]


def test_watch_sees_a_change_that_comes_later(api: Api, unique_name: UniqueName) -> None:
    name = unique_name("map")
    path = f"{CONFIG_MAPS}/{name}"
    looked = threading.Event()

    def is_on(obj: Json) -> bool:
        looked.set()
        return obj.get("data") == {"switch": "on"}

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(api.watch_until, path, is_on)
        assert looked.wait(30)
        api.create(CONFIG_MAPS, config_map(name, switch="off"))
        api.merge_patch(path, {"data": {"switch": "on"}})

        assert watching.result(30)["data"] == {"switch": "on"}


def test_deleted_object_is_awaited_gone(api: Api, unique_name: UniqueName) -> None:
    name = unique_name("map")
    path = f"{CONFIG_MAPS}/{name}"
    api.create(CONFIG_MAPS, {**config_map(name), "metadata": {"name": name, "finalizers": ["test.invalid/hold"]}})
    api.delete(path)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(api.wait_gone, path)
        api.merge_patch(path, {"metadata": {"finalizers": None}})
        waiting.result(30)

    assert api.get_if_exists(path) == {}


def test_wait_that_runs_out_shows_what_was_there(api: Api, unique_name: UniqueName) -> None:
    name = unique_name("map")
    api.create(CONFIG_MAPS, config_map(name, colour="green"))

    with pytest.raises(WaitTimeoutError, match="green"):
        api.watch_until(f"{CONFIG_MAPS}/{name}", lambda obj: obj["data"] == {}, timeout=0.5)


def test_every_crd_of_the_project_is_established(api: Api, crds: tuple[str, ...]) -> None:
    established = {
        crd["metadata"]["name"]
        for crd in api.list_items(CRDS)
        if any(entry["type"] == "Established" and entry["status"] == "True" for entry in crd["status"]["conditions"])
    }

    assert crds
    assert set(crds) <= established


# --- faults ------------------------------------------------------------------------------------------------------


def test_restarted_server_has_the_same_address_and_data(
    own_control_plane: ControlPlane, unique_name: UniqueName
) -> None:
    name = unique_name("map")
    api = own_control_plane.api
    created = api.create(CONFIG_MAPS, config_map(name, key="value"))
    _, before = own_control_plane.servers
    own_control_plane.restart_apiserver()
    _, after = own_control_plane.servers

    assert api.get(f"{CONFIG_MAPS}/{name}")["metadata"]["uid"] == created["metadata"]["uid"]
    assert after.pid != before.pid


def test_token_outlives_a_restart(own_control_plane: ControlPlane, unique_name: UniqueName) -> None:
    node = unique_name("node")
    token = own_control_plane.node_bound_token("default", unique_name("agent"), node)
    own_control_plane.restart_apiserver()

    user = whoami(own_control_plane.api_as(token))

    assert user["extra"]["authentication.kubernetes.io/node-name"] == [node]


def test_watch_outlives_a_restart(own_control_plane: ControlPlane, unique_name: UniqueName) -> None:
    name = unique_name("map")
    api = own_control_plane.api
    looked = threading.Event()

    def exists(obj: Json) -> bool:
        looked.set()
        return bool(obj)

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(api.watch_until, f"{CONFIG_MAPS}/{name}", exists)
        assert looked.wait(30)
        own_control_plane.restart_apiserver()
        api.create(CONFIG_MAPS, config_map(name))

        assert watching.result(30)["metadata"]["name"] == name


def test_every_version_is_recorded_in_order_though_both_servers_are_killed(
    own_control_plane: ControlPlane, unique_name: UniqueName
) -> None:
    api, name = own_control_plane.api, unique_name("policy")
    install_crds(api)
    path = f"{POLICIES}/{name}"
    with Recorder(own_control_plane.etcd, "numamigration.dev") as recorder:
        make_policy(api, name, "none", priority=1)
        own_control_plane.kill_etcd()
        own_control_plane.start_etcd()
        await_served(api)
        api.merge_patch(path, {"spec": {"priority": 2}})
        own_control_plane.kill_apiserver()
        own_control_plane.start_apiserver()
        await_served(api)
        api.merge_patch(path, {"spec": {"priority": 3}})
        api.delete(path)
        last = make_policy(api, name, "none", priority=4)
        recorder.await_revision(int(last["metadata"]["resourceVersion"]), WAIT_SECONDS_MAX)

        versions = recorder.take()

    assert [(one.name, one.obj.get("spec", {}).get("priority")) for one in versions] == [
        (name, 1),
        (name, 2),
        (name, 3),
        (name, None),
        (name, 4),
    ]
    assert versions[-1].revision == int(last["metadata"]["resourceVersion"])


def test_stopped_server_answers_nobody(own_control_plane: ControlPlane) -> None:
    own_control_plane.stop_apiserver()
    try:
        with pytest.raises(ConnectionRefusedError):
            own_control_plane.api.get("/version")
    finally:
        own_control_plane.start_apiserver()


class CutOnce(Observer):
    """Loses its connection in the middle of the event of an object."""

    def __init__(self, plane: ControlPlane, name: str) -> None:
        super().__init__(plane, CONFIG_MAPS, again=True)
        self._cut_at: str | None = name

    def _take(self, at: float, line: bytes) -> int:
        if json.loads(line)["object"]["metadata"]["name"] == self._cut_at:
            self._cut_at = None
            raise ConnectionResetError
        return super()._take(at, line)


def test_an_observer_that_was_cut_goes_on_where_it_was(control_plane: ControlPlane, unique_name: UniqueName) -> None:
    """What it was told of already would count as work of the API server, and come late."""
    names, seen = [unique_name("map") for _ in range(2)], list[str]()

    def noted(obj: Json) -> bool:
        seen.append(obj["metadata"]["name"])
        return bool(seen[-1] == names[1])

    with CutOnce(control_plane, names[1]) as observer:
        for name in names:
            control_plane.api.create(CONFIG_MAPS, config_map(name))
        observer.wait("the second map", noted)

    assert [name for name in seen if name in names] == names


class Late(Observer):
    """Begins where the API server begins no more."""

    def __init__(self, plane: ControlPlane, collection: str) -> None:
        super().__init__(plane, collection, again=True)
        self._version = 1


def test_an_observer_that_comes_too_late_sees_what_is_there(
    control_plane: ControlPlane, unique_name: UniqueName
) -> None:
    name = unique_name("widget")
    api, collection = control_plane.api, f"/apis/test.invalid/v1/{name}s"
    api.install_crd(widget_crd(name))
    kind = name.title().replace("-", "")
    api.create(collection, {"apiVersion": "test.invalid/v1", "kind": kind, "metadata": {"name": "a"}})

    with Late(control_plane, collection) as observer:
        assert observer.wait("the widget", lambda obj: obj["metadata"]["name"] == "a")


# --- nothing is left ---------------------------------------------------------------------------------------------


def test_closed_control_plane_leaves_no_process_and_no_folder(binaries: Binaries, tmp_path: Path) -> None:
    """Its first port is taken, as another run may take it: the second try succeeds, and both are cleaned away."""
    first_time = f'if mkdir {tmp_path}/tried 2>/dev/null; then echo "bind: {ADDRESS_IN_USE}"; exit 1; fi'
    unlucky = tmp_path / "etcd"
    unlucky.write_text(f'#!/bin/sh\n{first_time}\nexec {binaries.etcd} "$@"\n')
    unlucky.chmod(0o755)
    with ControlPlane(binaries._replace(etcd=unlucky)) as running:
        folder = running.folder
        pids = [server.pid for server in running.servers]

    assert (tmp_path / "tried").exists()
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert not folder.exists()


def test_failure_inside_leaves_no_process_and_keeps_a_given_folder(binaries: Binaries, tmp_path: Path) -> None:
    pids: list[int] = []

    def fail_inside() -> None:
        with ControlPlane(binaries, tmp_path / "bed") as running:
            pids.extend(server.pid for server in running.servers)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()

    assert len(pids) == 2
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert (tmp_path / "bed" / "kube-apiserver.log").exists()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 0, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 0, id="terminated"),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, id="killed without a word"),
    ],
)
@pytest.mark.usefixtures("binaries")  # built before, so that the command does not
def test_ended_command_leaves_no_process(number: signal.Signals, code: int, tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, "-m", "tests.testbed", "up", "--folder", tmp_path / "bed"]
    with ExitStack() as closing:
        up = closing.enter_context(
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        )
        closing.callback(up.kill)
        assert up.stdout
        assert f"--kubeconfig {tmp_path}/bed/admin.kubeconfig" in up.stdout.readline()
        servers = [os.pidfd_open(pid) for pid in children_of(up.pid)]
        for server in servers:
            closing.callback(os.close, server)
        up.send_signal(number)

        assert len(servers) == 2
        assert up.wait(60) == code
        # A pidfd is readable once its process has ended.
        for server in servers:
            assert select.select([server], [], [], 60)[0] == [server]


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        pytest.param(["--help"], 0, "build", id="help"),
        pytest.param([], 2, "command", id="no command"),
        pytest.param(["fly"], 2, "invalid choice", id="unknown command"),
        pytest.param(["up", "--folder", str(ROOT)], 1, "is not empty", id="folder in use"),
    ],
)
@pytest.mark.usefixtures("binaries")  # built before, so that the command does not
def test_command_line_explains_itself(arguments: list[str], code: int, text: str) -> None:
    command = [sys.executable, "-m", "tests.testbed", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert ran.returncode == code
    assert text in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr


def test_missing_need_ends_the_command_with_2_and_the_remedy(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.testbed", "build"]
    environ = {**os.environ, "KUBEBUILDER_ASSETS": str(tmp_path)}
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env=environ)

    assert ran.returncode == 2
    assert "unset it to use our own build" in ran.stderr
