# SPDX-License-Identifier: Apache-2.0
"""What the operator reads of each object, as msgspec Structs that decode raw response bytes.

A field that is not named here is skipped by the decoder without making an object of it: managedFields, node bodies and
most of a node state's status never become Python. That is where speed and memory come from.
"""

from __future__ import annotations

from typing import Any

import msgspec

from numamigration_api.vocabulary import (
    AGENT_MANAGER,
    AcceptedRisk,
    DriftPolicy,
    GroupMode,
    GroupState,
    GuardrailMetric,
    OnFailure,
    PolicyMode,
    Reason,
    Release,
    SettingsGroup,
    TuningMode,
    UnsupportedPolicy,
    Verification,
)


class Struct(msgspec.Struct, rename="camel", frozen=True, gc=False):
    """Base: camelCase outside, immutable, unknown fields skipped."""


class Owner(Struct, frozen=True):
    """``metav1.OwnerReference``, the part that is used."""

    uid: str


class Meta(Struct, frozen=True):
    """``metav1.ObjectMeta``, the part that is used."""

    name: str
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[Owner, ...] = ()


class ManagedFields(Struct, frozen=True):
    """Who wrote something of an object last, and when by the API server's clock; what it was is skipped."""

    manager: str = ""
    subresource: str = ""
    time: str = ""


class StateMeta(Meta, frozen=True):
    """Metadata of a node state."""

    managed_fields: tuple[ManagedFields, ...] = ()


class RevisionMeta(Meta, frozen=True):
    """Metadata of a ControllerRevision; of other kinds nobody reads annotations, which on Nodes are long."""

    annotations: dict[str, str] = {}


class NodeObject(Struct, frozen=True):
    """A Node, as PartialObjectMetadata."""

    metadata: Meta


class Requirement(Struct, frozen=True):
    """``metav1.LabelSelectorRequirement``."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class Selector(Struct, frozen=True):
    """``metav1.LabelSelector``."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[Requirement, ...] = ()


class Canary(Struct, frozen=True):
    """``spec.rollout.canary``."""

    nodes: int = 1
    soak_seconds: int = 300


class Guardrail(Struct, frozen=True):
    """A limit on what is measured on unproven nodes."""

    metric: GuardrailMetric
    max: str
    min_folios: int = 512


class Rollout(Struct, frozen=True):
    """``spec.rollout``."""

    canary: Canary = Canary()
    max_unproven: int | str = "10%"
    failure_threshold: int | str = "5%"
    guardrails: tuple[Guardrail, ...] = ()
    node_deadline_seconds: int = 900
    on_failure: OnFailure = OnFailure.ROLLBACK


class Tuning(Struct, frozen=True):
    """``spec.tuning``."""

    mode: TuningMode = TuningMode.OFF


class PolicySpec(Struct, frozen=True):
    """A policy's spec after the API server's defaults."""

    node_selector: Selector
    priority: int = 100
    mode: PolicyMode = PolicyMode.APPLY
    settings: dict[SettingsGroup, dict[str, Any]] = {}
    tuning: Tuning = Tuning()
    accepted_risks: tuple[AcceptedRisk, ...] = ()
    verification: Verification = Verification.FIRST_USE
    unsupported: UnsupportedPolicy = UnsupportedPolicy.BEST_EFFORT
    drift: DriftPolicy = DriftPolicy.CORRECT
    rollout: Rollout = Rollout()
    on_delete: Release = Release.RESTORE


class NodeCounts(Struct, frozen=True):
    """``status.nodes``: the matched nodes and the partition of them; every count is written, also 0."""

    matched: int = 0
    overridden: int = 0
    unsupported: int = 0
    unreachable: int = 0
    failed: int = 0
    refused: int = 0
    pending: int = 0
    ready: int = 0


class Overlays(Struct, frozen=True):
    """``status.overlays``: counts that lie over the partition."""

    drifted: int = 0
    unproven: int = 0


class Statistics(Struct, frozen=True):
    """The counters that a policy sums; None means: this kernel has no such counter."""

    folios_migrated: int | None = None
    folios_failed: int | None = None
    folios_refused: int | None = None
    batches_refused: int | None = None
    folios_per_second: str | None = None
    pages_migrated: int | None = None
    pages_migration_failed: int | None = None
    pages_promoted: int | None = None
    pages_demoted: int | None = None


class PolicyStatistics(Statistics, frozen=True, omit_defaults=True):
    """``status.statistics``: sums over `nodes`; None is a counter that no node has, and is left out."""

    nodes: int | None = None


class PlanTotals(Struct, frozen=True):
    """``status.plan``: nodes by what a Plan policy would do there."""

    would_change: int = 0
    equal: int = 0
    unsupported: int = 0
    refused: int = 0
    blocked: int = 0


class Conflict(Struct, frozen=True):
    """A group that the policy lost, and to whom."""

    group: str
    winner: str
    nodes: int


class WorstNode(Struct, frozen=True, omit_defaults=True):
    """A node that is not as wished, and why. Plain strings: a newer release may have stored newer words."""

    node: str
    state: str
    reason: str
    message: str = ""


class RolloutView(Struct, frozen=True, omit_defaults=True):
    """``status.rollout``. See ``core.ledger`` for what in it is a promise to other leaders."""

    revision: str | None = None
    generation: int | None = None
    proven_revision: str | None = None
    cursor: int | None = None
    reserved: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    wave: int | None = None
    waves: int | None = None
    phase: str | None = None
    leader_epoch: int | None = None
    started_at: str | None = None
    message: str | None = None


class PolicyStatusView(Struct, frozen=True, omit_defaults=True):
    """The part of a policy's status that the operator writes, as it was read and as it shall be.

    Read and wanted status are one type, so "nothing changed" is ``==``. Conditions stay plain JSON for the condition
    module. `rollout` holds the writer's epoch, which is compared by the API server and not here.
    """

    observed_generation: int = 0
    summary: str = ""
    conditions: tuple[dict[str, Any], ...] = ()
    nodes: NodeCounts | None = None
    overlays: Overlays | None = None
    statistics: PolicyStatistics | None = None
    plan: PlanTotals | None = None
    conflicts: tuple[Conflict, ...] = ()
    worst_nodes: tuple[WorstNode, ...] = ()
    rollout: RolloutView | None = None


class PolicyObject(Struct, frozen=True):
    """A MigrationPolicy."""

    metadata: Meta
    spec: PolicySpec
    status: PolicyStatusView = PolicyStatusView()


class SourceView(Struct, frozen=True):
    """Whose wish a group is."""

    policy: str
    uid: str
    generation: int = 0


class WishView(Struct, frozen=True):
    """A group of a node state's spec; `settings` stays raw bytes, since it is only compared and copied."""

    source: SourceView
    mode: GroupMode
    settings: msgspec.Raw
    release: Release
    drift: DriftPolicy = DriftPolicy.CORRECT
    unsupported: UnsupportedPolicy = UnsupportedPolicy.BEST_EFFORT
    verification: Verification = Verification.FIRST_USE
    accepted_risks: tuple[AcceptedRisk, ...] = ()


class PlanWishView(Struct, frozen=True):
    """A Plan policy's wish in a node state's spec."""

    source: SourceView
    settings: msgspec.Raw
    unsupported: UnsupportedPolicy = UnsupportedPolicy.BEST_EFFORT
    verification: Verification = Verification.FIRST_USE
    accepted_risks: tuple[AcceptedRisk, ...] = ()


class Observe(Struct, frozen=True, cache_hash=True):
    """What the agent watches after a change."""

    soak_seconds: int = 0
    guardrails: tuple[Guardrail, ...] = ()


class ProbeRequestView(Struct, frozen=True):
    """What a node is asked to measure."""

    id: str


class StateSpec(Struct, frozen=True):
    """A node state's spec."""

    revision: str | None = None
    leader_epoch: int | None = None
    write_sequence: int | None = None
    verify_epoch: int | None = None
    observe: Observe | None = None
    groups: dict[SettingsGroup, WishView] = {}
    plans: tuple[PlanWishView, ...] = ()
    probe: ProbeRequestView | None = None


class GroupResult(Struct, frozen=True, cache_hash=True):
    """What the agent says of one group."""

    state: GroupState
    reason: Reason
    message: str = ""
    soaked_revision: str | None = None


class PlanView(Struct, frozen=True):
    """What the agent says of one Plan policy."""

    uid: str
    generation: int
    would_change: int
    state: GroupState
    reason: Reason
    message: str = ""


class ConditionView(Struct, frozen=True):
    """A condition, without its times."""

    type: str
    status: str


class VerificationView(Struct, frozen=True):
    """What the trial of the engine showed."""

    result: str = ""
    epoch: int = 0
    driver: str = ""


class WindowView(Struct, frozen=True):
    """Numbers before and after the change to one revision: raw until they are judged, empty where there are none."""

    revision: str = ""
    before: msgspec.Raw = msgspec.Raw()
    after: msgspec.Raw = msgspec.Raw()

    def copy(self) -> WindowView:
        """Return the same, without the watch line or list page that raw parts keep in memory."""
        if not (self.before or self.after):
            return self
        return WindowView(self.revision, self.before.copy(), self.after.copy())


class ProbeChoice(Struct, frozen=True):
    """What a node's own measurement says."""

    engine: str
    channels: int | None = None
    gain: str | None = None


class ProbeView(Struct, frozen=True):
    """What became of a measurement. Plain strings: a newer release may have stored newer words; results are copied."""

    id: str
    phase: str
    reason: str = ""
    message: str = ""
    choice: ProbeChoice | None = None
    results: tuple[dict[str, Any], ...] = ()


class NodeStatus(Struct, frozen=True):
    """A Node's status, the part that is used."""

    conditions: tuple[ConditionView, ...] = ()


class NodeBody(Struct, frozen=True):
    """A Node whose body was asked for; of the others only metadata is read."""

    status: NodeStatus = NodeStatus()


class StateStatus(Struct, frozen=True):
    """A node state's status, the part that is used."""

    observed_generation: int = 0
    observed_revision: str | None = None
    reported_at: str | None = None
    dialect: str = ""
    hardware_class: str = ""
    verification: VerificationView = VerificationView()
    window: WindowView = WindowView()
    groups: dict[SettingsGroup, GroupResult] = {}
    conditions: tuple[ConditionView, ...] = ()
    statistics: Statistics = Statistics()
    plans: tuple[PlanView, ...] = ()
    probe: ProbeView | None = None


class StateObject(Struct, frozen=True):
    """A NodeMigrationState."""

    metadata: StateMeta
    spec: StateSpec = StateSpec()
    status: StateStatus = StateStatus()

    @property
    def status_stored_at(self) -> str | None:
        """When the agent's last report was stored.

        By the API server's clock where it says so: the clock of a node may be anything.
        """
        entries = self.metadata.managed_fields
        written = (one.time for one in entries if one.manager == AGENT_MANAGER and one.subresource)
        return max(written, default=self.status.reported_at)


class RevisionObject(Struct, frozen=True):
    """A ControllerRevision (apps/v1): one content of a policy, as it is pushed to nodes.

    `data` never changes; `revision` is the number by which contents are ordered, and grows when an old one comes back.
    """

    metadata: RevisionMeta
    data: dict[str, Any] = {}
    revision: int = 0


class ProfileSpec(Struct, frozen=True):
    """Whom a MigrationProfile is about."""

    dialect: str
    hardware_class: str


class Recommendation(Struct, frozen=True, omit_defaults=True):
    """Who should copy there."""

    engine: str
    channels: int | None = None


class MeasuredNode(Struct, frozen=True, omit_defaults=True):
    """What one node's own measurement says."""

    node: str
    engine: str
    channels: int | None = None
    gain: str | None = None
    message: str | None = None


class ProfileStatus(Struct, frozen=True, omit_defaults=True):
    """A profile's status, as it was read and as it shall be."""

    phase: str = ""
    recommendation: Recommendation | None = None
    gain: str | None = None
    nodes: tuple[MeasuredNode, ...] = ()
    results: tuple[dict[str, Any], ...] = ()
    measured_at: str | None = None
    attempted_at: str | None = None
    disputes: int = 0
    digest: str | None = None
    leader_epoch: int | None = None
    message: str | None = None


class ProfileObject(Struct, frozen=True):
    """A MigrationProfile."""

    metadata: Meta
    spec: ProfileSpec
    status: ProfileStatus = ProfileStatus()


class ConfigMapObject(Struct, frozen=True):
    """A ConfigMap."""

    metadata: Meta
    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}


class ListMeta(Struct, frozen=True):
    """``metav1.ListMeta``, the part that is used."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class WatchEvent(Struct, frozen=True):
    """One line of a watch; the object is decoded once its type is known."""

    type: str
    object: msgspec.Raw


class StatusObject(Struct, frozen=True):
    """``metav1.Status``: the API server's error answer."""

    code: int = 0
    reason: str = ""
    message: str = ""


def is_older(version: str, other: str) -> bool:
    """Return whether a resource version comes before another one; versions that are no numbers do not tell."""
    return version.isdecimal() and other.isdecimal() and int(version) < int(other)
