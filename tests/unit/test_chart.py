# SPDX-License-Identifier: Apache-2.0
"""What the chart renders: pods, rights of pods, hooks, switches; by the real Helm, without a cluster."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from numamigration_agent.mounts import MOUNTS, Mount
from numamigration_agent.settings import SETTINGS
from numamigration_operator import __version__
from numamigration_operator.core.objects import Requirement
from numamigration_operator.label_selector import parse_label_selector
from numamigration_operator.settings import PREFIX, OperatorSettings
from tests.testbed.api import Json
from tests.testbed.chart import CHART, EVERYTHING, NAMESPACE, Helm, hooks_of, pod_spec
from tests.testbed.commands import ROOT

Objects = dict[tuple[str, str], Json]

AGENT: Final = ("DaemonSet", "numamigration-agent")
OPERATOR: Final = ("Deployment", "numamigration-operator")
INSTALL_JOB: Final = ("Job", "numamigration-crds")
UNINSTALL_JOB: Final = ("Job", "numamigration-uninstall")
TEST_POD: Final = ("Pod", "numamigration-selftest")


def objects(helm: Helm, values: Json | None = None, *flags: str) -> Objects:
    return {(one["kind"], one["metadata"]["name"]): one for one in helm.template(values, *flags)}


def agent_memory(found: Objects) -> str:
    containers: list[Json] = pod_spec(found[AGENT])["containers"]
    limit: str = containers[0]["resources"]["limits"]["memory"]
    return limit


def test_agents_have_the_memory_to_measure_with_only_where_tuning_is_on(helm: Helm) -> None:
    limits = {"limits": {"memory": "64Mi", "cpu": "1"}}
    tuned = objects(helm, {"agent": {"tuning": {"enabled": True}, "resources": limits}})

    assert agent_memory(objects(helm)) == "64Mi"
    assert agent_memory(tuned) == "320Mi"
    assert pod_spec(tuned[AGENT])["containers"][0]["resources"]["limits"]["cpu"] == "1"


@pytest.fixture(scope="module")
def plain(helm: Helm) -> Objects:
    return objects(helm)


@pytest.fixture(scope="module")
def everything(helm: Helm) -> Objects:
    return objects(helm, EVERYTHING)


def container(document: Json) -> Json:
    found: Json = pod_spec(document)["containers"][0]
    return found


def environment(document: Json) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container(document)["env"]}


def writable(document: Json) -> dict[str, str]:
    """Return what a container may write of the host: where it is in the container → where it is on the host."""
    host = {volume["name"]: volume["hostPath"]["path"] for volume in pod_spec(document)["volumes"]}
    mounts = container(document)["volumeMounts"]
    return {mount["mountPath"]: host[mount["name"]] for mount in mounts if not mount.get("readOnly")}


# --- the chart as a whole -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything on"])
def test_lint_finds_nothing(helm: Helm, values: Json) -> None:
    result = helm.run("lint", "--strict", CHART, values=values)

    assert result.returncode == 0, result.stdout
    assert "0 chart(s) failed" in result.stdout


def test_the_chart_installs_the_version_of_its_tree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    shown = {image["image"] for image in yaml.safe_load(chart["annotations"]["artifacthub.io/images"])}

    assert chart["appVersion"] == __version__
    assert shown == {f"numa-migration-{part}:{__version__}" for part in ("operator", "agent")}


def test_the_notes_name_three_commands_to_look_at_the_status(helm: Helm) -> None:
    result = helm.run("install", "numa", CHART, "--namespace", "here", "--dry-run=client", "--hide-secret")

    notes = result.stdout.partition("NOTES:")[2]
    assert "kubectl get migrationpolicies\n    kubectl get nodemigrationstates" in notes
    assert "kubectl --namespace here get pods" in notes
    assert "helm --namespace here test numa --logs" in notes


def test_the_notes_say_that_the_fence_is_off(helm: Helm) -> None:
    result = helm.run("install", "numa", CHART, "--dry-run=client", values={"fence": {"enabled": False}})

    assert "CAUTION: fence.enabled is false" in result.stdout


def test_the_chart_can_be_a_dependency_of_a_chart_with_global_values(helm: Helm, tmp_path: Any) -> None:
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / CHART.name).symlink_to(CHART)
    dependency = {"name": CHART.name, "version": "*", "condition": f"{CHART.name}.enabled"}
    chart = {"apiVersion": "v2", "name": "platform", "version": "1.0.0", "dependencies": [dependency]}
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(chart))

    values = {"global": {"region": "here"}, CHART.name: {"enabled": True, "operator": {"replicas": 1}}}
    result = helm.run("template", "platform", tmp_path, values=values)

    assert result.returncode == 0, result.stderr
    assert "name: numamigration-operator" in result.stdout


def test_every_object_says_to_which_part_it_belongs(everything: Objects) -> None:
    wanted = {
        f"app.kubernetes.io/{key}" for key in ("name", "component", "instance", "version", "managed-by", "part-of")
    }

    assert [key for key, one in everything.items() if not wanted <= one["metadata"]["labels"].keys()] == []


def test_a_new_version_of_the_chart_alone_restarts_no_pod(everything: Objects) -> None:
    templates = [everything[key]["spec"]["template"]["metadata"]["labels"] for key in (AGENT, OPERATOR)]

    assert [labels for labels in templates if "helm.sh/chart" in labels] == []


# --- pods ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [OPERATOR, INSTALL_JOB, UNINSTALL_JOB, TEST_POD], ids=lambda key: key[1])
def test_what_runs_the_operators_image_has_no_privileges(everything: Objects, key: tuple[str, str]) -> None:
    pod, only = pod_spec(everything[key]), container(everything[key])

    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "volumes" not in pod


def test_the_platform_may_choose_the_operators_user(helm: Helm) -> None:
    found = objects(helm, {"operator": {"runAsUser": None}})

    assert pod_spec(found[OPERATOR])["securityContext"].keys() == {"runAsNonRoot", "seccompProfile"}


def test_an_agent_is_root_without_any_capability(plain: Objects) -> None:
    assert container(plain[AGENT])["securityContext"] == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "Unconfined"},
    }
    pod = pod_spec(plain[AGENT])
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "securityContext"}


def test_an_agent_writes_three_folders_of_its_host(plain: Objects) -> None:
    assert writable(plain[AGENT]) == {
        "/host/sys/module": "/sys/module",
        "/host/sys/kernel/mm": "/sys/kernel/mm",
        "/run/numa-migration": "/run/numa-migration",
    }


def test_what_an_agent_only_reads_is_read_only_below_its_mount_points_too(plain: Objects) -> None:
    mounts = [mount for mount in container(plain[AGENT])["volumeMounts"] if mount.get("readOnly")]

    assert {mount["mountPath"]: mount["recursiveReadOnly"] for mount in mounts} == {
        "/host/sys": "IfPossible",
        "/host/proc": "IfPossible",
    }


@pytest.mark.parametrize("mount", [mount for mount in MOUNTS if mount.value], ids=lambda mount: mount.folder)
def test_a_further_folder_opens_by_the_value_that_the_agent_names(helm: Helm, plain: Objects, mount: Mount) -> None:
    value = mount.value.removeprefix("agent.hostWrite.")

    agent = objects(helm, {"agent": {"hostWrite": {value: True}}})[AGENT]

    more = dict(writable(agent).items() - writable(plain[AGENT]).items())
    assert more == {f"/host{mount.folder}": mount.folder}
    added = container(agent)["securityContext"]["capabilities"].get("add", [])
    assert added == ([mount.capability.removeprefix("CAP_")] if mount.capability else [])


def test_folders_that_the_agent_takes_for_granted_are_writable(plain: Objects) -> None:
    granted = {mount.folder for mount in MOUNTS if not mount.value}

    assert granted <= set(writable(plain[AGENT]).values())


def test_an_agent_is_privileged_only_by_an_explicit_value(helm: Helm, everything: Objects) -> None:
    assert "privileged" not in container(everything[AGENT])["securityContext"]

    agent = objects(helm, {"agent": {"privileged": True}})[AGENT]

    assert container(agent)["securityContext"]["privileged"] is True


def test_a_seccomp_profile_on_the_nodes_is_named(everything: Objects) -> None:
    profile = container(everything[AGENT])["securityContext"]["seccompProfile"]

    assert profile == {"type": "Localhost", "localhostProfile": "profiles/agent.json"}


def test_an_agent_asks_for_little_and_gets_little(plain: Objects) -> None:
    assert container(plain[AGENT])["resources"] == {
        "requests": {"cpu": "10m", "memory": "32Mi"},
        "limits": {"memory": "64Mi"},
    }


def test_agents_are_on_every_node_and_updated_a_tenth_at_a_time(plain: Objects) -> None:
    agents = plain[AGENT]["spec"]

    assert agents["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}}
    assert pod_spec(plain[AGENT])["tolerations"] == [{"operator": "Exists"}]
    assert pod_spec(plain[AGENT])["priorityClassName"] == "system-node-critical"


def test_nothing_is_done_when_a_pod_stops(everything: Objects) -> None:
    """Promise 6: only Restore restores; a preStop hook would run at every update of the DaemonSet."""
    assert [key for key, one in everything.items() if pod_spec(one) and "lifecycle" in container(one)] == []


def test_one_value_selects_the_nodes_of_the_daemonset_and_those_that_the_operator_waits_for(helm: Helm) -> None:
    wanted = {"kubernetes.io/os": "linux", "example.com/pool": "db"}

    found = objects(helm, {"agent": {"nodeSelector": wanted}})

    selector = parse_label_selector(environment(found[OPERATOR])["NUMAMIGRATION_AGENT_NODE_SELECTOR"])
    assert pod_spec(found[AGENT])["nodeSelector"] == wanted
    assert set(selector.match_expressions) == {Requirement(key, "In", (value,)) for key, value in wanted.items()}


def test_two_operators_stand_apart_and_one_of_them_stays(plain: Objects) -> None:
    assert plain[OPERATOR]["spec"]["replicas"] == 2
    assert pod_spec(plain[OPERATOR])["topologySpreadConstraints"][0]["topologyKey"] == "kubernetes.io/hostname"
    assert plain["PodDisruptionBudget", "numamigration-operator"]["spec"]["maxUnavailable"] == 1


def test_a_single_operator_keeps_no_node_from_being_drained(helm: Helm) -> None:
    assert ("PodDisruptionBudget", "numamigration-operator") not in objects(helm, {"operator": {"replicas": 1}})


@pytest.mark.parametrize("key", [OPERATOR, AGENT], ids=lambda key: key[0])
def test_probes_ask_where_the_process_listens(plain: Objects, key: tuple[str, str]) -> None:
    only = container(plain[key])
    address = next(entry["value"] for entry in only["env"] if entry["name"].endswith("HEALTH_ADDRESS"))

    assert address == f"0.0.0.0:{only['ports'][0]['containerPort']}"
    assert only["startupProbe"]["httpGet"] == only["livenessProbe"]["httpGet"]
    assert only["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": only["ports"][0]["name"]}
    assert only["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": only["ports"][0]["name"]}


@pytest.mark.parametrize("key", [OPERATOR, AGENT], ids=lambda key: key[0])
def test_a_slow_start_is_no_reason_to_be_ended(plain: Objects, key: tuple[str, str]) -> None:
    """A tenth of a busy core: interpreter and imports take their time."""
    probe = container(plain[key])["startupProbe"]

    assert probe["failureThreshold"] * probe["periodSeconds"] == 120


def test_a_digest_decides_which_image_runs(everything: Objects, plain: Objects) -> None:
    assert container(plain[OPERATOR])["image"] == "numa-migration-operator:0.1.0"
    assert container(everything[OPERATOR])["image"] == f"numa-migration-operator:0.1.0@sha256:{'0' * 64}"


def test_every_pod_gets_the_secrets_of_the_registry(everything: Objects) -> None:
    pods = {key: pod_spec(one) for key, one in everything.items() if pod_spec(one)}

    assert [key for key, pod in pods.items() if pod["imagePullSecrets"] != [{"name": "registry"}]] == []


def test_no_service_of_the_namespace_comes_into_a_pods_environment(everything: Objects) -> None:
    """A Service numamigration-operator would be NUMAMIGRATION_OPERATOR_PORT there: an unknown setting."""
    pods = {key: pod_spec(one) for key, one in everything.items() if pod_spec(one)}

    assert [key for key, pod in pods.items() if pod["enableServiceLinks"] is not False] == []


# --- settings -----------------------------------------------------------------------------------------------------


def test_every_variable_is_a_setting_of_its_process(everything: Objects) -> None:
    operator = {PREFIX + name.upper() for name in OperatorSettings.model_fields}
    agent = {row.variable for row in SETTINGS} | {"NODE_NAME"}

    assert environment(everything[OPERATOR]).keys() - operator == set()
    assert environment(everything[AGENT]).keys() - agent == set()


def test_the_operator_starts_with_what_the_chart_gives_it(everything: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(everything[OPERATOR]).items():
        monkeypatch.setenv(name, value)

    assert OperatorSettings().lease_duration_seconds == 15


def _values() -> Json:
    values: Json = yaml.safe_load((CHART / "values.yaml").read_text())
    return values


def _schema(part: str) -> Json:
    schema: Json = yaml.safe_load((CHART / "values.schema.json").read_text())
    found: Json = schema["properties"][part]["properties"]["settings"]["properties"]
    return found


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def test_the_operators_settings_have_its_own_defaults_and_bounds() -> None:
    fields, shapes = OperatorSettings.model_json_schema()["properties"], _schema("operator")

    for name, value in _values()["operator"]["settings"].items():
        field, shape = fields[_snake(name)], shapes[name]
        assert value == field["default"], name
        if shape["type"] != "string":
            assert {key: shape[key] for key in ("type", "minimum", "maximum")} == {
                "type": field["type"],
                "minimum": field["minimum"],
                "maximum": field["maximum"],
            }, name


def test_the_agents_settings_have_its_own_defaults_and_bounds() -> None:
    table, shapes = {row.name: row for row in SETTINGS}, _schema("agent")

    for name, value in _values()["agent"]["settings"].items():
        row, shape = table[_snake(name)], shapes[name]
        assert str(value) == row.default, name
        if shape["type"] != "string":
            assert row.kind.legal.endswith(f"from {shape['minimum']:g} to {shape['maximum']}"), name


def test_what_is_no_value_is_settled_by_the_chart_or_by_the_pod() -> None:
    """Whoever adds a setting says here that nobody in a cluster wants it otherwise, or makes it a value."""
    operator = set(OperatorSettings.model_fields) - {_snake(name) for name in _values()["operator"]["settings"]}
    agent = {row.name for row in SETTINGS} - {_snake(name) for name in _values()["agent"]["settings"]}

    assert operator == {
        "agent_node_selector",
        "context",
        "fence_required",
        "health_address",
        "kubeconfig",
        "lease_identity",
        "namespace",
    }
    assert agent == {
        "api_server",
        "ca_file",
        "health_address",
        "host_root",
        "node_name",
        "state_dir",
        "token_file",
    }


# --- hooks --------------------------------------------------------------------------------------------------------


def test_a_rollback_applies_no_crd(plain: Objects) -> None:
    """A rollback replays the stored manifests of the older release; CRDs are none of them, nor is the Job."""
    assert hooks_of(plain[INSTALL_JOB]) == ("pre-install", "pre-upgrade")
    assert container(plain[INSTALL_JOB])["args"][:2] == ["crds", "apply"]
    assert [key for key in plain if key[0] == "CustomResourceDefinition"] == []
    assert not (CHART / "crds").exists()


def test_crds_can_come_another_way(helm: Helm) -> None:
    found = objects(helm, {"crds": {"install": False}})

    assert [key for key in found if key[1] == "numamigration-crds"] == []


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "deleted"])
def test_crds_are_deleted_only_by_an_explicit_value(helm: Helm, keep: bool) -> None:
    found = objects(helm, {"crds": {"keep": keep}})

    rules = found["ClusterRole", "numamigration-uninstall"]["rules"]
    may_delete = any("delete" in rule["verbs"] for rule in rules)
    assert ("--delete-crds" in container(found[UNINSTALL_JOB])["args"]) is not keep
    assert may_delete is not keep


def test_the_uninstall_job_runs_before_anything_is_deleted(plain: Objects) -> None:
    """Promise 13: afterwards there is no operator and no agent that could restore, and finalizers would stay."""
    assert hooks_of(plain[UNINSTALL_JOB]) == ("pre-delete",)


@pytest.mark.parametrize("seconds", [0, 180, 3600])
def test_the_uninstall_job_ends_whatever_the_nodes_do(helm: Helm, seconds: int) -> None:
    """Promise 13: the command waits so long, and its Job a little longer, with dead nodes too."""
    job = objects(helm, {"uninstall": {"waitSeconds": seconds}})[UNINSTALL_JOB]

    assert container(job)["args"][:3] == ["uninstall", "--wait-seconds", str(seconds)]
    assert job["spec"]["activeDeadlineSeconds"] == seconds + 90


def test_the_default_uninstall_ends_within_helms_default_patience(plain: Objects) -> None:
    assert plain[UNINSTALL_JOB]["spec"]["activeDeadlineSeconds"] < 300
    assert plain[INSTALL_JOB]["spec"]["activeDeadlineSeconds"] < 300
    assert plain[TEST_POD]["spec"]["activeDeadlineSeconds"] < 300


@pytest.mark.parametrize("key", [INSTALL_JOB, UNINSTALL_JOB, TEST_POD], ids=lambda key: key[1])
def test_the_log_of_a_failed_hook_stays(plain: Objects, key: tuple[str, str]) -> None:
    policy = plain[key]["metadata"]["annotations"]["helm.sh/hook-delete-policy"].split(",")

    assert "before-hook-creation" in policy
    assert "hook-failed" not in policy


def test_rights_of_hooks_come_before_their_pods_and_go_with_them(plain: Objects) -> None:
    hooks = {key: one["metadata"]["annotations"] for key, one in plain.items() if hooks_of(one)}
    rights = {key: marks for key, marks in hooks.items() if key[0] not in {"Job", "Pod"}}

    assert len(rights) == 11
    assert {int(marks["helm.sh/hook-weight"]) for marks in rights.values()} == {-10}
    assert {marks["helm.sh/hook-delete-policy"] for marks in rights.values()} == {"before-hook-creation,hook-succeeded"}


def test_whatever_anybody_may_do_to_crds_they_may_do_to_ours(everything: Objects) -> None:
    rules = [rule for rule in _rules(everything) if "customresourcedefinitions" in rule["resources"]]

    assert len(rules) == 3  # people look at them, too
    assert {tuple(rule["resourceNames"]) for rule in rules} == {
        (
            "migrationpolicies.numamigration.dev",
            "nodemigrationstates.numamigration.dev",
            "migrationprofiles.numamigration.dev",
        )
    }


# --- rights -------------------------------------------------------------------------------------------------------


def _rules(found: Objects) -> Iterator[Json]:
    return itertools.chain.from_iterable(one.get("rules", ()) for one in found.values())


def test_no_right_is_a_wildcard_or_reaches_secrets_nodes_or_pods(everything: Objects) -> None:
    reading = {"get", "list", "watch"}

    for rule in _rules(everything):
        assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
        assert not {"secrets", "pods", "pods/exec", "serviceaccounts/token"} & set(rule["resources"])
        assert "nodes" not in rule["resources"] or set(rule["verbs"]) <= reading


def test_people_who_view_or_edit_get_policies(everything: Objects) -> None:
    view, edit = (everything["ClusterRole", f"numamigration-{role}"] for role in ("view", "edit"))

    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert {verb for rule in view["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert [rule["resources"] for rule in edit["rules"]] == [["migrationpolicies"], ["migrationprofiles"]]
    assert edit["rules"][1]["verbs"] == ["delete", "deletecollection"]


def test_nobody_gets_rights_by_roles_that_are_off(helm: Helm) -> None:
    found = objects(helm, {"aggregateRoles": {"view": False, "edit": False}})

    assert [key for key in found if key[1] in {"numamigration-view", "numamigration-edit"}] == []


def test_the_roles_of_the_plugin_are_nobodys_until_somebody_is_named(plain: Objects, everything: Objects) -> None:
    def subjects(found: Objects, name: str) -> list[list[str]]:
        bindings = [one for (kind, of), one in found.items() if kind.endswith("Binding") and of.startswith(name)]
        return [[who["name"] for who in one["subjects"]] for one in bindings]

    assert ("ClusterRole", "numamigration-plugin-operate") in plain
    assert subjects(plain, "numamigration-plugin") == []
    assert subjects(everything, "numamigration-plugin-view") == [["developers", "sre"]] * 3
    assert subjects(everything, "numamigration-plugin-operate") == [["sre"]] * 2


def test_without_the_roles_of_the_plugin_nobody_is_bound_to_them(helm: Helm) -> None:
    found = objects(helm, EVERYTHING | {"pluginRoles": EVERYTHING["pluginRoles"] | {"enabled": False}})

    assert [name for _, name in found if name.startswith("numamigration-plugin")] == []


# --- the node fence -----------------------------------------------------------------------------------------------


def test_the_fence_is_about_the_agents_of_the_releases_namespace(plain: Objects) -> None:
    """Promise 9; what the fence refuses is in tests/apiserver/test_fence.py, for the same source."""
    fence = plain["ValidatingAdmissionPolicy", "numamigration-agent-fence"]

    (condition,) = fence["spec"]["matchConditions"]
    assert f"system:serviceaccount:{NAMESPACE}:numamigration-agent" in condition["expression"]
    assert ("ValidatingAdmissionPolicyBinding", "numamigration-agent-fence") in plain


def test_the_fence_goes_only_by_an_explicit_value(helm: Helm) -> None:
    found = objects(helm, {"fence": {"enabled": False}})

    assert [key for key in found if key[1] == "numamigration-agent-fence"] == []
    assert environment(found[OPERATOR])["NUMAMIGRATION_FENCE_REQUIRED"] == "true"


# --- what is off by default ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", ["operator", "agent"])
def test_network_policies_let_pods_reach_the_api_server_alone(everything: Objects, component: str) -> None:
    spec = everything["NetworkPolicy", f"numamigration-{component}"]["spec"]

    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == component
    assert spec["egress"] == [
        {
            "ports": [{"protocol": "TCP", "port": 443}, {"protocol": "TCP", "port": 6443}],
            "to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}],
        }
    ]


@pytest.mark.parametrize(("name", "port"), [("numamigration-agent", 8082), ("numamigration-operator", 8081)])
def test_prometheus_alone_reaches_what_it_scrapes(everything: Objects, name: str, port: int) -> None:
    assert everything["NetworkPolicy", name]["spec"]["ingress"] == [
        {
            "ports": [{"protocol": "TCP", "port": port}],
            "from": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
        }
    ]


def test_nobody_reaches_an_agent_that_is_not_scraped(helm: Helm) -> None:
    documents = helm.template({"networkPolicy": {"enabled": True}})

    found = {one["metadata"]["name"]: one["spec"] for one in documents if one["kind"] == "NetworkPolicy"}
    assert found["numamigration-agent"]["ingress"] == []


@pytest.mark.parametrize(
    ("monitor", "target"),
    [
        pytest.param(("ServiceMonitor", "numamigration-operator"), ("Service", "numamigration-operator"), id="Service"),
        pytest.param(("PodMonitor", "numamigration-operator"), OPERATOR, id="operators"),
        pytest.param(("PodMonitor", "numamigration-agent"), AGENT, id="agents"),
    ],
)
def test_monitors_select_what_serves_metrics(
    everything: Objects, monitor: tuple[str, str], target: tuple[str, str]
) -> None:
    found, served = everything[monitor], everything[target]

    labels = served["spec"].get("template", served)["metadata"]["labels"]
    assert found["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert found["metadata"]["labels"]["release"] == "prometheus"


def test_network_policies_monitoring_and_the_namespace_are_off_by_default(plain: Objects) -> None:
    kinds = {key[0] for key in plain}

    assert not kinds & {"NetworkPolicy", "ServiceMonitor", "PodMonitor", "PrometheusRule", "ConfigMap", "Namespace"}


def test_a_rendered_namespace_lets_agents_start(everything: Objects) -> None:
    labels = everything["Namespace", "numamigration-system"]["metadata"]["labels"]

    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"


# --- manifests without Helm ---------------------------------------------------------------------------------------


def _documents(name: str) -> Objects:
    found = yaml.safe_load_all((ROOT / "deploy" / name).read_text())
    return {(one["kind"], one["metadata"]["name"]): one for one in found if one}


def test_one_file_has_crds_and_all_that_the_chart_installs(plain: Objects) -> None:
    installed = {key for key, one in plain.items() if not hooks_of(one)}

    found = _documents("numa-migration-operator.yaml").keys()

    assert found - installed == {
        ("CustomResourceDefinition", "migrationpolicies.numamigration.dev"),
        ("CustomResourceDefinition", "nodemigrationstates.numamigration.dev"),
        ("CustomResourceDefinition", "migrationprofiles.numamigration.dev"),
        ("Namespace", "numamigration-system"),
    }
    assert installed - found == set()


@pytest.mark.parametrize("name", ["numa-migration-operator.yaml", "uninstall.yaml", "rbac.yaml"])
def test_manifests_have_nothing_of_helm(name: str) -> None:
    text = (ROOT / "deploy" / name).read_text()

    assert "helm.sh" not in text
    assert "managed-by" not in text


def test_the_manifest_of_the_uninstall_has_the_job_and_its_rights(plain: Objects) -> None:
    wanted = {key for key, one in plain.items() if "pre-delete" in hooks_of(one)}

    assert _documents("uninstall.yaml").keys() == wanted
