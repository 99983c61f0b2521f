# SPDX-License-Identifier: Apache-2.0
"""The agent, with the twin of the fake host that is mounted at --host-root."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from numamigration_agent.__main__ import main
from numamigration_agent.settings import parse_settings
from tests.fakekernel.host import move_own_pages
from tests.twin import mover
from tests.twin.timed import timed_twin_of_host

if __name__ == "__main__":
    home = Path(parse_settings(sys.argv[1:], os.environ).host_root).parent
    move = mover(lambda move: move_own_pages(home / "control", move))
    sys.exit(main(move=move, move_timed=timed_twin_of_host(home)))
