# SPDX-License-Identifier: Apache-2.0
"""The operator as a process of its own, and the few objects that tests of it are about."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Final, Self

import yaml

from numamigration_api.machinery.canonical import wish_revision
from tests.counting import FOR_CHILDREN
from tests.testbed.api import Api, ApiError, Json, condition, poll
from tests.testbed.controlplane import ControlPlane
from tests.testbed.warm import Program, Starter

ROOT: Final = Path(__file__).parents[2]
PROGRAM: Final = "numamigration_operator"
WARM: Final = tuple(
    f"{PROGRAM}.{module}"
    for module in ("handlers", "runtime", "commands.crds", "commands.selftest", "commands.uninstall")
)
"""What it imports by and by once it runs."""
STARTERS: Final[dict[str | None, Starter]] = {}
NAMESPACE: Final = "numamigration-system"
ACCOUNT: Final = "numamigration-operator"
API_VERSION: Final = "numamigration.dev/v1alpha1"
POLICIES: Final = f"/apis/{API_VERSION}/migrationpolicies"
STATES: Final = f"/apis/{API_VERSION}/nodemigrationstates"
NODES: Final = "/api/v1/nodes"
FINALIZER: Final = "numamigration.dev/restore"
STOP_SECONDS_MAX: Final = 20.0
COMMAND_SECONDS_MAX: Final = 60.0
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
LEASES: Final = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
LEASE: Final = f"{LEASES}/numamigration-operator"
AT_ONCE: Final = {"canary": {"nodes": 100, "soakSeconds": 0}, "maxUnproven": "100%"}
"""A rollout for tests that are about something else: every node is a canary, and proven once it is ready."""
KERNEL: Final = {"dialect": "V6", "hardwareClass": "0123456789abcdef"}
"""What the agents say that a test plays; nothing is pushed to a node of which nobody has said it."""
QUICK: Final = {
    "NUMAMIGRATION_STATUS_INTERVAL_SECONDS": "0.5",
    "NUMAMIGRATION_LEASE_DURATION_SECONDS": "120",
    "NUMAMIGRATION_LEASE_RENEW_DEADLINE_SECONDS": "90",
    "NUMAMIGRATION_LEASE_RETRY_SECONDS": "0.5",
}


class OperatorProcess:
    """A running operator; its log is a file.

    It survives a restart of the API server. In the end it gives its lease back, so that the next one does not wait.
    """

    def __init__(self, kubeconfig: Path, log: Path, *flags: str) -> None:
        self.log = log
        with log.open("wb") as stream:
            self.process = _starter().start(
                PROGRAM,
                *("--kubeconfig", str(kubeconfig), *flags),
                env={**os.environ, **QUICK},
                stderr=stream.fileno(),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL: the next one waits its lease out, unless `forget_leader` is called."""
        self.process.kill()
        self.process.wait()

    def wait_line(self, text: str) -> None:
        def found() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return text in self.log.read_text()

        poll(found, f"{text!r} in the log")

    def lines(self, level: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.split()[1] == level]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS_MAX)


def _starter() -> Starter:
    """Return the one for the present way to count coverage, which it has had from its own start on."""
    counting = os.environ.get(FOR_CHILDREN)
    if counting not in STARTERS:
        STARTERS[counting] = Starter(*WARM)
    return STARTERS[counting]


def end_starters() -> None:
    """End what operators were started from; to be called when the last of them has ended."""
    while STARTERS:
        STARTERS.popitem()[1].close()


def start_command(kubeconfig: Path, *arguments: str) -> Program:
    """Start one of the operator's commands; what it says is all in its standard output."""
    return _starter().start(PROGRAM, *arguments, "--kubeconfig", str(kubeconfig), env=os.environ)


def end_command(process: Program) -> tuple[int, str]:
    """Return exit code and output of a command that ends by itself."""
    try:
        process.wait(COMMAND_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.wait(), process.read()


def documents(path: Path) -> list[Json]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def install_crds(api: Api) -> None:
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        for document in documents(path):
            api.install_crd(document)


def install_rights(api: Api, *, without: str = "") -> None:
    """Apply who may do what, the fence of the agents included."""
    for name in ("rbac", "fence"):
        for document in documents(ROOT / "deploy" / f"{name}.yaml"):
            if document["kind"] != without:
                api.apply(object_path(document), document, "test-bed", force=True)


def object_path(document: Json) -> str:
    metadata = document["metadata"]
    group = f"/apis/{document['apiVersion']}" if "/" in document["apiVersion"] else f"/api/{document['apiVersion']}"
    namespace = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    kind = document["kind"].lower()
    plural = f"{kind.removesuffix('y')}ies" if kind.endswith("y") else f"{kind}s"
    return f"{group}{namespace}/{plural}/{metadata['name']}"


def account(bed: ControlPlane, name: str = ACCOUNT) -> str:
    return bed.service_account_token(NAMESPACE, name)


def grant(bed: ControlPlane, name: str, rules: list[Json], *, at_home: list[Json] | None = None) -> Path:
    """Make an account with these rights, cluster-wide and in our namespace; return its kubeconfig."""
    metadata = {"name": name}
    home = {"name": name, "namespace": NAMESPACE}
    subjects = [{"kind": "ServiceAccount", **home}]
    made: list[Json] = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": home}]
    for kind, where, allowed in (("ClusterRole", metadata, rules), ("Role", home, at_home or [])):
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
        made.append({"kind": kind, "metadata": where, "rules": allowed})
        made.append({"kind": f"{kind}Binding", "metadata": where, "roleRef": reference, "subjects": subjects})
    for one in made:
        document = {"apiVersion": "rbac.authorization.k8s.io/v1", **one}
        bed.api.apply(object_path(document), document, "test-bed", force=True)
    return bed.kubeconfig_for(account(bed, name), name=name)


def await_served(api: Api) -> None:
    """Wait until a restarted API server serves custom resources; it answers 404 and 429 after it is ready."""

    def served() -> bool:
        try:
            return bool(api.get(STATES))
        except ApiError:
            return False

    poll(served, f"{STATES} being served")


def forget_leader(api: Api) -> None:
    """Let the next operator lead at once though the last one was killed; the epoch goes on from the objects."""
    if api.get_if_exists(LEASE):
        api.delete(LEASE)


def make_node(api: Api, name: str, **labels: str) -> None:
    metadata = {"name": name, "labels": {"name": name, **labels}}
    api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": metadata})


def make_policy(api: Api, name: str, node: str, **spec: Any) -> Json:
    body = {
        "apiVersion": API_VERSION,
        "kind": "MigrationPolicy",
        "metadata": {"name": name},
        "spec": {
            "nodeSelector": {"matchLabels": {"name": node}},
            "settings": {"demotion": {"enabled": True}},
            "rollout": AT_ONCE,
            **spec,
        },
    }
    return api.create(POLICIES, body)


def groups(state: Json) -> Json:
    found: Json = state.get("spec", {}).get("groups", {})
    return found


def content(state: Json) -> Json:
    """Return what a node state's spec asks for, whoever wrote it and however often."""
    return {key: value for key, value in state["spec"].items() if key not in {"leaderEpoch", "writeSequence"}}


def buckets(policy: Json) -> Json:
    """Return a policy's partition of nodes, without zeros."""
    counts: Json = policy.get("status", {}).get("nodes", {})
    return {name: count for name, count in counts.items() if count and name != "matched"}


def report(
    api: Api, state: Json, word: str, *, soaked: bool = True, reported_at: str = "2026-01-02T03:04:05Z", **more: Any
) -> None:
    """Say what the node's agent would say: `word` of each group, and that what is ready has soaked."""
    status = {
        "observedGeneration": state["metadata"]["generation"],
        "observedRevision": state["spec"]["revision"],
        "reportedAt": reported_at,
        "groups": {name: _result(wish, word, soaked=soaked) for name, wish in groups(state).items()},
        **KERNEL,
        **more,
    }
    name = state["metadata"]["name"]
    body = {"apiVersion": API_VERSION, "kind": "NodeMigrationState", "metadata": {"name": name}, "status": status}
    api.apply(f"{STATES}/{name}", body, "numamigration-agent", force=True, subresource="status")


def _result(wish: Json, word: str, *, soaked: bool) -> Json:
    proof = {"soakedRevision": wish_revision(wish)} if soaked and word == "Ready" else {}
    return {"state": word, "reason": "AsExpected", **proof}


def report_in(api: Api, *names: str) -> None:
    """Say what an agent says first, once the operator has made its node state: which kernel, which hardware."""
    for name in names:
        report(api, api.watch_until(f"{STATES}/{name}", bool), "Pending")


def join(api: Api, name: str, **labels: str) -> None:
    """Make a Node whose agent has reported; an operator must be running."""
    make_node(api, name, **labels)
    report_in(api, name)


def is_through(policy: Json) -> bool:
    """Whether a rollout is over, and nobody is named in its ledger any more."""
    rollout = policy.get("status", {}).get("rollout", {})
    open_names = [*rollout.get("reserved", []), *rollout.get("carried", [])]
    return rollout.get("phase") == "Complete" and not open_names and bool(condition(policy, "Ready"))


def versions(api: Api) -> dict[str, str]:
    return {
        f"{path}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for path in (POLICIES, STATES)
        for item in api.list_items(path)
    }
