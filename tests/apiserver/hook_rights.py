# SPDX-License-Identifier: Apache-2.0
"""The accounts of the chart's hooks with the rights that the chart gives them, in an API server where no hook runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from tests.apiserver.operator_process import RBAC
from tests.testbed.api import Api, Json

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
