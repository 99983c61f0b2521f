# SPDX-License-Identifier: Apache-2.0
"""Rights that the chart gives to its hooks and to people, in an API server that nothing installs the chart into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from tests.apiserver.operator_process import NAMESPACE, RBAC
from tests.testbed.api import Api, Json
from tests.testbed.chart import Helm
from tests.testbed.controlplane import ControlPlane

RIGHTS: Final = {
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts/{name}",
    "ClusterRole": f"{RBAC}/clusterroles/{{name}}",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings/{{name}}",
    "Role": f"{RBAC}/namespaces/{{namespace}}/roles/{{name}}",
    "RoleBinding": f"{RBAC}/namespaces/{{namespace}}/rolebindings/{{name}}",
}


def grant_hooks(api: Api, hooks: Iterable[Json]) -> Iterator[str]:
    """Apply what is about rights among some objects of the chart; yield where each is, as it is applied."""
    for one in hooks:
        if one["kind"] in RIGHTS:
            path = RIGHTS[one["kind"]].format(**{"namespace": "", **one["metadata"]})
            api.apply(path, one, "test-bed", force=True)
            yield path


def grant_plugin(bed: ControlPlane, helm: Helm, **accounts: str) -> None:
    """Make accounts, and give them the plugin's roles by the chart's values ``viewers`` and ``operators``."""
    people = {value: {"name": name, "namespace": NAMESPACE} for value, name in accounts.items()}
    subjects = {value: [{"kind": "ServiceAccount", **who}] for value, who in people.items()}
    made = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": who} for who in people.values()]
    roles = helm.template({"pluginRoles": subjects})
    made += [one for one in roles if one["metadata"]["name"].startswith("numamigration-plugin")]
    list(grant_hooks(bed.api, made))
