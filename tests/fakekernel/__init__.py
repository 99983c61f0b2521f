# SPDX-License-Identifier: Apache-2.0
"""An honest fake of the kernel's knobs and counters, for tests and the demo.

Honest means: errnos, parsing, formats and traps are the kernel's, and it moves its counters as page migration would.

* ``FakeKernel`` is the kernel, pure and in process; time moves by ``advance``.
* ``FakeHost`` serves one as real files under a mount point, in a process of its own; commands for it in ``control``.
* What a dialect has stands in ``series``: to add one, add an entry there, and its files and writes to
  tests/unit/test_fakekernel_dialects.py.
* ``python -m tests.fakekernel --help`` does the same by hand.
"""

from __future__ import annotations

from tests.fakekernel.config import DmaEngine, HostConfig, NumaNode, Workload
from tests.fakekernel.host import FakeHost, FakeHostError
from tests.fakekernel.model import FakeKernel
from tests.fakekernel.parsing import KernelError

__all__ = [
    "DmaEngine",
    "FakeHost",
    "FakeHostError",
    "FakeKernel",
    "HostConfig",
    "KernelError",
    "NumaNode",
    "Workload",
]
