# SPDX-License-Identifier: Apache-2.0
"""The agent, with the twin of the fake host that is mounted at --host-root."""

from __future__ import annotations

import os
import sys

from numamigration_agent.__main__ import main
from numamigration_agent.settings import parse_settings
from tests.fakekernel.host import move_own_pages
from tests.twin import mover

if __name__ == "__main__":
    control = parse_settings(sys.argv[1:], os.environ).host_root.parent / "control"
    sys.exit(main(move=mover(lambda move: move_own_pages(control, move))))
