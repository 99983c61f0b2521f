# SPDX-License-Identifier: Apache-2.0
"""Policy edit to kernel file, hop by hop, beside a bare chain of the same hops: ``python -m benchmarks.latency``.

* One edit is one merge patch of a policy, as kubectl sends it, on an open connection. It is over when write(2) on the
  kernel file has succeeded, which inotify tells; every moment is of this process's clock.
* Product and chain take turns in one run, each with a fake kernel of its own, and the next edit waits until all that
  follows the last one (the node's report) is over. Ratios hold on a busy machine; milliseconds do not.
* The chain has the same CRDs under another group, so that the API server does the same work for it and the product
  does not see it. ``chain`` says what it leaves out.
* Hops end when a watch of this process tells: the policy is stored; the node state is stored; the file is written.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec
import yaml

from benchmarks import schema
from benchmarks.chain import Part
from benchmarks.observer import Json, Observer, StoreObserver, connect
from benchmarks.run import run
from benchmarks.schema import Machine, Measurement, Target, Unit, measured, percentile
from numamigration_api.vocabulary import (
    API_VERSION,
    GROUP,
    POLICY_KIND,
    POLICY_PLURAL,
    STATE_KIND,
    STATE_PLURAL,
    VERSION,
)
from tests.demo.stage import DEFAULTS, POLICIES, ROOT, STATES, NodePart, Stage
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
NODE: Final = "node-a"
POLICY: Final = "edited"
FILE: Final = "/sys/kernel/mm/numa/demotion_enabled"
CHAIN_GROUP: Final = f"chain.{GROUP}"
CHAIN: Final = f"/apis/{CHAIN_GROUP}/{VERSION}"
RATIO_P50: Final = Target(1.5)
RATIO_P99: Final = Target(1.5)


class Edit(NamedTuple):
    """Milliseconds from one moment to the next."""

    policy_stored: float
    state_stored: float
    file_written: float

    @property
    def total(self) -> float:
        """From the first byte of the patch to the kernel file."""
        return sum(self)


class Side(NamedTuple):
    """What is edited, and who tells what came of it."""

    path: str
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
        self._enabled = True

    def edit(self, side: Side) -> Edit:
        """Edit once, and wait until all that follows is over."""
        body = json.dumps({"spec": {"settings": {"demotion": {"enabled": self._enabled}}}})
        begun = time.monotonic()
        self._connection.request("PATCH", side.path, body, self._headers)
        answer = self._connection.getresponse()
        edited = json.loads(answer.read())
        written = side.stores.wait()
        generation = edited["metadata"]["generation"]
        policy = side.policies.wait("the policy's event", lambda seen: _generation(seen) == generation)
        state = side.states.wait("the node state's event", lambda seen: _wish(seen) == self._enabled)
        if side.reports:
            side.states.wait("the node's report", _is_reported)
        moments = (begun, policy.at, state.at, written)
        return Edit(*(1000 * (end - start) for start, end in pairwise(moments)))

    def turn(self) -> None:
        """From now on edit to the other value."""
        self._enabled = not self._enabled


def benchmark(binaries: Binaries, progress: Progress) -> schema.Result:
    """Measure everything, on one control plane."""
    machine = Machine.here()
    progress.note("starting the product and the bare chain")
    cast = (NodePart(NODE, "the only node", HostConfig()),)
    with Stage(binaries, cast, DEFAULTS) as stage, _product(stage) as product, _chain(stage) as chain:
        found = _take_turns(stage, Editor(stage), product, chain, progress)
    conditions = (
        f"{EDITS} edits of each, taking turns; one node.",
        "Real kube-apiserver; kernel files by FUSE.",
    )
    return schema.result("latency", "make bench-latency", machine, conditions, _measurements(*found))


def _take_turns(
    stage: Stage, editor: Editor, product: Side, chain: Side, progress: Progress
) -> tuple[list[Edit], list[Edit]]:
    found: tuple[list[Edit], list[Edit]] = ([], [])
    for number in range(WARM_UP + EDITS):
        progress.tick(f"editing: {number} of {WARM_UP + EDITS}")
        stage.check_alive()
        editor.turn()
        for edits, side in zip(found, (product, chain), strict=True):
            time.sleep(random.uniform(*PAUSE_SECONDS))  # noqa: S311 - spreads edits, keeps no secret
            edits.append(editor.edit(side))
    return found[0][WARM_UP:], found[1][WARM_UP:]


# --- the two sides -----------------------------------------------------------------------------------------------


@contextmanager
def _product(stage: Stage) -> Iterator[Side]:
    with ExitStack() as cleanup:
        side = _side(stage, cleanup, NODE, POLICIES, STATES, reports=True)
        stage.api.create(POLICIES, _policy(API_VERSION))
        side.stores.wait()
        side.states.wait("the policy's report", _is_reported)
        yield side


@contextmanager
def _chain(stage: Stage) -> Iterator[Side]:
    _install_crds(stage)
    stage.add_host("chain", HostConfig())
    version, policies, states = f"{CHAIN_GROUP}/{VERSION}", f"{CHAIN}/{POLICY_PLURAL}", f"{CHAIN}/{STATE_PLURAL}"
    spec = stage.api.get(f"{STATES}/{NODE}")["spec"]
    document = {"apiVersion": version, "kind": STATE_KIND, "metadata": {"name": NODE}, "spec": spec}
    plane = stage.control_plane
    part = Part(
        server=plane.server,
        ca=str(plane.ca),
        token=plane.admin_token,
        policy=f"{policies}/{POLICY}",
        state=f"{states}/{NODE}",
        document=document,
        file=str(stage.hosts["chain"].path(FILE)),
    )
    write_private(stage.folder / "chain.json", msgspec.json.encode(part))
    with ExitStack() as cleanup:
        side = _side(stage, cleanup, "chain", policies, states, reports=False)
        for role in ("agent", "operator"):
            command = [sys.executable, "-m", "benchmarks.chain", role, str(stage.folder / "chain.json")]
            stage.start(f"chain-{role}", command)
        stage.api.create(policies, _policy(version))
        side.stores.wait()
        yield side


def _side(stage: Stage, cleanup: ExitStack, host: str, policies: str, states: str, *, reports: bool) -> Side:
    return Side(
        path=f"{policies}/{POLICY}",
        policies=cleanup.enter_context(Observer(stage.control_plane, policies)),
        states=cleanup.enter_context(Observer(stage.control_plane, states)),
        stores=cleanup.enter_context(StoreObserver(stage.hosts[host].path(FILE))),
        reports=reports,
    )


def _install_crds(stage: Stage) -> None:
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        crd = yaml.safe_load(path.read_text())
        crd["metadata"]["name"] = f"{crd['spec']['names']['plural']}.{CHAIN_GROUP}"
        crd["spec"]["group"] = CHAIN_GROUP
        stage.api.install_crd(crd)


def _policy(version: str) -> Json:
    head = {"apiVersion": version, "kind": POLICY_KIND, "metadata": {"name": POLICY}}
    return {**head, "spec": {"nodeSelector": {}, "settings": {"demotion": {"enabled": True}}, "onDelete": "Keep"}}


def _generation(obj: Json) -> int:
    generation: int = obj["metadata"]["generation"]
    return generation


def _wish(state: Json) -> Any:
    return state["spec"].get("groups", {}).get("demotion", {}).get("settings", {}).get("enabled")


def _is_reported(state: Json) -> bool:
    status: Mapping[str, Any] = state.get("status", {})
    settled = all(group["state"] == "Ready" for group in status.get("groups", {}).values())
    return bool(status.get("groups") and settled and status.get("observedGeneration") == _generation(state))


# --- the numbers -------------------------------------------------------------------------------------------------


def _measurements(product: Sequence[Edit], chain: Sequence[Edit]) -> list[Measurement]:
    ours, bare = [edit.total for edit in product], [edit.total for edit in chain]
    return [
        *_ratios("edit to kernel file", ours, bare),
        _milliseconds("edit to kernel file", ours),
        _milliseconds("edit to kernel file, bare", bare),
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


def _ratios(name: str, ours: Sequence[float], bare: Sequence[float]) -> Iterator[Measurement]:
    for word, percent, target in (("p50", 50, RATIO_P50), ("p99", 99, RATIO_P99)):
        ratio = percentile(ours, percent) / percentile(bare, percent)
        yield measured(f"{name}, {word} by bare {word}", Unit.RATIO, [ratio], target=target)


def _milliseconds(name: str, samples: Sequence[float]) -> Measurement:
    return measured(name, Unit.MILLISECONDS, samples, latency=True)


if __name__ == "__main__":
    sys.exit(run(benchmark))
