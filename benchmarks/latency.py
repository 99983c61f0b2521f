# SPDX-License-Identifier: Apache-2.0
"""Policy edit to kernel file, hop by hop, beside a bare chain of the same hops: ``python -m benchmarks.latency``.

* One edit is one merge patch of a policy, as kubectl sends it, on an open connection. It is over when write(2) on the
  kernel file has succeeded, which inotify tells; every moment is of this process's clock.
* Product and chain take turns in one run, each with kernel files of its own, and the next edit waits until all that
  follows the last one (the node's report) is over. Ratios hold on a busy machine; milliseconds do not.
* Targets hold on kernel files in memory (``kernel_files`` says why); the same on the fake kernel is told beside it.
* The chain has the same CRDs under another group, its objects the same statuses and its processes service accounts'
  tokens, so that the API server does the same work for it and the product does not see it. ``chain`` says what it
  leaves out.
* Hops end when a watch of this process tells: the policy is stored; the node state is stored; the file is written.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import yaml

from benchmarks import schema
from benchmarks.chain import Part
from benchmarks.kernel_files import copy_files, memory_folder
from benchmarks.observer import Json, Observer, StoreObserver, connect
from benchmarks.run import api_server_version, run
from benchmarks.schema import Machine, Row, Unit, percentile, row
from benchmarks.targets import LATENCY
from numamigration_api.vocabulary import (
    AGENT_MANAGER,
    API_VERSION,
    GROUP,
    OPERATOR_MANAGER,
    POLICY_KIND,
    POLICY_PLURAL,
    STATE_KIND,
    STATE_PLURAL,
    VERSION,
)
from tests.demo.stage import DEFAULTS, NAMESPACE, POLICIES, ROOT, STATES, Stage
from tests.fakekernel.config import HostConfig
from tests.testbed.binaries import Binaries
from tests.testbed.pki import write_private
from tests.testbed.progress import Progress

EDITS: Final = 200
"""Of product and chain each; so the 99th percentile is the second worst."""
WARM_UP: Final = 5
"""Edits before, which count for nothing."""
PAUSE_SECONDS: Final = (0.1, 0.3)
"""Between edits, drawn anew: nothing that comes at regular times meets each of them."""
FILE: Final = "/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps"
"""Plain numbers of equal length, so that a plain file holds what was written, as the kernel's does."""
LIMITS: Final = (2048, 4096)
LIMIT_BEFORE: Final = 1024
ROLLOUT: Final = {"canary": {"soakSeconds": 0}, "maxUnproven": "100%"}
"""Nobody waits for a soak; that what may be pushed is stored first, a ControllerRevision and a reservation, stays."""
CHAIN_GROUP: Final = f"chain.{GROUP}"
CHAIN: Final = f"/apis/{CHAIN_GROUP}/{VERSION}"
FUSE: Final = ", FUSE"
"""What rows of the fake kernel end in."""


class Edit(NamedTuple):
    """Milliseconds from one moment to the next."""

    policy_stored: float
    state_stored: float
    file_written: float

    @property
    def total(self) -> float:
        """From the first byte of the patch to the kernel file."""
        return sum(self)


class Place(NamedTuple):
    """Kernel files of product and chain, and the node whose they are."""

    node: str
    product: Path
    chain: Path


class Side(NamedTuple):
    """What is edited, and who tells what came of it.

    Attributes:
        node: whose node state; its policy has the same name.
        policy: path of the policy.
        reports: an agent reports when it is done.
    """

    node: str
    policy: str
    policies: Observer
    states: Observer
    stores: StoreObserver
    reports: bool


class Editor:
    """Edits policies as kubectl does, on one connection."""

    def __init__(self, stage: Stage) -> None:
        plane = stage.control_plane
        self._connection = connect(plane.server, str(plane.ca))
        self._headers = {
            "Authorization": f"Bearer {plane.admin_token}",
            "Content-Type": "application/merge-patch+json",
        }

    def edit(self, side: Side, limit: int) -> Edit:
        """Edit once, and wait until all that follows is over."""
        body = json.dumps({"spec": {"settings": _settings(limit)}})
        begun = time.monotonic()
        self._connection.request("PATCH", side.policy, body, self._headers)
        answer = self._connection.getresponse()
        edited = json.loads(answer.read())
        written = side.stores.wait()
        generation = edited["metadata"]["generation"]
        policy = side.policies.wait("the policy's event", lambda seen: _is(seen, side, generation))
        state = side.states.wait("the node state's event", lambda seen: _wish(seen, side) == limit)
        if side.reports:
            side.states.wait("the node's report", lambda seen: _is_reported(seen, side))
        moments = (begun, policy.at, state.at, written)
        return Edit(*(1000 * (end - start) for start, end in pairwise(moments)))


def benchmark(binaries: Binaries, progress: Progress) -> schema.Result:
    """Measure everything, on one control plane."""
    machine = Machine.here()
    progress.note("starting the product and the bare chain")
    with Stage(binaries, pace=DEFAULTS) as stage, ExitStack() as cleanup:
        memory = Path(cleanup.enter_context(memory_folder()))
        places = {"": _in_memory(stage, memory), FUSE: _on_fake_kernel(stage)}
        sides = {where: (_product(stage, cleanup, place), place) for where, place in places.items()}
        _install(stage)
        pairs = {where: (product, _chain(stage, cleanup, place)) for where, (product, place) in sides.items()}
        found = _take_turns(stage, Editor(stage), pairs, progress)
        versions = api_server_version(stage.api)
    conditions = (
        f"{EDITS} edits of each, taking turns; one node of each kind.",
        "Real kube-apiserver; kernel files in memory, or by FUSE where it says so.",
    )
    rows = [*_rows(*found[""]), *_brief(FUSE, *found[FUSE])]
    return schema.result(LATENCY, "make bench-latency", machine, conditions, rows, versions=versions)


def _take_turns(
    stage: Stage, editor: Editor, pairs: Mapping[str, tuple[Side, Side]], progress: Progress
) -> dict[str, tuple[list[Edit], list[Edit]]]:
    found: dict[str, tuple[list[Edit], list[Edit]]] = {where: ([], []) for where in pairs}
    for number, limit in zip(range(WARM_UP + EDITS), cycle(LIMITS), strict=False):
        progress.tick(f"editing: {number} of {WARM_UP + EDITS}")
        stage.check_alive()
        for where, pair in pairs.items():
            for edits, side in zip(found[where], pair, strict=True):
                time.sleep(random.uniform(*PAUSE_SECONDS))  # noqa: S311 - spreads edits, keeps no secret
                edits.append(editor.edit(side, limit))
    return {where: (product[WARM_UP:], chain[WARM_UP:]) for where, (product, chain) in found.items()}


# --- kernel files ------------------------------------------------------------------------------------------------


def _in_memory(stage: Stage, memory: Path) -> Place:
    place = Place("memory", memory / "product", memory / "chain")
    origin = stage.add_host("origin", HostConfig())
    for folder in (place.product, place.chain):
        copy_files(origin.root, folder)
        _file(folder).write_text(f"{LIMIT_BEFORE}\n")
    return place


def _on_fake_kernel(stage: Stage) -> Place:
    return Place("fuse", *(stage.add_host(f"fuse-{who}", HostConfig()).root for who in ("product", "chain")))


def _file(root: Path) -> Path:
    return root / FILE.lstrip("/")


# --- the two sides -----------------------------------------------------------------------------------------------


def _product(stage: Stage, cleanup: ExitStack, place: Place) -> Side:
    """Start an agent, and before the first one the operator; return once the first policy has come through."""
    side = _side(stage, cleanup, place.node, place.product, policies=POLICIES, states=STATES, reports=True)
    stage.add_node(place.node, {"name": place.node})
    if not any(server.name == "operator" for server in stage.servers):
        stage.start("operator", stage.operator_command())
    stage.start(f"agent-{place.node}", stage.agent_command(place.node, place.product))
    stage.api.create(POLICIES, _policy(API_VERSION, place.node))
    side.stores.wait()
    side.states.wait("the policy's report", lambda seen: _is_reported(seen, side))
    side.policies.wait("the policy's status", lambda seen: bool(_has_name(seen, side) and seen.get("status")))
    return side


def _chain(stage: Stage, cleanup: ExitStack, place: Place) -> Side:
    version, policies, states = f"{CHAIN_GROUP}/{VERSION}", f"{CHAIN}/{POLICY_PLURAL}", f"{CHAIN}/{STATE_PLURAL}"
    spec = stage.api.get(f"{STATES}/{place.node}")["spec"]
    document = {"apiVersion": version, "kind": STATE_KIND, "metadata": {"name": place.node}, "spec": spec}
    plane = stage.control_plane
    part = Part(
        server=plane.server,
        ca=str(plane.ca),
        operator_token=plane.service_account_token(NAMESPACE, "numamigration-operator"),
        agent_token=plane.node_bound_token(NAMESPACE, "numamigration-agent", place.node),
        policy=f"{policies}/{place.node}",
        state=f"{states}/{place.node}",
        document=document,
        file=str(_file(place.chain)),
    )
    path = stage.folder / f"chain-{place.node}.json"
    write_private(path, msgspec.json.encode(part))
    side = _side(stage, cleanup, place.node, place.chain, policies=policies, states=states, reports=False)
    for role in ("agent", "operator"):
        stage.start(f"chain-{role}-{place.node}", [sys.executable, "-m", "benchmarks.chain", role, str(path)])
    stage.api.create(policies, _policy(version, place.node))
    side.stores.wait()
    _copy_status(stage, f"{POLICIES}/{place.node}", policies, OPERATOR_MANAGER)
    _copy_status(stage, f"{STATES}/{place.node}", states, AGENT_MANAGER)
    side.stores.wait()  # the chain writes after each event; left unread, it would be taken for that of the first edit
    return side


def _copy_status(stage: Stage, origin: str, collection: str, manager: str) -> None:
    found = stage.api.get(origin)
    metadata = {"name": found["metadata"]["name"]}
    head = {"apiVersion": f"{CHAIN_GROUP}/{VERSION}", "kind": found["kind"], "metadata": metadata}
    path = f"{collection}/{metadata['name']}"
    stage.api.apply(path, {**head, "status": found["status"]}, manager, subresource="status")


def _side(
    stage: Stage, cleanup: ExitStack, node: str, root: Path, *, policies: str, states: str, reports: bool
) -> Side:
    return Side(
        node=node,
        policy=f"{policies}/{node}",
        policies=cleanup.enter_context(Observer(stage.control_plane, policies)),
        states=cleanup.enter_context(Observer(stage.control_plane, states)),
        stores=cleanup.enter_context(StoreObserver(_file(root))),
        reports=reports,
    )


def _install(stage: Stage) -> None:
    """Install the chain's CRDs, and let the product's service accounts use them."""
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        crd = yaml.safe_load(path.read_text())
        crd["metadata"]["name"] = f"{crd['spec']['names']['plural']}.{CHAIN_GROUP}"
        crd["spec"]["group"] = CHAIN_GROUP
        stage.api.install_crd(crd)
    _grant(stage)


def _grant(stage: Stage) -> None:
    version = "rbac.authorization.k8s.io/v1"
    rules = [{"apiGroups": [CHAIN_GROUP], "resources": ["*"], "verbs": ["*"]}]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "chain"}
    subjects = [{"kind": "Group", "apiGroup": reference["apiGroup"], "name": f"system:serviceaccounts:{NAMESPACE}"}]
    role: Json = {"apiVersion": version, "kind": "ClusterRole", "metadata": {"name": "chain"}}
    binding: Json = {"apiVersion": version, "kind": "ClusterRoleBinding", "metadata": {"name": "chain"}}
    stage.api.create(f"/apis/{version}/clusterroles", {**role, "rules": rules})
    bound = {**binding, "roleRef": reference, "subjects": subjects}
    stage.api.create(f"/apis/{version}/clusterrolebindings", bound)


def _policy(version: str, node: str) -> Json:
    head = {"apiVersion": version, "kind": POLICY_KIND, "metadata": {"name": node}}
    selector = {"matchLabels": {"name": node}}
    settings = _settings(LIMITS[-1])
    return {**head, "spec": {"nodeSelector": selector, "settings": settings, "rollout": ROLLOUT, "onDelete": "Keep"}}


def _settings(limit: int) -> Json:
    return {"balancing": {"mode": "Tiering", "promoteRateLimitMBps": limit}}


def _has_name(obj: Json, side: Side) -> bool:
    return bool(obj["metadata"]["name"] == side.node)


def _is(obj: Json, side: Side, generation: int) -> bool:
    return bool(_has_name(obj, side) and obj["metadata"]["generation"] == generation)


def _wish(state: Json, side: Side) -> Any:
    group = state["spec"].get("groups", {}).get("balancing", {})
    return group.get("settings", {}).get("promoteRateLimitMBps") if _has_name(state, side) else None


def _is_reported(state: Json, side: Side) -> bool:
    status: Mapping[str, Any] = state.get("status", {})
    settled = all(group["state"] == "Ready" for group in status.get("groups", {}).values())
    return bool(status.get("groups") and settled and _is(state, side, status.get("observedGeneration", 0)))


# --- the numbers -------------------------------------------------------------------------------------------------


def _rows(product: Sequence[Edit], chain: Sequence[Edit]) -> list[Row]:
    return [
        *_brief("", product, chain),
        *(
            _milliseconds(f"{hop}{who}", [getattr(edit, name) for edit in edits])
            for name, hop in (
                ("policy_stored", "patch to policy event"),
                ("state_stored", "policy event to node state event"),
                ("file_written", "node state event to kernel file"),
            )
            for edits, who in ((product, ""), (chain, ", bare"))
        ),
    ]


def _brief(where: str, product: Sequence[Edit], chain: Sequence[Edit]) -> list[Row]:
    ours, bare = [edit.total for edit in product], [edit.total for edit in chain]
    return [
        *_ratios("edit to kernel file", ours, bare, where),
        _milliseconds(f"edit to kernel file{where}", ours, (f"edit to kernel file, bare{where}", bare)),
        _milliseconds(f"edit to kernel file, bare{where}", bare),
    ]


def _ratios(name: str, ours: Sequence[float], bare: Sequence[float], where: str) -> Iterator[Row]:
    for word, percent in (("p50", 50), ("p99", 99)):
        ratio = percentile(ours, percent) / percentile(bare, percent)
        yield row(LATENCY, 1, f"{name}, {word} by bare {word}{where}", Unit.RATIO, [ratio])


def _milliseconds(name: str, samples: Sequence[float], bare: tuple[str, Sequence[float]] | None = None) -> Row:
    return row(LATENCY, 1, name, Unit.MILLISECONDS, samples, bare=bare, latency=True)


if __name__ == "__main__":
    sys.exit(run(benchmark))
