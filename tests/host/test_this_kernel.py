# SPDX-License-Identifier: Apache-2.0
"""What every kernel has to show, and what one with the series has to answer."""

from __future__ import annotations

import errno
import stat
from typing import Final

import pytest

from numamigration_agent.kernel.counters import read_counters
from numamigration_agent.kernel.dialects import Knob
from tests.fakekernel.control import Command, Reply
from tests.fakekernel.replay import Replay
from tests.fakekernel.seen import Seen
from tests.host.machine import Machine

BAD_WORDS: Final = {"balancing.mode": "9", "demotion.enabled": "x", "offload.engine": "2", "offload.channels": "99"}
"""By field, what is refused although it may look like a value; for the others a word that is no number."""


def test_a_knob_shows_a_value_that_the_agent_understands(machine: Machine, knob: Knob) -> None:
    text = machine.text(knob)

    assert knob.codec.parse(text) is not None, f"{knob.path} shows {text!r}"


def test_a_knob_may_be_written_by_root_alone(machine: Machine, knob: Knob) -> None:
    mode = stat.S_IMODE(machine.path(knob).stat().st_mode)

    assert mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) == stat.S_IWUSR, f"{knob.path} has mode {mode:o}"


def test_counters_are_numbers_that_do_not_go_back(machine: Machine) -> None:
    before = read_counters(machine.sysfs, machine.facts.dialect)
    after = read_counters(machine.sysfs, machine.facts.dialect)

    assert "pages_migrated" in before
    assert [name for name in before if not 0 <= before[name] <= after[name]] == []


@pytest.mark.writes
def test_a_knob_takes_the_value_that_it_shows(written: Machine, knob: Knob) -> None:
    text = written.text(knob)
    value = knob.codec.parse(text)
    assert value is not None

    written.write(knob, knob.codec.format(value))

    assert written.text(knob) == text


@pytest.mark.writes
def test_a_knob_refuses_nonsense_and_keeps_what_it_had(written: Machine, knob: Knob) -> None:
    text = written.text(knob)

    with pytest.raises(OSError, match=r"Invalid argument") as refused:
        written.write(knob, BAD_WORDS.get(knob.field, "no number"))

    assert (refused.value.errno, written.text(knob)) == (errno.EINVAL, text)


@pytest.mark.writes
def test_the_kernel_answers_as_the_table_says(written: Machine, row: Seen) -> None:
    written.as_loaded()

    Replay(written.root, _take_nothing, written.facts.dialect).run(row)


def _take_nothing(command: Command) -> Reply:
    raise AssertionError(f"{command} is for a kernel that can be told what to do")
