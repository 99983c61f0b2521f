# SPDX-License-Identifier: Apache-2.0
"""What liveness and readiness say, as a table; over HTTP they are asked in tests/apiserver."""

from __future__ import annotations

import pytest

from numamigration_operator.cluster.lease_driver import Contact
from numamigration_operator.health import READER_SILENCE_SECONDS_MAX, Facts, ReaderFacts, liveness, readiness

NOW = 10_000.0
FRESH = Contact(turned_at=NOW - 1, answered_at=NOW - 1, answering_since=NOW - 5000)
AWAY = Contact(turned_at=NOW - 1, answered_at=NOW - 900, answering_since=None)
BACK = Contact(turned_at=NOW - 1, answered_at=NOW - 1, answering_since=NOW - 2)
STUCK = Contact(turned_at=NOW - 61, answered_at=NOW - 61, answering_since=NOW - 5000)
BORDER = Contact(turned_at=NOW - 60, answered_at=NOW - 60, answering_since=NOW - 5000)
NEVER = Contact(turned_at=NOW - 1)


def standby(contact: Contact) -> Facts:
    return Facts(NOW, contact, 15.0)


def leader(
    contact: Contact = FRESH, silent: float = 1.0, *, pause: float = 0.0, synced: bool = True, holds: bool = True
) -> Facts:
    reader = ReaderFacts("nodes", NOW - silent, pause)
    return Facts(NOW, contact, 15.0, leading_since=NOW - 4000, holds=holds, synced=synced, readers=(reader,))


@pytest.mark.parametrize(
    ("facts", "ok", "why"),
    [
        pytest.param(standby(FRESH), True, "standing by", id="standing by"),
        pytest.param(standby(AWAY), True, "standing by", id="standing by, API server away"),
        pytest.param(standby(BORDER), True, "standing by", id="lease loop slow, highest that lives"),
        pytest.param(standby(STUCK), False, "lease loop has not turned for 61 s", id="lease loop stuck"),
        pytest.param(leader(), True, "leading", id="leading"),
        pytest.param(leader(STUCK), False, "lease loop has not turned for 61 s", id="leading, lease loop stuck"),
        pytest.param(leader(silent=READER_SILENCE_SECONDS_MAX), True, "leading", id="reader silent, not too long"),
        pytest.param(
            leader(silent=READER_SILENCE_SECONDS_MAX + 1), False, "nodes: nothing heard for 211 s", id="zombie watch"
        ),
        pytest.param(leader(silent=NOW), False, "nodes: nothing heard for 4000 s", id="reader that never heard"),
        pytest.param(leader(AWAY, silent=900.0), True, "leading", id="API server away: a restart would not help"),
        pytest.param(leader(BACK, silent=900.0), True, "leading", id="API server just back"),
        pytest.param(leader(silent=3700.0, pause=3600.0), True, "leading", id="silent by design"),
    ],
)
def test_liveness_fails_only_where_a_restart_helps(facts: Facts, ok: bool, why: str) -> None:
    finding = liveness(facts)

    assert finding.ok is ok
    assert why in finding.why


@pytest.mark.parametrize(
    ("facts", "ok", "why"),
    [
        pytest.param(standby(FRESH), True, "standing by", id="standing by"),
        pytest.param(standby(NEVER), False, "the lease was never read", id="just started"),
        pytest.param(standby(AWAY), False, "the lease was last read 900 s ago", id="API server away"),
        pytest.param(leader(), True, "leading", id="leading"),
        pytest.param(leader(synced=False), False, "not everything is read yet", id="not synced"),
        pytest.param(leader(holds=False), False, "the lease is lost", id="lost"),
    ],
)
def test_readiness_is_leading_and_synced_or_able_to_take_over(facts: Facts, ok: bool, why: str) -> None:
    finding = readiness(facts)

    assert finding.ok is ok
    assert why in finding.why
