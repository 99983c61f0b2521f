# SPDX-License-Identifier: Apache-2.0
"""Objects as the API server shows them, of a fleet in which most things are wrong, for tests of the plugin."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec

from numamigration_cli.objects import ListedNode, NodeView, PolicyView
from numamigration_cli.views.plan import PlanState
from numamigration_operator.core.objects import NodeObject, PolicyObject

Item = TypeVar("Item")

NOW: Final = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)
HALF_AN_HOUR_AGO: Final = "2026-11-26T11:30:00Z"
EPYC: Final = "AMD EPYC 7713 64-Core Processor; 2 NUMA + 1 memory-only; 4 ptdma"
CANARY_FAILED: Final = "canary v5-001 failed: GuardrailTripped: foliosFailedShare is 0.025416, and 0.01 is allowed"


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


def listed(document: dict[str, Any]) -> ListedNode:
    return _as(document, ListedNode)


def viewed(document: dict[str, Any]) -> NodeView:
    return _as(document, NodeView)


def planned_state(document: dict[str, Any]) -> PlanState:
    return _as(document, PlanState)


def node(name: str = "db-1", **labels: str) -> NodeObject:
    return msgspec.convert({"metadata": {"name": name, "uid": f"node-{name}", "labels": labels}}, NodeObject)


def _as(document: dict[str, Any], kind: type[Item]) -> Item:
    """Decode it from bytes, as it comes from the API server."""
    return msgspec.json.decode(json.dumps(document).encode(), type=kind)
