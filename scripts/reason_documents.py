# SPDX-License-Identifier: Apache-2.0
"""Writes docs/troubleshooting.md, or with ``--check`` compares it: an entry for each reason of the closed set.

What a reason means stands in ``REASON_MEANING``, whose sentences people also meet in conditions; what usually causes it
and what to do at length stands here. Numbers are those of the code.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from numamigration_agent.drift import CORRECTIONS_MAX, REST_SECONDS_MAX
from numamigration_agent.verify import TRY_AGAIN_SECONDS
from numamigration_agent.watch import (
    FAILED_FOLIOS_MIN,
    FAILED_SHARE_MAX,
    INEFFECTIVE_SECONDS,
    PAUSE_SECONDS_FIRST,
    PAUSE_SECONDS_MAX,
    STALL_SECONDS,
)
from numamigration_api.generate import settle
from numamigration_api.vocabulary import REASON_MEANING, WORST_NODES_MAX, Reason
from numamigration_operator.settings import OperatorSettings

DOCUMENT: Final = Path(__file__).resolve().parents[1] / "docs" / "troubleshooting.md"
NOTHING: Final = "Nothing."


class Entry(NamedTuple):
    """What the page says of a reason, beside its meaning: sentences in Markdown."""

    cause: str
    action: str


def _default(setting: str) -> str:
    return f"{OperatorSettings.model_fields[setting].default:g}"


ALL_IS_WELL: Final[Mapping[Reason, Entry]] = {
    Reason.AS_EXPECTED: Entry("The agent wrote, read back, and found what was asked for.", NOTHING),
    Reason.NO_SETTINGS: Entry("No policy in mode Apply selects the node, or none wins a group there.", NOTHING),
    Reason.NO_NODES_MATCHED: Entry(
        "A label that no node has yet, or a misspelled one. The policy is Ready: there is nothing that is not as "
        "asked.",
        "Compare `kubectl get nodes --show-labels` with `nodeSelector`.",
    ),
    Reason.PAUSED: Entry(
        "Somebody set `mode: Paused`. Nothing is pushed, and drift is not corrected.", "Set `mode: Apply` to go on."
    ),
    Reason.PLAN_ONLY: Entry(
        "The policy is a question, not a wish. `status.plan` has the counts, `status.plans` of each node state the "
        "knobs.",
        "Set `mode: Apply` to write.",
    ),
    Reason.OVERRIDDEN: Entry(
        "Another policy selects the node too and has the higher `priority`; with equal ones the older policy wins. The "
        "condition `Conflicted` and `status.conflicts` name group, winner and number of nodes.",
        "Nothing, if that is meant. Else change `priority` or one of the selectors.",
    ),
    Reason.RESTORED: Entry("The wish ended, and the baseline is back in every file.", NOTHING),
    Reason.NO_TRAFFIC: Entry(
        "A quiet node. The word is kept for that case; nothing in this release sets it: a node on which nothing "
        "migrated "
        "soaks and is proven like others.",
        NOTHING,
    ),
}
WAIT: Final[Mapping[Reason, Entry]] = {
    Reason.APPLYING: Entry(
        "The push waits for the operator's pace (`apply_rate_per_second`), or the agent has not reported yet.",
        "Wait. When it lasts for minutes, look at the agent's log and at `Reconciling` of the policy.",
    ),
    Reason.AWAITING_ROLLOUT: Entry(
        "Canaries or the wave before are not proven, or `maxUnproven` is used up by nodes that have failed.",
        "Look at `status.rollout` and `status.worstNodes` ([rollouts](rollouts.md)).",
    ),
    Reason.SOAKING: Entry("The change is in force and `canary.soakSeconds` are not over.", "Wait."),
    Reason.PROBING: Entry(
        "The operator asked this node to measure settings (`spec.probe`); they are other ones than wished meanwhile. "
        "Whatever ends it, those of before are put back; `status.probe` says what came of it.",
        "Wait. It lasts a minute at most, and what is wished comes into force again afterwards.",
    ),
    Reason.VERIFYING: Entry("The engine has not copied test pages on this boot yet.", "Wait: the window is short."),
    Reason.PROBING: Entry(
        "The operator has asked this node to measure settings (`tuning.mode`), for its hardware class.",
        "Wait: a minute at most, and the settings of before are put back. `status.probe` says what was found.",
    ),
    Reason.RESTORING: Entry(
        "The policy was deleted, the node left its selector, or an edit took the group out. A hung engine makes "
        "turning off slow.",
        "Wait; see KernelFileBlocked when it lasts.",
    ),
    Reason.ROLLING_BACK: Entry(
        "A canary failed, or more nodes than `failureThreshold`, and `onFailure` is Rollback.",
        "Wait, then read why in `status.rollout.message`.",
    ),
}
DECIDE: Final[Mapping[Reason, Entry]] = {
    Reason.RISK_NOT_ACCEPTED: Entry(
        "The kernel's dialect, or the driver of a DMA engine, has a known hazard. The message names it.",
        "Read what it may cost ([hazards](hazards.md)). Then either narrow `nodeSelector`, or name it in "
        "`acceptedRisks`. The policy stays Stalled until one of both is done.",
    ),
    Reason.REASONS_NOT_RESTRICTABLE: Entry(
        "The policy names `reasons`; the dialect offloads others too and has no knob for that, or knows none of those "
        "that were named.",
        "Leave `reasons` out where that is right for you, or narrow `nodeSelector` to kernels with `reason_mask` "
        "([kernel support](kernel-support.md)).",
    ),
    Reason.VERIFICATION_IMPOSSIBLE: Entry(
        "A seccomp profile forbids `mbind` or `move_pages`; the host has one NUMA node; no channel or too little "
        "memory "
        "was free; the kernel did not count the pages as copied by the engine. The message says which.",
        f"Mend the cause. A trial for which something was not free is repeated after {TRY_AGAIN_SECONDS:g} s by "
        "itself. "
        "For seccomp set `agent.seccompProfile` ([security](security.md#seccomp)). To use an engine untested, "
        "`verification: Off` with `acceptedRisks: [UnverifiedEngine]`.",
    ),
    Reason.VERIFICATION_OFF: Entry(
        "The policy asks for it. Corruption would show nowhere.", "Set `verification: FirstUse` if that was not meant."
    ),
    Reason.FIELD_UNSUPPORTED: Entry(
        "`unsupported: Strict`, and the kernel has no file for a field of the group. Nothing of the group was changed.",
        "Set `unsupported: BestEffort` to have the rest, or narrow `nodeSelector`. `status.capabilities.fields` of the "
        "node state has what this kernel knows.",
    ),
}
NODE: Final[Mapping[Reason, Entry]] = {
    Reason.NO_AGENT: Entry(
        "The DaemonSet's node selector or a taint keeps the agent off; its image cannot be pulled; the operator's "
        "`agent_node_selector` leaves the node out; the agent has just started and waits up to "
        "`agent.settings.startJitterSecondsMax`.",
        "`kubectl --namespace numamigration-system get pods --output wide`, then `describe` the one of that node. Give "
        "`agent.nodeSelector` of the chart the same nodes as the policy has.",
    ),
    Reason.NODE_UNREACHABLE: Entry(
        "The node is down, its agent crashes, or a network policy keeps it from the API server. Its knobs stay as they "
        "are; it blocks no rollout.",
        "Look at the Node, then at the agent's pod and log. `reportedAt` of the node state says since when.",
    ),
    Reason.KERNEL_UNSUPPORTED: Entry(
        "A stock kernel, a dialect that this release only turns off, or an engine that the dialect does not have. The "
        "message says which.",
        "Nothing, or another kernel ([kernel support](kernel-support.md)). Other groups of the policy are unharmed.",
    ),
    Reason.NOT_LOADED: Entry(
        "`CONFIG_DCBM_DMA=m` and nobody loaded the module; or it is being unloaded or loaded anew at this moment.",
        "Have the host load `dcbm` at boot (modules-load.d). The agent never loads a module.",
    ),
    Reason.MIGRATOR_BUSY: Entry(
        "The kernel has room for one driver that copies batches, and another one is registered (EBUSY).",
        "Turn that one off on the host. The agent tries again with a growing pause.",
    ),
    Reason.PERMISSION_DENIED: Entry(
        "The folder is not mounted writable, a capability is missing, or SELinux forbids it. `balancing` needs "
        "`agent.hostWrite.procSysKernel`, older dialects `agent.hostWrite.sysKernel`.",
        "Set the value of the chart that the message names, after reading what else it allows "
        "([security](security.md#what-the-agent-may-write-on-its-node)).",
    ),
    Reason.READ_ONLY_FILE_SYSTEM: Entry(
        "The folder of the host is mounted read-only in the agent's container.",
        "Set the value of the chart that the message names.",
    ),
    Reason.INVALID_VALUE: Entry(
        "The API takes the widest range of any kernel, and this kernel's is narrower (EINVAL or ERANGE).",
        "Choose a value inside `status.capabilities.ranges` of the node state.",
    ),
    Reason.KERNEL_ERROR: Entry(
        "The file has gone (was the driver unloaded?), shows something that is no value of it, or answered with an "
        "errno "
        "that no table has.",
        "Read the message. When it repeats, try the file by hand on the host and report kernel and driver.",
    ),
    Reason.KERNEL_FILE_BLOCKED: Entry(
        "Turning off waits for every batch in flight: 10 s per channel and batch with a hung engine, and the callers "
        "cannot be killed meanwhile. Reads of the same module's files wait too.",
        "Wait. Do not unload the engine's driver now. When it does not end, drain the node and boot it.",
    ),
    Reason.READ_BACK_MISMATCH: Entry(
        "The driver ignored the value, or another writer was faster. The change was undone.",
        "Compare `desired` and `observed` of the knob in the node state. Look for another writer.",
    ),
    Reason.CLAMPED: Entry(
        "More channels than the host has, or a migration reason that this kernel does not know. The nearest value was "
        "taken; the group counts as ready.",
        "Nothing, or ask for what the message says that the node has.",
    ),
    Reason.UNDO_FAILED: Entry(
        "A write failed in the middle of a change, and writing an old value back failed too.",
        "Compare `observed` with `baseline` of each knob in the node state, and put back by hand what differs.",
    ),
    Reason.BASELINE_NOT_SAVED: Entry(
        "The agent's `state_dir` is missing, full or read-only, or what is stored there and in the status contradict "
        "each "
        "other. Nothing is written to the kernel without a safe old value.",
        "Mend the folder that the message names. It has to be on the host's tmpfs.",
    ),
}
WRITERS: Final[Mapping[Reason, Entry]] = {
    Reason.DRIFT_DETECTED: Entry(
        "A person or a tool (tuned, a script, another operator) wrote the file. With `drift: Report` it is left "
        "as it is; with `drift: Ignore` nobody is told.",
        "Find the writer, or set `drift: Correct`.",
    ),
    Reason.DRIFT_CORRECTED: Entry(
        "As DriftDetected, with `drift: Correct`.", "Find the writer if it happens again; the message names the file."
    ),
    Reason.CONTENDED: Entry(
        f"Another writer changed the file again after each of {CORRECTIONS_MAX} corrections. The agent leaves it to "
        "that "
        f"writer, and tries again after a pause that grows up to {REST_SECONDS_MAX / 3600:g} hours. An engine that is "
        "fought over is left off.",
        "Find that writer (a tuning daemon, a script, a unit that runs at boot), or set `drift: Report`.",
    ),
}
ENGINE: Final[Mapping[Reason, Entry]] = {
    Reason.NO_DMA_CHANNEL: Entry(
        "No DMA engine, its driver is not loaded, or none that can copy memory. `status.dmaEngines` of the node state "
        "lists what is there, and why not.",
        "Load the driver of the engine on the host, or narrow `nodeSelector`. Offload stays off: it would read on and "
        "do nothing.",
    ),
    Reason.CHANNELS_EXHAUSTED: Entry(
        "Other clients of the kernel (NTB, dmatest, another driver) hold all channels that offload could use.",
        "`in_use` below /sys/class/dma tells which channels are held. Fewer `offload.channels` help where tasks that "
        "migrate at once ask for more than there are: each batch wants that many of its own.",
    ),
    Reason.OFFLOAD_INEFFECTIVE: Entry(
        f"For {INEFFECTIVE_SECONDS:g} s pages migrated and no folio went through the engine, and test pages did not "
        "either: the engine's driver was unloaded, or its channels are taken or no longer exclusive. The node stays "
        "ready; the policy's condition `Degraded` names it.",
        "Look at `in_use` below /sys/class/dma and at the engine's driver. Unknown instead of True: test pages could "
        "not "
        "be tried, so it is not settled.",
    ),
    Reason.ENGINE_STALLED: Entry(
        f"Channels were in use and nothing moved for {STALL_SECONDS:g} s, or a kernel file did not answer. The kernel "
        "would wait 10 s for each batch, for ever.",
        f"The agent turned it off and tries again after {PAUSE_SECONDS_FIRST:g} s, then after longer pauses, up to "
        f"{PAUSE_SECONDS_MAX / 60:g} minutes. When it repeats: look at the engine (kernel log, firmware, IOMMU), and "
        "set "
        "`engine: Off` there.",
    ),
    Reason.ENGINE_FAILING: Entry(
        f"Of {FAILED_FOLIOS_MIN} folios or more, more than {FAILED_SHARE_MAX:.0%} failed in the engine. No page is "
        "lost: "
        "the CPU copied them, later than without offload.",
        "As for EngineStalled. An IOMMU that merges segments is one known cause.",
    ),
    Reason.CORRUPTION_DETECTED: Entry(
        "A test page came over with wrong bytes. Counters of the kernel cannot show this. Pages that the engine copied "
        "before may be wrong too.",
        "Treat the node's data as suspect. Take the engine out of use; only a boot ends the ban on that node. The "
        "class "
        "is held everywhere: see ClassHeld.",
    ),
    Reason.CLASS_HELD: Entry(
        "An engine of the same hardware class, dialect and driver corrupted test pages on some node. The value of the "
        "key `hold.<16 hex digits>` in ConfigMap `numamigration-control` names it.",
        "Find out what happened there. Then remove the key ([held classes](rollouts.md#held-classes)).",
    ),
}
ROLLOUT: Final[Mapping[Reason, Entry]] = {
    Reason.GUARDRAIL_TRIPPED: Entry(
        "While a node soaked, one of `rollout.guardrails` was crossed. The message has the value and the limit.",
        "Compare `status.window.before` and `status.window.after` of the node state. Change the settings, or the "
        "limit.",
    ),
    Reason.ROLLED_BACK: Entry(
        "A revision failed, and each node has what was proven before.",
        "Read `status.rollout.message`, mend the policy or the node, then edit the policy: a failed revision is not "
        "tried "
        "again by itself ([try again](rollouts.md#try-again)).",
    ),
    Reason.ROLLOUT_HALTED: Entry(
        "A revision failed and `onFailure` is Halt: nodes that have it keep it.",
        "As for RolledBack. To take it back now, edit the policy to the earlier settings.",
    ),
    Reason.CIRCUIT_BREAKER_OPEN: Entry(
        f"{_default('circuit_breaker_percent')} % of the nodes with agents, and at least "
        f"{_default('circuit_breaker_nodes_min')}, have failed for whatever policy "
        "([settings](settings-operator.md#circuit_breaker_percent)).",
        "Look at `status.worstNodes` of the policies for the common cause. It closes by itself when fewer have failed.",
    ),
}
FLEET: Final[Mapping[Reason, Entry]] = {
    Reason.FLEET_HOLD: Entry(
        "ConfigMap `numamigration-control` says `fleet: hold`, or something that is none of the words it may say.",
        "Set it to `fleet: run`, or delete the ConfigMap ([the fleet switch](rollouts.md#the-fleet-switch)).",
    ),
    Reason.FLEET_OFF: Entry("The ConfigMap says `fleet: off`.", "As for FleetHold."),
    Reason.FLEET_RESTORE: Entry(
        "The ConfigMap says `fleet: restore`; an uninstall that was begun says so too.", "As for FleetHold."
    ),
    Reason.FENCE_MISSING: Entry(
        "The admission policy `numamigration-agent-fence` or its binding was deleted, or lets more through than this "
        "release's. Turning off and restoring still reach the nodes.",
        "`kubectl apply --server-side -f deploy/fence.yaml`, or upgrade the chart with `fence.enabled` true.",
    ),
    Reason.VERSION_SKEW: Entry(
        "The CRD is older than the operator and cannot store a field; or the operator is newer than an agent, which "
        "does "
        "not know a group. An engine stays as it is until the whole wish arrives.",
        "Apply the CRDs of this release (`numamigration-operator crds`), and let the DaemonSet finish its update.",
    ),
    Reason.RESTORE_INCOMPLETE: Entry(
        "The policy was deleted while nodes were down. After `restore_deadline_seconds` (default "
        f"{_default('restore_deadline_seconds')}) its finalizer went.",
        "A boot gives a node the kernel's defaults. A node that comes back without one restores when its agent "
        "reports, "
        "for the wish to restore stands in its node state.",
    ),
}
SECTIONS: Final = {
    "All is well": ALL_IS_WELL,
    "Wait": WAIT,
    "Decide": DECIDE,
    "The node and its kernel": NODE,
    "Somebody else writes": WRITERS,
    "The DMA engine": ENGINE,
    "The rollout": ROLLOUT,
    "The fleet and the install": FLEET,
}
INTRODUCTION: Final = f"""\
<!-- Generated by `make generate` from scripts/reason_documents.py and vocabulary.py; do not edit. -->

# Troubleshooting by reason

Every condition, group, worst node and Event has one reason, of a closed set. Here is each of them.

From the policy to the node:

<!-- run -->
```console
$ kubectl get migpol
$ kubectl describe migpol $POLICY
$ kubectl describe nms $NODE
```

The first line says how many nodes are as asked, and the reason where they are not. The second one has the conditions
and the {WORST_NODES_MAX} worst nodes, each with its reason. The third one has, for each settings group, state, reason
and message, and for each knob what is desired, what the kernel says, and what it said before. To turn everything off
first and look later, use [the fleet switch](rollouts.md#the-fleet-switch).
"""


def page() -> str:
    """Return the text of docs/troubleshooting.md."""
    parts = [INTRODUCTION]
    for title, entries in SECTIONS.items():
        parts.append(f"\n## {title}\n")
        parts.extend(_entry(reason, entry) for reason, entry in entries.items())
    return "".join(parts)


def _entry(reason: Reason, entry: Entry) -> str:
    return (
        f"\n### {reason}\n\n{REASON_MEANING[reason]}\n\n"
        f"* **Usual cause.** {entry.cause}\n* **What to do.** {entry.action}\n"
    )


def main(arguments: list[str]) -> int:
    """Write the page, or compare it; 1 and a diff when it differs."""
    parser = argparse.ArgumentParser(prog="python -m scripts.reason_documents")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page is stale")
    return 0 if settle(DOCUMENT, page(), parser.parse_args(arguments).check) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
