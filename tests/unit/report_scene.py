# SPDX-License-Identifier: Apache-2.0
"""A made-up fleet in the middle of an incident, for the page of ``kubectl numamigration report`` and its screenshots.

Two policies; three kinds of node; the database policy's last revision asked too much of the V5 engines and was rolled
back there. All of it follows from the number of nodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from numamigration_api.vocabulary import API_VERSION, CELL_ANNOTATION_PREFIX, POLICY_UID_LABEL
from numamigration_cli.objects import EventView, ReportedNode
from numamigration_cli.views.report.facts import Objects
from numamigration_operator.core.fleet_switch import Control
from numamigration_operator.core.objects import RevisionObject
from tests.unit.cli_samples import (
    CANARY_FAILED,
    DISPUTED,
    EPYC,
    NOW,
    READY,
    XEON,
    condition,
    policy,
    profile,
    profile_document,
    state_document,
    wish,
)

SERVER: Final = "https://kubernetes.example:6443"
GENOA: Final = "AMD EPYC 9654 96-Core Processor; 2 NUMA; no DMA engine"
KINDS: Final = (("db-v6", "V6", EPYC), ("db-v5", "V5", XEON), ("vm", "NoSeries", GENOA))
OFFLOAD: Final = {"offload": wish("database")}


def scene(nodes: int = 240) -> Objects:
    """Return everything a report reads."""
    status = {
        "observedGeneration": 3,
        "summary": f"{nodes // 2}/{2 * nodes // 3} ready, rolled back: GuardrailTripped on V5",
        "conditions": [
            condition("Ready", "False", "RolledBack", "a canary failed"),
            condition("Stalled", "True", "RolledBack", CANARY_FAILED),
        ],
        "nodes": {
            "matched": 2 * nodes // 3,
            "ready": nodes // 2,
            "failed": 4,
            "pending": 2 * nodes // 3 - nodes // 2 - 4,
        },
        "rollout": {
            "phase": "RolledBack",
            "revision": "434d092e133bdda6",
            "provenRevision": "0123456789abcdef",
            "startedAt": "2026-11-26T11:05:00Z",
            "message": CANARY_FAILED,
        },
        "statistics": {"nodes": nodes, "foliosMigrated": 120000, "foliosFailed": 12, "foliosPerSecond": "350.2"},
        "worstNodes": [{"node": "db-v5-0001", "state": "failed", "reason": "GuardrailTripped", "message": "too many"}],
    }
    tiering = READY | {
        "nodes": {"matched": nodes // 3, "ready": nodes // 3},
        "summary": f"{nodes // 3}/{nodes // 3} ready",
    }
    return Objects(
        now=NOW,
        server=SERVER,
        policies=[policy("database", status=status), policy("tiering", status=tiering)],
        nodes=[as_reported(document) for document in _states(nodes)],
        control=Control(),
        revisions=[
            revision(1, {"channels": 2}),
            revision(2, {"channels": 4}, "Proven"),
            revision(3, {"channels": 8}, "Failed"),
        ],
        events=[
            event("2026-11-26T11:05:01.000000Z", "Applying", "0/160 ready: rollout begins"),
            event("2026-11-26T11:30:00.000000Z", "RolledBack", CANARY_FAILED, kind="Warning"),
        ],
        profiles=[profile(profile_document()), profile(DISPUTED)],
    )


def as_reported(document: dict[str, Any]) -> ReportedNode:
    """Return a node state as the report reads it."""
    return msgspec.json.decode(json.dumps(document).encode(), type=ReportedNode)


def revision(number: int, offload: dict[str, Any], verdict: str = "", *, uid: str = "uid-database") -> RevisionObject:
    """Return a stored revision, with a verdict on V5 and a proof on V6 when there is one."""
    dialects = (("V6", "Proven", 0), ("V5", verdict, 6)) if verdict else ()
    said = {
        f"{CELL_ANNOTATION_PREFIX}{dialect}": json.dumps(
            {
                "dialect": dialect,
                "hardwareClass": "",
                "verdict": word,
                "at": f"2026-11-{23 + number}T11:{20 + number + minutes}:00Z",
                "reason": "GuardrailTripped" if word == "Failed" else "",
            }
        )
        for dialect, word, minutes in dialects
    }
    data = {
        "settings": {"offload": {"engine": "DMA"} | offload},
        "acceptedRisks": [],
        "verification": "FirstUse",
        "unsupported": "BestEffort",
        "drift": "Correct",
        "onDelete": "Restore",
    }
    metadata = {
        "name": f"database-{number}",
        "uid": f"r{number}",
        "creationTimestamp": f"2026-11-{(1, 20, 26)[number - 1]:02}T11:04:00Z",
        "labels": {POLICY_UID_LABEL: uid},
        "annotations": said,
    }
    document = {"apiVersion": "apps/v1", "metadata": metadata, "data": data, "revision": number}
    return msgspec.convert(document, RevisionObject)


def event(at: str, reason: str, note: str, *, kind: str = "Normal", uid: str = "uid-database") -> EventView:
    """Return an Event on a policy."""
    document = {"eventTime": at, "reason": reason, "note": note, "type": kind, "regarding": {"name": "", "uid": uid}}
    return msgspec.convert(document | {"apiVersion": API_VERSION}, EventView)


def _states(nodes: int) -> Iterator[dict[str, Any]]:
    for number in range(nodes):
        prefix, dialect, hardware = KINDS[number % 3]
        name = f"{prefix}-{number // 3:04}"
        found = _state(name, number, dialect, hardware)
        yield found | {"metadata": found["metadata"] | {"creationTimestamp": "2026-11-01T00:00:00Z"}}


def _state(name: str, number: int, dialect: str, hardware: str) -> dict[str, Any]:
    common: dict[str, Any] = {"dialect": dialect, "hardwareClass": hardware, "statistics": _statistics(number, dialect)}
    if number % 67 == 66:
        return {"metadata": {"name": name}}
    if number % 59 == 58:
        return state_document(name, OFFLOAD, reportedAt="2026-11-26T09:10:00Z", **common)
    if dialect == "V5" and number % 30 < 4:
        return _not_ready(name, "Failed", "GuardrailTripped", f"foliosFailedShare is 0.0{number % 7 + 2}", common)
    if dialect == "V5" and number % 5 == 0:
        return _not_ready(name, "Pending", "AwaitingRollout", "waits for its wave", common)
    if dialect == "V6" and number % 45 == 6:
        return _not_ready(name, "Refused", "RiskNotAccepted", "name OutOfOrderEngine in acceptedRisks", common)
    if dialect == "NoSeries":
        return _stock(name, number, common)
    after = {"seconds": "300", "foliosMigrated": 36000 + 90 * (number % 50), "foliosFailed": 3}
    window = {"revision": "aaaaaaaaaaaaaaaa", "before": after | {"foliosMigrated": 21000}, "after": after}
    return state_document(name, OFFLOAD, window=window, **common)


def _stock(name: str, number: int, common: dict[str, Any]) -> dict[str, Any]:
    if number % 4 == 3:
        nothing = condition("Ready", "True", "NoSettings", "no policy sets anything here")
        return state_document(name, {}, ready=nothing, offload="Unsupported", **common)
    return state_document(name, {"demotion": wish("tiering", enabled=True)}, offload="Unsupported", **common)


def _not_ready(name: str, state: str, reason: str, message: str, common: dict[str, Any]) -> dict[str, Any]:
    ready = condition("Ready", "False", reason, f"offload: {message}")
    found = state_document(name, OFFLOAD, ready=ready, offload="Off", **common)
    said = {"offload": {"state": state, "reason": reason, "message": message}}
    return found | {"status": found["status"] | {"groups": said}}


def _statistics(number: int, dialect: str) -> dict[str, Any]:
    if dialect == "NoSeries":
        return {}
    rate = 40 + 12 * (number % 17) + (60 if dialect == "V6" else 0) + number % 7
    failed = (number * 7919) % 400 if dialect == "V5" and number % 6 == 1 else number % 3
    return {"foliosMigrated": 900 * rate, "foliosFailed": failed, "foliosPerSecond": f"{rate}.5"}
