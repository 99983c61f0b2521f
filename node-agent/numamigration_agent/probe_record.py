# SPDX-License-Identifier: Apache-2.0
"""What the agent remembers of probes, in a file of its own on the host's tmpfs, beside the one with the baselines.

* ``open`` stands there before a setting is another one than wished, and goes when all is as wished again. An agent that
  finds it open puts the settings back before anything else is measured: a crash in a probe is a crash in a change.
* What an id came to is in the status too, which also outlives a reboot: no id is measured twice.
* Damaged, of another boot or of a newer release it is as good as none; then the status tells, and the baselines, which
  are an authority of their own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final, NamedTuple

from numamigration_agent.statefile import DAMAGES, StrPath, read_file, replace_file
from numamigration_api.machinery.shapes import count, mapping

FILE_NAME: Final = "probe.json"
FILE_VERSION: Final = 1
FILE_BYTES_MAX: Final = 64 * 1024  # forty rows of some 170 characters, and the settings of one group


class ProbeRecord(NamedTuple):
    """What is remembered.

    Attributes:
        id: of the last probe that has begun, or that was refused; empty when there was none.
        open: settings may be other ones than wished.
        settings: of offload, as they were wished when it began; None where nobody wished any.
        status: what became of it, as the status has it; empty while it is open, or once it was dropped.
        own_pages: base pages that probes have moved on this boot.
        own_huge: huge pages that they have.
        spent: seconds for which settings were other ones, since `day_began`.
        day_began: monotonic seconds of this boot.
    """

    id: str = ""
    open: bool = False
    settings: Mapping[str, Any] | None = None
    status: Mapping[str, Any] = {}
    own_pages: int = 0
    own_huge: int = 0
    spent: float = 0.0
    day_began: float = 0.0


class ProbeFile:
    """The file, replaced as a whole."""

    def __init__(self, folder: StrPath) -> None:
        self.path = os.path.join(folder, FILE_NAME)

    def load(self, boot_id: str) -> ProbeRecord | None:
        """Return what is remembered of this boot; None when there is nothing, or nothing that can be read."""
        try:
            document = json.loads(read_file(self.path, FILE_BYTES_MAX))
            known = document["version"] == FILE_VERSION and document["bootID"] == boot_id
            return _parse(document["probe"]) if known else None
        except (OSError, *DAMAGES):
            return None

    def save(self, record: ProbeRecord, boot_id: str) -> str:
        """Replace the file; returns what went wrong, empty when it is safe."""
        document = {"version": FILE_VERSION, "bootID": boot_id, "probe": record._asdict()}
        return replace_file(self.path, json.dumps(document, sort_keys=True).encode() + b"\n")


def _parse(document: Mapping[str, Any]) -> ProbeRecord:
    spent, day_began = float(document["spent"]), float(document["day_began"])
    if not (isfinite(spent) and isfinite(day_began)):
        raise ValueError(f"{spent} seconds since {day_began}")
    settings = document["settings"]
    return ProbeRecord(
        id=str(document["id"]),
        open=document["open"] is True,
        settings=None if settings is None else mapping(settings),
        status=mapping(document["status"]),
        own_pages=count(document["own_pages"]) or 0,
        own_huge=count(document["own_huge"]) or 0,
        spent=max(0.0, spent),
        day_began=day_began,
    )
