# SPDX-License-Identifier: Apache-2.0
"""What ``kubectl numamigration status`` shows of policies, captured as a terminal of 80 columns shows it, and wide."""

from __future__ import annotations

from typing import Any

import pytest

from numamigration_api.vocabulary import FleetSwitch
from numamigration_cli.text import columns, wrapped
from numamigration_cli.views.status import above, bar, below, details, sparkline, status, table, watched
from numamigration_operator.core.fleet_switch import Control
from tests.unit.cli_samples import EPYC, NOW, READY, ROLLED_BACK, condition, policy

HOLD = f'{{"hardwareClass":"{EPYC}","dialect":"V6","driver":"ptdma","node":"db-9"}}'
RUN = Control()


def narrow(lines: list[str]) -> list[str]:
    return wrapped(lines, 80)


def test_policies_stand_in_80_columns_with_what_and_why_and_since_when() -> None:
    found = status([policy(status=ROLLED_BACK), policy("tiering", status=READY), policy("fresh")], RUN)

    assert columns(found.policies, table(NOW), width=80) == [
        "POLICY   READY    REASON      SINCE  NODES",
        "fresh    Unknown  NotSeen     25d    no operator has seen it yet",
        "offload  False    RolledBack  30m    0/60 ready, rolled back: GuardrailTripped …",
        "tiering  True     AsExpected  30m    3/3 ready",
    ]


def test_wide_leaves_nothing_out() -> None:
    found = status([policy(status=ROLLED_BACK)], RUN)

    head, row = columns(found.policies, table(NOW), wide=True, width=80)

    assert head.split() == [
        "POLICY",
        "READY",
        "REASON",
        "SINCE",
        "WAVE",
        "NODES",
        "MODE",
        "PRIORITY",
        "FOLIOS/S",
        "MESSAGE",
    ]
    assert row == (
        "offload  False  RolledBack  30m    3/7   0/60 ready, rolled back: GuardrailTripped on V5  "
        "Apply  100       350.2     a canary failed"
    )


def test_a_policy_that_is_not_well_says_why_and_what_to_do_and_how_to_undo_it() -> None:
    assert narrow(below(status([policy(status=ROLLED_BACK), policy("tiering", status=READY)], RUN))) == [
        "",
        "offload: RolledBack: canary v5-001 failed: GuardrailTripped: foliosFailedShare",
        "  is 0.025416, and 0.01 is allowed",
        "  The revision failed and an earlier one is current again.",
        "  undo: kubectl numamigration rollback offload",
    ]


def test_a_policy_that_is_well_needs_no_words() -> None:
    assert below(status([policy("tiering", status=READY)], RUN)) == []


def test_the_fleet_switch_and_held_classes_stand_above_with_the_commands_that_end_them() -> None:
    control = Control(FleetSwitch.OFF, "", (("hold.0123456789abcdef", HOLD),))

    assert narrow(above(status([], control))) == [
        "Fleet switch: off",
        "  back to normal: kubectl numamigration stop run",
        "Held class: ptdma on AMD EPYC 7713 64-Core Processor; 2 NUMA + 1 memory-only; 4",
        "  ptdma, V6: corrupted pages on db-9",
        "  once the engine is replaced: kubectl numamigration release-hold",
        "    0123456789abcdef",
    ]


def test_a_switch_that_nobody_understands_says_why() -> None:
    control = Control(FleetSwitch.HOLD, "fleet: 'of' is none of run, hold, off, restore")

    assert above(status([], control))[0] == "Fleet switch: hold (fleet: 'of' is none of run, hold, off, restore)"


def test_a_switch_that_may_not_be_read_is_unknown_and_not_run() -> None:
    assert above(status([], None)) == ["Fleet switch: unknown (the control ConfigMap may not be read)"]


def test_a_hold_that_cannot_be_understood_is_shown_all_the_same() -> None:
    (held,) = status([], Control(FleetSwitch.HOLD, "…", (("hold.0123456789abcdef", "?"),))).held

    assert held.key == "hold.0123456789abcdef"
    assert held.release == "kubectl numamigration release-hold 0123456789abcdef"


def test_one_policy_is_told_with_rollout_counts_worst_nodes_and_who_won() -> None:
    (row,) = status([policy(status=ROLLED_BACK)], RUN).policies

    assert narrow(details(row, NOW)) == [
        "offload: 0/60 ready, rolled back: GuardrailTripped on V5",
        "  Ready False, RolledBack, for 30m, mode Apply",
        "  a canary failed",
        "  The revision failed and an earlier one is current again.",
        "  sets: offload; priority 100",
        "  undo: kubectl numamigration rollback offload",
        "  Stalled: RolledBack: canary v5-001 failed: GuardrailTripped: foliosFailedShare",
        "    is 0.025416, and 0.01 is allowed",
        "  lost offload: database wins on 3 nodes",
        "",
        "Rollout: RolledBack wave 3/7 ████████░░░░░░░░░░░░, revision 434d092e133bdda6",
        "  canary v5-001 failed: GuardrailTripped: foliosFailedShare is 0.025416, and",
        "    0.01 is allowed",
        "",
        "Nodes: 60",
        "  pending          58  ███████████████████░",
        "  failed            2  █░░░░░░░░░░░░░░░░░░░",
        "  of these 2 unproven, 1 drifted",
        "",
        "Folios: 120000 copied by engines, 12 failed, 350.2 a second",
        "",
        "Worst nodes:",
        "  v5-001: failed: GuardrailTripped: foliosFailedShare is 0.025416",
        "  more of one: kubectl numamigration explain NODE",
    ]


@pytest.mark.parametrize(
    ("spec", "rollout", "command"),
    [
        pytest.param({"mode": "Paused"}, {}, "resume", id="paused: undo the pause"),
        pytest.param({}, {"revision": "b", "provenRevision": "a"}, "rollback", id="an earlier one went well"),
        pytest.param({}, {"revision": "a", "provenRevision": "a"}, "pause", id="nothing to go back to"),
        pytest.param({}, {}, "pause", id="no rollout yet"),
    ],
)
def test_the_way_back_is_one_that_works(spec: dict[str, Any], rollout: dict[str, Any], command: str) -> None:
    (row,) = status([policy(status=READY | {"rollout": rollout}, **spec)], RUN).policies

    assert row.undo == f"kubectl numamigration {command} offload"


def test_watch_has_a_bar_for_waves_and_a_line_of_the_last_folios_a_second() -> None:
    found = status([policy(status=ROLLED_BACK)], RUN)

    assert columns(found.policies, watched(NOW, {"offload": [0.0, 1.0, 175.0, 350.0]}), width=80) == [
        "POLICY   READY  REASON      SINCE  WAVES         FOLIOS/S    NODES",
        "offload  False  RolledBack  30m    ███░░░░░ 3/7  ▁▁▅█ 350.2  0/60 ready, rolled…",
    ]


def test_a_word_of_a_newer_release_is_shown_and_said_to_be_one() -> None:
    found = status([policy(status={"conditions": [condition("Ready", "False", "Eaten")]})], RUN)

    assert below(found)[2] == "  Eaten is a word of another release than this plugin's."


@pytest.mark.parametrize(
    ("done", "total", "shown"),
    [
        pytest.param(0, 0, "░░░░", id="nothing of nothing"),
        pytest.param(1, 1000, "█░░░", id="something is never nothing"),
        pytest.param(999, 1000, "███░", id="almost is not all"),
        pytest.param(9, 4, "████", id="more than all"),
    ],
)
def test_bars(done: int, total: int, shown: str) -> None:
    assert bar(done, total, 4) == shown


def test_a_sparkline_keeps_the_last_values_and_begins_at_zero() -> None:
    assert sparkline([9.0, 0.0, 5.0, 10.0], size=3) == "▁▅█"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([]) == ""


def test_watching_policies_of_long_names_shows_waves_and_rates_in_80_columns() -> None:
    found = status([policy("database-with-a-rather-long-name", status=ROLLED_BACK)], RUN)

    head, row = columns(found.policies, watched(NOW, {}), width=80)

    assert row.startswith("database…ng-name  False  RolledBack  30m    ███░░░░░ 3/7  350.2     0/60 ready,")
    assert head.split()[-3:] == ["WAVES", "FOLIOS/S", "NODES"]
