# SPDX-License-Identifier: Apache-2.0
"""Baselines: what each knob held before this project touched it on this boot (promises 1 and 7).

* Two homes: a file on the host's tmpfs, and the node's own status. The file is written first; a kernel file is written
  only when both have it. So the file, where it is whole and of this boot, is the authority.
* A file of another boot is ignored: its values mean nothing to this kernel.
* No file (the folder was lost): the status of this boot is as good. No status of this boot either: nothing was ever
  written on this boot, for the status would say so.
* A damaged file: the status of this boot is taken. Without one nobody can tell what was there before, so no knob is
  written (BaselineNotSaved) until a person has looked and removed the file. The status then says so in Degraded, and
  such a status is no record: the next agent must not take its silence for "nothing was written".
* A kernel without a boot id ties nothing to its boot, so nothing is written either.
* A first value is never replaced by a second one; it goes only when it was put back or when the wish for it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.dialects import KNOBS
from numamigration_api.machinery.conditions import find_condition
from numamigration_api.vocabulary import NodeCondition, Reason

FILE_NAME: Final = "baseline.json"
FILE_VERSION: Final = 1
FILE_BYTES_MAX: Final = 64 * 1024  # a dozen short values; more is not ours


@dataclass(frozen=True, slots=True)
class Baselines:
    """Values of before, by settings field, on one boot.

    Attributes:
        problem: why they cannot be trusted; nothing is written then.
    """

    boot_id: str
    values: Mapping[str, Value] = field(default_factory=dict)
    problem: str = ""

    def with_captures(self, captures: Mapping[str, Value]) -> Baselines:
        """Return these and the captured ones; the first value of a field wins."""
        return Baselines(self.boot_id, {**captures, **self.values})

    def without(self, fields: Iterable[str]) -> Baselines:
        """Return these but those of `fields`."""
        gone = frozenset(fields)
        return Baselines(self.boot_id, {name: value for name, value in self.values.items() if name not in gone})


@dataclass(frozen=True, slots=True)
class NoFile:
    """No baseline file of this boot."""


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A baseline file that cannot be understood."""

    problem: str


Loaded = Baselines | NoFile | DamagedFile


class BaselineFile:
    """The file, replaced as a whole: after a crash it is the old one or the new one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / FILE_NAME

    def load(self, boot_id: str) -> Loaded:
        """Read the baselines of this boot."""
        try:
            with self.path.open("rb") as file:
                data = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return NoFile()
        except OSError as error:
            return DamagedFile(str(error))
        if len(data) > FILE_BYTES_MAX:
            return DamagedFile(f"{self.path}: has more than {FILE_BYTES_MAX} bytes")
        try:
            found = parse_baselines(data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return DamagedFile(f"{self.path}: {error}")
        return found if found.boot_id == boot_id else NoFile()

    def save(self, baselines: Baselines) -> str:
        """Replace the file; returns what went wrong, empty when it is safe.

        Nothing is lost by a crash in between: the new content is on the disk before its name is.
        """
        temporary = self._folder / f".{FILE_NAME}.new"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_synced(temporary, format_baselines(baselines))
            temporary.replace(self.path)
            _sync_folder(self._folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            return str(error)
        return ""


def format_baselines(baselines: Baselines) -> bytes:
    """Return the content of the file."""
    document = {"version": FILE_VERSION, "bootID": baselines.boot_id, "values": dict(baselines.values)}
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def parse_baselines(data: bytes) -> Baselines:
    """Read the content of a file.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is damaged, or of another version.
    """
    document = json.loads(data)
    if document["version"] != FILE_VERSION:
        raise ValueError(f"version {document['version']!r} is not {FILE_VERSION}")
    known = {knob.field: knob.codec for knob in KNOBS}
    values: dict[str, Value] = {}
    for name, text in document["values"].items():
        value = known[name].parse(text)
        if value is None:
            raise ValueError(f"{name}: {text!r} is no value of this knob")
        values[name] = value
    return Baselines(str(document["bootID"]), values)


def baselines_of_status(status: Mapping[str, Any], boot_id: str) -> Baselines | None:
    """Return the baselines that the node's own status has of this boot; None when it is of no or another boot."""
    if status.get("bootID") != boot_id:
        return None
    codecs = {knob.field: knob.codec for knob in KNOBS}
    values: dict[str, Value] = {}
    for row in status.get("knobs") or ():
        shown, name = row.get("baseline"), row.get("field")
        value = codecs[name].unshow(shown) if name in codecs and isinstance(shown, str) else None
        if value is not None:
            values[name] = value
    return Baselines(boot_id, values)


def recover(loaded: Loaded, status: Mapping[str, Any], boot_id: str) -> Baselines:
    """Choose between file and status after a start; the module text says why so."""
    if not boot_id:
        return Baselines(boot_id, problem="the kernel shows no boot id to tie the values of before to")
    if isinstance(loaded, Baselines):
        return loaded
    reported = baselines_of_status(status, boot_id)
    if isinstance(loaded, NoFile):
        return reported or Baselines(boot_id)
    degraded = find_condition(status.get("conditions") or (), NodeCondition.DEGRADED) or {}
    if reported is not None and degraded.get("reason") != Reason.BASELINE_NOT_SAVED:
        return reported
    problem = (
        f"{loaded.problem}; the status has no record of this boot either, so the values of before are unknown; "
        "compare the knobs with what they should be, remove the file and restart the agent"
    )
    return Baselines(boot_id, problem=problem)


def _write_synced(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
