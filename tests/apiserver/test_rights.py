# SPDX-License-Identifier: Apache-2.0
"""What the accounts of the chart may do, as the API server says it, against the table in docs/security.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from numamigration_api.fence import AGENT_ACCOUNT, FENCE_NAME
from tests.apiserver.hook_rights import grant_hooks, grant_plugin
from tests.apiserver.operator_process import ACCOUNT, NAMESPACE, ROOT, documents
from tests.testbed.api import Json
from tests.testbed.chart import EVERYTHING, Helm, hooks_of
from tests.testbed.controlplane import ControlPlane
from tests.testbed.tables import read_table

pytestmark = pytest.mark.uncounted

REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
ELSEWHERE: Final = "kube-system"
"""Stands for every namespace that no Role of ours names; what is allowed there is allowed in the whole cluster."""
NAMESPACES: Final = {NAMESPACE: NAMESPACE, "default": "default", ELSEWHERE: "everywhere"}
UNINSTALL: Final = "numamigration-uninstall"
ACCOUNTS: Final = (ACCOUNT, AGENT_ACCOUNT, "numamigration-crds", "numamigration-selftest", UNINSTALL)
"""All that the chart makes; the last three are those of its hooks."""
NOBODY: Final = "bystander"
"""An account that nobody gave a role: what it may, every account may."""


class Right(NamedTuple):
    """One verb on one resource."""

    where: str
    group: str
    resource: str
    name: str
    verb: str


def words(cell: str) -> list[str]:
    return [word.strip(" `") for word in cell.split(",") if word.strip()] or [""]


def documented(account: str, column: str = "account") -> set[Right]:
    """Return what docs/security.md says that an account, or who has a role, may do besides what every account may."""
    rows = read_table(ROOT / "docs" / "security.md", column)
    return {
        Right(where, "" if group == "core" else group, resource, name, verb)
        for row in rows
        if account in words(row[column])
        for where in words(row["where"])
        for group in words(row["API group"])
        for resource in words(row["resources"])
        for name in words(row["names"])
        for verb in words(row["verbs"])
    }


def review(bed: ControlPlane, account: str, namespace: str) -> Json:
    who = bed.api_as(bed.service_account_token(NAMESPACE, account))
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    status: Json = who.create(REVIEWS, body)["status"]
    assert not status["incomplete"], status
    return status


def rights(bed: ControlPlane, account: str, namespace: str) -> Iterator[Right]:
    for rule in review(bed, account, namespace)["resourceRules"]:
        for group in rule.get("apiGroups", [""]):
            for resource in rule["resources"]:
                for name in rule.get("resourceNames") or [""]:
                    for verb in rule["verbs"]:
                        yield Right(NAMESPACES[namespace], group, resource, name, verb)


@pytest.fixture(scope="module", autouse=True)
def bystander(bed: ControlPlane) -> None:
    bed.node_bound_token(NAMESPACE, NOBODY, "somewhere")


@pytest.fixture(scope="module", autouse=True)
def hook_accounts(bed: ControlPlane, helm: Helm) -> None:
    grant_all_hooks(bed, helm)


def grant_all_hooks(bed: ControlPlane, helm: Helm, values: Json | None = None) -> list[str]:
    """Give every hook of the chart what it gets with these values."""
    return list(grant_hooks(bed.api, [one for one in helm.template(values) if hooks_of(one)]))


def all_rights(bed: ControlPlane, account: str) -> set[Right]:
    """Return what an account may do; what it may everywhere is not said again for a namespace."""
    everywhere = set(rights(bed, account, ELSEWHERE))
    known = {right._replace(where="") for right in everywhere}
    inside = {
        right
        for namespace in NAMESPACES
        for right in rights(bed, account, namespace)
        if right._replace(where="") not in known
    }
    return everywhere | inside


@pytest.mark.parametrize("account", ACCOUNTS)
def test_an_account_may_do_what_the_document_says_and_nothing_else(bed: ControlPlane, account: str) -> None:
    """Promise 9."""
    assert documented(account)
    assert sorted(all_rights(bed, account)) == sorted(documented(account) | all_rights(bed, NOBODY))


def test_the_uninstall_job_may_delete_crds_only_where_they_are_not_kept(bed: ControlPlane, helm: Helm) -> None:
    kept, more = documented(UNINSTALL), documented(f"{UNINSTALL} with crds.keep=false")
    grant_all_hooks(bed, helm, {"crds": {"keep": False}})
    try:
        assert {right.verb for right in more} == {"get", "delete"}
        assert sorted(all_rights(bed, UNINSTALL)) == sorted(kept | more | all_rights(bed, NOBODY))
    finally:
        grant_all_hooks(bed, helm)


@pytest.mark.parametrize("who", [["view"], ["view", "operate"]], ids=["viewer", "operator"])
def test_who_has_the_roles_of_the_plugin_may_do_what_the_document_says(
    bed: ControlPlane, helm: Helm, who: list[str]
) -> None:
    account = f"plugin-{who[-1]}"

    grant_plugin(bed, helm, **{{"view": "viewers", "operate": "operators"}[who[-1]]: account})

    wanted = {right for role in who for right in documented(f"numamigration-plugin-{role}", "role")}
    assert sorted(all_rights(bed, account)) == sorted(wanted | all_rights(bed, NOBODY))


@pytest.mark.parametrize("role", ["view", "edit"])
def test_the_roles_that_go_with_the_clusters_own_are_in_the_document(helm: Helm, role: str) -> None:
    name = f"numamigration-{role}"
    (rules,) = [one["rules"] for one in helm.template() if one["metadata"]["name"] == name]

    found = {
        Right("everywhere", group, resource, "", verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert found == documented(name, "role")


def test_every_account_of_the_chart_is_in_the_document(helm: Helm) -> None:
    found = {one["metadata"]["name"] for one in helm.template(EVERYTHING) if one["kind"] == "ServiceAccount"}

    assert found == set(ACCOUNTS)


@pytest.mark.parametrize("account", ACCOUNTS)
def test_no_account_writes_nodes_reads_secrets_or_has_a_wildcard(bed: ControlPlane, account: str) -> None:
    found = all_rights(bed, account)

    assert not [right for right in found if "*" in (right.group, right.resource, right.verb)]
    assert not [right for right in found if right.resource.startswith(("secrets", "pods", "serviceaccounts"))]
    assert {right.verb for right in found if right.resource.startswith("nodes")} <= {"get", "list", "watch"}
    assert not [right for right in found if right.verb in {"impersonate", "bind", "escalate"}]


def test_agents_tell_no_events(bed: ControlPlane) -> None:
    """Promise 9: Events have no fence, and one node would speak for another."""
    assert not [right for right in all_rights(bed, AGENT_ACCOUNT) if right.resource == "events"]


def test_no_account_may_change_the_fence(bed: ControlPlane) -> None:
    """Promise 9."""
    found = {
        (right.name, right.verb)
        for account in ACCOUNTS
        for right in all_rights(bed, account)
        if right.group == "admissionregistration.k8s.io"
    }

    assert found == {(FENCE_NAME, "get")}


@pytest.mark.parametrize("account", ACCOUNTS)
def test_outside_of_resources_an_account_only_reads_what_every_account_may(bed: ControlPlane, account: str) -> None:
    found = {verb for rule in review(bed, account, NAMESPACE)["nonResourceRules"] for verb in rule["verbs"]}

    assert found == {"get"}


def test_no_rule_that_is_shipped_has_a_wildcard(helm: Helm) -> None:
    shipped = [*documents(ROOT / "deploy" / "rbac.yaml"), *helm.template(EVERYTHING)]
    rules = [rule for document in shipped if "Role" in document["kind"] for rule in document.get("rules", [])]

    assert rules
    assert not [rule for rule in rules for values in rule.values() if "*" in values]
