# SPDX-License-Identifier: Apache-2.0
"""What the watch needs after a restart, on the host's tmpfs: the last spec, and the last verdict (promise 16).

* A restarted agent watches before it reaches the API server. It writes nothing that the remembered spec asks for: the
  only thing it does alone is to turn off an engine that stalls or fails.
* The file is a help and no authority. One that is damaged, of another boot, of a newer release or too large is ignored,
  and said in the log; the next spec replaces it. The baselines are in a file of their own, which is an authority.
* The verdict's time is of the monotonic clock, which all processes of a boot share.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final, NamedTuple

from numamigration_agent.statefile import DAMAGES, StrPath, read_file, replace_file
from numamigration_agent.watch import Pause
from numamigration_agent.wishes import parse_spec
from numamigration_api.vocabulary import Reason

FILE_NAME: Final = "watch.json"
FILE_VERSION: Final = 1
FILE_BYTES_MAX: Final = 256 * 1024  # a spec has six groups and three plans at most, below 64 KiB


class Memory(NamedTuple):
    """What is remembered.

    Attributes:
        state: metadata.generation and spec of the last node state, as JSON has them; empty when there was none.
        pause: the last verdict.
        epoch: the greatest verifyEpoch of this boot's specs, also of one that went with its node state.
    """

    state: Mapping[str, Any] = {}
    pause: Pause | None = None
    epoch: int = 0


class Remembered(NamedTuple):
    """What was found; `problem` says why nothing was, and is empty when there was nothing to find."""

    memory: Memory = Memory()
    problem: str = ""


class MemoryFile:
    """The file, replaced as a whole."""

    def __init__(self, folder: StrPath) -> None:
        self.path = os.path.join(folder, FILE_NAME)

    def load(self, boot_id: str) -> Remembered:
        """Read what is remembered of this boot."""
        try:
            data = read_file(self.path, FILE_BYTES_MAX + 1)
            if len(data) > FILE_BYTES_MAX:
                return Remembered(problem=f"has more than {FILE_BYTES_MAX} bytes")
            document = json.loads(data)
            if document["bootID"] != boot_id:
                return Remembered()
            return Remembered(parse_memory(document))
        except FileNotFoundError:
            return Remembered()
        except (OSError, *DAMAGES) as error:
            return Remembered(problem=repr(error))

    def save(self, memory: Memory, boot_id: str) -> str:
        """Replace the file; returns what went wrong, empty when it is safe."""
        return replace_file(self.path, format_memory(memory, boot_id))


def remembered_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a node state that is remembered."""
    generation = state.get("metadata", {}).get("generation", 0)
    return {"metadata": {"generation": generation}, "spec": state.get("spec") or {}}


def format_memory(memory: Memory, boot_id: str) -> bytes:
    """Return the content of the file."""
    pause = memory.pause and memory.pause._asdict()
    document = {"version": FILE_VERSION, "bootID": boot_id, **memory._asdict(), "pause": pause}
    return json.dumps(document, sort_keys=True).encode() + b"\n"


def parse_memory(document: Mapping[str, Any]) -> Memory:
    """Read the content of a file.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is damaged, or of another version.
    """
    if document["version"] != FILE_VERSION:
        raise ValueError(f"version {document['version']!r} is not {FILE_VERSION}")
    parse_spec(document["state"])  # what cannot be read is found here, not in the middle of a watch
    pause = document["pause"]
    return Memory(document["state"], pause and _parse_pause(pause), int(document.get("epoch", 0)))


def _parse_pause(pause: Mapping[str, Any]) -> Pause:
    until = float(pause["until"])
    if not isfinite(until):
        raise ValueError(f"a pause until {until}")
    return Pause(Reason(pause["reason"]), str(pause["message"]), until, max(1, int(pause["trips"])))
