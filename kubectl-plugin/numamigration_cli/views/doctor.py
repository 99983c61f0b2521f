# SPDX-License-Identifier: Apache-2.0
"""What is wrong with an installation: an ordered tuple of small checks, each on what was read.

What may not be read is said, and is neither well nor wrong.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

from numamigration_api.machinery.clock import parse_timestamp
from numamigration_api.vocabulary import FleetSwitch, PolicyCondition, Reason
from numamigration_cli.objects import ListedNode, PolicyView
from numamigration_cli.text import Column, duration, names, plural
from numamigration_cli.views.nodes import is_recent
from numamigration_cli.views.profiles import in_order, is_used
from numamigration_operator.core.crd_order import Standing, compare, paths
from numamigration_operator.core.fleet_switch import Control
from numamigration_operator.core.objects import ProfileObject, Struct

KUBERNETES_MIN: Final = (1, 32)
LEASE_GRACE: Final = 3.0
"""Lease durations after which nobody renews it any more, clocks apart."""

Json = Mapping[str, Any]


class State(StrEnum):
    """What a check found."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"
    UNKNOWN = "unknown"


class Check(Struct, frozen=True):
    """What one check found, and what to do."""

    check: str
    state: State
    message: str
    advice: str = ""


class Denied(NamedTuple):
    """Something that may not be read."""

    why: str


class Facts(NamedTuple):
    """What was read; None is what does not exist.

    Attributes:
        version: of the API server, as it says it.
        plugin: this program's version.
        crds: as stored, by name.
        ours: as this release has them, by name.
        fence: why agents are not fenced; empty when they are.
        nodes: names of all Nodes.
        may: whether this user may do what commands of this plugin do, by its words.
    """

    version: str
    plugin: str
    crds: Mapping[str, Json | None] | Denied
    ours: Mapping[str, Json]
    fence: str | Denied
    lease: Json | Denied | None
    operator: Json | Denied | None
    agents: Json | Denied | None
    states: Sequence[ListedNode] | Denied
    nodes: Sequence[str] | Denied
    policies: Sequence[PolicyView] | Denied
    profiles: Sequence[ProfileObject] | Denied
    control: Control | Denied
    may: Mapping[str, bool]
    now: datetime


def doctor(facts: Facts) -> list[Check]:
    """Return what every check found, in their order."""
    return [found for check in CHECKS for found in check(facts)]


def _api_server(facts: Facts) -> Iterator[Check]:
    found = re.match(r"v?(\d+)\.(\d+)", facts.version)
    if found is None:
        yield Check("API server", State.UNKNOWN, f"version {facts.version or 'not said'}")
    elif (int(found[1]), int(found[2])) < KUBERNETES_MIN:
        oldest = ".".join(map(str, KUBERNETES_MIN))
        yield Check(
            "API server", State.WRONG, f"{facts.version}; {oldest} is the oldest supported", "upgrade Kubernetes"
        )
    else:
        yield Check("API server", State.OK, facts.version)


def _crds(facts: Facts) -> Iterator[Check]:
    if isinstance(facts.crds, Denied):
        yield Check("CRDs", State.UNKNOWN, facts.crds.why)
        return
    apply = "numamigration-operator crds apply, or helm upgrade"
    for name, ours in facts.ours.items():
        stored = facts.crds.get(name)
        standing, why = compare(stored, ours)
        if standing is Standing.ABSENT:
            yield Check("CRDs", State.WRONG, f"{name} is missing", apply)
        elif standing is Standing.FOREIGN:
            yield Check("CRDs", State.WRONG, f"{name} is none of ours: {why}")
        elif standing is Standing.NEWER:
            yield Check("CRDs", State.NOTE, f"{name}: {why}", "use the plugin of the newer release")
        elif stored is not None and (lacking := sorted(paths(ours) - paths(stored))):
            yield Check("CRDs", State.WRONG, f"{name} is older: it lacks {names(lacking)}", apply)
        else:
            yield Check("CRDs", State.OK, name)


def _fence(facts: Facts) -> Iterator[Check]:
    if isinstance(facts.fence, Denied):
        yield Check("node fence", State.UNKNOWN, facts.fence.why)
    elif facts.fence:
        mend = "kubectl apply --server-side -f deploy/fence.yaml"
        yield Check("node fence", State.WRONG, facts.fence, mend)
    else:
        yield Check("node fence", State.OK, "agents are kept to their own nodes")


def _leader(facts: Facts) -> Iterator[Check]:
    look = "look at the Deployment numamigration-operator and its pods; is --namespace right?"
    if isinstance(facts.lease, Denied):
        yield Check("leader", State.UNKNOWN, facts.lease.why)
        return
    spec = (facts.lease or {}).get("spec") or {}
    holder, renewed = spec.get("holderIdentity"), spec.get("renewTime")
    if not holder or not renewed:
        yield Check("leader", State.WRONG, "no operator leads", look)
        return
    age = (facts.now - parse_timestamp(renewed)).total_seconds()
    if age > LEASE_GRACE * float(spec.get("leaseDurationSeconds") or 15):
        yield Check("leader", State.WRONG, f"{holder} has not renewed its lease for {duration(age)}", look)
    else:
        yield Check("leader", State.OK, str(holder))


def _workload(name: str, what: Json | Denied | None, ready: str, wanted: str) -> Iterator[Check]:
    if isinstance(what, Denied):
        yield Check(name, State.UNKNOWN, what.why)
    elif what is None:
        yield Check(name, State.WRONG, "is not there", "is --namespace right? docs/install.md")
    else:
        status = what.get("status") or {}
        have, want = int(status.get(ready) or 0), int(status.get(wanted) or 0)
        state = State.OK if have and have >= want else State.WRONG
        advice = "" if state is State.OK else "kubectl describe its pods in the operator's namespace"
        yield Check(name, state, f"{have} of {want} ready", advice)


def _operator(facts: Facts) -> Iterator[Check]:
    return _workload("operator", facts.operator, "readyReplicas", "replicas")


def _agents(facts: Facts) -> Iterator[Check]:
    return _workload("agents", facts.agents, "numberReady", "desiredNumberScheduled")


def _reports(facts: Facts) -> Iterator[Check]:
    if isinstance(facts.states, Denied):
        yield Check("reports", State.UNKNOWN, facts.states.why)
        return
    silent = [one.metadata.name for one in facts.states if not is_recent(one.status.reported_at, facts.now)]
    total = len(facts.states)
    if not total:
        yield Check(
            "reports", State.WRONG, "there is no node state", "does an operator lead? It makes one for each Node"
        )
    elif silent:
        text = f"{total - len(silent)} of {total} nodes report; silent: {names(silent)}"
        yield Check("reports", State.WRONG, text, "look at these nodes, and at their pods of numamigration-agent")
    else:
        yield Check("reports", State.OK, f"{total} of {total} nodes report")
    if not isinstance(facts.nodes, Denied):
        without = sorted(set(facts.nodes) - {one.metadata.name for one in facts.states})
        if without:
            text = f"{plural(len(without), 'Node')} without a node state: {names(without)}"
            yield Check("reports", State.NOTE, text, "well if agent_node_selector leaves them out")


def _versions(facts: Facts) -> Iterator[Check]:
    found = {"plugin": Counter({facts.plugin: 1})}
    for name, what in (("operator", facts.operator), ("DaemonSet", facts.agents)):
        if isinstance(what, Mapping):
            labels = what["metadata"].get("labels") or {}
            found[name] = Counter({str(labels.get("app.kubernetes.io/version", "unknown")): 1})
    if not isinstance(facts.states, Denied):
        agents = Counter(one.status.agent_version for one in facts.states if one.status.agent_version)
        found |= {"agents": agents} if agents else {}
    versions = {version for counted in found.values() for version in counted}
    text = "; ".join(f"{who} {_counted(counted)}" for who, counted in found.items())
    if len(versions - {"unknown"}) > 1:
        yield Check("versions", State.NOTE, text, "well during an upgrade; afterwards all of one release")
    else:
        yield Check("versions", State.OK, text)


def _counted(counted: Counter[str]) -> str:
    shown = (f"{word} on {plural(count, 'node')}" if count > 1 else word for word, count in sorted(counted.items()))
    return ", ".join(shown)


class NodeCheck(NamedTuple):
    """A check of all nodes: none may have one of these reasons."""

    name: str
    reasons: tuple[Reason, ...]
    well: str
    advice: str


NODE_CHECKS: Final = (
    NodeCheck("module", (Reason.NOT_LOADED,), "no node lacks a driver that its kernel has", "load it on these nodes"),
    NodeCheck(
        "channels",
        (Reason.NO_DMA_CHANNEL, Reason.CHANNELS_EXHAUSTED, Reason.OFFLOAD_INEFFECTIVE),
        "no node is short of DMA channels",
        "lower channels, narrow the selector, or free the engines of these nodes",
    ),
    NodeCheck(
        "permissions",
        (Reason.PERMISSION_DENIED, Reason.READ_ONLY_FILE_SYSTEM, Reason.BASELINE_NOT_SAVED),
        "every agent may write what it is asked to",
        "the node's message names the chart's value (agent.hostWrite)",
    ),
    NodeCheck(
        "engines",
        (Reason.CORRUPTION_DETECTED, Reason.ENGINE_STALLED, Reason.ENGINE_FAILING),
        "no engine is known to be bad",
        "kubectl numamigration explain NODE; docs/hazards.md",
    ),
    NodeCheck(
        "verification",
        (Reason.VERIFICATION_IMPOSSIBLE,),
        "no engine waits for a trial that cannot be",
        "the node's message says why; often a seccomp profile that forbids move_pages",
    ),
)


def _nodes(facts: Facts) -> Iterator[Check]:
    if isinstance(facts.states, Denied):
        return
    for check in NODE_CHECKS:
        found = {node.metadata.name: hit for node in facts.states if (hit := _hit(node, check.reasons))}
        if found:
            counts = ", ".join(f"{reason} on {count}" for reason, count in sorted(Counter(found.values()).items()))
            yield Check(check.name, State.WRONG, f"{counts}: {names(sorted(found))}", check.advice)
        else:
            yield Check(check.name, State.OK, check.well)


def _hit(node: ListedNode, reasons: Sequence[str]) -> str:
    said = [one.reason for one in node.status.conditions] + [one.reason for one in node.status.groups.values()]
    return next((reason for reason in reasons if reason in said), "")


def _seccomp(facts: Facts) -> Iterator[Check]:
    if not isinstance(facts.agents, Mapping):
        return
    pod = facts.agents["spec"]["template"]["spec"]
    profiles = [_profile(one) for one in (pod, *pod.get("containers", ()))]
    kind = next((profile for profile in reversed(profiles) if profile), "none said")
    if kind in {"Unconfined", "Localhost"}:
        yield Check("seccomp", State.OK, f"agents run with profile {kind}")
    else:
        text = f"agents run with profile {kind}: under the runtime's default no engine can be tried"
        yield Check("seccomp", State.WRONG, text, "agent.seccompProfile.type=Localhost or Unconfined; docs/install.md")


def _profile(where: Json) -> str:
    return str(((where.get("securityContext") or {}).get("seccompProfile") or {}).get("type") or "")


def _switch(facts: Facts) -> Iterator[Check]:
    control = facts.control
    if isinstance(control, Denied):
        yield Check("fleet switch", State.UNKNOWN, control.why)
        return
    if control.problem:
        yield Check(
            "fleet switch", State.WRONG, control.problem, "mend the ConfigMap; until then nothing new is pushed"
        )
    elif control.switch is not FleetSwitch.RUN:
        yield Check("fleet switch", State.NOTE, control.switch, "kubectl numamigration stop run")
    else:
        yield Check("fleet switch", State.OK, control.switch)
    if control.holds:
        yield Check("held", State.NOTE, plural(len(control.holds), "class"), "kubectl numamigration status")


def _policies(facts: Facts) -> Iterator[Check]:
    if isinstance(facts.policies, Denied):
        yield Check("policies", State.UNKNOWN, facts.policies.why)
        return
    unseen = [one.metadata.name for one in facts.policies if one.status.observed_generation < one.metadata.generation]
    stalled = [one.metadata.name for one in facts.policies if _is_stalled(one)]
    if unseen:
        text = f"no operator has seen {names(unseen)} as it is"
        yield Check("policies", State.WRONG, text, "it takes seconds; then look at the leader above")
    if stalled:
        yield Check("policies", State.WRONG, f"wait for a person: {names(stalled)}", "kubectl numamigration status")
    if not unseen and not stalled:
        yield Check("policies", State.OK, f"{plural(len(facts.policies), 'policy')}, none waits for a person")


def _tuner(facts: Facts) -> Iterator[Check]:
    """Yield nothing where nothing was measured: that is well, and most clusters are so."""
    if isinstance(facts.profiles, Denied):
        yield Check("tuner", State.UNKNOWN, facts.profiles.why)
        return
    unused = [one.metadata.name for one in in_order(facts.profiles) if not is_used(one)]
    if unused:
        text = f"not used, since disputed or edited by hand: {names(unused)}"
        yield Check("tuner", State.NOTE, text, "kubectl numamigration profiles")
    elif facts.profiles:
        yield Check("tuner", State.OK, f"{plural(len(facts.profiles), 'class')}, none disputed or edited")


def _is_stalled(policy: PolicyView) -> bool:
    found = policy.condition(PolicyCondition.STALLED)
    return found is not None and found.status == "True"


def _rights(facts: Facts) -> Iterator[Check]:
    denied = [word for word, allowed in facts.may.items() if not allowed]
    if denied:
        text = f"this user may not {', nor '.join(denied)}"
        yield Check("your rights", State.NOTE, text, "docs/kubectl-plugin.md has the rights that each command needs")
    elif facts.may:
        yield Check("your rights", State.OK, f"this user may {', '.join(facts.may)}")


CHECKS: Final[tuple[Callable[[Facts], Iterator[Check]], ...]] = (
    _api_server,
    _crds,
    _fence,
    _operator,
    _leader,
    _agents,
    _reports,
    _versions,
    _nodes,
    _seccomp,
    _switch,
    _policies,
    _tuner,
    _rights,
)
"""The order in which a person would ask: what comes first explains what follows."""

COLUMNS: Final[tuple[Column[Check], ...]] = (
    Column("CHECK", lambda check: check.check),
    Column("STATE", lambda check: check.state),
    Column("FOUND", lambda check: check.message),
    Column("WHAT TO DO", lambda check: check.advice, wide=True),
)


def advice(found: Sequence[Check]) -> list[str]:
    """Return what to do about each check that is not well, two lines each."""
    bad = (one for one in found if one.state is not State.OK and one.advice)
    return [line for one in bad for line in (f"{one.check}: {one.message}", f"  {one.advice}")]
