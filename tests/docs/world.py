# SPDX-License-Identifier: Apache-2.0
"""A cluster to type into: an API server with this project in it, an operator, four nodes, a checkout and a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import msgspec

from numamigration_api.vocabulary import API_VERSION, CONTROL_CONFIG_MAP, POLICY_KIND, Dialect
from tests.demo.stage import NAMESPACE, POLICIES, ROOT, Stage
from tests.fakekernel.config import HostConfig
from tests.fleet.cast import BUSY, Part
from tests.fleet.control import ask
from tests.testbed.api import Json, poll
from tests.testbed.binaries import Binaries
from tests.testbed.pages import Step, prints

CAST: Final = (
    Part("node", 3, HostConfig(workloads=BUSY), ("zone-a", "zone-b")),
    Part("stock", 1, HostConfig(dialect=Dialect.NO_SERIES, engines=(), workloads=BUSY)),
)
NODES: Final = tuple(part.member(number).name for part in CAST for number in range(part.count))
PACE: Final = ("--report", "1", "1", "--window", "1", "--jitter", "0")
OPERATOR: Final = {"status-interval-seconds": "0.5"}
SOAK: Final = re.compile(r"soakSeconds: \d+")
SOAK_SECONDS: Final = 1
"""In the checkout's examples, whose own take half an hour."""
STEP_SECONDS_MAX: Final = 60
SHOWN_SECONDS_MAX: Final = 30.0
LABEL: Final = "workload"

POLICY: Final[Json] = {
    "apiVersion": API_VERSION,
    "kind": POLICY_KIND,
    "metadata": {"name": "tiering"},
    "spec": {
        "nodeSelector": {},
        "settings": {"offload": {"engine": "DMA", "channels": 4}, "demotion": {"enabled": True}},
        "rollout": {"canary": {"nodes": 4, "soakSeconds": 0}, "maxUnproven": "100%"},
    },
}
"""Of pages that are about a policy which is there."""
KEY: Final = "hold.0123456789abcdef"
HELD: Final[Json] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": CONTROL_CONFIG_MAP, "namespace": NAMESPACE},
    "data": {KEY: '{"hardwareClass":"0123456789abcdef","dialect":"V6","driver":"ptdma","node":"node-000"}'},
}
"""A class that none of the nodes is of."""
CORE: Final = "/api/v1"
CONTROL: Final = f"{CORE}/namespaces/{NAMESPACE}/configmaps/{CONTROL_CONFIG_MAP}"
VARIABLES: Final = {"POLICY": POLICY["metadata"]["name"], "NODE": NODES[0], "KEY": KEY, "KUBE_EDITOR": "true"}


class Ended(NamedTuple):
    """How something that was typed ended."""

    code: int
    output: str
    errors: str


class World:
    """Everything that runs, from ``__enter__`` to ``__exit__``."""

    def __init__(self, binaries: Binaries, folder: Path) -> None:
        self._kubectl = binaries.kubectl
        self._stage = Stage(binaries)
        self._checkout = folder

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            cleanup.enter_context(self._stage)
            self.api = self._stage.api
            check_out(self._checkout)
            self._must("kubectl apply --server-side --force-conflicts --filename deploy/numa-migration-operator.yaml")
            self._stage.start("operator", self._stage.operator_command(OPERATOR))
            self._start_fleet()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def _start_fleet(self) -> None:
        parts, control = self._stage.folder / "parts.json", self._stage.folder / "fleet.sock"
        parts.write_bytes(msgspec.json.encode(CAST))
        options = ("--parts", str(parts), "--control", str(control), *PACE)
        config = str(self._stage.control_plane.kubeconfig)
        self._stage.start("fleet", [sys.executable, "-m", "tests.fleet", "--kubeconfig", config, *options])

        def reported() -> bool:
            self._stage.check_alive()
            return control.exists() and int(ask(control, "facts")["reports"]) >= len(NODES)

        poll(reported, "a report of every node's agent")
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}  # as a kubelet would say
        for name in NODES:
            self.api.merge_patch(f"{CORE}/nodes/{name}", ready, subresource="status")

    # --- what is there

    def begin(self, given: Iterable[Json]) -> None:
        """Leave nothing of the page before, and only these objects."""
        for policy in self.api.list_items(POLICIES):
            path = f"{POLICIES}/{policy['metadata']['name']}"
            self.api.delete(path)
            self.api.watch_until(path, lambda found: not found)
        if self.api.get_if_exists(CONTROL):
            self.api.delete(CONTROL)
        for name in NODES:
            changes = {"metadata": {"labels": {LABEL: None}}, "spec": {"unschedulable": None}}
            self.api.merge_patch(f"{CORE}/nodes/{name}", changes)
        for document in given:
            self.apply(document)

    def apply(self, document: Json) -> str:
        """Apply an object, whatever its namespace; return its path."""
        name = document["metadata"]["name"]
        path = CONTROL if document["kind"] == "ConfigMap" else f"{POLICIES}/{name}"
        self.api.apply(path, document, "test-docs", force=True)
        return path

    # --- what people type

    def type(self, step: Step) -> str | None:
        """Type a step; return what is wrong with how it ended, if anything.

        Output that a page shows is awaited where a person would look again.
        """
        looks = step.text.startswith(("kubectl get ", "kubectl describe "))
        deadline = time.monotonic() + (SHOWN_SECONDS_MAX if looks and step.output else 0.0)
        while wrong := told(step, self.shell(step.text)):
            self._stage.check_alive()
            if time.monotonic() >= deadline:
                return f"{wrong}\n{self._state()}"
        return None

    def shell(self, text: str) -> Ended:
        """Run what is typed, in the checkout."""
        ours = {"KUBECONFIG": str(self._stage.control_plane.kubeconfig), **VARIABLES}
        path = os.pathsep.join((str(self._kubectl.parent), str(Path(sys.executable).parent), os.environ["PATH"]))
        done = subprocess.run(
            ["timeout", str(STEP_SECONDS_MAX), "sh", "-euc", text],
            cwd=self._checkout,
            env={**os.environ, **ours, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def _must(self, text: str) -> None:
        done = self.shell(text)
        assert done.code == 0, f"{text}: {done.errors}\n{self._state()}"

    def _state(self) -> str:
        found = self.shell("kubectl get migpol,nms -o wide")
        return f"--- the cluster then:\n{found.output}{found.errors}"


def check_out(folder: Path) -> None:
    """Make a checkout of links, whose examples soak for a second."""
    for path in ROOT.iterdir():
        if path.name != "examples":
            (folder / path.name).symlink_to(path)
    examples = folder / "examples"
    examples.mkdir()
    for path in (ROOT / "examples").iterdir():
        (examples / path.name).write_text(SOAK.sub(f"soakSeconds: {SOAK_SECONDS}", path.read_text()))


def told(step: Step, ended: Ended) -> str | None:
    """Return what is wrong with how a step ended, if anything."""
    said = f"--- it printed:\n{ended.output}{ended.errors}"
    if ended.code:
        late = f" (after {STEP_SECONDS_MAX} s)" if ended.code == 124 else ""
        return f"{step.text}\nended with exit code {ended.code}{late}\n{said}"
    if step.output and not prints(step.output, ended.output):
        return "\n".join([step.text, "printed something else than the page shows:", *step.output, said])
    return None
