# SPDX-License-Identifier: Apache-2.0
"""What ``nodes`` and ``explain`` show."""

from __future__ import annotations

import pytest

from numamigration_api.machinery.profiles import profile_name
from numamigration_cli.text import columns, wrapped
from numamigration_cli.views.explain import KNOBS, explain, foot, groups, head
from numamigration_cli.views.nodes import Wanted, nodes, table
from tests.unit.cli_samples import DENIED, EPYC, FULL, NOW, asked, condition, listed, state_document, viewed, wish

FLEET = [
    listed(DENIED),
    listed(state_document("db-1")),
    listed({"metadata": {"name": "new"}}),
    listed(
        state_document("intel-1", {}, hardwareClass="Intel Xeon; 2 NUMA", dialect="NoSeries", offload="Unsupported")
    ),
]


def test_nodes_stand_in_80_columns_by_name() -> None:
    assert columns(nodes(FLEET, Wanted()), table(NOW), width=80) == [
        "NODE     OFFLOAD          READY    REASON            SINCE  MESSAGE",
        "db-1     DMA, 4 channels  True     AsExpected        30m    -",
        "db-2     Off              False    PermissionDenied  30m    offload: /sys/modul…",
        "intel-1  Unsupported      True     AsExpected        30m    -",
        "new      -                Unknown  NoAgent           -      no agent has report…",
    ]


def test_a_long_name_leaves_room_for_the_reason_in_80_columns() -> None:
    denied = DENIED | {"metadata": {"name": "ip-10-123-145-167.eu-central-1.compute.internal"}}
    _, row = columns(nodes([listed(denied)], Wanted()), table(NOW), width=80)

    assert row == "ip-10-123-145-167.….compute.internal  Off      False  PermissionDenied  30m    …"


def test_wide_nodes_have_dialect_policies_class_and_numbers() -> None:
    head, row = columns(nodes([listed(DENIED)], Wanted()), table(NOW), wide=True)

    assert head.split()[5:] == ["DIALECT", "POLICY", "FOLIOS/S", "DRIFTED", "REPORTED", "CLASS", "MESSAGE"]
    assert "V5       offload,tiering  12.5      -        2m        AMD EPYC 7713" in row


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        pytest.param(Wanted(reason="PermissionDenied"), ["db-2"], id="reason of Ready"),
        pytest.param(Wanted(reason="NoAgent"), ["new"], id="no agent"),
        pytest.param(Wanted(reason="Contended"), [], id="no node has it"),
        pytest.param(Wanted(dialect="V5"), ["db-2"], id="dialect"),
        pytest.param(Wanted(dialect="V"), [], id="a part of a dialect is none"),
        pytest.param(Wanted(hardware_class="epyc"), ["db-1", "db-2"], id="a part of the class, any case"),
        pytest.param(Wanted(policy="tiering"), ["db-2"], id="policy"),
        pytest.param(Wanted(ready="True", hardware_class="intel"), ["intel-1"], id="all must hold"),
    ],
)
def test_filters(wanted: Wanted, found: list[str]) -> None:
    assert [row.node for row in nodes(FLEET, wanted)] == found


def test_a_reason_of_a_group_is_found_too() -> None:
    drifting = state_document("x", groups={"offload": wish()})
    drifting["status"]["groups"] = {"offload": {"state": "Ready", "reason": "NoTraffic"}}

    assert [row.node for row in nodes([listed(drifting)], Wanted(reason="NoTraffic"))] == ["x"]


POLICIES = [
    asked("offload"),
    asked("loser", priority=50),
    asked("tiering", settings={"demotion": {"enabled": True}}),
    asked("elsewhere", nodeSelector={"matchLabels": {"a": "b"}}),
]


def test_a_node_is_explained_group_by_group_and_knob_by_knob() -> None:
    report = explain(viewed(FULL), {}, POLICIES)

    assert [
        *wrapped([*head(report, NOW), *groups(report), ""], 80),
        *columns(report.knobs, KNOBS, width=80),
        *wrapped(foot(report), 80),
    ] == [
        "db-2: Off; Ready False, PermissionDenied, for 30m",
        "  offload: /sys/module/dcbm: set agent.hostWrite.module",
        "  The agent may not write the kernel file. The message names the chart's value.",
        "  kernel 7.1.0-rc3 (V6), agent 0.1.0",
        "  last report 2m ago",
        "  class: AMD EPYC 7713 64-Core Processor; 2 NUMA + 1 memory-only; 4 ptdma",
        "  engines: 4 channels of ptdma on NUMA node 0, usable",
        "  verification 3h ago: Passed, ptdma, 4 channels",
        "",
        "offload: Failed, PermissionDenied: open(2): EACCES",
        "  value:  engine DMA, channels 4",
        "  source: offload, Apply; when that ends: Restore",
        "  losers: loser",
        "",
        "demotion: Ready, AsExpected",
        "  value:  enabled true",
        "  source: tiering, Apply; when that ends: Restore",
        "",
        "KNOB              DESIRED  OBSERVED  BASELINE  OUTCOME   WHY",
        "offload.channels  4        1         1         Rejected  PermissionDenied: open…",
        "demotion.enabled  true     true      false     Applied   -",
        "",
        "Not known to this release, never written: /sys/module/dcbm/parameters/new_knob",
    ]


def test_wide_knobs_have_the_kernel_file() -> None:
    shown = columns(explain(viewed(FULL), {}, POLICIES).knobs, KNOBS, wide=True)

    assert "/sys/module/dcbm/parameters/nr_dma_chan  PermissionDenied: open(2): EACCES" in shown[1]


def test_a_group_whose_new_winner_has_not_come_yet_names_both() -> None:
    taking_over = [*POLICIES, asked("database", priority=900)]

    lines = groups(explain(viewed(FULL), {}, taking_over))

    assert "  source: offload, Apply; when that ends: Restore" in lines
    assert "  wins:   database, whose rollout has not come here yet" in lines
    assert "  losers: offload, loser" in lines


def test_a_tuned_group_shows_what_is_for_the_class_of_this_node_and_where_to_read_why() -> None:
    own, other = profile_name("V6", EPYC), profile_name("V5", EPYC)
    settings = [{"name": other, "engine": "DMA", "channels": 2}, {"name": own, "engine": "DMA", "channels": 8}]

    lines = groups(explain(viewed(state_document("db-1", {"offload": wish(profiles=settings)})), {}, []))

    assert "  value:  engine DMA, channels 8" in lines
    assert f"  tuned:  kubectl numamigration profiles {own}" in lines


def test_a_tuned_group_of_a_class_that_was_not_measured_has_nothing() -> None:
    lines = groups(explain(viewed(state_document("db-1", {"offload": wish(profiles=[])})), {}, []))

    assert "  value:  nothing" in lines


def test_a_group_that_is_won_and_not_there_yet_says_so() -> None:
    untouched = state_document("db-1", {})

    assert groups(explain(viewed(untouched), {}, [asked("offload")])) == [
        "",
        "offload: offload wins it, and its rollout has not come here yet",
    ]


def test_losers_that_may_not_be_known_are_said_to_be_unknown() -> None:
    lines = groups(explain(viewed(FULL), None, POLICIES))

    assert lines[-1] == "Who lost a group is not known: policies, or the Node's labels, may not be read."


def test_a_report_about_an_earlier_spec_is_said_to_be_one() -> None:
    late = state_document("db-1", observedRevision="bbbbbbbbbbbbbbbb")

    assert "  last report 2m ago, about an earlier spec" in head(explain(viewed(late), {}, []), NOW)


def test_a_node_that_nobody_tunes_says_so() -> None:
    assert groups(explain(viewed(state_document("db-1", {})), {}, []))[-1] == "No policy sets anything here."


def test_a_node_whose_agent_never_spoke_says_where_to_look() -> None:
    report = explain(viewed({"metadata": {"name": "new"}}), {}, [])

    assert head(report, NOW)[0] == "new: no agent has reported yet"


def test_what_is_not_usable_says_why() -> None:
    document = state_document(
        "db-1",
        ready=condition("Ready", "False", "NoDmaChannel"),
        dmaEngines=[{"driver": "idxd", "channels": 8, "usable": False, "reason": "bound to user space"}],
    )

    assert "  engines: 8 channels of idxd, not usable: bound to user space" in head(
        explain(viewed(document), {}, []), NOW
    )
