# SPDX-License-Identifier: Apache-2.0
"""The watch over an engine as a machine by itself: samples in, verdicts out."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from numamigration_agent.effect import memory_pressure
from numamigration_agent.kernel.signs import CHANNELS_READ_MAX, Channels, Signs, read_signs
from numamigration_agent.watch import STALL_SECONDS, Probed, Watch
from numamigration_api.vocabulary import ConditionStatus, Dialect, Reason
from tests.fakekernel.config import DmaEngine, HostConfig
from tests.fakekernel.model import FakeKernel
from tests.unit.agent_rig import START, FakeSysfs

NAMES: Final = ("dma0chan0", "dma0chan1")


class Hours:
    """A watch whose engine is on, fed once a second."""

    def __init__(self, *, held: bool = False) -> None:
        self.watch = Watch(random.Random(1))
        self.now, self.folios, self.failed, self.pages = 100.0, 0, 0, 0
        self.watch.engine(on=True, held=held, now=self.now)
        self.asked = 0

    def pass_time(self, seconds: int, *, folios: int = 0, pages: int = 0, failed: int = 0, in_use: int = 0) -> None:
        """Let time pass, with so much a second."""
        for _ in range(seconds):
            self.now += 1
            self.folios, self.failed, self.pages = self.folios + folios, self.failed + failed, self.pages + pages
            self.watch.saw(Signs(Channels(NAMES, NAMES), frozenset(NAMES[:in_use])), self.now)
            counts = {"folios_migrated": self.folios, "folios_failed": self.failed, "pages_migrated": self.pages}
            self.watch.counted(counts, self.now, self.wall)
            if self.watch.probe_due:
                self.asked += 1
                self.watch.probing(self.now)

    @property
    def wall(self) -> datetime:
        return START.astimezone(UTC) + timedelta(seconds=self.now)

    @property
    def tripped(self) -> Reason | None:
        veto = self.watch.veto(self.now)
        return veto.reason if veto else None


@pytest.fixture
def hours() -> Hours:
    return Hours()


def test_channels_that_are_never_seen_free_are_no_stall_while_folios_move(hours: Hours) -> None:
    hours.pass_time(600, folios=100, pages=100, in_use=2)

    assert hours.tripped is None


def test_a_single_channel_in_use_while_nothing_moves_is_a_stall(hours: Hours) -> None:
    """Promise 16."""
    hours.pass_time(int(STALL_SECONDS) + 1, in_use=1)

    assert hours.tripped is Reason.ENGINE_STALLED


def test_pages_that_the_cpu_migrates_do_not_hide_a_stall(hours: Hours) -> None:
    """Promise 16: other tasks get no channel and go on."""
    hours.pass_time(int(STALL_SECONDS) + 1, pages=1000, in_use=2)

    assert hours.tripped is Reason.ENGINE_STALLED


def test_counters_that_do_not_answer_do_not_hide_a_stall(hours: Hours) -> None:
    """Promise 16: the parameters of a module wait for whoever turns it off."""
    hours.pass_time(1, in_use=1)
    hours.now += STALL_SECONDS + 1
    hours.watch.counters_blocked(hours.now, hours.wall)

    assert hours.tripped is Reason.ENGINE_STALLED


@pytest.mark.parametrize(
    ("migrated", "failed", "trips"),
    [
        pytest.param(487, 25, False, id="below the limit"),
        pytest.param(486, 26, True, id="above the limit"),
        pytest.param(0, 511, False, id="too few to judge"),
        pytest.param(0, 512, True, id="enough to judge"),
    ],
)
def test_a_share_of_failed_folios_is_judged_once_there_are_enough(
    hours: Hours, migrated: int, failed: int, trips: bool
) -> None:
    """Promise 16."""
    hours.pass_time(1)
    hours.pass_time(1, folios=migrated, failed=failed)

    assert (hours.tripped is Reason.ENGINE_FAILING) is trips


def test_failures_that_come_slowly_are_added_up(hours: Hours) -> None:
    """Promise 16: batches of one folio."""
    hours.pass_time(520, failed=1)

    assert hours.tripped is Reason.ENGINE_FAILING


def test_what_failed_before_the_first_reading_after_the_turn_on_counts(hours: Hours) -> None:
    """Promise 16: the last reading while the engine was off is where it began."""
    hours.watch.engine(on=False, now=hours.now)
    hours.pass_time(1)
    hours.watch.engine(on=True, now=hours.now)

    hours.pass_time(1, failed=1000)

    assert hours.tripped is Reason.ENGINE_FAILING


def test_an_hour_of_sound_work_lets_the_pauses_begin_anew(hours: Hours) -> None:
    hours.pass_time(1)
    hours.pass_time(1, failed=1000)
    assert hours.watch.pause is not None
    hours.now = hours.watch.pause.until

    hours.pass_time(3605, folios=10, pages=10)

    assert hours.watch.pause is None


# --- channels that the driver keeps


def test_where_channels_are_kept_an_engine_that_keeps_own_pages_is_a_stall() -> None:
    """Promise 16: in_use tells nothing there."""
    hours = Hours(held=True)
    hours.pass_time(60, folios=10, pages=10, in_use=2)
    hours.pass_time(10, in_use=2)
    assert (hours.asked, hours.tripped) == (1, None)

    hours.watch.unanswered("a move of own pages", STALL_SECONDS, hours.now, hours.wall)

    assert hours.tripped is Reason.ENGINE_STALLED


def test_where_channels_are_kept_work_that_has_ended_is_asked_about_once() -> None:
    hours = Hours(held=True)
    hours.pass_time(60, folios=10, pages=10, in_use=2)

    hours.pass_time(3600, in_use=2)

    assert (hours.asked, hours.tripped, hours.watch.finding) == (1, None, None)


def test_where_channels_are_kept_idle_hours_ask_for_nothing() -> None:
    hours = Hours(held=True)

    hours.pass_time(3600, in_use=2)

    assert hours.asked == 0


def test_where_channels_are_kept_a_stop_that_own_pages_cannot_follow_is_no_finding() -> None:
    hours = Hours(held=True)
    hours.pass_time(60, folios=10, pages=10, in_use=2)
    hours.pass_time(10, in_use=2)

    hours.watch.probed(Probed(obstacle="no enabled reason is one that a program can cause"))

    assert hours.watch.finding is None


def test_where_channels_are_kept_their_use_is_no_exhaustion() -> None:
    hours = Hours(held=True)
    hours.pass_time(60, pages=100, in_use=2)

    assert hours.watch.finding is None
    assert hours.asked == 1


# --- an engine that does nothing


def test_own_pages_that_the_engine_took_clear_the_suspicion(hours: Hours) -> None:
    hours.pass_time(60, pages=100)
    assert hours.asked == 1

    hours.watch.probed(Probed(pages=128, folios=128))

    assert hours.watch.finding is None


def test_own_pages_that_did_not_move_settle_nothing(hours: Hours) -> None:
    hours.pass_time(60, pages=100)

    hours.watch.probed(Probed(obstacle="EPERM"))

    assert hours.watch.finding is not None
    assert hours.watch.finding.status is ConditionStatus.UNKNOWN
    assert "EPERM" in hours.watch.finding.message


def test_few_pages_are_no_suspicion(hours: Hours) -> None:
    hours.pass_time(60, pages=1)

    assert hours.asked == 0


# --- what is read


def signs(*engines: DmaEngine, known: Channels | None = None) -> Signs:
    sysfs = FakeSysfs(FakeKernel(HostConfig(engines=engines), random.Random(1)))
    return read_signs(sysfs, known or Channels(), Dialect.V6)


def test_only_channels_that_can_copy_memory_are_looked_at() -> None:
    found = signs(DmaEngine("dw-axi-dmac", taken=1, memcpy=False), DmaEngine("ptdma", channels=2, taken=1))

    assert found == Signs(
        Channels(("dma0chan0", "dma1chan0", "dma1chan1"), ("dma1chan0", "dma1chan1")), frozenset({"dma1chan0"})
    )


def test_a_host_with_very_many_channels_costs_no_more() -> None:
    assert len(signs(DmaEngine("ptdma", channels=CHANNELS_READ_MAX + 1)).channels.usable) == CHANNELS_READ_MAX


def test_drivers_are_looked_up_again_only_when_the_list_has_changed() -> None:
    listed = ("dma0chan0",)

    assert signs(DmaEngine("ptdma"), known=Channels(listed, ())).channels.usable == ()
    assert signs(DmaEngine("ptdma", channels=2), known=Channels(listed, ())).channels.usable == NAMES


def test_memory_pressure_is_the_share_of_some_task_waiting() -> None:
    kernel = FakeKernel(HostConfig(), random.Random(1))
    kernel.set_pressure("memory", 0.25)

    assert memory_pressure(FakeSysfs(kernel)) == 25
