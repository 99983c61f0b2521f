# SPDX-License-Identifier: Apache-2.0
"""Which folder of the host must be writable for a kernel file, and which value of the chart makes it so. Pure.

An agent may write little by default: module parameters and memory management, both below /sys. What else uid 0 could
write in a folder is said in docs/security.md, whose table has the same rows.

Source: reference 1.3 (where the dialects have their files); proc_sys_kernel(5), numa_balancing asks for CAP_SYS_ADMIN.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Mount(NamedTuple):
    """A folder of the host that the agent's container may have writable.

    Attributes:
        value: of the chart; empty when it always is.
        capability: that its files ask for besides uid 0.
    """

    folder: str
    value: str = ""
    capability: str = ""

    @property
    def advice(self) -> str:
        """What a person does about a file there that cannot be written."""
        needs = f"uid 0 and {self.capability}" if self.capability else "uid 0"
        if not self.value:
            return f"the agent needs {needs} and {self.folder} mounted writable, as the chart has it"
        return f"set the chart's {self.value}=true; without chart: {needs}, and {self.folder} mounted writable"


MOUNTS: Final = (
    Mount("/sys/module"),
    Mount("/sys/kernel/mm"),
    Mount("/sys/kernel", "agent.hostWrite.sysKernel"),
    Mount("/proc/sys/vm", "agent.hostWrite.procSysVm"),
    Mount("/proc/sys/kernel", "agent.hostWrite.procSysKernel", "CAP_SYS_ADMIN"),
)
"""The deeper folder first."""


def mount_of(path: str) -> Mount:
    """Return the folder that a kernel file is written in.

    Raises:
        ValueError: none of them; every row of the knob table has one.
    """
    for mount in MOUNTS:
        if path.startswith(f"{mount.folder}/"):
            return mount
    raise ValueError(f"no mount for {path}")
