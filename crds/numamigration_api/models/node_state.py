# SPDX-License-Identifier: Apache-2.0
"""NodeMigrationState: what one node shall have (spec, by the operator) and what its kernel says (status, by its agent).

Groups are named object fields and lists are atomic: one writer owns each half, and a map list would cost a
managedFields entry for each item, which makes every push 1.5 times slower (measured, docs/decisions/0003).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from numamigration_api.models.base import (
    ApiModel,
    Conditions,
    Count,
    DecimalText,
    Epoch,
    Name,
    Revision,
    ShortText,
    Text,
    Timestamp,
    Uid,
    extensions,
    leader_epoch_never_falls,
    nested,
    never_falls,
    write_sequence_never_falls,
)
from numamigration_api.models.policy import Guardrail
from numamigration_api.models.settings import (
    BalancingSettings,
    BatchSettings,
    CpuThreadsSettings,
    DemotionSettings,
    MapCacheSettings,
    OffloadSettings,
    Settings,
)
from numamigration_api.vocabulary import (
    CHANNELS_MAX,
    KNOBS_MAX,
    PLANS_MAX,
    PROBE_CANDIDATES_MAX,
    PROBE_ROWS_MAX,
    AcceptedRisk,
    Dialect,
    DriftPolicy,
    Engine,
    GroupMode,
    GroupState,
    Outcome,
    ProbePhase,
    ProbeReason,
    Reason,
    Release,
    UnsupportedPolicy,
    Verification,
    VerificationResult,
)


class Source(ApiModel):
    """The policy whose wish this is."""

    policy: Name
    uid: Uid
    generation: Count
    """The policy's generation when these settings were last written; no part of the revision hash."""


class GroupWish(ApiModel):
    """What holds for every group, besides its settings."""

    source: Source
    mode: GroupMode
    """Apply: make it so. Hold: write nothing. Restore: put the values of before back."""
    drift: DriftPolicy = DriftPolicy.CORRECT
    unsupported: UnsupportedPolicy = UnsupportedPolicy.BEST_EFFORT
    verification: Verification = Verification.FIRST_USE
    accepted_risks: Annotated[
        list[AcceptedRisk], Field(max_length=len(AcceptedRisk), json_schema_extra=extensions(list_type="atomic"))
    ] = []
    release: Release
    """What happens when the wish ends; it stands here so that the policy is not needed then."""


class OffloadWish(GroupWish):
    """Wish for the group offload."""

    settings: OffloadSettings


class BatchWish(GroupWish):
    """Wish for the group batch."""

    settings: BatchSettings


class CpuThreadsWish(GroupWish):
    """Wish for the group cpuThreads."""

    settings: CpuThreadsSettings


class MapCacheWish(GroupWish):
    """Wish for the group mapCache."""

    settings: MapCacheSettings


class BalancingWish(GroupWish):
    """Wish for the group balancing."""

    settings: BalancingSettings


class DemotionWish(GroupWish):
    """Wish for the group demotion."""

    settings: DemotionSettings


class Groups(ApiModel):
    """Wishes by group, possibly from different policies. An absent group means: touch nothing."""

    # Atomic: the operator owns all of it, and a group added by another manager goes with its next apply.
    model_config = ApiModel.model_config | {"json_schema_extra": extensions(atomic=True)}

    offload: OffloadWish | None = None
    batch: BatchWish | None = None
    cpu_threads: CpuThreadsWish | None = None
    map_cache: MapCacheWish | None = None
    balancing: BalancingWish | None = None
    demotion: DemotionWish | None = None


class PlanWish(ApiModel):
    """What a Plan policy would set here; nothing of it is written."""

    source: Source
    unsupported: UnsupportedPolicy = UnsupportedPolicy.BEST_EFFORT
    verification: Verification = Verification.FIRST_USE
    accepted_risks: Annotated[
        list[AcceptedRisk], Field(max_length=len(AcceptedRisk), json_schema_extra=extensions(list_type="atomic"))
    ] = []
    settings: Settings


class Observe(ApiModel):
    """What the agent watches after a change, so that the operator can judge it."""

    model_config = ApiModel.model_config | {"json_schema_extra": extensions(atomic=True)}

    soak_seconds: Annotated[int, Field(ge=0, le=86_400)] = 0
    guardrails: Annotated[list[Guardrail], Field(max_length=8, json_schema_extra=extensions(list_type="atomic"))] = []


class ProbeCandidate(ApiModel):
    """A setting to be measured beside the plain copy by the CPU, which always is."""

    engine: Engine
    """Only DMA is measured so far; Off means the copy by the CPU and needs not be named."""
    channels: Annotated[int, Field(ge=0, le=CHANNELS_MAX)] = 0


class ProbeRequest(ApiModel):
    """What the agent shall measure, once; no part of the revision."""

    model_config = ApiModel.model_config | {"json_schema_extra": extensions(atomic=True)}

    id: Annotated[str, Field(min_length=1, max_length=64)]
    """What was measured under an id is never measured again under it, whatever became of it."""
    candidates: Annotated[
        list[ProbeCandidate],
        Field(min_length=1, max_length=PROBE_CANDIDATES_MAX, json_schema_extra=extensions(list_type="atomic")),
    ]
    seconds_max: Annotated[int, Field(ge=1, le=600)] = 60
    """For which settings may be other ones than wished, also the sum of a day."""
    memory_bytes_max: Annotated[int, Field(ge=1 << 20, le=16 << 30)] = 256 << 20
    """What own pages may take, their copies included."""
    accepted_risks: Annotated[
        list[AcceptedRisk], Field(max_length=len(AcceptedRisk), json_schema_extra=extensions(list_type="atomic"))
    ] = []
    """Of the policy that wants to know, where it has no wish for offload here; else that wish has them."""


class NodeMigrationStateSpec(ApiModel):
    """What this node shall have. Written by the operator only."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": extensions(
            leader_epoch_never_falls(),
            write_sequence_never_falls(),
            never_falls("verifyEpoch", message="verifyEpoch must not fall"),
        )
    }

    revision: Revision | None = None
    """Hash of the rest of this spec but leaderEpoch, writeSequence and the sources' generations; the agent reports it
    back."""
    leader_epoch: Epoch | None = None
    """Fencing token of the writer; the API server refuses a smaller one."""
    write_sequence: Epoch | None = None
    """Number of the writer's decision within its leaderEpoch; the API server refuses a smaller one."""
    verify_epoch: Count | None = None
    """Engines are verified anew when it grows."""
    groups: Groups | None = None
    plans: (
        Annotated[list[PlanWish], Field(max_length=PLANS_MAX, json_schema_extra=extensions(list_type="atomic"))] | None
    ) = None
    observe: Observe | None = None
    probe: ProbeRequest | None = None
    """Absent: nothing is measured, and the last result is dropped."""


class KnobStatus(ApiModel):
    """One row of the knob table on this kernel."""

    field: ShortText
    """The settings field, for example offload.channels."""
    path: Annotated[str, Field(max_length=256)] | None = None
    """The kernel file; absent when this kernel has none."""
    desired: Annotated[str, Field(max_length=256)] | None = None
    observed: Annotated[str, Field(max_length=256)] | None = None
    """What the kernel said last; absent when it could not be read."""
    baseline: Annotated[str, Field(max_length=256)] | None = None
    """What the kernel said before us; absent while nothing of ours is there."""
    outcome: Outcome | None = None
    reason: Reason | None = None
    message: Annotated[str, Field(max_length=256)] | None = None


class GroupStatus(ApiModel):
    """What became of one group."""

    state: GroupState
    reason: Reason
    message: Annotated[str, Field(max_length=512)] | None = None
    soaked_revision: Revision | None = None
    """Hash of the wish (without mode, release and its source's generation) that was in force for as long as
    spec.observe.soakSeconds asked for. Kept over restarts and reboots until the wish is another one."""


class GroupStatuses(ApiModel):
    """Results by group; only groups of the spec are there."""

    offload: GroupStatus | None = None
    batch: GroupStatus | None = None
    cpu_threads: GroupStatus | None = None
    map_cache: GroupStatus | None = None
    balancing: GroupStatus | None = None
    demotion: GroupStatus | None = None


class DmaEngine(ApiModel):
    """DMA engines of one driver on one NUMA node."""

    driver: ShortText
    channels: Count
    numa_node: Annotated[int, Field(ge=-1, le=1023)] | None = None
    """Absent when the device does not say; -1 when it belongs to none."""
    usable: bool
    """Whether this dialect's driver can copy with it."""
    reason: Annotated[str, Field(max_length=256)] | None = None
    """Why not, when it cannot."""


class Capabilities(ApiModel):
    """Which fields of a policy this kernel honours."""

    fields: Annotated[
        list[ShortText], Field(max_length=KNOBS_MAX, json_schema_extra=extensions(list_type="atomic"))
    ] = []
    """Settings fields this kernel has, for example offload.channels."""
    ranges: (
        Annotated[list[ShortText], Field(max_length=KNOBS_MAX, json_schema_extra=extensions(list_type="atomic"))] | None
    ) = None
    """What a field may be, where that is less than the API takes, for example "offload.channels: 1..16"."""
    channels_max: Annotated[int, Field(ge=0, le=1024)] | None = None
    """The largest offload.channels this dialect takes."""
    migration_reasons: (
        Annotated[list[ShortText], Field(max_length=32, json_schema_extra=extensions(list_type="atomic"))] | None
    ) = None
    """Migration reasons this kernel knows, read from it; newer kernels may know more than this release."""
    batch_ceiling: ShortText | None = None
    """Base pages per batch, as declared to the agent; else compile-time and not readable."""


class NumaNodeStatistics(ApiModel):
    """Totals of one NUMA node, in base pages, as in NodeStatistics."""

    id: Annotated[int, Field(ge=0, le=1023)]
    pages_promoted: Count | None = None
    """Promoted to this NUMA node (pgpromote_success, counted where pages arrive)."""
    pages_demoted: Count | None = None
    """Demoted from this NUMA node (sum of pgdemote_*, counted where pages leave)."""


class NodeStatistics(ApiModel):
    """Totals since first seen on this boot, and rates over the last window. A counter the kernel lacks is absent."""

    since: Timestamp | None = None
    window_seconds: DecimalText | None = None
    folios_migrated: Count | None = None
    folios_failed: Count | None = None
    folios_refused: Count | None = None
    """Folios that the driver left to the CPU because its engines were busy (folios_gated)."""
    batches_refused: Count | None = None
    """Batches that the driver left to the CPU (batches_refused); how many folios they had is not counted."""
    folios_per_second: DecimalText | None = None
    folios_failed_per_second: DecimalText | None = None
    fallback_share_max: DecimalText | None = None
    """At most this share of the pages that an engine was to copy was copied by the CPU, over the last window; the true
    share may be smaller. Absent while offload is off or nothing migrates. Engines count folios of unknown size and the
    kernel pages of every migration: taken are the fewest pages that so many folios can be, of all that migrated."""
    pages_migrated: Count | None = None
    pages_migration_failed: Count | None = None
    pages_migrated_per_second: DecimalText | None = None
    pages_promoted: Count | None = None
    pages_promoted_per_second: DecimalText | None = None
    pages_demoted: Count | None = None
    pages_demoted_per_second: DecimalText | None = None
    thps_migrated: Count | None = None
    """Transparent huge pages that migrated as a whole (thp_migration_success)."""
    thps_split: Count | None = None
    """Transparent huge pages that were split, since they could not migrate as a whole (thp_migration_split)."""
    drift_corrections: Count | None = None
    """Knobs that the agent set back after somebody else had changed them."""
    memory_pressure: DecimalText | None = None
    """Percent of the last minute in which some task waited for memory (PSI some avg60)."""
    cpu_pressure: DecimalText | None = None
    """Percent of the last minute in which some task waited for a CPU (PSI some avg60)."""
    numa_nodes: (
        Annotated[list[NumaNodeStatistics], Field(max_length=16, json_schema_extra=extensions(list_type="atomic"))]
        | None
    ) = None
    """The eight with the most pages promoted and demoted, by id. Absent where the kernel has no such counters, on a
    host with one NUMA node, and where the status would become too large."""


class WindowNumbers(ApiModel):
    """What guardrails are judged by, over one window."""

    seconds: DecimalText
    folios_migrated: Count | None = None
    folios_failed: Count | None = None
    folios_refused: Count | None = None
    batches_refused: Count | None = None
    pages_migrated: Count | None = None
    pages_migration_failed: Count | None = None
    memory_pressure: DecimalText | None = None
    """At the end of the window, as in NodeStatistics."""
    cpu_pressure: DecimalText | None = None


class Window(ApiModel):
    """Before and after the change to one revision."""

    revision: Revision
    before: WindowNumbers | None = None
    after: WindowNumbers | None = None
    """There once the soak is over, or a guardrail of spec.observe is crossed."""


class VerificationStatus(ApiModel):
    """Whether the engine has copied the agent's own pages right on this boot."""

    result: VerificationResult
    epoch: Count | None = None
    """The spec.verifyEpoch that asked for it."""
    engine: ShortText | None = None
    driver: ShortText | None = None
    channels: Count | None = None
    module_load: ShortText | None = None
    """What tells the loaded driver from the same one loaded anew, and the host's DMA channels from others."""
    unverified_channels: Count | None = None
    """DMA channels of this host beyond those that were tried."""
    foreign_folios: Count | None = None
    """Folios of others that went through the engine while it was tried; absent where folios are not counted."""
    window_seconds: Annotated[str, Field(max_length=16, pattern=r"^[0-9]+(\.[0-9]+)?$")] | None = None
    """How long the engine was on trial."""
    at: Timestamp | None = None
    message: Text | None = None


class PlanResult(ApiModel):
    """What a Plan policy would change here."""

    policy: Name
    uid: Uid
    generation: Count
    would_change: Count
    state: GroupState
    reason: Reason
    message: Annotated[str, Field(max_length=512)] | None = None
    knobs: Annotated[list[KnobStatus], Field(max_length=16, json_schema_extra=extensions(list_type="atomic"))] = []


class ProbeResult(ApiModel):
    """What moving own pages under one setting came to."""

    engine: ShortText
    """CPU: no engine was on."""
    channels: Count
    folio_bytes: Count
    folios: Count
    """That one system call moved; with 1, folioBytes / bytesPerSecond is what one folio takes."""
    migrators: Count
    """Processes that moved pages at the same time."""
    bytes_per_second: Count
    standard_deviation: Count
    """Of the samples, in bytes per second."""
    samples: Count
    cpu_seconds_per_gi_b: DecimalText
    """Of the processes that moved pages; copy threads and engines are not in it."""


class ProbeMixPart(ApiModel):
    """How much of what this node migrates has folios of a size and comes in batches of a length."""

    folio_bytes: Count
    folios: Count | None = None
    """Absent: whose batches nobody counts."""
    share: DecimalText
    """Of the bytes."""
    reason: ShortText | None = None
    """The migration reason; absent: several, or not known."""


class ProbeChoice(ApiModel):
    """What this node's own measurement says."""

    engine: Engine
    channels: Annotated[int, Field(ge=1, le=CHANNELS_MAX)] | None = None
    gain: DecimalText | None = None
    """Throughput against the plain copy by CPU: the lower end of the interval, so 1.2 is surely 20 % more."""


class ProbeStatus(ApiModel):
    """What became of spec.probe."""

    id: Annotated[str, Field(max_length=64)]
    phase: ProbePhase
    reason: ProbeReason
    message: Annotated[str, Field(max_length=512)] | None = None
    finished_at: Timestamp | None = None
    choice: ProbeChoice | None = None
    """Absent where nothing was measured. engine: Off where no setting is surely better than the copy by CPU."""
    cache_bound: bool | None = None
    """Whether the pages were fewer than four times the last-level cache, or that is not known; then the copies are
    faster than those of a workload."""
    results: (
        Annotated[list[ProbeResult], Field(max_length=PROBE_ROWS_MAX, json_schema_extra=extensions(list_type="atomic"))]
        | None
    ) = None
    """The shapes with the most weight first; fewer where the status would become too large."""
    mix: Annotated[list[ProbeMixPart], Field(max_length=8, json_schema_extra=extensions(list_type="atomic"))] | None = (
        None
    )
    """What this node has migrated since its boot; absent while that is not known."""


class NodeMigrationStateStatus(ApiModel):
    """What the kernel says. Written by this node's agent only."""

    # Atomic: the agent owns all of it. Owners by field were a third of the object (docs/decisions/0032).
    model_config = ApiModel.model_config | {"json_schema_extra": extensions(atomic=True)}

    observed_generation: Count | None = None
    observed_revision: Revision | None = None
    """The spec.revision this status is about."""
    reported_at: Timestamp | None = None
    settled_at: Timestamp | None = None
    """When the current revision was found in force."""
    boot_id: Annotated[str, Field(max_length=64)] | None = Field(default=None, alias="bootID")
    kernel_release: ShortText | None = None
    agent_version: ShortText | None = None
    dialect: Dialect | None = None
    hardware_class: Annotated[str, Field(max_length=253)] | None = None
    """CPU model, NUMA layout, engine driver and count; nodes alike here may be tuned alike."""
    offload: ShortText | None = None
    """One phrase for people: "DMA, 4 channels", "Off", "Unsupported"."""
    conditions: Conditions | None = None
    groups: GroupStatuses | None = None
    capabilities: Capabilities | None = None
    dma_engines: (
        Annotated[list[DmaEngine], Field(max_length=32, json_schema_extra=extensions(list_type="atomic"))] | None
    ) = None
    knobs: (
        Annotated[list[KnobStatus], Field(max_length=KNOBS_MAX, json_schema_extra=extensions(list_type="atomic"))]
        | None
    ) = None
    statistics: NodeStatistics | None = None
    window: Window | None = None
    verification: VerificationStatus | None = None
    probe: ProbeStatus | None = None
    plans: (
        Annotated[list[PlanResult], Field(max_length=PLANS_MAX, json_schema_extra=extensions(list_type="atomic"))]
        | None
    ) = None
    unknown_files: (
        Annotated[
            list[Annotated[str, Field(max_length=256)]],
            Field(max_length=32, json_schema_extra=extensions(list_type="atomic")),
        ]
        | None
    ) = None
    """Files of the driver that this release does not know; never written."""


class NodeMigrationState(ApiModel):
    """One node's page-migration settings: wished, observed, and what was there before."""

    spec: NodeMigrationStateSpec = nested(NodeMigrationStateSpec)
    status: NodeMigrationStateStatus | None = None
