# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from numamigration_api.machinery.conditions import shorten
from numamigration_api.models.policy import MigrationPolicyStatus
from numamigration_api.vocabulary import (
    RESERVED_MAX,
    WORST_NODES_MAX,
    NodeBucket,
    Reason,
    RolloutPhase,
    SettingsGroup,
)
from numamigration_operator.core.classify import Verdict
from numamigration_operator.core.objects import PolicyStatusView, RolloutView, Statistics
from numamigration_operator.core.policy_rollout import NAME_BYTES, NAMES_BYTES_MAX
from numamigration_operator.core.policy_status import CONFLICT_BYTES_MAX, Standing, policy_status
from numamigration_operator.core.resolve import Loss, policy_facts
from numamigration_operator.core.tally import Contribution, Tally
from tests.unit.builders import policy

WALL = datetime(2026, 1, 2, tzinfo=UTC)
REASONS = {
    "ready": "AsExpected",
    "failed": "KernelError",
    "refused": "RiskNotAccepted",
    "unreachable": "NodeUnreachable",
}


def verdict(text: str) -> Verdict:
    """Read ``failed:MigratorBusy:words``; reason and words may be left out."""
    bucket, _, rest = text.partition(":")
    reason, _, message = rest.partition(":")
    return Verdict(NodeBucket(bucket), Reason(reason or REASONS.get(bucket, "Applying")), message)


def status(
    nodes: dict[str, str],
    losses: tuple[Loss, ...] = (),
    known: PolicyStatusView = PolicyStatusView(),  # noqa: B008
    wall: datetime = WALL,
    holders: tuple[str, ...] = (),
    rollout: RolloutView | None = None,
    statistics: Statistics = Statistics(folios_migrated=1),  # noqa: B008
    **spec: Any,
) -> PolicyStatusView:
    tally, verdicts = Tally(), {name: verdict(text) for name, text in nodes.items()}
    for name, one in verdicts.items():
        tally.replace(name, None, Contribution(one, losses=losses))
        tally.renumber(None, statistics)
    standing = Standing(
        policy_facts(policy(**spec)), tally, verdicts.__getitem__, frozenset(holders), rollout=rollout, unproven=10**6
    )
    return policy_status(standing, known, wall)


def condition(found: PolicyStatusView, type_: str) -> tuple[str, str]:
    one = next(c for c in found.conditions if c["type"] == type_)
    return one["status"], one["reason"]


def message(found: PolicyStatusView, type_: str) -> str:
    return str(next(c["message"] for c in found.conditions if c["type"] == type_))


@pytest.mark.parametrize(
    ("nodes", "ready", "others"),
    [
        pytest.param({}, ("True", "NoNodesMatched"), set(), id="no node"),
        pytest.param({"a": "ready"}, ("True", "AsExpected"), set(), id="ready"),
        pytest.param(
            {"a": "ready", "b": "ready:ChannelsExhausted"},
            ("True", "ChannelsExhausted"),
            {"Degraded"},
            id="ready, and one to no effect",
        ),
        pytest.param({"a": "unsupported"}, ("True", "AsExpected"), set(), id="unsupported is no failure"),
        pytest.param({"a": "overridden"}, ("True", "AsExpected"), set(), id="overridden is no failure"),
        pytest.param({"a": "unreachable"}, ("True", "AsExpected"), {"Degraded"}, id="unreachable"),
        pytest.param({"a": "pending"}, ("False", "Applying"), {"Reconciling"}, id="pending"),
        pytest.param({"a": "pending:Restoring"}, ("False", "Applying"), {"Reconciling"}, id="restoring a group"),
        pytest.param({"a": "failed:MigratorBusy"}, ("False", "MigratorBusy"), {"Degraded"}, id="failed"),
        pytest.param({"a": "refused"}, ("False", "RiskNotAccepted"), {"Stalled"}, id="only refused left"),
        pytest.param(
            {"a": "refused", "b": "pending"}, ("False", "Applying"), {"Reconciling"}, id="refused, still moving"
        ),
        pytest.param({"a": "refused", "b": "failed"}, ("False", "KernelError"), {"Degraded"}, id="refused and failed"),
        pytest.param(
            {"a": "failed:InvalidValue", "b": "failed:MigratorBusy", "c": "failed:MigratorBusy"},
            ("False", "MigratorBusy"),
            {"Degraded"},
            id="the most frequent reason",
        ),
    ],
)
def test_conditions_follow_the_counts(nodes: dict[str, str], ready: tuple[str, str], others: set[str]) -> None:
    found = status(nodes)

    assert condition(found, "Ready") == ready
    assert {c["type"] for c in found.conditions if c["status"] == "True"} - {"Ready"} == others
    assert [c["type"] for c in found.conditions] == ["Conflicted", "Degraded", "Ready", "Reconciling", "Stalled"]


@pytest.mark.parametrize(("mode", "reason"), [("Apply", "AsExpected"), ("Paused", "Paused"), ("Plan", "PlanOnly")])
def test_the_reason_of_a_ready_policy_is_its_mode(mode: str, reason: str) -> None:
    assert condition(status({"a": "ready"}, mode=mode), "Ready") == ("True", reason)


@pytest.mark.parametrize(
    ("nodes", "summary"),
    [
        pytest.param({}, "0/0 ready", id="no node"),
        pytest.param({"a": "ready", "b": "ready", "c": "ready"}, "3/3 ready", id="all ready"),
        pytest.param(
            {"a": "ready", "b": "failed", "c": "unsupported"}, "1/3 ready, 1 failed, 1 unsupported", id="worst first"
        ),
        pytest.param(
            {bucket.value: bucket.value for bucket in NodeBucket},
            "1/7 ready, 1 failed, 1 refused, 1 unreachable, 1 pending, 1 unsupported, 1 overridden",
            id="every word",
        ),
    ],
)
def test_the_summary_is_one_line(nodes: dict[str, str], summary: str) -> None:
    assert status(nodes).summary == summary


def test_the_message_names_an_example_and_its_reason() -> None:
    nodes = {"node-c": "failed:MigratorBusy:other", "node-b": "failed:MigratorBusy:offload: EBUSY", "node-a": "ready"}

    text = message(status(nodes), "Ready")

    assert text == "2 of 3 nodes failed, for example node-b: MigratorBusy: offload: EBUSY"


def test_nodes_that_are_ready_to_no_effect_are_named() -> None:
    """Promise 11: they are counted as ready, and nobody has to look at every node to find them."""
    found = status({"a": "ready", "b": "ready:OffloadIneffective:nothing goes through", "c": "unsupported"})

    assert found.summary == "2/3 ready, 1 unsupported"
    assert (
        message(found, "Degraded") == "1 of them to no effect, for example b: OffloadIneffective: nothing goes through"
    )
    assert message(found, "Degraded") in message(found, "Ready")
    assert [(one.node, one.state, one.reason) for one in found.worst_nodes] == [
        ("c", "unsupported", "Applying"),
        ("b", "ready", "OffloadIneffective"),
    ]


def test_a_conflict_names_group_winner_and_nodes() -> None:
    found = status({"a": "overridden", "b": "ready"}, losses=(Loss(SettingsGroup.OFFLOAD, "other"),))

    assert condition(found, "Conflicted") == ("True", "Overridden")
    assert message(found, "Conflicted") == "offload: policy other wins on 2 nodes"
    assert msgspec.to_builtins(found.conflicts) == ({"group": "offload", "winner": "other", "nodes": 2},)


def test_the_worst_nodes_come_first_and_then_the_smaller_names() -> None:
    nodes = {"u": "unsupported", "p": "pending", "x": "unreachable", "r": "refused", "f2": "failed", "f1": "failed"}

    found = status(nodes | {"ok": "ready", "o": "overridden"})

    assert [one.node for one in found.worst_nodes] == ["f1", "f2", "r", "x", "p", "u", "o"]


def longest_rollout(names: tuple[str, ...]) -> RolloutView:
    """A rollout in which everything is as long as it gets; half of the names were carried over."""
    half = len(names) // 2
    return RolloutView(
        revision="f" * 16,
        generation=2**62,
        proven_revision="e" * 16,
        cursor=10**6,
        reserved=names[half:],
        carried=names[:half],
        wave=10**6,
        waves=10**6,
        phase=max(RolloutPhase, key=len),
        leader_epoch=2**62,
        started_at="2026-01-01T00:00:00Z",
        message=shorten("m" * 5000),
    )


def longest_names(length: int) -> tuple[str, ...]:
    """As many names of a length as the ledger takes."""
    number = min(RESERVED_MAX, NAMES_BYTES_MAX // (length + NAME_BYTES))
    return tuple(f"{n:05d}".ljust(length, "r") for n in range(number))


def test_the_ledger_holds_as_many_names_of_the_usual_length_as_it_may() -> None:
    """ip-10-0-0-0.eu-central-1.compute.internal has 41 characters."""
    assert len(longest_names(41)) == RESERVED_MAX


@pytest.mark.parametrize("length", [43, 253], ids=["many names", "long names"])
def test_the_status_stays_below_20_kb_with_the_longest_names_and_messages(length: int) -> None:
    """Promise 12."""
    names = longest_names(length)
    words = ("failed:KernelError", "refused:RiskNotAccepted", "unreachable:NodeUnreachable", "pending:RolloutHalted")
    nodes = {f"{n:05d}".ljust(253, "n"): f"{words[n % 4]}:{'m' * 512}" for n in range(100)}
    losses = tuple(Loss(group, f"{n}".ljust(253, "w")) for n in range(9) for group in SettingsGroup)

    counted: dict[str, Any] = dict.fromkeys(Statistics.__struct_fields__, 2**56)
    counters = Statistics(**counted | {"folios_per_second": "123456789.123456789"})
    found = status(nodes, losses=losses, rollout=longest_rollout(names), statistics=counters)

    assert sum(len(name) + NAME_BYTES for name in names) > NAMES_BYTES_MAX - 253

    assert len(found.worst_nodes) == WORST_NODES_MAX
    assert len(found.conflicts) == CONFLICT_BYTES_MAX // 253
    assert len(msgspec.json.encode(found)) < 20_000


def test_the_status_is_what_the_contract_allows() -> None:
    nodes = {bucket.value: f"{bucket.value}:KernelError:words" for bucket in NodeBucket}

    found = status(nodes, losses=(Loss(SettingsGroup.OFFLOAD, "other"),))

    MigrationPolicyStatus.model_validate_json(msgspec.json.encode(found), strict=False)
    assert msgspec.json.decode(msgspec.json.encode(found), type=PolicyStatusView) == found


def test_the_same_counts_give_the_same_status_later() -> None:
    nodes = {"a": "failed", "b": "ready"}
    before = status(nodes)

    assert status(dict(reversed(nodes.items())), known=before, wall=WALL + timedelta(days=1)) == before


def test_a_transition_time_moves_with_the_status_only() -> None:
    before = status({"a": "pending"})

    after = status({"a": "ready"}, known=before, wall=WALL + timedelta(days=1))

    times = {c["type"]: c["lastTransitionTime"] for c in after.conditions}
    assert times["Ready"] == times["Reconciling"] == "2026-01-03T00:00:00Z"
    assert times["Degraded"] == "2026-01-02T00:00:00Z"


def test_a_deleted_policy_says_who_is_not_restored() -> None:
    found = status({}, holders=("b", "a"), meta={"deletionTimestamp": "2026-01-01T00:00:00Z"})

    assert condition(found, "Ready") == ("False", "Restoring")
    assert message(found, "Ready") == "deleted; 2 nodes not restored yet, for example a"
    assert found.summary == "restoring, 2 nodes left"


@pytest.mark.parametrize(
    ("nodes", "reconciling"),
    [
        pytest.param({"a": "pending:RolledBack", "b": "ready"}, "False", id="stopped"),
        pytest.param({"a": "pending:RolledBack", "b": "pending:Applying"}, "True", id="stopped, and one still at work"),
        pytest.param({"a": "pending:FleetOff"}, "False", id="fleet switch"),
    ],
)
def test_what_has_stopped_is_not_in_progress(nodes: dict[str, str], reconciling: str) -> None:
    """kstatus, and so GitOps tools, would wait for it: Reconciling comes before Stalled there."""
    assert condition(status(nodes), "Reconciling")[0] == reconciling


def test_what_stopped_all_nodes_is_said_without_an_example() -> None:
    found = status({"a": "pending:RolledBack:canary b failed", "b": "pending:RolledBack:canary b failed"})
    assert message(found, "Ready") == "2 of 2 nodes pending: canary b failed"
