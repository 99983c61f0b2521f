# SPDX-License-Identifier: Apache-2.0
"""The node fence on a real kube-apiserver, with tokens as Pods have them (promise 9).

An agent's rights already refuse most of what the fence refuses. So each such case is tried twice: with the rights of
deploy/rbac.yaml, and by the same account with all rights there are, where only the fence is left.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from numamigration_api.fence import (
    AGENT_ACCOUNT,
    BINDING_KIND,
    FENCE_NAME,
    POLICY_KIND,
    VALIDATIONS,
    admission_binding,
    admission_policy,
    fence_problem,
)
from numamigration_api.vocabulary import AGENT_MANAGER
from numamigration_operator.cluster.fence import PATHS
from tests.apiserver.operator_process import (
    ACCOUNT,
    API_VERSION,
    NAMESPACE,
    POLICIES,
    RBAC,
    ROOT,
    STATES,
    OperatorProcess,
    account,
    await_served,
    documents,
    groups,
    join,
    make_policy,
    object_path,
)
from tests.apiserver.shared_bed import EVERY_VERSION
from tests.testbed.api import CRDS, Api, ApiError, Json, condition, poll
from tests.testbed.controlplane import ControlPlane

UniqueName = Callable[[str], str]

pytestmark = [*EVERY_VERSION, pytest.mark.uncounted]

PODS: Final = f"/api/v1/namespaces/{NAMESPACE}/pods"
REVIEWS: Final = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
ACCESS_REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Node(NamedTuple):
    """A node state, and its agent as the API server sees it."""

    name: str
    agent: Api

    @property
    def path(self) -> str:
        return f"{STATES}/{self.name}"


@pytest.fixture(scope="module", autouse=True)
def fenced(bed: ControlPlane) -> None:
    """The fence is in force a moment after its objects are there."""
    probe = make_node_state(bed, "probe")

    def refuses() -> bool:
        try:
            write_status(bed.api_as(unbound_token(bed)), probe.path)
        except ApiError as error:
            return error.status == 403
        return False

    poll(refuses, "the fence refusing a token without a node")


@pytest.fixture(scope="module", autouse=True)
def stolen(bed: ControlPlane, fenced: None) -> Node:  # noqa: ARG001
    """An agent that has written its status, and whose Pod was deleted when this module began."""
    node = make_node_state(bed, "stolen")
    write_status(node.agent, node.path)
    bed.api.delete(f"{PODS}/{AGENT_ACCOUNT}-{node.name}", query={"gracePeriodSeconds": "0"})
    return node


@pytest.fixture
def own(bed: ControlPlane, unique_name: UniqueName) -> Node:
    return make_node_state(bed, unique_name("own"))


@pytest.fixture
def other(bed: ControlPlane, unique_name: UniqueName) -> Node:
    return make_node_state(bed, unique_name("other"))


@pytest.fixture
def all_rights(bed: ControlPlane) -> Iterator[None]:
    """The agents' account may do everything meanwhile."""
    with granted(bed, "all-rights", "cluster-admin", AGENT_ACCOUNT):
        yield


@contextmanager
def granted(bed: ControlPlane, name: str, role: str, service_account: str) -> Iterator[None]:
    """Give a service account a ClusterRole; RBAC learns of both, grant and end, without an event."""
    path = f"{RBAC}/clusterrolebindings/{name}"
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": service_account, "namespace": NAMESPACE}],
    }
    who = bed.api_as(bed.service_account_token(NAMESPACE, service_account))
    bed.api.apply(path, binding, "test")
    try:
        poll(lambda: may_do_all(who), "the rights")
        yield
    finally:
        bed.api.delete(path)
        poll(lambda: not may_do_all(who), "the end of the rights")


def may_do_all(who: Api) -> bool:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"group": "*", "resource": "*", "verb": "*"}},
    }
    return bool(who.create(ACCESS_REVIEWS, review)["status"]["allowed"])


def make_node_state(bed: ControlPlane, name: str) -> Node:
    document = {"apiVersion": API_VERSION, "kind": "NodeMigrationState", "metadata": {"name": name}, "spec": {}}
    bed.api.apply(f"{STATES}/{name}", document, "numamigration-operator")
    return Node(name, bed.api_as(bed.node_bound_token(NAMESPACE, AGENT_ACCOUNT, name)))


def unbound_token(bed: ControlPlane) -> str:
    return bed.service_account_token(NAMESPACE, AGENT_ACCOUNT)


def state_document(path: str, **fields: Any) -> Json:
    metadata = {"name": path.rpartition("/")[2], **fields.pop("metadata", {})}
    return {"apiVersion": API_VERSION, "kind": "NodeMigrationState", "metadata": metadata, **fields}


def write_status(who: Api, path: str, **fields: Any) -> Json:
    """Apply a status as an agent does; `fields` are what goes with it."""
    document = state_document(path, status={"hardwareClass": "0123456789abcdef"}, **fields)
    return who.apply(path, document, AGENT_MANAGER, force=True, subresource="status")


def refusal(work: Callable[[], Any]) -> str:
    """Return the words of a 403."""
    with pytest.raises(ApiError) as error:
        work()
    assert error.value.status == 403, error.value
    return error.value.message


# The fence as the API server has it


def test_the_fence_stands_as_the_operator_reads_it(bed: ControlPlane) -> None:
    policy, binding = (bed.api.get(f"{PATHS[kind]}/{FENCE_NAME}") for kind in (POLICY_KIND, BINDING_KIND))

    assert fence_problem(policy, binding, NAMESPACE) == ""


def test_the_api_server_finds_no_fault_with_the_expressions(bed: ControlPlane) -> None:
    checked = bed.api.watch_until(f"{PATHS[POLICY_KIND]}/{FENCE_NAME}", lambda policy: not policy or "spec" in policy)

    assert "expressionWarnings" not in checked.get("status", {}).get("typeChecking", {})


# The token


def test_the_token_of_an_agent_works_and_names_its_node(own: Node) -> None:
    """What is refused below is refused to an account that the API server knows."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}

    user = own.agent.create(REVIEWS, review)["status"]["userInfo"]

    assert user["username"] == f"system:serviceaccount:{NAMESPACE}:{AGENT_ACCOUNT}"
    assert user["extra"]["authentication.kubernetes.io/node-name"] == [own.name]
    assert own.agent.get(own.path)["metadata"]["name"] == own.name


def test_an_agent_writes_the_status_of_its_own_node(own: Node) -> None:
    """Promise 9."""
    write_status(own.agent, own.path)

    assert own.agent.get(own.path)["status"]["hardwareClass"] == "0123456789abcdef"


def test_an_agent_may_not_write_the_status_of_another_node(own: Node, other: Node) -> None:
    """Promise 9."""
    said = refusal(lambda: write_status(own.agent, other.path))

    assert f"the agent of node {own.name} may not write the status of {other.name}" in said
    assert "status" not in own.agent.get(other.path)


def test_an_agent_reads_the_node_states_of_all_nodes(own: Node, other: Node) -> None:
    """Admission sees no reads, and RBAC knows no fields: said in docs/security.md."""
    assert {own.name, other.name} <= {item["metadata"]["name"] for item in own.agent.list_items(STATES)}


def test_a_token_that_is_bound_to_no_pod_writes_nothing(bed: ControlPlane, own: Node) -> None:
    """Promise 9: nor do the tokens of old that Secrets hold; they are bound to nothing either."""
    said = refusal(lambda: write_status(bed.api_as(unbound_token(bed)), own.path))

    assert "the agent's token does not name exactly one node" in said


def test_a_token_of_a_pod_without_a_node_writes_nothing(bed: ControlPlane, own: Node, unique_name: UniqueName) -> None:
    """Promise 9."""
    pod = make_pod(bed.api, unique_name("unscheduled"))
    token = bed.service_account_token(NAMESPACE, AGENT_ACCOUNT, pod=pod)

    said = refusal(lambda: write_status(bed.api_as(token), own.path))

    assert "the agent's token does not name exactly one node" in said


@pytest.mark.usefixtures("all_rights")
def test_a_token_that_names_two_nodes_writes_nothing(bed: ControlPlane, own: Node, other: Node) -> None:
    """Promise 9: no token does; whoever may impersonate could ask for it."""
    claims = [f"--as-user-extra=authentication.kubernetes.io/node-name={node.name}" for node in (own, other)]
    agent = [f"--as=system:serviceaccount:{NAMESPACE}:{AGENT_ACCOUNT}", "--as-group=system:authenticated"]
    patch = ["patch", "nms", own.name, "--subresource=status", "--type=merge", '--patch={"status":{}}']
    kubectl = [str(bed.binaries.kubectl), "--kubeconfig", str(bed.kubeconfig), *agent]

    one = subprocess.run([*kubectl, claims[0], *patch], capture_output=True, text=True, check=False)
    two = subprocess.run([*kubectl, *claims, *patch], capture_output=True, text=True, check=False)

    assert one.returncode == 0, one.stderr
    assert "the agent's token does not name exactly one node" in two.stderr


# What else an agent might try: first with its own rights, then with all rights


class Scene(NamedTuple):
    """Whose agent tries, whose node state is beside it, and a name that nobody has."""

    own: Node
    other: Node
    new: str


@pytest.fixture
def scene(own: Node, other: Node, unique_name: UniqueName) -> Scene:
    return Scene(own, other, unique_name("new"))


def creates(it: Scene) -> Json:
    return it.own.agent.create(STATES, state_document(it.new, spec={}))


def deletes_own(it: Scene) -> Json:
    return it.own.agent.delete(it.own.path)


def deletes_other(it: Scene) -> Json:
    return it.own.agent.delete(it.other.path)


def deletes_all(it: Scene) -> Json:
    return it.own.agent.delete(STATES)


def applies_a_spec(it: Scene) -> Json:
    return it.own.agent.apply(
        it.own.path, state_document(it.own.name, spec={"verifyEpoch": 7}), AGENT_MANAGER, force=True
    )


def labels_its_own(it: Scene) -> Json:
    return it.own.agent.merge_patch(it.own.path, {"metadata": {"labels": {"a": "b"}}})


def adds_a_finalizer(it: Scene) -> Json:
    return it.own.agent.merge_patch(it.own.path, {"metadata": {"finalizers": ["numamigration.dev/kept"]}})


def creates_a_policy(it: Scene) -> Json:
    return make_policy(it.own.agent, it.new, it.own.name)


def updates_a_policy(it: Scene) -> Json:
    return it.own.agent.merge_patch(f"{POLICIES}/standing", {"spec": {"priority": 1000}})


def writes_the_status_of_a_policy(it: Scene) -> Json:
    return it.own.agent.merge_patch(f"{POLICIES}/standing", {"status": {"summary": "fine"}}, subresource="status")


def deletes_a_policy(it: Scene) -> Json:
    return it.own.agent.delete(f"{POLICIES}/standing")


Attempt = Callable[[Scene], Json]
ATTEMPTS: Final = [
    pytest.param(creates, "create", "CREATE of nodemigrationstates", id="create"),
    pytest.param(deletes_own, "delete", "DELETE of nodemigrationstates", id="delete its own"),
    pytest.param(deletes_other, "delete", "DELETE of nodemigrationstates", id="delete another"),
    pytest.param(deletes_all, "deletecollection", "DELETE of nodemigrationstates", id="delete all"),
    pytest.param(applies_a_spec, "patch", "UPDATE of nodemigrationstates", id="spec"),
    pytest.param(labels_its_own, "patch", "UPDATE of nodemigrationstates", id="label"),
    pytest.param(adds_a_finalizer, "patch", "UPDATE of nodemigrationstates", id="finalizer"),
    pytest.param(creates_a_policy, "create", "CREATE of migrationpolicies", id="create a policy"),
    pytest.param(updates_a_policy, "patch", "UPDATE of migrationpolicies", id="edit a policy"),
    pytest.param(writes_the_status_of_a_policy, "patch", "UPDATE of migrationpolicies/status", id="status of a policy"),
    pytest.param(deletes_a_policy, "delete", "DELETE of migrationpolicies", id="delete a policy"),
]


@pytest.fixture(scope="module")
def standing(bed: ControlPlane) -> str:
    """A policy that nobody deletes."""
    name: str = make_policy(bed.api, "standing", "none", onDelete="Keep")["metadata"]["name"]
    return name


@pytest.mark.usefixtures("standing")
@pytest.mark.parametrize(("attempt", "verb", "_fence"), ATTEMPTS)
def test_an_agents_rights_allow_nothing_else(scene: Scene, attempt: Attempt, verb: str, _fence: str) -> None:
    """Promise 9."""
    said = refusal(lambda: attempt(scene))

    assert f"cannot {verb} resource" in said


@pytest.mark.usefixtures("standing", "all_rights")
@pytest.mark.parametrize(("attempt", "_verb", "fence"), ATTEMPTS)
def test_with_all_rights_the_fence_alone_refuses(scene: Scene, attempt: Attempt, _verb: str, fence: str) -> None:
    """Promise 9: a role that somebody widened does not widen what an agent can do to other nodes."""
    said = refusal(lambda: attempt(scene))

    assert f"{FENCE_NAME}' with binding '{FENCE_NAME}' denied request" in said
    assert f"an agent may update the status of its node state and nothing else; this is {fence}" in said


@pytest.mark.usefixtures("all_rights")
def test_with_all_rights_the_status_of_another_node_stays_out_of_reach(own: Node, other: Node) -> None:
    """Promise 9."""
    said = refusal(lambda: write_status(own.agent, other.path))

    assert f"the agent of node {own.name} may not write the status of {other.name}" in said


@pytest.mark.parametrize(
    "smuggled",
    [
        pytest.param({"spec": {"verifyEpoch": 7}}, id="spec"),
        pytest.param({"metadata": {"labels": {"a": "b"}}}, id="labels"),
        pytest.param({"metadata": {"annotations": {"a": "b"}}}, id="annotations"),
        pytest.param({"metadata": {"finalizers": ["numamigration.dev/kept"]}}, id="finalizers"),
    ],
)
@pytest.mark.parametrize("way", ["apply", "merge patch"])
def test_what_goes_with_a_status_is_dropped(own: Node, smuggled: Json, way: str) -> None:
    """Promise 9."""
    before = own.agent.get(own.path)

    if way == "apply":
        write_status(own.agent, own.path, **smuggled)
    else:
        own.agent.merge_patch(own.path, {**smuggled, "status": {"hardwareClass": "f" * 16}}, subresource="status")

    after = own.agent.get(own.path)
    assert after["status"]["hardwareClass"]
    assert kept(after) == kept(before)


def kept(state: Json) -> Json:
    metadata = {
        key: value for key, value in state["metadata"].items() if key not in {"managedFields", "resourceVersion"}
    }
    return {"metadata": metadata, "spec": state["spec"]}


@pytest.fixture
def last_rules_only(bed: ControlPlane, unique_name: UniqueName) -> Iterator[Api]:
    """An account with all rights, behind a fence of its own that has the last rules only."""
    name = unique_name("bystander")
    bed.node_bound_token(NAMESPACE, name, name)
    policy, binding = admission_policy(NAMESPACE), admission_binding()
    for document in (policy, binding):
        document["metadata"]["name"] = name
    policy["spec"]["matchConditions"][0]["expression"] = (
        f'request.userInfo.username == "system:serviceaccount:{NAMESPACE}:{name}"'
    )
    policy["spec"]["validations"] = policy["spec"]["validations"][-2:]
    binding["spec"]["policyName"] = name
    for document in (policy, binding):
        bed.api.apply(object_path(document), document, "test")
    with granted(bed, name, "cluster-admin", name):
        who, tries = bed.api_as(bed.service_account_token(NAMESPACE, name)), count()
        probe = make_node_state(bed, name).path
        poll(
            lambda: _refused(lambda: who.merge_patch(probe, {"metadata": {"labels": {"try": str(next(tries))}}})),
            "the rules being in force",
        )
        yield who
    for document in (binding, policy):
        bed.api.delete(object_path(document))


OWNER: Final = {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "00000000-0000-0000-0000-000000000000"}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        pytest.param({"metadata": {"labels": {"a": "b"}}}, VALIDATIONS[-2], id="labels"),
        pytest.param({"metadata": {"annotations": {"a": "b"}}}, VALIDATIONS[-2], id="annotations"),
        pytest.param({"metadata": {"finalizers": ["numamigration.dev/kept"]}}, VALIDATIONS[-2], id="finalizers"),
        pytest.param({"metadata": {"ownerReferences": [OWNER]}}, VALIDATIONS[-2], id="owners"),
        pytest.param({"spec": {"verifyEpoch": 7}}, VALIDATIONS[-1], id="spec"),
    ],
)
def test_the_rules_on_metadata_and_spec_hold_by_themselves(
    last_rules_only: Api, own: Node, change: Json, rule: Json
) -> None:
    """Promise 9: the status endpoint drops both, so nothing but this shows that the fence would too."""
    assert rule["message"] in refusal(lambda: last_rules_only.merge_patch(own.path, change))


def _refused(work: Callable[[], Any]) -> str:
    try:
        work()
    except ApiError as error:
        return error.message
    return ""


def test_a_served_version_of_later_is_fenced_too(bed: ControlPlane, own: Node, other: Node) -> None:
    """Promise 9: a fence that names versions does nothing for the next one."""
    path = f"{CRDS}/nodemigrationstates.numamigration.dev"
    shipped = documents(ROOT / "crds" / "nodemigrationstates.yaml")[0]
    (version,) = shipped["spec"]["versions"]
    later = {**version, "name": "v1beta1", "storage": False}
    bed.api.install_crd({**shipped, "spec": {**shipped["spec"], "versions": [version, later]}})
    document = {
        **state_document(other.path, status={"hardwareClass": "f" * 16}),
        "apiVersion": "numamigration.dev/v1beta1",
    }

    said = refusal(
        lambda: own.agent.apply(
            other.path.replace("v1alpha1", "v1beta1"), document, AGENT_MANAGER, force=True, subresource="status"
        )
    )
    bed.api.install_crd(shipped)
    await_served(bed.api)

    assert f"the agent of node {own.name} may not write the status of {other.name}" in said
    assert len(bed.api.get(path)["spec"]["versions"]) == 1


# Others


def test_the_operator_writes_specs_beside_the_fence(bed: ControlPlane, own: Node) -> None:
    operator = bed.api_as(account(bed))

    operator.apply(own.path, state_document(own.name, spec={"verifyEpoch": 3}), "numamigration-operator", force=True)

    assert own.agent.get(own.path)["spec"]["verifyEpoch"] == 3


def test_the_operator_writes_no_status_of_a_node(bed: ControlPlane, own: Node) -> None:
    operator = bed.api_as(account(bed))

    assert "cannot patch resource" in refusal(lambda: write_status(operator, own.path))


def test_people_with_rights_are_not_fenced(bed: ControlPlane, own: Node) -> None:
    write_status(bed.api, own.path)

    bed.api.delete(own.path)

    assert not bed.api.get_if_exists(own.path)


# The namespace of the agents


def make_pod(who: Api, name: str, **spec: Any) -> str:
    containers = [{"name": "main", "image": "none.invalid/none"}]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"serviceAccountName": AGENT_ACCOUNT, "containers": containers, **spec},
    }
    who.create(PODS, pod)
    return name


def test_who_may_create_pods_in_the_agents_namespace_chooses_the_node(
    bed: ControlPlane, other: Node, unique_name: UniqueName
) -> None:
    """So nobody else may: the claim comes from a field that its creator fills in. The bed plays the kubelet."""
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "creates-pods"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]}],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "creates-pods", "namespace": NAMESPACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "creates-pods"},
        "subjects": [{"kind": "ServiceAccount", "name": "creator", "namespace": "default"}],
    }
    token = bed.node_bound_token("default", "creator", "somewhere")
    for document in (role, binding):
        bed.api.apply(object_path(document), document, "test")
    creator, name = bed.api_as(token), unique_name("chosen")
    poll(lambda: not _refused(lambda: make_pod(creator, name, nodeName=other.name)), "the right to create Pods")

    stolen = bed.api_as(bed.service_account_token(NAMESPACE, AGENT_ACCOUNT, pod=name))
    bed.api.delete(object_path(binding))

    assert write_status(stolen, other.path)["status"]["hardwareClass"]


def test_neither_operator_nor_agent_may_create_pods_or_tokens(bed: ControlPlane, own: Node) -> None:
    """Promise 9: otherwise one stolen token would make all others."""
    operator = bed.api_as(account(bed))
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    tokens = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{AGENT_ACCOUNT}/token"

    for said in (
        refusal(lambda: make_pod(operator, "p", nodeName=own.name)),
        refusal(lambda: make_pod(own.agent, "p", nodeName=own.name)),
        refusal(lambda: operator.create(tokens, request)),
        refusal(lambda: own.agent.create(tokens, request)),
    ):
        assert "cannot create resource" in said


def test_an_agents_account_of_another_namespace_may_write_nothing(bed: ControlPlane, own: Node) -> None:
    """Promise 9."""
    stranger = bed.api_as(bed.node_bound_token("default", AGENT_ACCOUNT, own.name))

    assert "cannot patch resource" in refusal(lambda: write_status(stranger, own.path))


# The operator


@pytest.fixture
def put_back(bed: ControlPlane) -> Iterator[Callable[[], object]]:
    """Take the binding away; it is put back by a call, or in the end."""
    _, binding = documents(ROOT / "deploy" / "fence.yaml")
    bed.api.delete(object_path(binding))

    def put() -> object:
        return bed.api.apply(object_path(binding), binding, "test-bed", force=True)

    yield put
    put()


def test_without_the_fence_the_operator_pushes_nothing_new_and_goes_on_once_it_is_back(
    bed: ControlPlane, put_back: Callable[[], object], tmp_path: Path, unique_name: UniqueName
) -> None:
    """Promise 9."""
    node, name = unique_name("node"), unique_name("policy")

    with OperatorProcess(bed.kubeconfig_for(account(bed), name=ACCOUNT), tmp_path / "log") as operator:
        operator.wait_line("agents are not fenced")
        join(bed.api, node)
        make_policy(bed.api, name, node)
        missing = bed.api.watch_until(f"{POLICIES}/{name}", lambda one: bool(condition(one, "Ready")))
        held = groups(bed.api.get(f"{STATES}/{node}"))
        put_back()
        pushed = bed.api.watch_until(f"{STATES}/{node}", lambda state: bool(groups(state)))

    ready = condition(missing, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "FenceMissing")
    assert f"ValidatingAdmissionPolicyBinding {FENCE_NAME} does not exist: apply deploy/fence.yaml" in ready["message"]
    assert held == {}
    assert groups(pushed)["demotion"]["settings"] == {"enabled": True}


@pytest.mark.usefixtures("put_back")
def test_who_requires_no_fence_is_not_held_up_by_a_missing_one(
    bed: ControlPlane, tmp_path: Path, unique_name: UniqueName
) -> None:
    node, name = unique_name("node"), unique_name("policy")
    kubeconfig = bed.kubeconfig_for(account(bed), name=ACCOUNT)

    with OperatorProcess(kubeconfig, tmp_path / "log", "--fence-required", "false") as operator:
        operator.wait_line("nobody looks whether agents are fenced")
        join(bed.api, node)
        make_policy(bed.api, name, node)
        pushed = bed.api.watch_until(f"{STATES}/{node}", lambda state: bool(groups(state)))

    assert groups(pushed)["demotion"]["settings"] == {"enabled": True}


# Last, so that the ten seconds have passed in which the API server remembers a token


def test_the_token_of_a_deleted_pod_is_worth_nothing(stolen: Node) -> None:
    """Promise 9: a stolen token ends with its Pod, within the ten seconds that the API server remembers it."""

    def is_unknown() -> bool:
        try:
            stolen.agent.get(stolen.path)
        except ApiError as error:
            return error.status == 401
        return False

    assert poll(is_unknown, "the token being unknown")
