# SPDX-License-Identifier: Apache-2.0
"""Baselines: what each knob held before this project touched it on this boot (promises 1 and 7), and open units.

* Two homes: a file on the host's tmpfs, and the node's own status. The file is written first; a kernel file is written
  only when both have it. So the file, where it is whole and of this boot, is the authority.
* A file of another boot is ignored: its values mean nothing to this kernel.
* No file (the folder was lost): the status of this boot is as good. No status of this boot either: nothing was ever
  written on this boot, for the status would say so.
* A damaged file: the status of this boot is taken. Without one nobody can tell what was there before, so no knob is
  written (BaselineNotSaved) until a person has looked and removed the file. The status then says so in Degraded, and
  such a status is no record: the next agent must not take its silence for "nothing was written".
* A file of a newer release is not understood and not overwritten: nothing is written until that release is back.
* A kernel without a boot id ties nothing to its boot, so nothing is written either.
* A first value is never replaced by a second one; it goes only when it was put back or when the wish for it ended.
* A driver that is loaded anew begins a new life: what its knobs held in the one before is lost with it, and no value
  of before any more. So each value is kept with what told the driver's folder then, its inode number.
* A unit of several writes is open in the file from before its first write until it is in force or undone. The status
  does not have it: who lost the file too knows the baselines, and continues instead of undoing (docs/decisions/0012).
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.dialects import CODECS
from numamigration_agent.statefile import DAMAGES, StrPath, read_file, replace_file
from numamigration_api.machinery.conditions import find_condition
from numamigration_api.machinery.records import dataclass, field, replace
from numamigration_api.machinery.shapes import objects
from numamigration_api.vocabulary import NodeCondition, Reason

FILE_NAME: Final = "baseline.json"
FILE_VERSION: Final = 2
FILE_VERSIONS_READ: Final = frozenset({1, FILE_VERSION})  # 1 had no open units
FILE_BYTES_MAX: Final = 64 * 1024  # a dozen short values; more is not ours


class Swap(NamedTuple):
    """What an open unit does to one knob; `before` is what it held before the change, not before this project.

    Attributes:
        passing: what it holds in between, while an engine is on trial.
    """

    before: Value
    target: Value
    passing: Value | None = None


OpenUnits = Mapping[str, Mapping[str, Swap]]
"""By unit, the knobs of a change that may be half done, by settings field."""


@dataclass(frozen=True, slots=True)
class Baselines:
    """Values of before, by settings field, on one boot.

    Attributes:
        problem: why they cannot be trusted; nothing is written then.
        open_units: changes that were begun and not brought to an end.
        lives: by settings field, what tells the folder of the knob from that of an earlier load of its driver.
        states: by settings field, uid of the node state that had its group last.
    """

    boot_id: str
    values: Mapping[str, Value] = field(default_factory=dict)
    problem: str = ""
    open_units: OpenUnits = field(default_factory=dict)
    lives: Mapping[str, int] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)

    def of_another_life(self, lives: Mapping[str, int]) -> frozenset[str]:
        """Return the fields whose driver is there and was loaded anew; one that is not known to be is not."""
        return frozenset(
            name for name in self.values if name in lives and self.lives.get(name, lives[name]) != lives[name]
        )

    def with_lives(self, lives: Mapping[str, int]) -> Baselines:
        """Return these as of the drivers that are there now."""
        if lives.items() <= self.lives.items():
            return self
        return replace(self, lives={**self.lives, **lives})

    def of_state(self, uid: str) -> frozenset[str]:
        """Return the fields whose group was last in this node state; one of which that is not known was."""
        return frozenset(name for name in self.values if self.states.get(name, uid) == uid)

    def with_state(self, uid: str, fields: Collection[str]) -> Baselines:
        """Return these, with the groups of `fields` in this node state."""
        if all(self.states.get(name) == uid for name in fields):
            return self
        return replace(self, states={**self.states, **dict.fromkeys(fields, uid)})

    def with_captures(self, captures: Mapping[str, Value]) -> Baselines:
        """Return these and the captured ones; the first value of a field wins."""
        return replace(self, values={**captures, **self.values})

    def without(self, fields: Iterable[str]) -> Baselines:
        """Return these but those of `fields`."""
        gone = frozenset(fields)
        if not gone:
            return self
        return replace(
            self,
            values={name: value for name, value in self.values.items() if name not in gone},
            open_units={
                unit: {name: swap for name, swap in rows.items() if name not in gone}
                for unit, rows in self.open_units.items()
            },
        )

    def with_open(self, units: OpenUnits) -> Baselines:
        """Return these with `units` open too."""
        return replace(self, open_units={**self.open_units, **units})

    def with_ended(self, units: Iterable[str]) -> Baselines:
        """Return these with `units` no longer open."""
        ended = frozenset(units)
        return replace(self, open_units={unit: rows for unit, rows in self.open_units.items() if unit not in ended})


@dataclass(frozen=True, slots=True)
class NoFile:
    """No baseline file of this boot."""


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A baseline file that cannot be understood."""

    problem: str


@dataclass(frozen=True, slots=True)
class NewerFile:
    """A baseline file of this boot that a newer release wrote."""

    problem: str


Loaded = Baselines | NoFile | DamagedFile | NewerFile


class BaselineFile:
    """The file, replaced as a whole: after a crash it is the old one or the new one."""

    def __init__(self, folder: StrPath) -> None:
        self.folder = folder
        self.path = os.path.join(folder, FILE_NAME)

    def load(self, boot_id: str) -> Loaded:
        """Read the baselines of this boot."""
        try:
            data = read_file(self.path, FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return NoFile()
        except OSError as error:
            return DamagedFile(str(error))
        if len(data) > FILE_BYTES_MAX:
            return DamagedFile(f"{self.path}: has more than {FILE_BYTES_MAX} bytes")
        try:
            document = json.loads(data)
            if document["bootID"] != boot_id:
                return NoFile() if isinstance(document["bootID"], str) else DamagedFile(f"{self.path}: has no boot id")
            if isinstance(document["version"], int) and document["version"] > FILE_VERSION:
                return NewerFile(f"{self.path}: is of a newer release (version {document['version']})")
            return parse_baselines(document)
        except DAMAGES as error:
            return DamagedFile(f"{self.path}: {error!r}")

    def save(self, baselines: Baselines) -> str:
        """Replace the file; returns what went wrong, empty when it is safe.

        Nothing is lost by a crash in between: the new content is on the disk before its name is.
        """
        return replace_file(self.path, format_baselines(baselines))


def format_baselines(baselines: Baselines) -> bytes:
    """Return the content of the file."""
    document = {
        "version": FILE_VERSION,
        "bootID": baselines.boot_id,
        "values": dict(baselines.values),
        "lives": {name: life for name, life in baselines.lives.items() if name in baselines.values},
        "states": {name: uid for name, uid in baselines.states.items() if name in baselines.values},
        "openUnits": {
            unit: {name: swap._asdict() for name, swap in rows.items()} for unit, rows in baselines.open_units.items()
        },
    }
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def parse_baselines(document: Mapping[str, Any]) -> Baselines:
    """Read the content of a file.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is damaged, or of another version.
    """
    if document["version"] not in FILE_VERSIONS_READ:
        raise ValueError(f"version {document['version']!r} is none of {sorted(FILE_VERSIONS_READ)}")
    values = {name: _parse_value(name, text) for name, text in document["values"].items()}
    opened = document["openUnits"] if document["version"] == FILE_VERSION else {}
    open_units = {unit: {name: _parse_swap(name, row) for name, row in rows.items()} for unit, rows in opened.items()}
    bare = sorted(name for rows in open_units.values() for name in rows if name not in values)
    if bare:
        raise ValueError(f"a change of {', '.join(bare)} was begun without a value of before")
    lives = {name: int(life) for name, life in document.get("lives", {}).items()}
    states = {name: str(uid) for name, uid in document.get("states", {}).items()}
    return Baselines(document["bootID"], values, open_units=open_units, lives=lives, states=states)


def _parse_swap(name: str, row: Mapping[str, str]) -> Swap:
    passing = row.get("passing")
    before, target = _parse_value(name, row["before"]), _parse_value(name, row["target"])
    return Swap(before, target, None if passing is None else _parse_value(name, passing))


def _parse_value(name: str, text: str) -> Value:
    value = CODECS[name].parse(text)
    if value is None:
        raise ValueError(f"{name}: {text!r} is no value of this knob")
    return value


def baselines_of_status(status: Mapping[str, Any], boot_id: str) -> Baselines | None:
    """Return the baselines that the node's own status has of this boot; None when it is of no or another boot."""
    if status.get("bootID") != boot_id:
        return None
    values: dict[str, Value] = {}
    for row in objects(status.get("knobs")):
        shown, name = row.get("baseline"), row.get("field")
        if not (isinstance(shown, str) and isinstance(name, str) and name in CODECS):
            continue
        value = CODECS[name].unshow(shown)
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
    known = reported.values if reported else {}
    if isinstance(loaded, NewerFile):
        return Baselines(boot_id, known, f"{loaded.problem}; run that release again, this one does not understand it")
    degraded = find_condition(objects(status.get("conditions")), NodeCondition.DEGRADED) or {}
    if reported is not None and degraded.get("reason") != Reason.BASELINE_NOT_SAVED:
        return reported
    problem = (
        f"{loaded.problem}; the status has no record of this boot either, so the values of before are unknown; "
        "compare the knobs with what they should be, remove the file and restart the agent"
    )
    return Baselines(boot_id, known, problem)
