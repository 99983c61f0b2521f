# SPDX-License-Identifier: Apache-2.0
"""The contract table (``tests/contract``) against the real API server, and what kubectl makes of the kinds.

The words are the server's, so they differ between Kubernetes versions; rows name the parts that tell a person where
the mistake is and what is legal.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml

from numamigration_api.vocabulary import (
    AGENT_MANAGER,
    API_VERSION,
    OPERATOR_MANAGER,
    POLICY_KIND,
    POLICY_PLURAL,
    STATE_KIND,
    STATE_PLURAL,
)
from tests.apiserver.shared_bed import EVERY_VERSION
from tests.testbed.api import CRDS, Api, ApiError, Json, condition
from tests.testbed.controlplane import ControlPlane

ROOT: Final = Path(__file__).parents[2]
TABLE: Final = ROOT / "tests" / "contract"
COLLECTIONS: Final = {
    POLICY_KIND: f"/apis/{API_VERSION}/{POLICY_PLURAL}",
    STATE_KIND: f"/apis/{API_VERSION}/{STATE_PLURAL}",
}
STATUS_MANAGERS: Final = {POLICY_KIND: OPERATOR_MANAGER, STATE_KIND: AGENT_MANAGER}
COLUMNS_MAX: Final = 80

UniqueName = Callable[[str], str]
Kubectl = Callable[..., str]

pytestmark = [*EVERY_VERSION, pytest.mark.usefixtures("crds"), pytest.mark.uncounted]


class Row(NamedTuple):
    """One line of the table."""

    kind: str
    name: str
    object: Json
    update: Json | None
    before: Json | None
    status: Json | None
    refused: tuple[str, ...]
    defaults: Json


def rows() -> Iterator[Row]:
    for path in sorted(TABLE.glob("*.yaml")):
        table = _expanded(yaml.safe_load(path.read_text()))
        for row in table["rows"]:
            unknown = set(row) - {"name", "object", "update", "before", "status", "accepted", "refused", "defaults"}
            if unknown or ("refused" in row) is bool(row.get("accepted")):
                raise ValueError(f"{path.name}: {row['name']!r} is no row: {sorted(unknown)}")
            refused = row.get("refused", ())
            yield Row(
                table["kind"],
                row["name"],
                row["object"],
                row.get("update"),
                row.get("before"),
                row.get("status"),
                (refused,) if isinstance(refused, str) else tuple(refused),
                row.get("defaults", {}),
            )


def _expanded(value: Any) -> Any:
    if isinstance(value, list):
        return [_expanded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$repeat" in value:
        return value["$text"] * value["$repeat"] if "$text" in value else [_expanded(value["$item"])] * value["$repeat"]
    return {key: _expanded(item) for key, item in value.items()}


def missing(expected: Any, found: Any, path: str = "") -> list[str]:
    """Return where `found` lacks a part of `expected`; lists are compared item by item."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return [gap for key, item in expected.items() for gap in missing(item, found.get(key), f"{path}.{key}")]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return [gap for i, item in enumerate(expected) for gap in missing(item, found[i], f"{path}[{i}]")]
    return [] if expected == found else [f"{path}: {found!r} is not {expected!r}"]


def send(api: Api, row: Row, name: str) -> Json:
    """Do what the row says; the answer is that to its last step."""
    collection = COLLECTIONS[row.kind]
    document = {"apiVersion": API_VERSION, "kind": row.kind, "metadata": {"name": name}}
    if row.update is None and row.status is None:
        return api.create(collection, document | row.object)
    if row.update is not None:
        return api.merge_patch(f"{collection}/{name}", row.update)
    return apply_status(api, row, name, row.status)


def apply_status(api: Api, row: Row, name: str, status: Json | None) -> Json:
    document = {"apiVersion": API_VERSION, "kind": row.kind, "metadata": {"name": name}, "status": status}
    return api.apply(f"{COLLECTIONS[row.kind]}/{name}", document, STATUS_MANAGERS[row.kind], subresource="status")


@pytest.mark.parametrize("row", list(rows()), ids=lambda row: f"{row.kind}: {row.name}")
def test_contract(api: Api, unique_name: UniqueName, row: Row) -> None:
    name = unique_name("contract")
    path = f"{COLLECTIONS[row.kind]}/{name}"
    if row.update is not None or row.status is not None:
        send(api, row._replace(update=None, status=None), name)
    if row.before is not None:
        apply_status(api, row, name, row.before)
    before = api.get_if_exists(path)

    if row.refused:
        with pytest.raises(ApiError) as caught:
            send(api, row, name)
        assert [text for text in row.refused if text not in caught.value.message] == [], caught.value.message
        assert api.get_if_exists(path) == before, "what is refused must leave nothing behind"
    else:
        assert missing(row.defaults, send(api, row, name)) == []
    api.request("DELETE", COLLECTIONS[row.kind], query={"fieldSelector": f"metadata.name={name}"})


def test_the_table_is_as_wide_as_promised() -> None:
    table = list(rows())

    assert len(table) >= 60
    assert {row.kind for row in table} == {POLICY_KIND, STATE_KIND}
    assert len({(row.kind, row.name) for row in table}) == len(table)


# --- the definitions ---------------------------------------------------------------------------------------------


def test_definitions_are_established_and_structural(api: Api, crds: tuple[str, ...]) -> None:
    assert len(crds) == 3
    for name in crds:
        crd = api.get(f"{CRDS}/{name}")
        assert condition(crd, "Established")["status"] == "True"
        assert condition(crd, "NamesAccepted")["status"] == "True"
        assert condition(crd, "NonStructuralSchema") == {}


EXAMPLES: Final = {path.name: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "examples").glob("*.yaml"))}


@pytest.mark.parametrize("document", EXAMPLES.values(), ids=EXAMPLES)
def test_every_example_is_accepted(api: Api, document: Json) -> None:
    """On every version; tests/docs has the objects of pages too, and an operator that judges them."""
    assert api.create(COLLECTIONS[document["kind"]], document, query={"dryRun": "All"})["metadata"]["uid"]


# --- kubectl -----------------------------------------------------------------------------------------------------


@pytest.fixture
def kubectl(control_plane: ControlPlane, tmp_path: Path) -> Kubectl:
    """Run kubectl and return what it printed; what it caches stays in a folder of this test."""
    environment = os.environ | {"KUBECONFIG": str(control_plane.kubeconfig), "HOME": str(tmp_path)}

    def run(*arguments: str, stdin: str = "") -> str:
        command = [str(Path(sys.executable).parent / "kubectl"), *arguments]
        done = subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    return run


def ready(status: str, reason: str, message: str) -> Json:
    return {
        "type": "Ready",
        "status": status,
        "observedGeneration": 1,  # kubectl wait takes no condition of an earlier generation
        "lastTransitionTime": "2026-01-02T03:04:05Z",
        "reason": reason,
        "message": message,
    }


@pytest.fixture
def realistic(api: Api) -> Iterator[None]:
    """Objects as a fleet has them, with the long names and words among them."""
    states: dict[str, Json] = {
        "worker-a.zone-1": {
            "dialect": "V6",
            "offload": "DMA, 16 channels",
            "statistics": {"foliosPerSecond": "1234567.8"},
            "conditions": [ready("True", "AsExpected", "2 groups as asked")],
        },
        "worker-b.zone-1": {
            "dialect": "V3-padata",
            "offload": "Off",
            "conditions": [ready("False", "VerificationImpossible", "engines cannot be verified yet")],
        },
        "worker-c.zone-1": {
            "dialect": "NoSeries",
            "offload": "Unsupported",
            "conditions": [ready("False", "KernelUnsupported", "the kernel has none of the files")],
        },
    }
    policies: dict[str, Json] = {
        "database-offload": {
            "summary": "1/3 ready, 1 failed, 1 unsupported",
            "conditions": [ready("False", "MigratorBusy", "1 of 3 nodes failed")],
        },
        "tiering": {
            "summary": "5000/5000 ready",
            "conditions": [ready("True", "AsExpected", "all nodes as asked")],
        },
        "plan-offload": {
            "summary": "4990/5000 ready, 10 refused",
            "conditions": [ready("False", "RiskNotAccepted", "10 of 5000 nodes refused")],
        },
    }
    spec = {"nodeSelector": {}, "settings": {"offload": {"engine": "DMA", "channels": 4}}}
    for kind, objects in ((POLICY_KIND, policies), (STATE_KIND, states)):
        for name, status in objects.items():
            document: Json = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}}
            body = document | {"spec": spec if kind == POLICY_KIND else {}}
            api.apply(f"{COLLECTIONS[kind]}/{name}", body, "test", force=True)
            api.apply(
                f"{COLLECTIONS[kind]}/{name}",
                document | {"status": status},
                STATUS_MANAGERS[kind],
                subresource="status",
                force=True,
            )
    yield
    for kind, objects in ((POLICY_KIND, policies), (STATE_KIND, states)):
        for name in objects:
            api.delete(f"{COLLECTIONS[kind]}/{name}")


@pytest.mark.usefixtures("realistic")
@pytest.mark.parametrize(
    ("resource", "shown"),
    [
        pytest.param(
            "migpol",
            [
                ["NAME", "READY", "REASON", "NODES"],
                ["database-offload", "False", "MigratorBusy", "1/3 ready, 1 failed, 1 unsupported"],
                ["tiering", "True", "AsExpected", "5000/5000 ready"],
            ],
            id="policies",
        ),
        pytest.param(
            "nms",
            [
                ["NAME", "OFFLOAD", "READY", "REASON", "FOLIOS/S"],
                ["worker-a.zone-1", "DMA, 16 channels", "True", "AsExpected", "1234567.8"],
                ["worker-b.zone-1", "Off", "False", "VerificationImpossible"],
                ["worker-c.zone-1", "Unsupported", "False", "KernelUnsupported"],
            ],
            id="node states",
        ),
    ],
)
def test_the_columns_answer_within_80_columns(kubectl: Kubectl, resource: str, shown: list[list[str]]) -> None:
    text = kubectl("get", resource)
    # Two spaces and more divide columns; words have one.
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]

    assert [row for row in shown if row not in cells] == [], text
    assert [line for line in text.splitlines() if len(line.rstrip()) > COLUMNS_MAX] == []


@pytest.mark.usefixtures("realistic")
def test_the_category_shows_both_kinds(kubectl: Kubectl) -> None:
    names = kubectl("get", "numamigration", "-o", "name").split()

    assert "migrationpolicy.numamigration.dev/database-offload" in names
    assert "nodemigrationstate.numamigration.dev/worker-a.zone-1" in names


@pytest.mark.usefixtures("realistic")
def test_both_kinds_are_shown_by_one_command(kubectl: Kubectl) -> None:
    text = kubectl("get", "migpol,nms")

    assert "database-offload" in text
    assert "DMA, 16 channels" in text


@pytest.mark.usefixtures("realistic")
def test_wide_columns_tell_the_message(kubectl: Kubectl) -> None:
    assert "1 of 3 nodes failed" in kubectl("get", "migpol", "-o", "wide")
    assert "the kernel has none of the files" in kubectl("get", "nms", "-o", "wide")


@pytest.mark.usefixtures("realistic")
def test_ready_can_be_waited_for(kubectl: Kubectl) -> None:
    told = kubectl("wait", "--for=condition=Ready", "migpol/tiering", "--timeout=30s")

    assert "condition met" in told


@pytest.mark.parametrize(
    ("field", "words"),
    [
        pytest.param("migpol.spec.rollout", "How a change reaches the nodes.", id="rollout"),
        pytest.param("migpol.spec.settings.offload.channels", "DMA channels per batch", id="channels"),
        pytest.param("migpol.spec.nodeSelector", "{} is every node", id="selector"),
        pytest.param("nms.status.knobs", "knob table", id="knobs"),
    ],
)
def test_kubectl_explains_the_fields(kubectl: Kubectl, field: str, words: str) -> None:
    assert words in kubectl("explain", field).replace("\n", " ")


def test_a_bare_off_in_yaml_is_answered_with_the_legal_words(kubectl: Kubectl) -> None:
    """YAML 1.1 reads a bare Off as false; people will write it, so the answer has to help."""
    told = kubectl("create", "--dry-run=server", "-f", "-", stdin=BARE_OFF)

    assert 'supported values: "DMA", "CPUThreads", "Off"' in told


BARE_OFF: Final = f"""
apiVersion: {API_VERSION}
kind: {POLICY_KIND}
metadata: {{name: bare-off}}
spec:
  nodeSelector: {{}}
  settings:
    offload:
      engine: Off
"""
