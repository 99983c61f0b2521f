# SPDX-License-Identifier: Apache-2.0
"""The node fence: an admission policy that keeps each agent to the status of its own node state (promise 9).

All agents share one service account, so RBAC cannot tell them apart. The token of a Pod carries the name of the Node
that it runs on, and the API server shows that claim to admission policies.

* It concerns the agents' account only, and everything that this account may write in our API group: all kinds and
  subresources, also those to come, in all served versions, every operation.
* What is refused first is said: validations stand in the order in which a person would ask.
* The status endpoint takes nothing but status by itself (custom resources); that metadata and spec stay is said here
  too, since the fence shall not stand on it alone.
* Reads have no admission: whoever has an agent's token reads all node states.
* The claim is as good as the namespace: who may create Pods or tokens there chooses it (docs/security.md).

This is the one source: deploy/fence.yaml and the chart's template are written from it (``fence_files``), and the
operator compares with it what stands on the API server (docs/decisions/0010).

Sources: Kubernetes documentation, "Validating Admission Policy" and "Managing Service Accounts: bound service account
tokens"; kubernetes/kubernetes test/e2e/auth/e2edata/per_node_validatingadmissionpolicy.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from numamigration_api.vocabulary import GROUP, STATE_PLURAL

FENCE_NAME: Final = "numamigration-agent-fence"
"""Name of the admission policy and of its binding."""
AGENT_ACCOUNT: Final = "numamigration-agent"
"""The agents' service account, in the operator's namespace."""
POLICY_KIND: Final = "ValidatingAdmissionPolicy"
BINDING_KIND: Final = "ValidatingAdmissionPolicyBinding"
ADMISSION_API: Final = "admissionregistration.k8s.io/v1"
NODE_CLAIM: Final = "authentication.kubernetes.io/node-name"
"""Of a token that is bound to a Pod with a Node; beta and on by default from Kubernetes 1.30, stable in 1.32."""
KEPT_METADATA: Final = {"labels": "{}", "annotations": "{}", "finalizers": "[]", "ownerReferences": "[]"}
"""What a status write leaves alone, and CEL for none of it; managedFields are server-side apply's own."""

Json = Mapping[str, Any]


NODE: Final = f"""\
has(request.userInfo.extra) && "{NODE_CLAIM}" in request.userInfo.extra
&& size(request.userInfo.extra["{NODE_CLAIM}"]) == 1
? request.userInfo.extra["{NODE_CLAIM}"][0] : \"\""""

WHAT: Final = 'request.resource.resource + (has(request.subResource) ? "/" + request.subResource : "")'
"""Absent is the API server's word for an empty subresource, and for the name in a deletion of all."""


def _same(path: str, empty: str) -> str:
    """CEL: `path` of the object is as it was; an absent one is as good as an empty one."""
    now, before = f"object.{path}", f"oldObject.{path}"
    return f"(has({now}) ? {now} : {empty}) == (has({before}) ? {before} : {empty})"


_SAME_METADATA: Final = "\n&& ".join(_same(f"metadata.{field}", empty) for field, empty in KEPT_METADATA.items())
VALIDATIONS: Final[tuple[Mapping[str, str], ...]] = (
    {
        "expression": 'variables.node != ""',
        "message": "the agent's token does not name exactly one node; is it bound to a Pod on a Node?",
    },
    {
        "expression": f'request.operation == "UPDATE" && variables.what == "{STATE_PLURAL}/status"',
        "messageExpression": '"an agent may update the status of its node state and nothing else; this is "\n'
        '+ request.operation + " of " + variables.what',
    },
    {
        "expression": "has(request.name) && request.name == variables.node",
        "messageExpression": '"the agent of node " + variables.node + " may not write the status of " + request.name',
    },
    {
        "expression": f'request.operation != "UPDATE" || ({_SAME_METADATA})',
        "message": f"an agent may not change {', '.join(KEPT_METADATA)}",
    },
    {
        "expression": f'request.operation != "UPDATE" || {_same("spec", "{}")}',
        "message": "an agent may not change the spec",
    },
)
"""What must hold of a write of an agent; the first that does not is what is said."""


def admission_policy(namespace: str) -> dict[str, Any]:
    """Return the admission policy that fences the agents of a namespace."""
    account = f"system:serviceaccount:{namespace}:{AGENT_ACCOUNT}"
    everything = {"apiGroups": [GROUP], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"], "scope": "*"}
    return {
        "apiVersion": ADMISSION_API,
        "kind": POLICY_KIND,
        "metadata": {"name": FENCE_NAME},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"matchPolicy": "Equivalent", "resourceRules": [everything]},
            "matchConditions": [
                {"name": "only-agents", "expression": f'request.userInfo.username == "{account}"'},
            ],
            "variables": [{"name": "node", "expression": NODE}, {"name": "what", "expression": WHAT}],
            "validations": [{**validation, "reason": "Forbidden"} for validation in VALIDATIONS],
        },
    }


def admission_binding() -> dict[str, Any]:
    """Return the binding that puts the admission policy in force, everywhere."""
    return {
        "apiVersion": ADMISSION_API,
        "kind": BINDING_KIND,
        "metadata": {"name": FENCE_NAME},
        "spec": {"policyName": FENCE_NAME, "validationActions": ["Deny"]},
    }


def fence_problem(policy: Json | None, binding: Json | None, namespace: str) -> str:
    """Return why the agents of a namespace are not fenced; empty when they are.

    What the API server fills in counts for what it means. A fence that refuses more is one too: further validations,
    audit annotations, Deny together with Audit. One of another release is none: nobody here knows what it holds.

    Args:
        policy: the admission policy of that name as the API server shows it; None when there is none.
        binding: the same of its binding.
        namespace: of the agents.
    """
    for kind, found, weaknesses in (
        (POLICY_KIND, policy, lambda spec: _weak_policy(spec, admission_policy(namespace)["spec"])),
        (BINDING_KIND, binding, _weak_binding),
    ):
        if found is None:
            return f"{kind} {FENCE_NAME} does not exist"
        weak = weaknesses(found.get("spec") or {})
        if weak:
            return f"{kind} {FENCE_NAME} does not fence agents of namespace {namespace}: {', '.join(weak)} differs"
    return ""


def _weak_policy(found: Json, wanted: Json) -> list[str]:
    asked = {_plain(one) for one in wanted["validations"]}
    holds = {
        "failurePolicy": found.get("failurePolicy", "Fail") == wanted["failurePolicy"],
        "paramKind": not found.get("paramKind"),
        "matchConstraints": _match(found.get("matchConstraints")) == _match(wanted["matchConstraints"]),
        "matchConditions": _plain(found.get("matchConditions")) == _plain(wanted["matchConditions"]),
        "variables": _plain(found.get("variables")) == _plain(wanted["variables"]),
        "validations": asked <= {_plain(one) for one in found.get("validations") or ()},
    }
    return [f"spec.{field}" for field, is_so in holds.items() if not is_so]


def _weak_binding(found: Json) -> list[str]:
    holds = {
        "policyName": found.get("policyName") == FENCE_NAME,
        "paramRef": not found.get("paramRef"),
        "matchResources": _match(found.get("matchResources")) == _match(None),
        "validationActions": "Deny" in (found.get("validationActions") or ()),
    }
    return [f"spec.{field}" for field, is_so in holds.items() if not is_so]


def _match(found: Json | None) -> str:
    """Return what is matched, in one spelling: with the API server's defaults, without what selects everything."""
    match = {"matchPolicy": "Equivalent", **(found or {})}
    match["resourceRules"] = [{"scope": "*", **rule} for rule in match.get("resourceRules") or ()]
    return _plain(match)


def _plain(value: object) -> str:
    """Return a value in one spelling, without the fields that say nothing."""
    match value:
        case Mapping():
            said = sorted((key, _plain(item)) for key, item in value.items() if item not in ({}, [], "", None))
            return repr(said)
        case list() | tuple():
            return repr([_plain(item) for item in value])
        case _:
            return repr(value)
