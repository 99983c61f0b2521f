# SPDX-License-Identifier: Apache-2.0
"""The last verdict on this boot's engine, in a file of its own on the host's tmpfs, beside the one with the baselines.

The node's status has it too, and either one is enough: the bad news holds, whoever of the two has it. A file that is
damaged, of another boot or of a newer release is as good as none. What it may lose is that an engine passed, and then
the engine is tried again; that one copied wrong is lost only with the status, the folder and the file together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from numamigration_agent.statefile import DAMAGES, read_file, replace_file
from numamigration_agent.verify import Verdict, parse_verdict, verdict_json

FILE_NAME: Final = "verification.json"
FILE_VERSION: Final = 1
FILE_BYTES_MAX: Final = 16 * 1024  # one verdict, whose longest text has 512 characters


class RecordFile:
    """The file, replaced as a whole."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME

    def load(self, boot_id: str) -> Verdict | None:
        """Return the verdict of this boot; None when there is none, or none that can be read."""
        try:
            document = json.loads(read_file(self.path, FILE_BYTES_MAX))
            known = document["version"] == FILE_VERSION and document["bootID"] == boot_id
            return parse_verdict(document["verdict"], str(document["dialect"])) if known else None
        except (OSError, *DAMAGES):
            return None

    def save(self, verdict: Verdict, boot_id: str) -> str:
        """Replace the file; returns what went wrong, empty when it is safe."""
        document = {"version": FILE_VERSION, "bootID": boot_id, "dialect": verdict.subject.dialect}
        return replace_file(self.path, json.dumps({**document, "verdict": verdict_json(verdict)}).encode() + b"\n")


def verdict_of_status(status: Mapping[str, Any], boot_id: str) -> Verdict | None:
    """Return the verdict that the node's own status has of this boot."""
    if status.get("bootID") != boot_id or not status.get("verification"):
        return None
    try:
        return parse_verdict(status["verification"], str(status.get("dialect", "")))
    except DAMAGES:
        return None
