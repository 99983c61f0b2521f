# SPDX-License-Identifier: Apache-2.0
"""The chart on a real kube-apiserver, by real Helm and kubectl: every manifest, the checks of the cluster, a rollback.

There is no kubelet, so no hook runs: what the hooks' commands do is tested beside them, and the whole in tests/cluster.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml

from tests.apiserver.operator_process import documents
from tests.apiserver.shared_bed import EVERY_VERSION, SharedBed
from tests.testbed.api import CRDS, Api, ApiError, Json, is_established
from tests.testbed.chart import CHART, EVERYTHING, NAMESPACE, RELEASE, Helm
from tests.testbed.commands import ROOT
from tests.testbed.controlplane import ControlPlane

POLICY_CRD: Final = f"{CRDS}/migrationpolicies.numamigration.dev"
NAMESPACES: Final = "/api/v1/namespaces"
LEVEL: Final = "pod-security.kubernetes.io/enforce"
OPERATOR_ROLE: Final = "/apis/rbac.authorization.k8s.io/v1/clusterroles/numamigration-operator"
DURATION: Final[Json] = {
    "type": "string",
    "pattern": "^(0|([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$",
}
UniqueName = Callable[[str], str]

pytestmark = [*EVERY_VERSION, pytest.mark.uncounted]


class Monitor(NamedTuple):
    """A kind of the Prometheus operator, and the field of it that says what to scrape."""

    kind: str
    plural: str
    endpoints: str


MONITORS: Final = (
    Monitor("ServiceMonitor", "servicemonitors", "endpoints"),
    Monitor("PodMonitor", "podmonitors", "podMetricsEndpoints"),
)


@pytest.fixture(scope="module")
def cluster(shared_bed: SharedBed) -> ControlPlane:
    """An API server with nothing of ours in it."""
    return shared_bed.empty()


@pytest.fixture(scope="module")
def here(cluster: ControlPlane, helm: Helm) -> Helm:
    """Helm that sees the cluster."""
    return helm._replace(kubeconfig=cluster.kubeconfig)


@pytest.fixture
def namespace(cluster: ControlPlane, unique_name: UniqueName) -> str:
    return make_namespace(cluster.api, unique_name("chart"))


def make_namespace(api: Api, name: str, **labels: str) -> str:
    api.apply(f"{NAMESPACES}/{name}", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, "test-bed")
    if labels:
        api.merge_patch(f"{NAMESPACES}/{name}", {"metadata": {"labels": labels}})
    return name


def kubectl(cluster: ControlPlane, *arguments: str, given: Iterable[Json] = ()) -> str:
    """Return what kubectl prints; it must succeed."""
    result = subprocess.run(
        [cluster.binaries.kubectl, "--kubeconfig", cluster.kubeconfig, *arguments],
        input=yaml.safe_dump_all(given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def fields(required: Iterable[str] = (), **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(required)}


def stand_in(monitor: Monitor) -> Json:
    """Return a CRD with those fields of a monitor that the chart uses, as the Prometheus operator's own has them.

    Source: prometheus-operator 0.91.0, example/prometheus-operator-crd/monitoring.coreos.com_*monitors.yaml.
    """
    text = {"type": "string"}
    relabeling = fields(sourceLabels={"type": "array", "items": text}, targetLabel=text)
    relabelings = {"type": "array", "items": relabeling}
    endpoint = fields(port=text, path=text, interval=DURATION, relabelings=relabelings)
    endpoints = {"type": "array", "items": endpoint}
    selector = fields(matchLabels={"type": "object", "additionalProperties": text})
    spec = fields(["selector", monitor.endpoints], selector=selector, **{monitor.endpoints: endpoints})
    return monitoring_crd(monitor.kind, monitor.plural, spec)


def monitoring_crd(kind: str, plural: str, spec: Json) -> Json:
    schema = {"openAPIV3Schema": fields(["spec"], spec=spec)}
    group = "monitoring.coreos.com"
    names = {"kind": kind, "plural": plural, "singular": kind.lower()}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def rule_stand_in() -> Json:
    """Return a CRD with those fields of a PrometheusRule that the chart uses.

    Source: prometheus-operator 0.91.0, example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml.
    """
    text, texts = {"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}
    rule = fields(["expr"], alert=text, expr=text, labels=texts, annotations=texts, **{"for": DURATION})
    group = fields(["name"], name=text, rules={"type": "array", "items": rule})
    spec = fields(groups={"type": "array", "items": group})
    return monitoring_crd("PrometheusRule", "prometheusrules", spec)


# --- manifests ----------------------------------------------------------------------------------------------------


def test_the_api_server_takes_every_manifest_with_everything_on(cluster: ControlPlane, helm: Helm) -> None:
    """Also on the oldest Kubernetes: unknown fields are errors, and every admission plug-in has its say."""
    make_namespace(cluster.api, NAMESPACE)
    for monitor in MONITORS:
        cluster.api.install_crd(stand_in(monitor))
    cluster.api.install_crd(rule_stand_in())
    rendered = helm.template(EVERYTHING)
    # A dry run stores no account, and a Pod is refused whose account is not there.
    kubectl(cluster, "apply", "--filename", "-", given=[one for one in rendered if one["kind"] == "ServiceAccount"])

    assert taken(cluster, rendered) == len(rendered) > 30


def taken(cluster: ControlPlane, objects: Iterable[Json]) -> int:
    """Return how many objects the API server would take; it must take all."""
    dry_run = ("--server-side", "--dry-run=server", "--validate=strict")
    return kubectl(cluster, "apply", *dry_run, "--filename", "-", given=objects).count("(server dry run)")


def test_the_api_server_takes_every_file_for_plain_kubectl(cluster: ControlPlane) -> None:
    """Also on the oldest Kubernetes, and field by field."""
    make_namespace(cluster.api, NAMESPACE)
    shipped = [one for path in sorted((ROOT / "deploy").glob("*.yaml")) for one in documents(path)]

    assert taken(cluster, shipped) == len(shipped) > 30


@pytest.mark.parametrize("monitor", MONITORS, ids=lambda monitor: monitor.kind)
def test_a_field_that_no_monitor_has_would_be_noticed(cluster: ControlPlane, helm: Helm, monitor: Monitor) -> None:
    """Their CRDs are ours here, with the fields that the chart uses and no other."""
    cluster.api.install_crd(stand_in(monitor))
    document = next(one for one in helm.template(EVERYTHING) if one["kind"] == monitor.kind)
    collection = f"/apis/monitoring.coreos.com/v1/namespaces/default/{monitor.plural}"
    document["metadata"]["namespace"] = "default"
    document["spec"][monitor.endpoints][0]["every"] = "30s"

    with pytest.raises(ApiError, match="unknown field"):
        cluster.api.create(collection, document, query={"dryRun": "All"})


def test_the_one_file_installs_everything_and_again_changes_nothing(cluster: ControlPlane) -> None:
    path = str(ROOT / "deploy" / "numa-migration-operator.yaml")

    kubectl(cluster, "apply", "--server-side", "--filename", path)
    cluster.api.watch_until(POLICY_CRD, is_established)
    before = versions(cluster, path)
    kubectl(cluster, "apply", "--server-side", "--filename", path)

    assert versions(cluster, path) == before
    kubectl(cluster, "delete", "--wait=false", "--filename", path)
    cluster.api.wait_crd_gone(POLICY_CRD)


def versions(cluster: ControlPlane, path: str) -> list[str]:
    form = 'jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.generation}{"\\n"}{end}'
    return kubectl(cluster, "get", "--filename", path, "--output", form).splitlines()


# --- Helm in a cluster --------------------------------------------------------------------------------------------


@pytest.fixture
def installed(here: Helm, namespace: str) -> Iterator[str]:
    """A release; what is given is its namespace."""
    run(here, "install", namespace, "--no-hooks")
    yield namespace
    run(here, "uninstall", namespace, "--no-hooks", "--ignore-not-found")


def run(helm: Helm, verb: str, namespace: str, *flags: str, values: Json | None = None) -> str:
    """Run a verb about our release; it must succeed."""
    result = attempt(helm, verb, namespace, *flags, values=values)
    assert result.returncode == 0, result.stderr
    return result.stdout


def attempt(
    helm: Helm, verb: str, namespace: str, *flags: str, release: str = RELEASE, values: Json | None = None
) -> subprocess.CompletedProcess[str]:
    chart: list[str | Path] = [CHART] if verb in {"install", "upgrade"} else []
    return helm.run(verb, release, *chart, "--namespace", namespace, *flags, values=values)


def replicas(api: Api, namespace: str) -> int:
    found: int = api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/numamigration-operator")["spec"]["replicas"]
    return found


def test_a_rollback_brings_the_manifests_back_and_runs_no_job(
    cluster: ControlPlane, here: Helm, installed: str
) -> None:
    """Promise 6: nothing that a rollback does reaches CRDs or node states."""
    run(here, "upgrade", installed, "--no-hooks", values={"operator": {"replicas": 1}})
    assert replicas(cluster.api, installed) == 1

    run(here, "rollback", installed)  # with its hooks: a Job would never end here

    assert replicas(cluster.api, installed) == 2
    assert cluster.api.list_items(f"/apis/batch/v1/namespaces/{installed}/jobs") == []
    assert cluster.api.get_if_exists(POLICY_CRD) == {}


def test_a_second_install_is_refused_with_the_name_of_the_first(
    cluster: ControlPlane, here: Helm, installed: str, unique_name: UniqueName
) -> None:
    other = make_namespace(cluster.api, unique_name("other"))

    result = attempt(here, "install", other, "--dry-run=server", release="second")

    assert result.returncode != 0
    assert f"The ClusterRole numamigration-operator belongs to the release {RELEASE} in the namespace {installed}" in (
        result.stderr
    )
    assert "One cluster takes one install" in result.stderr


def test_the_same_release_name_elsewhere_is_another_release(
    cluster: ControlPlane, here: Helm, installed: str, unique_name: UniqueName
) -> None:
    other = make_namespace(cluster.api, unique_name("other"))

    result = attempt(here, "install", other, "--dry-run=server")

    assert f"belongs to the release {RELEASE} in the namespace {installed}" in result.stderr


def test_who_may_not_look_can_leave_the_look_out(cluster: ControlPlane, here: Helm, namespace: str) -> None:
    account = "installer"
    path = f"{NAMESPACES}/{namespace}/serviceaccounts/{account}"
    body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": namespace}}
    cluster.api.apply(path, body, "test-bed")
    token = cluster.service_account_token(namespace, account)
    blind = here._replace(kubeconfig=cluster.kubeconfig_for(token, name=account))

    def is_refused(values: Json) -> bool:
        result = blind.run("template", RELEASE, CHART, "--namespace", namespace, "--dry-run=server", values=values)
        return "error calling lookup" in result.stderr

    blind_to_releases, blind_to_labels = {"otherReleaseCheck": "Ignore"}, {"namespace": {"podSecurityCheck": "Ignore"}}
    assert is_refused({})
    assert is_refused(blind_to_releases)
    assert is_refused(blind_to_labels)
    assert not is_refused({**blind_to_releases, **blind_to_labels})


@pytest.fixture
def crd_of_another_release(cluster: ControlPlane) -> Iterator[None]:
    crd = yaml.safe_load((ROOT / "crds" / "migrationpolicies.yaml").read_text())
    marks = {"meta.helm.sh/release-name": "platform", "meta.helm.sh/release-namespace": "infra"}
    crd["metadata"]["annotations"] = marks
    cluster.api.install_crd(crd)
    yield
    cluster.api.delete(POLICY_CRD)
    cluster.api.wait_crd_gone(POLICY_CRD)


@pytest.mark.usefixtures("crd_of_another_release")
def test_crds_of_another_release_are_refused_unless_it_keeps_them(here: Helm, namespace: str) -> None:
    refused = attempt(here, "install", namespace, "--dry-run=server")
    taken = attempt(here, "install", namespace, "--dry-run=server", values={"crds": {"install": False}})

    assert (
        "The CustomResourceDefinition migrationpolicies.numamigration.dev belongs to the release platform in the "
        "namespace infra."
    ) in refused.stderr
    assert "set crds.install=false" in refused.stderr
    assert taken.returncode == 0, taken.stderr


@pytest.mark.parametrize("level", ["baseline", "restricted"])
def test_a_namespace_that_forbids_agents_is_refused_with_the_line_that_helps(
    cluster: ControlPlane, here: Helm, unique_name: UniqueName, level: str
) -> None:
    name = make_namespace(cluster.api, unique_name("level"), **{LEVEL: level})

    result = attempt(here, "install", name, "--dry-run=server")

    assert f'The namespace {name} has the pod security level "{level}"' in result.stderr
    assert f"kubectl label namespace {name} --overwrite {LEVEL}=privileged" in result.stderr


def test_a_namespace_without_a_label_is_said_in_the_notes(here: Helm, namespace: str) -> None:
    notes = run(here, "install", namespace, "--dry-run=server").partition("NOTES:")[2]

    assert f"CAUTION: no pod security label was seen on the namespace {namespace}" in notes
    assert f"kubectl label namespace {namespace} --overwrite {LEVEL}=privileged" in notes


def test_a_label_can_be_required(here: Helm, namespace: str) -> None:
    values = {"namespace": {"podSecurityCheck": "Require"}}

    result = attempt(here, "install", namespace, "--dry-run=server", values=values)

    assert f"The namespace {namespace} has no pod security label" in result.stderr


def test_a_namespace_with_the_label_needs_no_word(cluster: ControlPlane, here: Helm, unique_name: UniqueName) -> None:
    name = make_namespace(cluster.api, unique_name("level"), **{LEVEL: "privileged"})
    values: dict[str, Any] = {"namespace": {"podSecurityCheck": "Require"}}

    assert "CAUTION" not in run(here, "install", name, "--dry-run=server", values=values)
    assert "CAUTION" not in run(here, "install", name, "--dry-run=server")
