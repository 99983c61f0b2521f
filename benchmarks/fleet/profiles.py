# SPDX-License-Identifier: Apache-2.0
"""Where kube-apiserver spends its CPU time, by its own profiler.

Sources: ``kube-apiserver --profiling`` (on by default); net/http/pprof; ``go tool pprof -top -cum``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.testbed.api import Api
from tests.testbed.errors import BedError

SECONDS: Final = 10
PARTS: Final[Mapping[str, str]] = {
    "applying": "endpoints/handlers.(*applyPatcher).applyPatchToCurrentObject",
    "validation": "registry/rest.ValidateUpdate",
    "decoding what was stored": "storage/etcd3.decodeObj",
    "encoding": "serializer/versioning.(*codec).encode",
    "garbage collection in the background": "runtime.gcBgMarkWorker",
    "watches": "endpoints/handlers.(*WatchServer).HandleHTTP",
}
"""Functions with all that they call; none of these calls another one, so shares add up. The rest is what is left."""
_LINE: Final = re.compile(r"([\d.]+)% +(\S+?)(?: \(inline\))?$", re.MULTILINE)


def take(api: Api, file: Path) -> None:
    """Profile the API server for SECONDS, and write that to a file."""
    file.write_bytes(api.raw(f"/debug/pprof/profile?seconds={SECONDS}"))


def read(file: Path) -> dict[str, float]:
    """Return the percentage of each of PARTS in a profile.

    Raises:
        BedError: there is no Go, which reads it.
    """
    go = shutil.which("go")
    if go is None:
        raise BedError("go is not on PATH, and reads the profile")
    command = [go, "tool", "pprof", "-top", "-cum", "-nodecount=0", str(file)]
    return shares(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def shares(text: str) -> dict[str, float]:
    """Return the percentage of each of PARTS in what ``go tool pprof -top -cum`` prints; 0 where it has none."""
    found = {name: float(percent) for percent, name in _LINE.findall(text)}
    return {part: _share(found, function) for part, function in PARTS.items()}


def _share(found: Mapping[str, float], function: str) -> float:
    return next((percent for name, percent in found.items() if name.endswith(function)), 0.0)
