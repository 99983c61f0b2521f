# SPDX-License-Identifier: Apache-2.0
"""What a person reads of a kernel file that the agent's container may not write."""

from __future__ import annotations

import errno

import pytest

from numamigration_agent.change import rejected
from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.dialects import KNOBS, Knob
from numamigration_agent.mounts import MOUNTS, mount_of
from numamigration_api.vocabulary import Reason


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.path)
def test_every_knob_has_a_folder_that_can_be_made_writable(knob: Knob) -> None:
    assert mount_of(knob.path) in MOUNTS


def test_what_is_no_knobs_folder_has_none() -> None:
    with pytest.raises(ValueError, match="no mount for /sys/modules/x"):
        mount_of("/sys/modules/x")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        pytest.param("/sys/kernel/dcbm/offloading", "set the chart's agent.hostWrite.sysKernel=true", id="below /sys"),
        pytest.param("/proc/sys/vm/", "set the chart's agent.hostWrite.procSysVm=true", id="vm"),
        pytest.param(
            "/proc/sys/kernel/numa_balancing",
            "set the chart's agent.hostWrite.procSysKernel=true; without chart: uid 0 and CAP_SYS_ADMIN",
            id="kernel",
        ),
        pytest.param("/sys/kernel/mm/numa/demotion_enabled", "the agent needs uid 0 and /sys/kernel/mm", id="mm"),
        pytest.param("/sys/module/dcbm/parameters/offloading", "the agent needs uid 0 and /sys/module", id="module"),
    ],
)
@pytest.mark.parametrize(
    ("number", "reason"),
    [
        pytest.param(errno.EACCES, Reason.PERMISSION_DENIED, id="EACCES"),
        pytest.param(errno.EPERM, Reason.PERMISSION_DENIED, id="EPERM"),
        pytest.param(errno.EROFS, Reason.READ_ONLY_FILE_SYSTEM, id="EROFS"),
    ],
)
def test_a_file_that_may_not_be_written_is_said_with_what_to_set(
    path: str, said: str, number: int, reason: Reason
) -> None:
    knob = next(knob for knob in KNOBS if knob.path.startswith(path))

    failure = rejected(knob, Value("1"), number)

    assert failure.reason is reason
    assert f"{knob.path}: writing '1': {errno.errorcode[number]}" in failure.message
    assert said in failure.message


def test_an_errno_that_is_not_the_mounts_has_no_word_of_it() -> None:
    assert "chart" not in rejected(KNOBS[0], Value("1"), errno.EINVAL).message
