# SPDX-License-Identifier: Apache-2.0
"""What the migrators do when their files are written: start, stop, take channels, and the limits they set.

* Up to V3 the core has one place for a migrator and the last to start takes it; whoever held it before is not told, so
  two files may read 1. Stopping empties the place, whoever is in it. From V4 on a second one is refused with EBUSY.
* V1 and the forks take channels when they are turned on and fail without any; V6-SDXI takes one at load; the others
  ask for channels round each batch, so they turn on without any and then do nothing.
* Which of these a dialect does stands in its ``Series``.

Sources: "Enhancements to Page Migration with Batch Offloading via DMA" (V1) and its successors: the dcbm and mtcopy
patches of each posting. That stopping empties the place is inferred from the core's code of V3.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EBUSY, EINVAL, ENODEV
from typing import Final

from tests.fakekernel.config import Caller
from tests.fakekernel.files import SIZE_OF_INT, Hold, Kind, Row, kernel_number
from tests.fakekernel.parsing import KernelError, kstrtobool, kstrtoint, kstrtouint, sysctl_int
from tests.fakekernel.state import Channel, CpuThreads, Dcbm, KernelState

CLAMPED_CHANNELS: Final = 16
"""V2 takes no more, and says nothing."""


def store_switch(state: KernelState, data: bytes, _caller: Caller) -> None:
    """Turn offload on or off, as a truth value says."""
    switch(state, wanted=kstrtobool(data))


def store_int_switch(state: KernelState, data: bytes, _caller: Caller) -> None:
    """Turn offload on at 1 and off at 0; any other int succeeds and does nothing."""
    wanted = kstrtoint(data)
    if wanted in {0, 1}:
        switch(state, wanted=bool(wanted))


def switch(state: KernelState, *, wanted: bool) -> None:
    """Turn offload on or off; what stands already is left alone."""
    driver, repeated = state.driver, state.series.lines.repeated
    if wanted == driver.offloading:
        if repeated:
            state.log.say_error(repeated.format(state="ON" if wanted else "OFF"))
    elif wanted:
        _start(state)
    else:
        driver.turning_off = True
        finish_turning_off(state)


def _start(state: KernelState) -> None:
    series, driver = state.series, state.driver
    error = EBUSY if state.other_migrator else ENODEV if driver.going else 0
    if series.exclusive and error:
        state.log.say(series.lines.refused.format(error=error))
        raise KernelError(error)
    if series.hold is Hold.WHILE_ON:
        hold_channels(state, driver)
        if not driver.held:
            state.log.say(series.lines.no_channel)
            raise KernelError(ENODEV)
    driver.offloading = True
    state.migrator = driver
    for line in series.lines.on:
        state.log.say(line.format(mask=driver.reason_mask, held=len(driver.held), engines=len(dict(driver.held))))


def finish_turning_off(state: KernelState) -> None:
    """End a turn-off once no batch is in flight, where it waits for them; until then ``turning_off`` stays."""
    driver, series = state.dcbm, state.series
    if driver is None or not driver.turning_off or (series.turn_off_waits and state.batches):
        return
    driver.turning_off = driver.offloading = False
    state.migrator = None
    if series.hold is Hold.WHILE_ON:
        driver.held = ()
    for line in series.lines.off:
        state.log.say(line)


def hold_channels(state: KernelState, driver: Dcbm) -> None:
    """Take the channels that the driver keeps; fewer than it asks for, or none, when no more are free."""
    wanted = None if state.series.holds_all else driver.nr_dma_chan
    driver.held = tuple((channel.engine, channel.number) for channel in free_channels(state)[:wanted])


def free_channels(state: KernelState) -> list[Channel]:
    """Return every channel that the driver can have, in dmaengine's order.

    Shared ones are never taken away by others; exclusive ones are gone when in use, and so is every channel of a public
    engine as soon as somebody else has called dmaengine_get().
    """
    shared = state.series.public_channels
    return [
        Channel(engine, number, device)
        for engine, device in enumerate(state.engines)
        if device.memcpy and (device.public if shared else not (device.public and state.dmaengine_users))
        for number in range(device.channels)
        if shared or not state.in_use(engine, number)
    ]


def channel_count(state: KernelState, data: bytes) -> int:
    """Read a number of channels."""
    wanted = kstrtouint(data)
    if not 1 <= wanted <= (state.config.channels_max or state.series.channels_max):
        raise KernelError(EINVAL)
    return wanted


def store_channels(state: KernelState, data: bytes, _caller: Caller) -> None:
    """Set the number of channels for the next batches."""
    state.driver.nr_dma_chan = channel_count(state, data)


def store_channels_while_off(state: KernelState, data: bytes, caller: Caller) -> None:
    """Set the number of channels; those held cannot change."""
    wanted = channel_count(state, data)
    if state.driver.offloading:
        raise KernelError(EBUSY)
    store_channels(state, b"%d" % wanted, caller)


def store_clamped_channels(state: KernelState, data: bytes, _caller: Caller) -> None:
    """Set the number of channels; more than 16 are 16, without a word."""
    wanted = kstrtoint(data)
    if wanted < 1:
        state.log.say_error("dcbm: nr_dma_chan must be at least 1")
        raise KernelError(EINVAL)
    state.driver.nr_dma_chan = min(wanted, CLAMPED_CHANNELS)


def cpu_threads(folder: str, mode: int, *, threads_max: int = 64) -> tuple[Row, Row]:
    """Return the files of the engine that copies with threads: its switch, which is an int, and their number."""
    switch = f"{folder}/offloading"
    row = kernel_number(switch, 0, mode=mode, parse=kstrtoint)._replace(
        store=_thread_switch(switch, kstrtoint), returns=SIZE_OF_INT
    )
    return row, kernel_number(f"{folder}/threads", 4, mode=mode, parse=_from_1_to(threads_max))


def thread_sysctl(path: str) -> Row:
    """Return the sysctl that lets threads copy."""
    row = kernel_number(path, 0, parse=kstrtoint)
    return row._replace(kind=Kind.SYSCTL, store=_thread_switch(path, lambda data: sysctl_int(data, 0, 1)))


def _thread_switch(path: str, parse: Callable[[bytes], int]) -> Callable[[KernelState, bytes, Caller], None]:
    def store(state: KernelState, data: bytes, _caller: Caller) -> None:
        wanted = parse(data)
        if wanted in {0, 1} and wanted != state.values[path]:
            state.values[path] = wanted
            state.migrator = CpuThreads(path) if wanted else None

    return store


def _from_1_to(highest: int) -> Callable[[bytes], int]:
    def parse(data: bytes) -> int:
        value = kstrtouint(data)
        if not 1 <= value <= highest:
            raise KernelError(EINVAL)
        return value

    return parse
