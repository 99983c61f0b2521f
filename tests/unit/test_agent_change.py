# SPDX-License-Identifier: Apache-2.0
"""The change machine against the fake kernel's errnos; requests are answered one by one."""

from __future__ import annotations

import random
from collections.abc import Callable
from errno import EACCES, EBUSY, EINVAL, EIO, EPERM, ERANGE, EROFS

import pytest

from numamigration_agent.baseline import Baselines, Swap
from numamigration_agent.change import (
    Change,
    Failure,
    ReadKnob,
    ReportBaselines,
    SaveBaselines,
    Step,
    TryEngine,
    WriteKnob,
    rejected,
)
from numamigration_agent.kernel.codecs import Value, reasons_value
from numamigration_agent.kernel.dialects import Knob, knobs_of
from numamigration_agent.kernel.sysfs import Absent, Denied, Present, Reading
from numamigration_agent.plan import UnitChange, in_safe_order
from numamigration_agent.rows import KnobWrite
from numamigration_api.machinery.records import replace
from numamigration_api.vocabulary import Dialect, Reason
from tests.fakekernel.config import HostConfig
from tests.fakekernel.model import FakeKernel
from tests.unit.agent_rig import FakeSysfs

KNOB = {knob.field: knob for knob in knobs_of(Dialect.V6)}
ON = {"offload.channels": "4", "offload.reasons": "demotion", "offload.engine": "1"}
EVERY = reasons_value(HostConfig().reason_names)
BEFORE = {"offload.channels": "1", "offload.reasons": EVERY, "offload.engine": "0"}


def values(texts: dict[str, str]) -> dict[str, Value]:
    return {name: Value(text) for name, text in texts.items()}


def unit_of(
    targets: dict[str, str], *, captures: dict[str, str] | None = None, forget: set[str] | None = None
) -> UnitChange:
    writes = in_safe_order(KnobWrite(KNOB[name], Value(text)) for name, text in targets.items())
    return UnitChange("offload", writes, values(captures or {}), frozenset(forget or ()), drift=False)


def change_of(
    *units: UnitChange, baselines: dict[str, str] | None = None, reported: bool = True, on_file: bool = True
) -> Change:
    known = Baselines("boot", values(baselines or {}))
    return Change(
        units,
        known,
        on_file=known.values if on_file else {},
        reported=known.values if reported else {},
        fresh=frozenset(),
    )


class Driver:
    """Answers the requests of a change, and remembers them."""

    def __init__(self, kernel: FakeKernel) -> None:
        self.sysfs = FakeSysfs(kernel)
        self.seen: list[Step] = []
        self.save_problem = ""
        self.read: Callable[[Knob], Reading] = lambda knob: self.sysfs.read(knob.path)
        self.write: Callable[[Knob, Value], int | None] = self.sysfs.write

    def step(self, change: Change) -> bool:
        request = change.next()
        if request is None:
            return False
        self.seen.append(request)
        match request:
            case SaveBaselines():
                change.saved(self.save_problem)
            case ReportBaselines():
                change.reported()
            case ReadKnob(knob):
                change.read(self.read(knob))
            case WriteKnob(knob, value):
                change.wrote(self.write(knob, value))
            case TryEngine():
                change.tried(None)
        return True

    def run(self, change: Change) -> None:
        while self.step(change):
            pass


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel(HostConfig(), random.Random(1))


@pytest.fixture
def driver(kernel: FakeKernel) -> Driver:
    return Driver(kernel)


def failure_of(change: Change) -> Failure:
    failure = change.units[0].failure
    assert failure is not None
    return failure


def test_the_baseline_is_in_the_file_and_in_the_status_before_the_first_write(driver: Driver) -> None:
    """Promise 1."""
    change = change_of(unit_of(ON, captures=BEFORE))

    driver.run(change)

    assert driver.seen[0] == SaveBaselines(Baselines("boot", values(BEFORE)))
    assert driver.seen[1] == ReportBaselines()
    assert not any(isinstance(step, WriteKnob) for step in driver.seen[:2])
    assert change.baselines.values == BEFORE


def test_a_baseline_that_cannot_be_saved_stops_every_write(kernel: FakeKernel, driver: Driver) -> None:
    """Promise 1."""
    driver.save_problem = "No space left on device"
    change = change_of(unit_of(ON, captures=BEFORE))

    driver.run(change)

    assert failure_of(change).reason is Reason.BASELINE_NOT_SAVED
    assert kernel.stores == []
    assert change.baselines.values == {}


@pytest.mark.parametrize(
    ("on_file", "reported", "first"),
    [
        pytest.param(True, True, ReadKnob, id="both have it: no need"),
        pytest.param(True, False, ReportBaselines, id="the status was lost"),
        pytest.param(False, True, SaveBaselines, id="the file was lost"),
    ],
)
def test_a_baseline_that_one_home_lost_is_brought_there_before_a_write(
    on_file: bool, reported: bool, first: type[Step]
) -> None:
    """Promise 1, after a restart."""
    change = change_of(unit_of(ON), baselines=BEFORE, on_file=on_file, reported=reported)

    assert isinstance(change.next(), first)


def test_each_knob_is_looked_at_written_and_read_back_and_the_switch_comes_last(
    kernel: FakeKernel, driver: Driver
) -> None:
    """Promise 4."""
    driver.run(change_of(unit_of(ON)))

    assert [tuple(store) for store in kernel.stores] == [
        ("nr_dma_chan", "4"),
        ("reason_mask", "demotion"),
        ("offloading", "1"),
    ]
    assert [type(step) for step in driver.seen[:3]] == [ReadKnob, WriteKnob, ReadKnob]
    assert kernel.snapshot().offloading


def test_what_somebody_set_in_the_meantime_is_not_written_again(kernel: FakeKernel, driver: Driver) -> None:
    """Promise 2: the plan may be as old as an answer of the API server."""
    kernel.drift(KNOB["offload.channels"].path, "4")
    kernel.stores.clear()

    driver.run(change_of(unit_of({"offload.channels": "4"})))

    assert kernel.stores == []


def test_a_refused_switch_undoes_the_parameters_in_reverse_order() -> None:
    """Promise 4: EBUSY, since another migrator is registered."""
    kernel = FakeKernel(HostConfig(other_migrator=True), random.Random(1))
    driver = Driver(kernel)
    before = kernel.snapshot()
    change = change_of(unit_of(ON))

    driver.run(change)

    assert failure_of(change).reason is Reason.MIGRATOR_BUSY
    assert "EBUSY" in failure_of(change).message
    assert [store.name for store in kernel.stores] == [
        "nr_dma_chan",
        "reason_mask",
        "offloading",
        "reason_mask",
        "nr_dma_chan",
    ]
    assert kernel.snapshot() == before


def test_a_knob_that_holds_something_else_is_undone_too(kernel: FakeKernel, driver: Driver) -> None:
    """Promise 4; the kernel took the write, so it has to be taken back."""
    before = kernel.snapshot()
    driver.write = lambda knob, value: driver.sysfs.write(knob, Value("3") if value == "4" else value)
    change = change_of(unit_of(ON))

    driver.run(change)

    assert failure_of(change).reason is Reason.READ_BACK_MISMATCH
    assert "wrote '4', the kernel holds '3'" in failure_of(change).message
    assert kernel.snapshot() == before


def test_an_undo_that_fails_is_told_and_the_other_knobs_are_undone_all_the_same() -> None:
    """Promise 4: half of a change must not look like all or nothing."""
    kernel = FakeKernel(HostConfig(other_migrator=True), random.Random(1))
    driver = Driver(kernel)
    masks: list[Value] = []

    def write(knob: Knob, value: Value) -> int | None:
        if knob.field == "offload.reasons":
            masks.append(value)
            if len(masks) == 2:
                return EIO
        return driver.sysfs.write(knob, value)

    driver.write = write
    change = change_of(unit_of(ON))

    driver.run(change)

    assert failure_of(change).reason is Reason.UNDO_FAILED
    assert "EBUSY" in failure_of(change).message
    assert kernel.snapshot().nr_dma_chan == 1


def test_an_undo_stops_where_the_engine_cannot_be_turned_off(kernel: FakeKernel, driver: Driver) -> None:
    """Promises 3 and 4: it may still be on, so its reasons stay narrowed and the unit open, until it can be."""
    change = change_of(unit_of(ON), baselines=BEFORE)
    shown = driver.read
    driver.read = lambda knob: Denied(EIO) if knob.field == "offload.engine" and taken() else shown(knob)

    def taken() -> bool:
        return kernel.snapshot().offloading

    driver.run(change)

    assert failure_of(change).reason is Reason.UNDO_FAILED
    assert kernel.snapshot().reasons == ("demotion",)
    assert change.units[0].half_done


def test_an_undo_of_an_open_unit_goes_on_after_a_failure_and_stays_open(kernel: FakeKernel, driver: Driver) -> None:
    """Promise 4: what went back is not written forth again."""
    for name in ("offload.channels", "offload.reasons"):
        kernel.drift(KNOB[name].path, ON[name])
    driver.write = lambda knob, value: EIO if knob.field == "offload.channels" else driver.sysfs.write(knob, value)
    opened = {"offload": {name: Swap(Value(BEFORE[name]), Value(ON[name])) for name in ON}}
    baselines = Baselines("boot", values(BEFORE), open_units=opened)
    undo = replace(unit_of({name: BEFORE[name] for name in ("offload.channels", "offload.reasons")}), ends=True)
    change = Change([undo], baselines, on_file=baselines.values, reported=baselines.values, fresh=frozenset())

    driver.run(change)

    assert failure_of(change).reason is Reason.UNDO_FAILED
    assert kernel.snapshot().reasons == HostConfig().reason_names
    assert change.baselines.open_units == opened


def test_offload_that_went_off_stays_off_when_a_later_knob_fails(kernel: FakeKernel, driver: Driver) -> None:
    """Promise 4: the undo never turns offload on, for off is the safe direction."""
    for name, text in ON.items():
        kernel.drift(KNOB[name].path, text)
    driver.write = lambda knob, value: EINVAL if knob.field == "offload.reasons" else driver.sysfs.write(knob, value)
    change = change_of(unit_of({"offload.engine": "0", "offload.channels": "1", "offload.reasons": EVERY}))

    driver.run(change)

    assert failure_of(change).reason is Reason.INVALID_VALUE
    assert not kernel.snapshot().offloading
    assert kernel.snapshot().nr_dma_chan == 4


def test_a_failed_unit_does_not_stop_the_others() -> None:
    kernel = FakeKernel(HostConfig(other_migrator=True), random.Random(1))
    driver = Driver(kernel)
    demotion = UnitChange(
        "demotion", (KnobWrite(KNOB["demotion.enabled"], Value("true")),), {}, frozenset(), drift=False
    )
    change = change_of(unit_of(ON), demotion)

    driver.run(change)

    assert [unit.failure is None for unit in change.units] == [False, True]
    assert kernel.snapshot().demotion_enabled


def test_baselines_are_forgotten_only_where_the_knobs_are_back(driver: Driver) -> None:
    """Promise 7: a restore that failed is tried again, with the same values."""
    driver.write = lambda knob, value: EIO if knob.field == "demotion.enabled" else driver.sysfs.write(knob, value)
    offload = unit_of({"offload.channels": "2"}, forget={"offload.channels"})
    demotion = UnitChange(
        "demotion",
        (KnobWrite(KNOB["demotion.enabled"], Value("true")),),
        {},
        frozenset({"demotion.enabled"}),
        drift=False,
    )
    change = change_of(offload, demotion, baselines={"offload.channels": "2", "demotion.enabled": "true"})

    driver.run(change)

    assert driver.seen[-1] == SaveBaselines(Baselines("boot", values({"demotion.enabled": "true"})))
    assert change.baselines.values == {"demotion.enabled": "true"}


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        pytest.param(Absent(), Reason.KERNEL_ERROR, id="driver unloaded"),
        pytest.param(Denied(EACCES), Reason.PERMISSION_DENIED, id="no rights"),
        pytest.param(Present("what?\n"), Reason.KERNEL_ERROR, id="no value of this knob"),
    ],
)
def test_a_knob_that_cannot_be_read_is_not_written(
    reading: Reading, reason: Reason, kernel: FakeKernel, driver: Driver
) -> None:
    """Promise 1: what was there before would be unknown."""
    driver.read = lambda _knob: reading
    change = change_of(unit_of(ON))

    driver.run(change)

    assert failure_of(change).reason is reason
    assert kernel.stores == []


@pytest.mark.parametrize(
    ("field", "number", "reason"),
    [
        pytest.param("offload.engine", EBUSY, Reason.MIGRATOR_BUSY, id="EBUSY of the engine"),
        pytest.param("offload.channels", EBUSY, Reason.KERNEL_ERROR, id="EBUSY of another knob"),
        pytest.param("balancing.mode", EPERM, Reason.PERMISSION_DENIED, id="EPERM"),
        pytest.param("offload.engine", EACCES, Reason.PERMISSION_DENIED, id="EACCES"),
        pytest.param("offload.engine", EROFS, Reason.READ_ONLY_FILE_SYSTEM, id="EROFS"),
        pytest.param("offload.channels", EINVAL, Reason.INVALID_VALUE, id="EINVAL"),
        pytest.param("offload.channels", ERANGE, Reason.INVALID_VALUE, id="ERANGE"),
        pytest.param("offload.channels", EIO, Reason.KERNEL_ERROR, id="EIO"),
        pytest.param("offload.channels", 4000, Reason.KERNEL_ERROR, id="an errno nobody has heard of"),
    ],
)
def test_each_errno_has_its_reason(field: str, number: int, reason: Reason) -> None:
    failure = rejected(KNOB[field], Value("1"), number)

    assert failure.reason is reason
    assert KNOB[field].path in failure.message


@pytest.mark.parametrize("steps", range(14))
def test_after_a_crash_at_any_step_the_same_change_finishes_the_work(steps: int) -> None:
    """Promises 1, 4, 7: whatever was done, a new change from the saved baselines ends in the same state."""
    kernel = FakeKernel(HostConfig(), random.Random(1))
    driver = Driver(kernel)
    first = change_of(unit_of(ON, captures=BEFORE))
    for _ in range(steps):
        driver.step(first)
    saved = dict(first.baselines.values)

    missing = {name: text for name, text in BEFORE.items() if name not in saved}
    second = change_of(unit_of(ON, captures=missing), baselines=dict(saved), reported=False)
    driver.run(second)

    assert second.baselines.values == BEFORE
    assert second.units[0].failure is None
    snapshot = kernel.snapshot()
    assert (snapshot.offloading, snapshot.nr_dma_chan, snapshot.reasons) == (True, 4, ("demotion",))
    written = [store.name for store in kernel.stores]
    assert written == ["nr_dma_chan", "reason_mask", "offloading"]
