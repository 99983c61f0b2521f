# SPDX-License-Identifier: Apache-2.0
"""Objects as the API server shows them, of a fleet in which most things are wrong, for tests of the plugin."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec

from numamigration_api.machinery.profiles import profile_name
from numamigration_cli.objects import ListedNode, NodeView, PolicyView
from numamigration_cli.views.plan import PlanState
from numamigration_operator.core.objects import NodeObject, PolicyObject, ProfileObject
from numamigration_operator.core.tuned import digest_of

Item = TypeVar("Item")

NOW: Final = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)
HALF_AN_HOUR_AGO: Final = "2026-11-26T11:30:00Z"
EPYC: Final = "AMD EPYC 7713 64-Core Processor; 2 NUMA + 1 memory-only; 4 ptdma"
XEON: Final = "Intel Xeon Platinum 8592+; 2 NUMA + 2 memory-only; 8 idxd"
CANARY_FAILED: Final = "canary v5-001 failed: GuardrailTripped: foliosFailedShare is 0.025416, and 0.01 is allowed"


def _as(document: dict[str, Any], kind: type[Item]) -> Item:
    """Decode it from bytes, as it comes from the API server."""
    return msgspec.json.decode(json.dumps(document).encode(), type=kind)


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": HALF_AN_HOUR_AGO,
    }


def policy_document(name: str = "offload", *, uid: str = "", status: Any = None, **spec: Any) -> dict[str, Any]:
    settings = {"offload": {"engine": "DMA", "channels": 4}}
    return {
        "metadata": {
            "name": name,
            "uid": uid or f"uid-{name}",
            "generation": 2,
            "resourceVersion": "77",
            "creationTimestamp": "2026-11-01T00:00:00Z",
        },
        "spec": {"nodeSelector": {}, "priority": 100, "mode": "Apply", "settings": settings} | spec,
        "status": status or {},
    }


ROLLED_BACK: Final = {
    "observedGeneration": 2,
    "summary": "0/60 ready, rolled back: GuardrailTripped on V5",
    "conditions": [
        condition("Ready", "False", "RolledBack", "a canary failed"),
        condition("Stalled", "True", "RolledBack", CANARY_FAILED),
    ],
    "nodes": {"matched": 60, "pending": 58, "failed": 2},
    "overlays": {"drifted": 1, "unproven": 2},
    "rollout": {
        "phase": "RolledBack",
        "revision": "434d092e133bdda6",
        "provenRevision": "0123456789abcdef",
        "wave": 3,
        "waves": 7,
        "message": CANARY_FAILED,
    },
    "statistics": {"nodes": 60, "foliosMigrated": 120000, "foliosFailed": 12, "foliosPerSecond": "350.2"},
    "worstNodes": [
        {"node": "v5-001", "state": "failed", "reason": "GuardrailTripped", "message": "foliosFailedShare is 0.025416"}
    ],
    "conflicts": [{"group": "offload", "winner": "database", "nodes": 3}],
}
READY: Final = {
    "observedGeneration": 2,
    "summary": "3/3 ready",
    "conditions": [condition("Ready", "True", "AsExpected")],
}


def policy(name: str = "offload", **given: Any) -> PolicyView:
    return _as(policy_document(name, **given), PolicyView)


def asked(name: str = "offload", **given: Any) -> PolicyObject:
    """Return a policy as the operator's core reads it."""
    return _as(policy_document(name, **given), PolicyObject)


def wish(policy: str = "offload", mode: str = "Apply", **settings: Any) -> dict[str, Any]:
    return {
        "source": {"policy": policy, "uid": f"uid-{policy}", "generation": 2},
        "mode": mode,
        "settings": settings or {"engine": "DMA", "channels": 4},
        "release": "Restore",
    }


def state_document(
    name: str = "db-1", groups: dict[str, Any] | None = None, ready: Any = None, **status: Any
) -> dict[str, Any]:
    said = {
        "observedRevision": "aaaaaaaaaaaaaaaa",
        "reportedAt": "2026-11-26T11:58:00Z",
        "kernelRelease": "7.1.0-rc3",
        "agentVersion": "0.1.0",
        "dialect": "V6",
        "hardwareClass": EPYC,
        "offload": "DMA, 4 channels",
        "conditions": [ready or condition("Ready", "True", "AsExpected")],
        "statistics": {"foliosMigrated": 1000, "foliosFailed": 0, "foliosPerSecond": "12.5"},
    }
    return {
        "metadata": {"name": name, "uid": f"state-{name}", "generation": 1},
        "spec": {
            "revision": "aaaaaaaaaaaaaaaa",
            "groups": {"offload": wish()} if groups is None else groups,
        },
        "status": said | status,
    }


DENIED: Final = state_document(
    "db-2",
    ready=condition("Ready", "False", "PermissionDenied", "offload: /sys/module/dcbm: set agent.hostWrite.module"),
    offload="Off",
    dialect="V5",
    groups={
        "offload": wish(),
        "balancing": wish("tiering", mode="Tiering"),
    },
)
FULL: Final = (
    state_document(
        "db-2",
        ready=condition("Ready", "False", "PermissionDenied", "offload: /sys/module/dcbm: set agent.hostWrite.module"),
        offload="Off",
        groups={"offload": wish(), "demotion": wish("tiering", enabled=True)},
    )
    | {}
)
FULL["status"] |= {
    "groups": {
        "offload": {"state": "Failed", "reason": "PermissionDenied", "message": "open(2): EACCES"},
        "demotion": {"state": "Ready", "reason": "AsExpected"},
    },
    "knobs": [
        {
            "field": "offload.channels",
            "path": "/sys/module/dcbm/parameters/nr_dma_chan",
            "desired": "4",
            "observed": "1",
            "baseline": "1",
            "outcome": "Rejected",
            "reason": "PermissionDenied",
            "message": "open(2): EACCES",
        },
        {
            "field": "demotion.enabled",
            "path": "/sys/kernel/mm/numa/demotion_enabled",
            "desired": "true",
            "observed": "true",
            "baseline": "false",
            "outcome": "Applied",
        },
    ],
    "dmaEngines": [{"driver": "ptdma", "channels": 4, "numaNode": 0, "usable": True}],
    "verification": {"result": "Passed", "driver": "ptdma", "channels": 4, "at": "2026-11-26T09:00:00Z"},
    "unknownFiles": ["/sys/module/dcbm/parameters/new_knob"],
    "capabilities": {"fields": ["offload.engine", "offload.channels", "demotion.enabled"]},
}
"""A node state with everything in it."""


Speeds = dict[tuple[str, int], float]
"""GB/s by engine and channels."""
SHAPES: Final = ((512, 4096), (32, 4096), (32, 2 << 20))
"""Folios in one call and their bytes, the heaviest first."""
FASTER: Final[tuple[Speeds, ...]] = (
    {("CPU", 0): 2.14, ("DMA", 1): 0.92, ("DMA", 2): 1.71, ("DMA", 4): 2.61},
    {("CPU", 0): 1.96, ("DMA", 1): 0.71, ("DMA", 2): 1.34, ("DMA", 4): 2.02},
    {("CPU", 0): 11.2, ("DMA", 1): 3.31, ("DMA", 2): 6.55, ("DMA", 4): 12.5},
)
MANY_CHANNELS: Final[tuple[Speeds, ...]] = (
    {("CPU", 0): 4.02, ("DMA", 1): 0.82, ("DMA", 2): 1.59, ("DMA", 4): 3.08, ("DMA", 8): 5.44},
    {("CPU", 0): 3.71, ("DMA", 1): 0.79, ("DMA", 2): 1.48, ("DMA", 4): 2.91, ("DMA", 8): 4.86},
    {("CPU", 0): 9.87, ("DMA", 1): 2.95, ("DMA", 2): 5.78, ("DMA", 4): 10.9, ("DMA", 8): 13.2},
)


def results(speeds: tuple[Speeds, ...]) -> list[dict[str, Any]]:
    """Return a profile's results: made-up speeds by shape."""
    return [
        {
            "engine": engine,
            "channels": channels,
            "folioBytes": folio_bytes,
            "folios": folios,
            "migrators": 1,
            "bytesPerSecond": int(speed * 1e9),
            "standardDeviation": int(speed * 2e7),
            "samples": 10,
            "cpuSecondsPerGiB": "0.4",
        }
        for (folios, folio_bytes), of_shape in zip(SHAPES, speeds, strict=True)
        for (engine, channels), speed in of_shape.items()
    ]


def profile_document(dialect: str = "V6", hardware: str = EPYC, **status: Any) -> dict[str, Any]:
    """Return a MigrationProfile of which four channels were chosen; a status of None is one that nobody has written."""
    choice = {"engine": "DMA", "channels": 4, "gain": "1.17", "message": "best here: DMA, 4 channels (+21%)"}
    said = {
        "phase": "Measured",
        "recommendation": {"engine": "DMA", "channels": 4},
        "gain": "1.17",
        "nodes": [{"node": f"db-{number}"} | choice for number in (1, 3)],
        "results": results(FASTER),
        "measuredAt": "2026-11-23T12:00:00Z",
        "attemptedAt": "2026-11-23T12:00:00Z",
        "message": choice["message"],
    } | status
    metadata = {"name": profile_name(dialect, hardware), "uid": "p", "creationTimestamp": "2026-11-23T11:00:00Z"}
    spec = {"dialect": dialect, "hardwareClass": hardware}
    written = {key: value for key, value in said.items() if value}
    document = {"metadata": metadata, "spec": spec, "status": written}
    return document | {"status": {"digest": digest_of(_as(document, ProfileObject).status)} | written}


DISPUTED: Final = profile_document(
    "V5",
    XEON,
    phase="Disputed",
    recommendation={"engine": "DMA", "channels": 8},
    gain="1.31",
    nodes=[{"node": "db-v5-0001", "engine": "DMA", "channels": 8, "gain": "1.31"}],
    results=results(MANY_CHANNELS),
    attemptedAt="2026-11-26T11:30:00Z",
    disputes=1,
    message=f"policy database: {CANARY_FAILED.partition(': ')[2]}",
)
UNKNOWN: Final = profile_document(
    "V6",
    XEON,
    phase="Measuring",
    recommendation=None,
    gain=None,
    nodes=None,
    results=None,
    measuredAt=None,
    attemptedAt="2026-11-26T11:30:00Z",
    message="NotCalm: PSI of memory is 14.2, and 10 is allowed",
)


def profile(document: dict[str, Any]) -> ProfileObject:
    return _as(document, ProfileObject)


def listed(document: dict[str, Any]) -> ListedNode:
    return _as(document, ListedNode)


def viewed(document: dict[str, Any]) -> NodeView:
    return _as(document, NodeView)


def planned_state(document: dict[str, Any]) -> PlanState:
    return _as(document, PlanState)


def node(name: str = "db-1", **labels: str) -> NodeObject:
    return msgspec.convert({"metadata": {"name": name, "uid": f"node-{name}", "labels": labels}}, NodeObject)
