# SPDX-License-Identifier: Apache-2.0
"""``numamigration-operator crds apply`` on a real kube-apiserver, with no more rights than a job of it needs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.apiserver.operator_process import (
    POLICIES,
    ROOT,
    documents,
    end_command,
    grant,
    make_policy,
    start_command,
)
from tests.testbed.api import CRDS, Json, is_established
from tests.testbed.controlplane import ControlPlane

ACCOUNT: Final = "numamigration-crds"
POLICY_CRD: Final = f"{CRDS}/migrationpolicies.numamigration.dev"
STATE_CRD: Final = f"{CRDS}/nodemigrationstates.numamigration.dev"
PROFILE_CRD: Final = f"{CRDS}/migrationprofiles.numamigration.dev"
ALL: Final = (POLICY_CRD, STATE_CRD, PROFILE_CRD)
RULES: Final = [
    {
        "apiGroups": ["apiextensions.k8s.io"],
        "resources": ["customresourcedefinitions"],
        "resourceNames": [path.rpartition("/")[2] for path in ALL],
        "verbs": ["get", "create", "patch"],
    }
]

Command = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def kubeconfig(bed: ControlPlane) -> Path:
    return grant(bed, ACCOUNT, RULES)


@pytest.fixture
def crds(kubeconfig: Path) -> Command:
    def run(*arguments: str) -> tuple[int, str]:
        return end_command(start_command(kubeconfig, "crds", *arguments))

    return run


def ours(path: str) -> Json:
    name = path.rpartition("/")[2].partition(".")[0]
    return documents(ROOT / "crds" / f"{name}.yaml")[0]


def schema(crd: Json) -> Json:
    found: Json = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    return found


def version(bed: ControlPlane, path: str) -> str:
    return str(bed.api.get(path)["metadata"]["resourceVersion"])


def replace(bed: ControlPlane, path: str, crd: Json) -> None:
    """Let a CRD of this name stand there instead."""
    bed.api.delete(path)
    bed.api.wait_crd_gone(path)
    bed.api.create(CRDS, crd)
    bed.api.watch_until(path, is_established)


def test_into_an_empty_cluster_they_are_created_and_served_when_it_ends(bed: ControlPlane, crds: Command) -> None:
    for path in ALL:
        bed.api.delete(path)
        bed.api.wait_crd_gone(path)

    code, said = crds("apply")

    assert (code, said.splitlines()) == (0, [f"{path.rpartition('/')[2]}: created" for path in ALL])
    assert all(is_established(bed.api.get(path)) for path in ALL)


def test_applied_twice_nothing_is_written(bed: ControlPlane, crds: Command) -> None:
    """Promise 12: nothing is written when nothing changed."""
    crds("apply")
    before = [version(bed, path) for path in ALL]

    code, said = crds("apply")

    assert [version(bed, path) for path in ALL] == before
    assert code == 0
    assert said.count(": unchanged") == len(ALL)


def test_a_newer_crd_is_left_alone(bed: ControlPlane, crds: Command) -> None:
    newer = ours(POLICY_CRD)
    schema(newer)["fresh"] = {"type": "string"}
    bed.api.apply(POLICY_CRD, newer, "newer-release", force=True)
    before = version(bed, POLICY_CRD)

    code, said = crds("apply")

    assert version(bed, POLICY_CRD) == before
    assert code == 0
    assert "migrationpolicies.numamigration.dev: newer: left alone; it has v1alpha1.spec.fresh" in said
    replace(bed, POLICY_CRD, ours(POLICY_CRD))


def test_an_older_crd_grows_whoever_applied_it(bed: ControlPlane, crds: Command) -> None:
    older = copy.deepcopy(ours(POLICY_CRD))
    del schema(older)["priority"]
    bed.api.apply(POLICY_CRD, older, "kubectl", force=True)

    code, said = crds("apply")

    assert "priority" in schema(bed.api.get(POLICY_CRD))
    assert code == 0
    assert "migrationpolicies.numamigration.dev: updated" in said


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        pytest.param({"scope": "Namespaced"}, "its scope is Namespaced, not Cluster", id="scope"),
        pytest.param({"kind": "Other"}, "its kind is Other, not MigrationPolicy", id="kind"),
    ],
)
def test_a_crd_of_somebody_else_is_refused(bed: ControlPlane, crds: Command, edit: dict[str, str], why: str) -> None:
    theirs = ours(POLICY_CRD)
    theirs["spec"]["scope"] = edit.get("scope", "Cluster")
    theirs["spec"]["names"] |= {key: value for key, value in edit.items() if key == "kind"}
    replace(bed, POLICY_CRD, theirs)
    before = version(bed, POLICY_CRD)

    code, said = crds("apply")

    assert version(bed, POLICY_CRD) == before
    assert code == 1
    assert f"refused: the cluster has a CRD of this name that is not ours: {why}" in said
    replace(bed, POLICY_CRD, ours(POLICY_CRD))


def test_names_that_another_crd_has_taken_are_said(bed: ControlPlane, crds: Command) -> None:
    taker = ours(POLICY_CRD)
    taker["metadata"]["name"] = "others.numamigration.dev"
    taker["spec"]["names"] |= {"plural": "others", "kind": "Other", "listKind": "OtherList", "shortNames": ["o"]}
    bed.api.delete(POLICY_CRD)
    bed.api.wait_crd_gone(POLICY_CRD)
    bed.api.create(CRDS, taker)
    bed.api.watch_until(f"{CRDS}/others.numamigration.dev", is_established)

    code, said = crds("apply")

    assert code == 1
    assert 'migrationpolicies.numamigration.dev: not served: "migrationpolicy" is already in use' in said
    bed.api.delete(f"{CRDS}/others.numamigration.dev")
    bed.api.watch_until(POLICY_CRD, is_established)


@pytest.fixture
def leaving(bed: ControlPlane, crds: Command) -> str:
    """A policy whose finalizer keeps the CRD, which is being deleted."""
    crds("apply")
    make_policy(bed.api, "held", "nowhere")
    bed.api.merge_patch(f"{POLICIES}/held", {"metadata": {"finalizers": ["test.example.com/held"]}})
    bed.api.delete(POLICY_CRD)
    return f"{POLICIES}/held"


def test_a_crd_that_is_being_deleted_is_waited_for(
    bed: ControlPlane, kubeconfig: Path, crds: Command, leaving: str
) -> None:
    code, said = crds("apply", "--wait-seconds", "1")
    assert code == 1
    assert "migrationpolicies.numamigration.dev: is still being deleted; nothing was applied" in said

    process = start_command(kubeconfig, "crds", "apply")
    assert process.stdout is not None
    assert process.stdout.readline().endswith(": is being deleted; waiting until it is gone\n")
    bed.api.merge_patch(leaving, {"metadata": {"finalizers": []}})
    code, said = end_command(process)

    assert code == 0
    assert "migrationpolicies.numamigration.dev: created" in said
    assert "deletionTimestamp" not in bed.api.get(POLICY_CRD)["metadata"]


def test_without_the_right_it_is_one_line_that_says_so(bed: ControlPlane) -> None:
    kubeconfig = grant(bed, "numamigration-nobody", [])

    code, said = end_command(start_command(kubeconfig, "crds", "apply"))

    assert code == 1
    assert said.startswith("numamigration-operator crds: 403: customresourcedefinitions.apiextensions.k8s.io")
    assert said.count("\n") == 1
