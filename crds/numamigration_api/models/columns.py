# SPDX-License-Identifier: Apache-2.0
"""Printer columns: "is it on, does it work, why not" in 80 columns; the rest with ``-o wide``."""

from typing import Final

from numamigration_api.models.base import Column

_READY: Final = '.status.conditions[?(@.type=="Ready")]'

POLICY_COLUMNS: Final = (
    Column("Ready", f"{_READY}.status", "Whether every node that can is as wished"),
    Column("Reason", f"{_READY}.reason", "Why"),
    Column("Nodes", ".status.summary", "Matched nodes by state"),
    Column("Mode", ".spec.mode", "Apply, Plan or Paused (the last two are reasons of Ready too)", wide=True),
    Column("Priority", ".spec.priority", "Higher wins a group", type="integer", wide=True),
    Column("Engine", ".spec.settings.offload.engine", "Who shall copy", wide=True),
    Column("Channels", ".spec.settings.offload.channels", "DMA channels per batch", type="integer", wide=True),
    Column("Folios/s", ".status.statistics.foliosPerSecond", "Folios copied by engines a second", wide=True),
    Column("Migrated", ".status.statistics.foliosMigrated", "Folios copied by engines", type="integer", wide=True),
    Column("Failed", ".status.statistics.foliosFailed", "Folios engines could not copy", type="integer", wide=True),
    Column("Message", f"{_READY}.message", "The Ready condition in words", wide=True),
    Column("Age", ".metadata.creationTimestamp", "Since creation", type="date", wide=True),
)

STATE_COLUMNS: Final = (
    Column("Offload", ".status.offload", "What the kernel does now"),
    Column("Ready", f"{_READY}.status", "Whether the node is as wished"),
    Column("Reason", f"{_READY}.reason", "Why"),
    Column("Folios/s", ".status.statistics.foliosPerSecond", "Folios copied by the engine a second"),
    Column("Dialect", ".status.dialect", "File layout of the kernel series", wide=True),
    Column("Policy", ".spec.groups.offload.source.policy", "Whose wish the group offload is", wide=True),
    Column("Migrated", ".status.statistics.foliosMigrated", "Folios copied by the engine", type="integer", wide=True),
    Column("Failed", ".status.statistics.foliosFailed", "Folios it could not copy", type="integer", wide=True),
    Column("Drifted", '.status.conditions[?(@.type=="Drifted")].status', "Somebody else changed a knob", wide=True),
    Column("Class", ".status.hardwareClass", "Hardware class", wide=True),
    Column("Reported", ".status.reportedAt", "Last report of the agent", type="date", wide=True),
    Column("Message", f"{_READY}.message", "The Ready condition in words", wide=True),
)

PROFILE_COLUMNS: Final = (
    Column("Phase", ".status.phase", "How far the measurement is"),
    Column("Engine", ".status.recommendation.engine", "Who should copy"),
    Column("Channels", ".status.recommendation.channels", "DMA channels per batch", type="integer"),
    Column("Gain", ".status.gain", "Expected throughput against the plain copy by CPU"),
    Column("Measured", ".status.measuredAt", "Since then", type="date"),
    Column("Dialect", ".spec.dialect", "File layout of the kernel series", wide=True),
    Column("Class", ".spec.hardwareClass", "Hardware class", wide=True),
    Column("Message", ".status.message", "The choice in words", wide=True),
)
