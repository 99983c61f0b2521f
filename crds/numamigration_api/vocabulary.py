# SPDX-License-Identifier: Apache-2.0
"""Every word that operator, agent, plugin, alerts and documents share.

Standard library only: the node agent imports this module and runs with host rights, so nothing third-party may
be reachable from here (import-linter holds the line).

Rules for adding a word:

* v1alpha1 may only grow: a value once published is never renamed or removed.
* One word for one thing (see docs/glossary.md); a reason is CamelCase and answers "why", a condition type is an
  adjective or a past participle (Kubernetes API conventions).
* Whoever adds a reason adds the line that tells a person what to do, in ``REASON_MEANING``; a test compares the two.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

GROUP: Final = "numamigration.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
CATEGORY: Final = "numamigration"

POLICY_KIND: Final = "MigrationPolicy"
POLICY_PLURAL: Final = "migrationpolicies"
POLICY_SHORT_NAME: Final = "migpol"

STATE_KIND: Final = "NodeMigrationState"
STATE_PLURAL: Final = "nodemigrationstates"
STATE_SHORT_NAME: Final = "nms"

PROFILE_KIND: Final = "MigrationProfile"
PROFILE_PLURAL: Final = "migrationprofiles"
PROFILE_SHORT_NAME: Final = "migprof"

JSON: Final = "application/json"
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""As HTTP header Accept: of an object nothing but its metadata (Kubernetes API concepts, "Metadata-only fetches")."""

OPERATOR_MANAGER: Final = "numamigration-operator"
"""Field manager of everything the operator applies."""
FINALIZER_MANAGER: Final = "numamigration-finalizer"
"""Field manager of the one finalizer; apart from the operator's, so that dropping it drops nothing else."""
AGENT_MANAGER: Final = "numamigration-agent"
"""Field manager of a node state's status."""
PROBE_MANAGER: Final = "numamigration-probe"
"""Field manager of a node state's spec.probe; apart from the operator's, for it is no part of what a policy wishes."""
RESTORE_FINALIZER: Final = f"{GROUP}/restore"
"""On a policy with onDelete Restore, seen there before any node is pushed."""
LEASE_NAME: Final = "numamigration-operator"
"""The Lease of the operator that leads, in the operator's namespace."""
EPOCH_ANNOTATION: Final = f"{GROUP}/leader-epoch"
"""On the Lease: the fencing token of the leader, a decimal number; also in each node state and policy it writes."""
EPOCH_MAX: Final = 2**53 - 1  # the largest integer that every reader of JSON has exactly (RFC 8259)
FENCE_MESSAGE: Final = "leaderEpoch must not fall: another operator leads now"
"""What the API server says to a writer with an older epoch; the operator knows its own deposition by it."""
LATE_MESSAGE: Final = "writeSequence must not fall: a later decision of this leader stands here"
"""What it says to a leader's own request that comes after a later one. Nobody waits for the answer any more, unless
somebody raised the number by hand: then the leader ends, and its next life has a greater epoch."""

NAMESPACE_DEFAULT: Final = "numamigration-system"
"""Where operator and agents are, unless somebody says otherwise."""

CONTROL_CONFIG_MAP: Final = "numamigration-control"
"""ConfigMap in the operator's namespace with which people stop the whole fleet; absent means ``run``."""
FLEET_KEY: Final = "fleet"
"""Key of the control ConfigMap that holds a FleetSwitch."""
HOLD_KEY_PREFIX: Final = "hold."
"""With 16 hexadecimal digits: key of the control ConfigMap that holds one (hardware class, dialect, driver)."""

POLICY_UID_LABEL: Final = f"{GROUP}/policy-uid"
"""On a ControllerRevision: whose content it is."""
CELL_ANNOTATION_PREFIX: Final = f"cell.{GROUP}/"
"""With 16 hexadecimal digits, on a ControllerRevision: what became of it in one (dialect, hardware class)."""

WORST_NODES_MAX: Final = 20  # keeps a policy's status below 20 kB (promise 12)
PLANS_MAX: Final = 3  # keeps a node state below 10 kB (promise 12)
RESERVED_MAX: Final = 128  # names in a policy's status; beside the longest names their bytes are bounded (promise 12)
REVISIONS_MAX: Final = 10  # of a policy, as a DaemonSet keeps (apps/v1 revisionHistoryLimit)
PROFILES_MAX: Final = 32  # classes of hardware in one policy; a node state's spec has them all, 60 bytes each
PROFILE_NODES_MAX: Final = 3  # nodes of a class that are measured
KNOBS_MAX: Final = 48  # every knob of the largest dialect (F-ext, about 25) and the mainline ones, with room
PROBE_CANDIDATES_MAX: Final = 16  # settings of one probe; the published tables have six
PROBE_ROWS_MAX: Final = 40  # results of one probe in a node state, which stays below 10 kB (promise 12)
CHANNELS_MAX: Final = 32  # F-ext takes 1..32, V2-V6 1..16 (dcbm drivers); the agent checks its dialect's own bound


class Dialect(StrEnum):
    """The file layout of one state of the kernel series; ``NoSeries`` is a kernel without it."""

    NO_SERIES = "NoSeries"
    V1 = "V1"
    ZY = "ZY"
    V2 = "V2"
    V3 = "V3"
    V3_DEV = "V3-dev"
    V3_PADATA = "V3-padata"
    V4 = "V4"
    V5 = "V5"
    V6 = "V6"
    V6_SDXI = "V6-SDXI"
    F_MID = "F-mid"
    F_EXT = "F-ext"


class SettingsGroup(StrEnum):
    """The smallest thing a policy can win on a node. Values are the field names under ``spec.settings``."""

    OFFLOAD = "offload"
    BATCH = "batch"
    CPU_THREADS = "cpuThreads"
    MAP_CACHE = "mapCache"
    BALANCING = "balancing"
    DEMOTION = "demotion"


class PolicyMode(StrEnum):
    """What the operator does with a policy."""

    APPLY = "Apply"
    PLAN = "Plan"
    PAUSED = "Paused"


class GroupMode(StrEnum):
    """What the agent does with a group of its node state; an absent group means: touch nothing."""

    APPLY = "Apply"
    HOLD = "Hold"
    RESTORE = "Restore"


class FleetSwitch(StrEnum):
    """What holds for the whole fleet, whatever the policies say. Values are what people write into the ConfigMap."""

    RUN = "run"
    HOLD = "hold"
    """Nothing is pushed but what restores, releases, pauses or turns offload off."""
    OFF = "off"
    """As hold, and offload is turned off wherever this project set it."""
    RESTORE = "restore"
    """Every value of before is put back, and nothing is pushed."""


class Engine(StrEnum):
    """Who copies the folios of a migration batch."""

    DMA = "DMA"
    CPU_THREADS = "CPUThreads"
    OFF = "Off"


class MigrationReason(StrEnum):
    """Why the kernel migrates, in the spelling of include/trace/events/migrate.h, in bit order of ``reason_mask``."""

    COMPACTION = "compaction"
    MEMORY_FAILURE = "memory_failure"
    MEMORY_HOTPLUG = "memory_hotplug"
    SYSCALL_OR_CPUSET = "syscall_or_cpuset"
    MEMPOLICY_MBIND = "mempolicy_mbind"
    NUMA_MISPLACED = "numa_misplaced"
    CONTIG_RANGE = "contig_range"
    LONGTERM_PIN = "longterm_pin"
    DEMOTION = "demotion"
    DAMON = "damon"


class Locality(StrEnum):
    """Where the DMA channel may be (F-ext ``cross_node`` 0, 1, 2)."""

    LOCAL = "Local"
    LOCAL_FIRST = "LocalFirst"
    REMOTE = "Remote"


class Placement(StrEnum):
    """Where copy threads run: on the source's CPUs (Push), the destination's (Pull), or by die (Spread, Fill)."""

    PUSH = "Push"
    PULL = "Pull"
    SPREAD = "Spread"
    FILL = "Fill"


class BalancingMode(StrEnum):
    """NUMA balancing, ``/proc/sys/kernel/numa_balancing`` 0, 1, 2."""

    OFF = "Off"
    NORMAL = "Normal"
    TIERING = "Tiering"


class TuningMode(StrEnum):
    """Fixed numbers, measured advice, or measured choice."""

    OFF = "Off"
    RECOMMEND = "Recommend"
    AUTO = "Auto"


class Verification(StrEnum):
    """When an engine is tested with the agent's own pages."""

    FIRST_USE = "FirstUse"
    ALWAYS = "Always"
    OFF = "Off"


class UnsupportedPolicy(StrEnum):
    """What to do when this kernel lacks a field of the policy."""

    BEST_EFFORT = "BestEffort"
    STRICT = "Strict"


class DriftPolicy(StrEnum):
    """What to do when somebody else changed a knob."""

    CORRECT = "Correct"
    REPORT = "Report"
    IGNORE = "Ignore"


class OnFailure(StrEnum):
    """What a rollout does when it fails."""

    HALT = "Halt"
    ROLLBACK = "Rollback"


class Release(StrEnum):
    """What happens to a node's knobs when the wish for them ends."""

    RESTORE = "Restore"
    KEEP = "Keep"


class AcceptedRisk(StrEnum):
    """Known hazards that are refused unless a policy names them (promise 5). Meanings in ``RISK_MEANING``."""

    DIRECT_IO_LOST_WRITE = "DirectIOLostWrite"
    OUT_OF_ORDER_ENGINE = "OutOfOrderEngine"
    SHARED_ENGINE = "SharedEngine"
    MEMORY_FAILURE_OFFLOAD = "MemoryFailureOffload"
    BUILT_IN_DRIVER_STALL = "BuiltInDriverStall"
    UNBOUNDED_STALL = "UnboundedStall"
    UNVERIFIED_ENGINE = "UnverifiedEngine"


RISK_MEANING: Final[dict[AcceptedRisk, str]] = {
    AcceptedRisk.DIRECT_IO_LOST_WRITE: "V4 and V5 can lose bytes that direct I/O writes while a folio migrates.",
    AcceptedRisk.OUT_OF_ORDER_ENGINE: "Engines that complete out of order can corrupt pages with V3 to V6.",
    AcceptedRisk.SHARED_ENGINE: "The DMA channels are shared with other users of the kernel.",
    AcceptedRisk.MEMORY_FAILURE_OFFLOAD: "The DMA path cannot recover from a machine check in the source page.",
    AcceptedRisk.BUILT_IN_DRIVER_STALL: "A stall of a built-in driver blocks the parameters of all built-in modules.",
    AcceptedRisk.UNBOUNDED_STALL: "F-mid has no time-out: a hung engine stalls its migrations for ever.",
    AcceptedRisk.UNVERIFIED_ENGINE: "The engine is used without having copied test pages right on this boot.",
}


class GuardrailMetric(StrEnum):
    """What a rollout may be judged by."""

    FOLIOS_FAILED_SHARE = "foliosFailedShare"
    INEFFECTIVE_SHARE = "ineffectiveShare"
    REFUSED_SHARE = "refusedShare"
    MIGRATION_FAILURES = "migrationFailures"
    MIGRATION_RATE_DROP = "migrationRateDrop"
    MEMORY_PRESSURE = "memoryPressure"
    CPU_PRESSURE = "cpuPressure"
    NODE_NOT_READY = "nodeNotReady"


class Outcome(StrEnum):
    """Result of one knob."""

    APPLIED = "Applied"
    ALREADY_SET = "AlreadySet"
    UNSUPPORTED = "Unsupported"
    CLAMPED = "Clamped"
    REJECTED = "Rejected"
    REFUSED = "Refused"
    WOULD_CHANGE = "WouldChange"


class GroupState(StrEnum):
    """Result of one settings group on one node, as its agent reports it."""

    READY = "Ready"
    PENDING = "Pending"
    FAILED = "Failed"
    REFUSED = "Refused"
    UNSUPPORTED = "Unsupported"
    HELD = "Held"
    RESTORED = "Restored"


class NodeBucket(StrEnum):
    """The partition of a policy's matched nodes (promise 11); values are field names under ``status.nodes``."""

    OVERRIDDEN = "overridden"
    UNSUPPORTED = "unsupported"
    UNREACHABLE = "unreachable"
    FAILED = "failed"
    REFUSED = "refused"
    PENDING = "pending"
    READY = "ready"


class RolloutPhase(StrEnum):
    """Where a rollout stands."""

    PROGRESSING = "Progressing"
    SOAKING = "Soaking"
    COMPLETE = "Complete"
    HALTED = "Halted"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    PAUSED = "Paused"


class CellVerdict(StrEnum):
    """What became of a revision in one (dialect, hardware class)."""

    PROVEN = "Proven"
    FAILED = "Failed"


class ProfilePhase(StrEnum):
    """How far the measurement of a hardware class is."""

    MEASURING = "Measuring"
    """A node of it has been asked, or none could be yet."""
    MEASURED = "Measured"
    DISPUTED = "Disputed"
    """In service it did not do what was measured; nothing is made of it until it is measured anew."""


class VerificationResult(StrEnum):
    """What the copy of the agent's own pages showed."""

    PASSED = "Passed"
    FAILED = "Failed"
    IMPOSSIBLE = "Impossible"
    SKIPPED = "Skipped"


class ProbePhase(StrEnum):
    """Where the measurement of a node's settings stands."""

    WAITING = "Waiting"
    RUNNING = "Running"
    DONE = "Done"
    STOPPED = "Stopped"
    REFUSED = "Refused"


class ProbeReason(StrEnum):
    """The closed set of reasons of a probe's phase. Meanings in ``PROBE_MEANING``."""

    MEASURING = "Measuring"
    MEASURED = "Measured"
    BUDGET_SPENT = "BudgetSpent"
    NOT_CALM = "NotCalm"
    NO_FREE_MEMORY = "NoFreeMemory"
    MEMORY_LIMIT = "MemoryLimit"
    CHANGE_UNDER_WAY = "ChangeUnderWay"
    POLICY_FORBIDS = "PolicyForbids"
    ENGINE_NOT_TRUSTED = "EngineNotTrusted"
    ENGINE_INEFFECTIVE = "EngineIneffective"
    SETTING_REFUSED = "SettingRefused"
    SETTING_FAILED = "SettingFailed"
    ONE_NUMA_NODE = "OneNumaNode"
    CPUSET_FORBIDS = "CpusetForbids"
    CALL_FORBIDDEN = "CallForbidden"
    SAMPLES_UNUSABLE = "SamplesUnusable"
    MOVE_STALLED = "MoveStalled"
    MOVE_FAILED = "MoveFailed"
    STATE_NOT_SAVED = "StateNotSaved"
    INTERRUPTED = "Interrupted"
    WITHDRAWN = "Withdrawn"


PROBE_MEANING: Final[dict[ProbeReason, str]] = {
    ProbeReason.MEASURING: "Own pages are moved and timed. Wait; settings go back afterwards.",
    ProbeReason.MEASURED: "The choice is as sure as it gets. Nothing to do.",
    ProbeReason.BUDGET_SPENT: "The seconds for one probe, or for one day, are spent; what was measured is shown.",
    ProbeReason.NOT_CALM: "Tasks wait for CPU or memory (PSI, or the load average). Probe another node, or later.",
    ProbeReason.NO_FREE_MEMORY: "A NUMA node has too little free memory for the pages that are moved.",
    ProbeReason.MEMORY_LIMIT: "The agent's container has too little memory. Raise agent.tuning.memory in the chart.",
    ProbeReason.CHANGE_UNDER_WAY: "Settings are being changed, or are not in force. Wait.",
    ProbeReason.POLICY_FORBIDS: "Offload is held or is being restored on this node, so nothing is tried. Wait.",
    ProbeReason.ENGINE_NOT_TRUSTED: "The engine stalled, failed or copied wrong; status.groups says which.",
    ProbeReason.ENGINE_INEFFECTIVE: "The engine was on and did not copy the pages. Is a channel free?",
    ProbeReason.SETTING_REFUSED: "A setting is refused here as any policy's would be; the message says why.",
    ProbeReason.SETTING_FAILED: "A setting did not come into force; the message has the kernel's answer.",
    ProbeReason.ONE_NUMA_NODE: "Fewer than two NUMA nodes have memory, so nothing migrates.",
    ProbeReason.CPUSET_FORBIDS: "The container's cpuset keeps it off a NUMA node. Widen cpuset.mems.",
    ProbeReason.CALL_FORBIDDEN: "The system calls are forbidden. Check agent.seccompProfile in the chart.",
    ProbeReason.SAMPLES_UNUSABLE: "What was measured is no number to choose by; the message says what was wrong.",
    ProbeReason.MOVE_STALLED: "Pages did not come back in time. The settings of before are put back.",
    ProbeReason.MOVE_FAILED: "Pages could not be moved; the message has the kernel's answer.",
    ProbeReason.STATE_NOT_SAVED: "It could not be noted that a probe begins, so none did. Check the state folder.",
    ProbeReason.INTERRUPTED: "The agent or the host ended in mid-probe; settings are put back. Ask with a new id.",
    ProbeReason.WITHDRAWN: "The operator asks for it no more.",
}


class ConditionStatus(StrEnum):
    """Three values, as Kubernetes conditions have them."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class PolicyCondition(StrEnum):
    """Condition types of a MigrationPolicy (kstatus: Ready with the abnormal-true pair Reconciling, Stalled)."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    DEGRADED = "Degraded"
    CONFLICTED = "Conflicted"


class NodeCondition(StrEnum):
    """Condition types of a NodeMigrationState."""

    READY = "Ready"
    SUPPORTED = "Supported"
    VERIFIED = "Verified"
    DRIFTED = "Drifted"
    DEGRADED = "Degraded"


class Reason(StrEnum):
    """The closed set of reasons of conditions, groups, worst nodes and Events."""

    AS_EXPECTED = "AsExpected"
    APPLYING = "Applying"
    PAUSED = "Paused"
    PLAN_ONLY = "PlanOnly"
    NO_SETTINGS = "NoSettings"
    NO_NODES_MATCHED = "NoNodesMatched"
    NO_AGENT = "NoAgent"
    NODE_UNREACHABLE = "NodeUnreachable"
    OVERRIDDEN = "Overridden"
    KERNEL_UNSUPPORTED = "KernelUnsupported"
    FIELD_UNSUPPORTED = "FieldUnsupported"
    NOT_LOADED = "NotLoaded"
    NO_DMA_CHANNEL = "NoDmaChannel"
    CHANNELS_EXHAUSTED = "ChannelsExhausted"
    MIGRATOR_BUSY = "MigratorBusy"
    OFFLOAD_INEFFECTIVE = "OffloadIneffective"
    NO_TRAFFIC = "NoTraffic"
    PERMISSION_DENIED = "PermissionDenied"
    READ_ONLY_FILE_SYSTEM = "ReadOnlyFileSystem"
    INVALID_VALUE = "InvalidValue"
    KERNEL_ERROR = "KernelError"
    KERNEL_FILE_BLOCKED = "KernelFileBlocked"
    READ_BACK_MISMATCH = "ReadBackMismatch"
    CLAMPED = "Clamped"
    UNDO_FAILED = "UndoFailed"
    BASELINE_NOT_SAVED = "BaselineNotSaved"
    DRIFT_DETECTED = "DriftDetected"
    DRIFT_CORRECTED = "DriftCorrected"
    CONTENDED = "Contended"
    GUARDRAIL_TRIPPED = "GuardrailTripped"
    ROLLED_BACK = "RolledBack"
    RESTORING = "Restoring"
    RESTORED = "Restored"
    RESTORE_INCOMPLETE = "RestoreIncomplete"
    RISK_NOT_ACCEPTED = "RiskNotAccepted"
    REASONS_NOT_RESTRICTABLE = "ReasonsNotRestrictable"
    VERIFYING = "Verifying"
    PROBING = "Probing"
    VERIFICATION_IMPOSSIBLE = "VerificationImpossible"
    VERIFICATION_OFF = "VerificationOff"
    CORRUPTION_DETECTED = "CorruptionDetected"
    ENGINE_STALLED = "EngineStalled"
    ENGINE_FAILING = "EngineFailing"
    VERSION_SKEW = "VersionSkew"
    FENCE_MISSING = "FenceMissing"
    FLEET_HOLD = "FleetHold"
    FLEET_OFF = "FleetOff"
    FLEET_RESTORE = "FleetRestore"
    AWAITING_ROLLOUT = "AwaitingRollout"
    SOAKING = "Soaking"
    ROLLOUT_HALTED = "RolloutHalted"
    ROLLING_BACK = "RollingBack"
    CLASS_HELD = "ClassHeld"
    CIRCUIT_BREAKER_OPEN = "CircuitBreakerOpen"


REASON_MEANING: Final[dict[Reason, str]] = {
    Reason.AS_EXPECTED: "Everything is as the policy asks. Nothing to do.",
    Reason.APPLYING: "Settings are on their way to the node or being written. Wait.",
    Reason.PAUSED: "The policy's mode is Paused: what is there is held. Set mode: Apply to go on.",
    Reason.PLAN_ONLY: "The policy's mode is Plan: nothing is written. Set mode: Apply to write.",
    Reason.NO_SETTINGS: "No policy sets anything on this node. Nothing to do.",
    Reason.NO_NODES_MATCHED: "The policy's nodeSelector matches no node. Check labels if that is a surprise.",
    Reason.NO_AGENT: "No node agent runs on the node. Check the DaemonSet and its node selector.",
    Reason.NODE_UNREACHABLE: "The agent has not reported for rollout.nodeDeadlineSeconds. Check node and agent pod.",
    Reason.OVERRIDDEN: "Another policy wins every group of this one on the node. Compare priorities.",
    Reason.KERNEL_UNSUPPORTED: "The node's kernel has none of the files for this group. A stock kernel is no failure.",
    Reason.FIELD_UNSUPPORTED: "The kernel lacks a field and the policy says unsupported: Strict.",
    Reason.NOT_LOADED: "The kernel has the driver as a module that is not loaded. Load it; this project never does.",
    Reason.NO_DMA_CHANNEL: "The node has no DMA channel that can copy memory; offload would silently do nothing.",
    Reason.CHANNELS_EXHAUSTED: "All DMA channels are taken at times; the kernel then copies by CPU. Lower channels.",
    Reason.MIGRATOR_BUSY: "Another migrator is registered in the kernel (EBUSY). Turn that one off first.",
    Reason.OFFLOAD_INEFFECTIVE: "Offload is on, pages migrate, and none goes through the engine. Check its channels.",
    Reason.NO_TRAFFIC: "Nothing migrated in the window, so there is nothing to judge.",
    Reason.PERMISSION_DENIED: "The agent may not write the kernel file. The message names the chart's value.",
    Reason.READ_ONLY_FILE_SYSTEM: "The kernel file is on a read-only mount. The message names the chart's value.",
    Reason.INVALID_VALUE: "The kernel refused the value. Choose one inside the range in status.capabilities.",
    Reason.KERNEL_ERROR: "The kernel answered with an errno that is not expected here; the message has it.",
    Reason.KERNEL_FILE_BLOCKED: "A kernel file has not answered for long; turning off may take 10 s per channel.",
    Reason.READ_BACK_MISMATCH: "The kernel took the write and holds another value.",
    Reason.CLAMPED: "The kernel or this agent took a nearby value; the knob's desired and observed differ.",
    Reason.UNDO_FAILED: "A change failed and its undo too; compare observed with baseline per knob.",
    Reason.BASELINE_NOT_SAVED: "The old value could not be made safe, so nothing was written. Check the state folder.",
    Reason.DRIFT_DETECTED: "Somebody else changed a knob after it was applied.",
    Reason.DRIFT_CORRECTED: "Somebody else changed a knob; it was set back.",
    Reason.CONTENDED: "Another writer changes a knob whenever it is set back. Find that writer, or set drift: Report.",
    Reason.GUARDRAIL_TRIPPED: "A measured limit of the policy was crossed.",
    Reason.ROLLED_BACK: "The revision failed and an earlier one is current again.",
    Reason.RESTORING: "The wish for these settings ended; the values of before are being put back.",
    Reason.RESTORED: "The values of before are back.",
    Reason.RESTORE_INCOMPLETE: "Some nodes did not confirm the restore in time; the message names them.",
    Reason.RISK_NOT_ACCEPTED: "A known hazard is refused. Name it in acceptedRisks or narrow the selector.",
    Reason.REASONS_NOT_RESTRICTABLE: "This kernel cannot restrict migration reasons as asked, so offload stays off.",
    Reason.VERIFYING: "The engine is about to copy test pages before it is trusted. Wait.",
    Reason.PROBING: "The node measures settings with own pages, a minute at most; then they are put back. Wait.",
    Reason.VERIFICATION_IMPOSSIBLE: "The engine cannot be tested on this node, so it stays off. The message says why.",
    Reason.VERIFICATION_OFF: "The policy turned verification off and accepted UnverifiedEngine.",
    Reason.CORRUPTION_DETECTED: "The engine copied test pages wrong. It is off for this boot; replace the engine.",
    Reason.ENGINE_STALLED: "The engine moved nothing for seconds; it is off. It is tried again after a growing pause.",
    Reason.ENGINE_FAILING: "Too many folios failed in the engine; it is off. It is tried again after a growing pause.",
    Reason.VERSION_SKEW: "The installed CRD and this program differ. Apply the CRDs of this release.",
    Reason.FENCE_MISSING: "The admission policy that fences agents is missing: nothing is turned on. Apply it.",
    Reason.FLEET_HOLD: "The fleet switch is hold: only safe changes are pushed. Set it to run to go on.",
    Reason.FLEET_OFF: "The fleet switch is off: offload is off on every node. Set it to run to go on.",
    Reason.FLEET_RESTORE: "The fleet switch is restore: the values of before are back. Set it to run to go on.",
    Reason.AWAITING_ROLLOUT: "The rollout has not reached the node yet. Wait; status.rollout says for what.",
    Reason.SOAKING: "The settings are in force and watched for rollout.canary.soakSeconds. Wait.",
    Reason.ROLLOUT_HALTED: "The rollout failed and stands. Edit the policy to go on.",
    Reason.ROLLING_BACK: "The revision failed; nodes go back to the last one that was proven. Wait.",
    Reason.CLASS_HELD: "An engine of this class corrupted pages. Replace it, then remove the key from the ConfigMap.",
    Reason.CIRCUIT_BREAKER_OPEN: "Too many nodes fail: nothing is pushed but what undoes. Mend them.",
}
