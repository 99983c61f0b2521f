# SPDX-License-Identifier: Apache-2.0
"""A machine's kernel as the agent sees it, and a way to put every knob back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from numamigration_agent.kernel.dialects import Knob
from numamigration_agent.kernel.probe import probe, probe_host
from numamigration_agent.kernel.sysfs import Sysfs
from numamigration_api.vocabulary import Dialect
from tests.fakekernel.seen import SEEN, Attempt, Lists, Read, Seen, Step, Write

WRITES_VARIABLE: Final = "ALLOW_WRITES"
ROOT_VARIABLE: Final = "TEST_HOST_ROOT"
"""Another root folder, for tests of these tests."""

HARMLESS: Final = frozenset(
    {"stat", "stat says 4096 bytes", "open read-write", "truncate", "each write of a descriptor is a store"}
)
"""Attempts of the table that leave nothing behind; a changed mode, for one, nobody would put back."""

AS_LOADED: Final = {"offload.engine": "0", "offload.channels": "1", "offload.reasons": "all"}
"""By field, what a driver holds that was just loaded: where each row of the table begins."""


class Machine:
    """The kernel below a root folder, as it was when this was made.

    Args:
        root: ``/`` on a host.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        sysfs = Sysfs(root)
        self.facts = probe(sysfs, probe_host(sysfs))
        self.sysfs = sysfs

    def __str__(self) -> str:
        facts = self.facts
        engines = ", ".join(f"{row.driver}: {row.obstacle or 'usable'}" for row in facts.engines) or "none"
        unknown = f"; unknown files: {', '.join(facts.unknown_files)}" if facts.unknown_files else ""
        return (
            f"kernel {facts.host.release}: dialect {facts.dialect}, driver {facts.driver.name.lower()}, "
            f"DMA engines {engines}{unknown}"
        )

    def text(self, knob: Knob) -> str:
        """Return what a knob's file shows."""
        return self.path(knob).read_text()

    def write(self, knob: Knob, text: str) -> None:
        """Write a text to a knob's file.

        Raises:
            OSError: as the kernel answered; a shell would say EIO for all of them.
        """
        descriptor = os.open(self.path(knob), os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Put every knob back at the end, whatever happens; engines are off while the others are written.

        Raises:
            AssertionError: a knob does not show what it had shown.
        """
        before = {knob: self.text(knob) for knob in self.facts.knobs}
        try:
            yield
        finally:
            switches = [knob for knob in before if knob.is_engine]
            self._set((knob, str(knob.off)) for knob in switches if self.text(knob) != before[knob])
            others = [knob for knob in before if not knob.is_engine]
            self._set((knob, _as_written(knob, before[knob])) for knob in others if self.text(knob) != before[knob])
            self._set((knob, _as_written(knob, before[knob])) for knob in switches if self.text(knob) != before[knob])
        after = {knob: self.text(knob) for knob in before}
        left = {knob.path: (before[knob], after[knob]) for knob in before if before[knob] != after[knob]}
        assert not left, f"not as before: {left}"

    def as_loaded(self) -> None:
        """Give the driver's knobs the values that it has right after loading."""
        for knob in self.facts.knobs:
            if knob.field in AS_LOADED:
                self.write(knob, AS_LOADED[knob.field])

    def _set(self, values: Iterable[tuple[Knob, str]]) -> None:
        for knob, text in values:
            self.write(knob, text)

    def path(self, knob: Knob) -> Path:
        """Return a knob's file."""
        return self.root / knob.path.lstrip("/")


def rows_of(dialect: Dialect) -> tuple[Seen, ...]:
    """Return the rows of the table that need nothing but this kernel's files: no load, no engine of a certain kind."""
    return tuple(
        row
        for row in SEEN
        if dialect in row.dialects and not row.host and all(_takes_files(step) for step in row.steps)
    )


def _takes_files(step: Step) -> bool:
    # A counter that nobody else moves is an assumption about the machine.
    counts = isinstance(step, Read) and "folios_" in step.file
    harmless = isinstance(step, Attempt) and step.action in HARMLESS
    return not counts and (harmless or isinstance(step, Write | Read | Lists))


def _as_written(knob: Knob, text: str) -> str:
    value = knob.codec.parse(text)
    assert value is not None, f"{knob.path} shows {text!r}, which cannot be written back"
    return knob.codec.format(value)
