# SPDX-License-Identifier: Apache-2.0
"""What commands read of each object, as msgspec Structs: what is not named here is skipped by the decoder.

Words are plain strings: a cluster of a newer release may have newer ones, and at 3 a.m. it is looked at all the same.
"""

from __future__ import annotations

from typing import Any, Final

from numamigration_api.vocabulary import API_VERSION, POLICY_PLURAL, PROFILE_PLURAL, STATE_PLURAL
from numamigration_operator.core.objects import Meta, PolicyStatusView, Statistics, Struct

POLICIES: Final = f"/apis/{API_VERSION}/{POLICY_PLURAL}"
STATES: Final = f"/apis/{API_VERSION}/{STATE_PLURAL}"
PROFILES: Final = f"/apis/{API_VERSION}/{PROFILE_PLURAL}"
NODES: Final = "/api/v1/nodes"
EVENTS: Final = "/apis/events.k8s.io/v1/namespaces/default/events"
"""Of policies: Events of what is in no namespace are in this one."""


class Named(Struct, frozen=True):
    """Any object."""

    metadata: Meta


class Condition(Struct, frozen=True):
    """A condition, with its times."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""


class PolicySpecView(Struct, frozen=True):
    """What is shown of a policy's spec."""

    mode: str = "Apply"
    priority: int = 100
    settings: dict[str, dict[str, Any]] = {}


class PolicyView(Struct, frozen=True):
    """A MigrationPolicy."""

    metadata: Meta
    spec: PolicySpecView = PolicySpecView()
    status: PolicyStatusView = PolicyStatusView()

    def condition(self, kind: str) -> Condition | None:
        """Return one condition; None when nobody has written it."""
        found = next((one for one in self.status.conditions if one.get("type") == kind), None)
        if found is None:
            return None
        return Condition(
            kind, *(str(found.get(key, "")) for key in ("status", "reason", "message", "lastTransitionTime"))
        )


class SourceName(Struct, frozen=True):
    """The policy whose wish a group is."""

    policy: str = ""


class GroupSource(Struct, frozen=True):
    """A group of a node state's spec, as far as a list of nodes shows it."""

    source: SourceName = SourceName()
    mode: str = ""


class ListedSpec(Struct, frozen=True):
    """A node state's spec, as far as a list of nodes shows it."""

    groups: dict[str, GroupSource] = {}


class GroupSaid(Struct, frozen=True):
    """What an agent says of a group."""

    state: str = ""
    reason: str = ""
    message: str = ""


class ListedStatus(Struct, frozen=True):
    """A node state's status, as far as a list of nodes shows it."""

    reported_at: str | None = None
    kernel_release: str = ""
    agent_version: str = ""
    dialect: str = ""
    hardware_class: str = ""
    offload: str = ""
    conditions: tuple[Condition, ...] = ()
    groups: dict[str, GroupSaid] = {}
    statistics: Statistics = Statistics()

    def condition(self, kind: str) -> Condition | None:
        """Return one condition; None when nobody has written it."""
        return next((one for one in self.conditions if one.type == kind), None)


class ListedNode(Struct, frozen=True):
    """A NodeMigrationState in a list of nodes."""

    metadata: Meta
    spec: ListedSpec = ListedSpec()
    status: ListedStatus = ListedStatus()


class WindowNumbers(Struct, frozen=True):
    """What was counted over one window; None: this kernel has no such counter."""

    seconds: str = ""
    folios_migrated: int | None = None
    folios_failed: int | None = None


class Window(Struct, frozen=True):
    """Before and after the change to one revision."""

    before: WindowNumbers | None = None
    after: WindowNumbers | None = None


class ReportedStatus(ListedStatus, frozen=True):
    """A node state's status, as far as a report shows it."""

    window: Window = Window()


class ReportedNode(ListedNode, frozen=True):
    """A NodeMigrationState in a report."""

    status: ReportedStatus = ReportedStatus()


class Regarding(Struct, frozen=True):
    """Whom an Event is about."""

    name: str = ""
    uid: str = ""


class MeasuredRate(Struct, frozen=True):
    """What a node measured of one setting: a row of a profile's results."""

    engine: str = ""
    channels: int = 0
    folio_bytes: int = 0
    folios: int = 0
    migrators: int = 1
    bytes_per_second: int = 0
    standard_deviation: int = 0
    samples: int = 0
    cpu_seconds_per_gi_b: str = ""


class EventView(Struct, frozen=True):
    """An Event of events.k8s.io/v1."""

    event_time: str | None = None
    reason: str = ""
    type: str = ""
    note: str = ""
    regarding: Regarding = Regarding()


class GroupWish(Struct, frozen=True):
    """A group of a node state's spec, whole."""

    source: SourceName = SourceName()
    mode: str = ""
    settings: dict[str, Any] = {}
    release: str = ""
    drift: str = ""
    unsupported: str = ""
    accepted_risks: tuple[str, ...] = ()


class NodeSpec(Struct, frozen=True):
    """A node state's spec, whole."""

    revision: str = ""
    groups: dict[str, GroupWish] = {}


class Knob(Struct, frozen=True):
    """A row of the knob table on that node."""

    field: str
    path: str = ""
    desired: str | None = None
    observed: str | None = None
    baseline: str | None = None
    outcome: str = ""
    reason: str = ""
    message: str = ""


class Engine(Struct, frozen=True):
    """DMA engines of one driver on one NUMA node."""

    driver: str
    channels: int
    usable: bool
    numa_node: int | None = None
    reason: str = ""


class Trial(Struct, frozen=True):
    """What the trial of the engine showed."""

    result: str = ""
    engine: str = ""
    driver: str = ""
    channels: int | None = None
    at: str = ""
    message: str = ""


class PlanSaid(Struct, frozen=True):
    """What an agent says of a Plan policy."""

    policy: str
    would_change: int = 0
    state: str = ""
    reason: str = ""
    message: str = ""


class NodeStatusView(ListedStatus, frozen=True):
    """A node state's status, whole."""

    observed_revision: str = ""
    settled_at: str = ""
    knobs: tuple[Knob, ...] = ()
    dma_engines: tuple[Engine, ...] = ()
    verification: Trial | None = None
    plans: tuple[PlanSaid, ...] = ()
    unknown_files: tuple[str, ...] = ()


class NodeView(Struct, frozen=True):
    """A NodeMigrationState, whole."""

    metadata: Meta
    spec: NodeSpec = NodeSpec()
    status: NodeStatusView = NodeStatusView()
