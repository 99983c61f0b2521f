# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from numamigration_api.vocabulary import NodeBucket, Reason, SettingsGroup
from numamigration_operator.core.classify import ARRIVED, CHECKS, Progress, Verdict, Wanted, classify
from numamigration_operator.core.node_facts import NodeFacts, Watched, report_of
from numamigration_operator.core.objects import PolicyObject, StateStatus
from numamigration_operator.core.render import Turn, render
from numamigration_operator.core.resolve import PolicyFacts, policy_facts, resolve
from numamigration_operator.core.wishes import Spec, revision_of
from tests.unit.builders import OFFLOAD, TIERING, admitted, awaiting, policy

BOTH = {"offload": OFFLOAD, "balancing": TIERING}
DEADLINE = 900
PLAN = {"policy": "p", "uid": "uid-p", "generation": 1, "wouldChange": 2, "reason": "AsExpected"}

RESULT = {"reason": "KernelError", "message": "why"}
OFF_NOT_THERE = {"offload": "Unsupported", "balancing": "Ready"}


def verdict(
    *policies: PolicyObject,
    groups: dict[str, str] | None = None,
    plans: list[dict[str, Any]] | None = None,
    spoke: bool = True,
    revision: str | None = None,
    silence: int = 0,
    before: Spec = Spec(),  # noqa: B008
    agent_expected: bool = True,
    progress: Progress = ARRIVED,
    turn: Callable[[PolicyFacts], Turn] = admitted,
) -> Verdict:
    """Classify a node for the first of `policies`; its agent has reported `groups` (state or ``state:reason``)."""
    facts = [policy_facts(one) for one in policies]
    resolution = resolve(facts)
    wanted = render(resolution, before, (), turn)
    observed = revision or revision_of(wanted)
    status = {
        "observedRevision": observed,
        "groups": {
            group: {
                "state": text.partition(":")[0],
                "reason": text.partition(":")[2] or "KernelError",
                "message": "why",
            }
            for group, text in (groups or {}).items()
        },
        "plans": plans or [],
    }
    report = report_of(msgspec.convert(status if spoke else {}, StateStatus))
    node = NodeFacts(
        selected=agent_expected,
        resolution=resolution,
        spec=wanted,
        reported=wanted if spoke and observed == revision_of(wanted) else None,
        said=report.said if report is not None else None,
        silent=silence,
    )
    return classify(facts[0], node, Wanted(wanted, revision_of(wanted)), progress)


WINNER = policy("winner", priority=900)


@pytest.mark.parametrize(
    ("case", "bucket"),
    [
        pytest.param(verdict(policy(), groups={"offload": "Ready"}), "ready", id="ready"),
        pytest.param(verdict(policy(), groups={"offload": "Held"}), "ready", id="held"),
        pytest.param(verdict(policy(settings={})), "ready", id="a policy that sets nothing"),
        pytest.param(verdict(policy(), WINNER, groups={"offload": "Ready"}), "overridden", id="won nothing"),
        pytest.param(
            verdict(policy(settings=BOTH), WINNER, groups={"offload": "Failed", "balancing": "Ready"}),
            "ready",
            id="won one group; the winner's failure is not its own",
        ),
        pytest.param(verdict(policy(), spoke=False), "unsupported", id="no agent ever spoke"),
        pytest.param(
            verdict(policy(), agent_expected=False, groups={"offload": "Ready"}), "unsupported", id="no agent expected"
        ),
        pytest.param(verdict(policy(), groups={"offload": "Unsupported"}), "unsupported", id="the only group"),
        pytest.param(
            verdict(policy(settings=BOTH), groups=OFF_NOT_THERE),
            "ready",
            id="one of two groups",
        ),
        pytest.param(
            verdict(policy(settings=BOTH, unsupported="Strict"), groups=OFF_NOT_THERE),
            "unsupported",
            id="one of two groups under Strict",
        ),
        pytest.param(verdict(policy(), groups={"offload": "Failed"}), "failed", id="failed"),
        pytest.param(verdict(policy(), groups={"offload": "Refused"}), "refused", id="refused"),
        pytest.param(verdict(policy(), groups={"offload": "Pending"}), "pending", id="pending"),
        pytest.param(verdict(policy(), groups={}), "pending", id="no result for a group"),
        pytest.param(
            verdict(policy(), groups={"offload": "Failed"}, revision="0" * 16), "pending", id="a report of before"
        ),
        pytest.param(
            verdict(policy(onDelete="Restore"), groups={"offload": "Ready"}), "pending", id="the finalizer is missing"
        ),
        pytest.param(
            verdict(policy(), groups={"offload": "Ready"}, silence=DEADLINE), "unreachable", id="silent for too long"
        ),
        pytest.param(
            verdict(policy(), groups={"offload": "Ready"}, silence=DEADLINE - 1), "ready", id="a second before that"
        ),
        pytest.param(verdict(policy(mode="Plan"), plans=[PLAN | {"state": "Ready"}]), "ready", id="plan reported"),
        pytest.param(verdict(policy(mode="Plan"), plans=[]), "pending", id="plan not reported"),
        pytest.param(
            verdict(policy(mode="Plan", meta={"generation": 2}), plans=[PLAN | {"state": "Ready"}]),
            "pending",
            id="plan of an earlier generation",
        ),
        pytest.param(
            verdict(policy(mode="Plan"), plans=[PLAN | {"state": "Unsupported"}]), "unsupported", id="plan unsupported"
        ),
        pytest.param(verdict(policy(mode="Plan"), plans=[PLAN | {"state": "Refused"}]), "refused", id="plan refused"),
        pytest.param(
            verdict(policy(mode="Plan"), *(policy(f"q{n}", mode="Plan", priority=900) for n in range(3))),
            "overridden",
            id="no room for the plan",
        ),
    ],
)
def test_a_node_counts_as(case: Verdict, bucket: str) -> None:
    """Promise 11: different words with different counts."""
    assert case.bucket == bucket


@pytest.mark.parametrize(
    ("case", "bucket"),
    [
        pytest.param(verdict(policy(), WINNER, spoke=False, silence=DEADLINE), "overridden", id="overridden, no agent"),
        pytest.param(verdict(policy(), spoke=False, silence=DEADLINE), "unsupported", id="no agent, silent"),
        pytest.param(
            verdict(policy(), groups={"offload": "Unsupported"}, silence=DEADLINE),
            "unsupported",
            id="no file, silent",
        ),
        pytest.param(verdict(policy(), groups={"offload": "Failed"}, silence=DEADLINE), "unreachable", id="silent"),
        pytest.param(
            verdict(policy(settings=BOTH), groups={"offload": "Refused", "balancing": "Failed"}),
            "failed",
            id="failed, refused",
        ),
        pytest.param(
            verdict(policy(settings=BOTH), groups={"offload": "Pending", "balancing": "Refused"}),
            "refused",
            id="refused, pending",
        ),
    ],
)
def test_of_two_findings_the_first_in_order_counts(case: Verdict, bucket: str) -> None:
    """Promise 11: one count for each node, the word that a person must act on first."""
    assert case.bucket == bucket


def test_the_order_of_the_checks_is_the_order_of_the_words() -> None:
    words = [check.__name__.strip("_") for check in CHECKS]

    assert words == ["overridden", "no_agent", "unsupported", "unreachable", "awaiting", "failed", "refused", "pending"]
    counts = [word for word in words if word not in {"no_agent", "awaiting"}]
    assert counts == [bucket for bucket in NodeBucket if bucket != "ready"]


HALTED = Progress(Reason.ROLLOUT_HALTED, "canary failed")
WAITS = Progress(Reason.AWAITING_ROLLOUT)
SOAKS = Progress(soaking=True)
TRIPPED = Progress(soaking=True, watched=Watched("rate is 9, and 5 is allowed"))


@pytest.mark.parametrize(
    ("case", "bucket", "reason"),
    [
        pytest.param(
            verdict(policy(), groups={"offload": "Failed"}, progress=WAITS),
            "pending",
            "AwaitingRollout",
            id="it waits, and what it says is of before",
        ),
        pytest.param(
            verdict(policy(), groups={}, turn=awaiting, progress=WAITS), "pending", "AwaitingRollout", id="waits"
        ),
        pytest.param(
            verdict(policy(), groups={"offload": "Failed"}, progress=WAITS, silence=DEADLINE),
            "unreachable",
            "NodeUnreachable",
            id="it waits, and is silent",
        ),
        pytest.param(
            verdict(policy(), groups={}, turn=awaiting, progress=HALTED), "pending", "RolloutHalted", id="halted"
        ),
        pytest.param(
            verdict(policy(), groups={"offload": "Failed"}, progress=HALTED),
            "failed",
            "KernelError",
            id="halted, failed",
        ),
        pytest.param(
            verdict(policy(), groups={"offload": "Pending"}, progress=HALTED),
            "pending",
            "Applying",
            id="halted, and not at rest",
        ),
        pytest.param(verdict(policy(), groups={"offload": "Ready"}, progress=SOAKS), "pending", "Soaking", id="soaks"),
        pytest.param(
            verdict(policy(), groups={"offload": "Refused"}, progress=SOAKS), "refused", "KernelError", id="refused"
        ),
        pytest.param(
            verdict(policy(), groups={"offload": "Ready"}, progress=TRIPPED), "failed", "GuardrailTripped", id="tripped"
        ),
        pytest.param(
            verdict(policy(), groups={"offload": "Ready"}, progress=TRIPPED, silence=DEADLINE),
            "unreachable",
            "NodeUnreachable",
            id="tripped, silent",
        ),
    ],
)
def test_how_far_the_rollout_is_counts_as(case: Verdict, bucket: str, reason: str) -> None:
    """Promise 11: what waits, is watched or was stopped is told apart."""
    assert (case.bucket, case.reason) == (bucket, reason)


def test_a_group_given_up_counts_as_pending_until_it_is_restored() -> None:
    armed = {"finalizers": ["numamigration.dev/restore"]}
    before = render(
        resolve([policy_facts(policy(settings=BOTH, onDelete="Restore", meta=armed))]), Spec(), (), admitted
    )
    less = policy(onDelete="Restore", meta=armed)

    restoring = verdict(less, before=before, groups={"offload": "Ready", "balancing": "Pending"})
    failing = verdict(less, before=before, groups={"offload": "Ready", "balancing": "Failed"})

    assert (restoring.bucket, restoring.reason) == ("pending", "Restoring")
    assert failing.bucket == "failed"


def test_the_reason_and_the_words_are_the_agents() -> None:
    assert verdict(policy(), groups={"offload": "Failed"}) == ("failed", "KernelError", "offload: why")


def test_a_node_that_is_ready_to_no_effect_is_ready_and_says_why() -> None:
    found = verdict(policy(), groups={"offload": "Ready:ChannelsExhausted"})

    assert found == ("ready", "ChannelsExhausted", "offload: why")


def test_who_is_overridden_reads_who_won() -> None:
    assert verdict(policy(), WINNER).message == "offload: winner"


@pytest.mark.parametrize(("status", "drifted"), [("True", True), ("False", False), ("Unknown", False)])
def test_a_report_tells_drift_by_its_condition(status: str, drifted: bool) -> None:
    said = {"reportedAt": "2026-01-01T00:00:00Z", "conditions": [{"type": "Drifted", "status": status}]}

    report = report_of(msgspec.convert(said, StateStatus))

    assert report is not None
    assert report.said.drifted is drifted
    assert report.said.group(SettingsGroup.OFFLOAD) is None
