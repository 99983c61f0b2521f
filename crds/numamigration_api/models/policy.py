# SPDX-License-Identifier: Apache-2.0
"""MigrationPolicy: what a platform team asks of a set of nodes."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from numamigration_api.models.base import (
    ApiModel,
    Conditions,
    Count,
    DecimalText,
    Epoch,
    IntOrPercent,
    Name,
    PositiveIntOrPercent,
    Revision,
    Rule,
    ShortText,
    Text,
    Timestamp,
    extensions,
    leader_epoch_never_falls,
    nested,
    some_of,
)
from numamigration_api.models.settings import Settings
from numamigration_api.vocabulary import (
    RESERVED_MAX,
    WORST_NODES_MAX,
    AcceptedRisk,
    DriftPolicy,
    GuardrailMetric,
    NodeBucket,
    OnFailure,
    PolicyMode,
    Reason,
    Release,
    RolloutPhase,
    SettingsGroup,
    TuningMode,
    UnsupportedPolicy,
    Verification,
)

LabelKey = Annotated[str, Field(min_length=1, max_length=317)]  # prefix (253) / name (63)
LabelValue = Annotated[str, Field(max_length=63)]


class LabelSelectorRequirement(ApiModel):
    """``metav1.LabelSelectorRequirement``."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": extensions(
            Rule(
                "self.operator in ['In', 'NotIn'] ? (has(self.values) && size(self.values) > 0)"
                " : (!has(self.values) || size(self.values) == 0)",
                "values must be given for In and NotIn, and left out for Exists and DoesNotExist",
            )
        )
    }

    key: LabelKey
    """Label of the node."""
    operator: Annotated[
        str, Field(json_schema_extra={"enum": ["In", "NotIn", "Exists", "DoesNotExist"]}, max_length=12)
    ]
    """In, NotIn: the label's value is, or is not, one of values. Exists, DoesNotExist: whatever its value."""
    values: (
        Annotated[list[LabelValue], Field(max_length=64, json_schema_extra=extensions(list_type="atomic"))] | None
    ) = None
    """For In and NotIn only."""


class LabelSelector(ApiModel):
    """``metav1.LabelSelector``; empty selects every node."""

    model_config = ApiModel.model_config | {"json_schema_extra": extensions(atomic=True)}

    match_labels: Annotated[dict[str, LabelValue], Field(max_length=32)] | None = None
    """Labels that a node must have, with these values."""
    match_expressions: (
        Annotated[
            list[LabelSelectorRequirement], Field(max_length=32, json_schema_extra=extensions(list_type="atomic"))
        ]
        | None
    ) = None
    """Requirements that must all hold, besides matchLabels."""


class Tuning(ApiModel):
    """Measure, then choose, instead of fixed numbers."""

    mode: TuningMode = TuningMode.OFF
    """"Off" (in quotes: bare, YAML reads false): the numbers of settings. Recommend: measure and report.
    Auto: measure, and use what is surely better."""


class Canary(ApiModel):
    """The first wave."""

    nodes: Annotated[int, Field(ge=1, le=100)] = 1
    """Nodes per cell of (dialect, hardware class), spread over zones."""
    soak_seconds: Annotated[int, Field(ge=0, le=86_400)] = 300
    """How long a changed node is watched before it counts as proven."""


_SHARES: Final = [
    str(metric)
    for metric in GuardrailMetric
    if metric.endswith("Share") or metric in {GuardrailMetric.MIGRATION_FAILURES, GuardrailMetric.MIGRATION_RATE_DROP}
]


class Guardrail(ApiModel):
    """A measured limit that halts or rolls back."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": extensions(
            Rule(
                # Who writes 5 and means 5 % would have a guardrail that never trips.
                f"!(self.metric in {_SHARES}) || double(self.max) <= 1.0",
                'max of a share must be between 0 and 1, for example "0.05" for 5 %',
            ),
        )
    }

    metric: GuardrailMetric
    """What is measured on each unproven node."""
    max: DecimalText
    """The largest value that is still good; a decimal string, for shares between 0 and 1."""
    min_folios: Annotated[int, Field(ge=1, le=1_000_000_000)] = 512
    """Shares are judged from this many folios on; below, there is nothing to judge."""


class Rollout(ApiModel):
    """How a change reaches the nodes."""

    canary: Canary = nested(Canary)
    max_unproven: PositiveIntOrPercent = "10%"
    """Nodes that may be reserved or changed and not yet proven; a percentage of the matched ones rounds up."""
    failure_threshold: IntOrPercent = "5%"
    """Failed nodes, of those pushed in this revision, at which the rollout fails."""
    guardrails: Annotated[list[Guardrail], Field(max_length=8, json_schema_extra=extensions(list_type="atomic"))] = []
    """Measured limits of unproven nodes."""
    node_deadline_seconds: Annotated[int, Field(ge=660, le=86_400)] = 900
    """A node that has not reported for so long is unreachable. Agents report every 600 s or sooner, hence the bound."""
    on_failure: OnFailure = OnFailure.ROLLBACK
    """Halt where it stands, or go back to the last revision that passed."""


_ANY_GROUP = some_of(
    *SettingsGroup,
    at="self.settings",
    message="settings is empty: name at least one group (offload, batch, balancing, demotion, …) or turn tuning on",
)


class MigrationPolicySpec(ApiModel):
    """What is wished, where, and how carefully."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": extensions(
            Rule(
                f"{_ANY_GROUP.rule} || self.tuning.mode != 'Off'",
                _ANY_GROUP.message,
            ),
            Rule(
                "!has(self.settings.offload) || has(self.settings.offload.engine)"
                " || has(self.settings.offload.profiles) || self.tuning.mode == 'Auto'",
                "offload needs an engine; only with profiles, or tuning.mode: Auto, it may be left out",
            ),
            Rule(
                "self.verification != 'Off' || 'UnverifiedEngine' in self.acceptedRisks",
                "verification: Off needs UnverifiedEngine in acceptedRisks, since the engine is then used untested",
            ),
        )
    }

    node_selector: LabelSelector
    """Which nodes; {} is every node."""
    priority: Annotated[int, Field(ge=0, le=1000)] = 100
    """Of policies that set the same group on a node the highest wins; then the older; then the smaller name."""
    mode: PolicyMode = PolicyMode.APPLY
    """Apply: write. Plan: report what would change, write nothing. Paused: hold what is there."""
    settings: Settings = nested(Settings)
    """Settings groups; a policy wins or loses each one as a whole."""
    tuning: Tuning = nested(Tuning)
    """Measured choice of numbers. Fixed ones (channels, engine: "Off" or CPUThreads) win over Auto."""
    accepted_risks: Annotated[
        list[AcceptedRisk], Field(max_length=len(AcceptedRisk), json_schema_extra=extensions(list_type="set"))
    ] = []
    """Known hazards that this policy takes; one that is not named is refused."""
    verification: Verification = Verification.FIRST_USE
    """When an engine has to copy the agent's own test pages right. FirstUse: once a boot. Always: before each turn-on.
    "Off" (in quotes: bare, YAML reads false): never."""
    unsupported: UnsupportedPolicy = UnsupportedPolicy.BEST_EFFORT
    """What to do with a field that a kernel lacks: apply the rest, or change nothing on that node."""
    drift: DriftPolicy = DriftPolicy.CORRECT
    """What to do when somebody else changes a knob."""
    rollout: Rollout = nested(Rollout)
    """How a change reaches the nodes."""
    on_delete: Release = Release.RESTORE
    """Restore the values of before when the policy ends or leaves a node, or keep what is set."""


def _bucket(meaning: str) -> Any:
    return Field(default=0, ge=0, description=meaning)


class NodeCounts(ApiModel):
    """Matched nodes, each in exactly one of the other counts; the first that holds, in this order."""

    matched: Count = 0
    overridden: Count = _bucket("This policy won no group there.")
    unsupported: Count = _bucket("No agent, or the kernel has none of the groups won.")
    unreachable: Count = _bucket("No report for rollout.nodeDeadlineSeconds.")
    failed: Count = _bucket("The kernel refused, or does not hold, what was written.")
    refused: Count = _bucket("A known hazard that is not accepted: a person must decide.")
    pending: Count = _bucket("Not reported yet, or soaking.")
    ready: Count = _bucket("As asked.")


class NodeOverlays(ApiModel):
    """Counts that lie over the partition."""

    drifted: Count = 0
    """Nodes where somebody else changed a knob."""
    unproven: Count = 0
    """Nodes changed or reserved by the current revision and not yet proven."""


class PolicyStatistics(ApiModel):
    """Sums over the nodes where this policy sets offload. A counter that no kernel has is absent, never 0."""

    nodes: Count | None = None
    """Nodes whose numbers are in the sums."""
    folios_migrated: Count | None = None
    """Folios that an engine copied, since first seen."""
    folios_failed: Count | None = None
    """Folios of batches that an engine could not copy; the CPU copied them."""
    folios_refused: Count | None = None
    """Folios that the driver left to the CPU because its engines were busy."""
    batches_refused: Count | None = None
    """Batches that the driver left to the CPU."""
    folios_per_second: DecimalText | None = None
    """Folios that engines copied a second, over each node's last window."""
    pages_migrated: Count | None = None
    """Base pages migrated by anyone (/proc/vmstat pgmigrate_success)."""
    pages_migration_failed: Count | None = None
    """Base pages whose migration failed (pgmigrate_fail)."""
    pages_promoted: Count | None = None
    """Base pages promoted (pgpromote_success)."""
    pages_demoted: Count | None = None
    """Base pages demoted (sum of pgdemote_*)."""


class RolloutStatus(ApiModel):
    """Where the rollout of the current revision stands."""

    revision: Revision | None = None
    """Hash of what the policy asks of a node: settings, risks, and how they are kept; not of where and how fast."""
    generation: Count | None = None
    """The policy's generation with which this revision began; an edit begins anew what has failed."""
    proven_revision: Revision | None = None
    """The last revision that was proven everywhere it was pushed."""
    cursor: Count | None = None
    """Nodes that were ever reserved for this revision."""
    reserved: (
        Annotated[list[Name], Field(max_length=RESERVED_MAX, json_schema_extra=extensions(list_type="atomic"))] | None
    ) = None
    """Nodes that may be pushed now. No other node is, and each counts as unproven. Written before the first push,
    and only onto the status that it was decided from (resourceVersion). "*" stands for more nodes than can be named,
    where maxUnproven is 100%."""
    carried: (
        Annotated[list[Name], Field(max_length=RESERVED_MAX, json_schema_extra=extensions(list_type="atomic"))] | None
    ) = None
    """Nodes that an earlier revision or another leader had reserved, and whose write may still arrive: counted as
    unproven, and not pushed, until it is known what they have."""
    wave: Count | None = None
    waves: Count | None = None
    phase: RolloutPhase | None = None
    leader_epoch: Epoch | None = None
    """Fencing token of whoever wrote this status; the API server refuses a smaller one."""
    started_at: Timestamp | None = None
    message: Text | None = None


class PlanTotals(ApiModel):
    """What a Plan policy would do, in nodes that were asked; each is in exactly one count."""

    would_change: Count = 0
    """At least one knob would get another value."""
    equal: Count = 0
    """All is as this policy wants it already."""
    unsupported: Count = 0
    refused: Count = 0
    """A known hazard that this policy does not accept."""
    blocked: Count = 0
    """Another policy would win every group there."""


class WorstNode(ApiModel):
    """A node that is not as wished, and why."""

    node: Name
    state: NodeBucket
    reason: Reason
    message: Text | None = None


class Conflict(ApiModel):
    """A settings group that this policy lost, and to whom."""

    group: ShortText
    winner: Name
    nodes: Count


class MigrationPolicyStatus(ApiModel):
    """What happened. Below 20 kB at any number of nodes."""

    observed_generation: Count | None = None
    summary: ShortText | None = None
    """One line for people: "2/3 ready, 1 failed"."""
    conditions: Conditions | None = None
    nodes: NodeCounts | None = None
    overlays: NodeOverlays | None = None
    rollout: RolloutStatus | None = None
    statistics: PolicyStatistics | None = None
    plan: PlanTotals | None = None
    """Mode Plan only."""
    conflicts: (
        Annotated[list[Conflict], Field(max_length=16, json_schema_extra=extensions(list_type="atomic"))] | None
    ) = None
    worst_nodes: (
        Annotated[list[WorstNode], Field(max_length=WORST_NODES_MAX, json_schema_extra=extensions(list_type="atomic"))]
        | None
    ) = None


class MigrationPolicy(ApiModel):
    """A wish for the page-migration settings of a set of nodes. It is as strong as root on those nodes."""

    # Here and not at the status: a rule there would not see that the whole status goes.
    model_config = ApiModel.model_config | {
        "json_schema_extra": extensions(leader_epoch_never_falls("status", "rollout"))
    }

    spec: MigrationPolicySpec
    status: MigrationPolicyStatus | None = None
