# SPDX-License-Identifier: Apache-2.0
"""What is promised, looked at from outside after every unit of work: kernel, file, objects, reports, writes.

Nothing here asks the agent's planner, tables or codecs.
What cannot be known from outside is not checked, never guessed: each "unless" below says why.

* ``origins``: by knob, every value of this boot that did not come from the agent since its wish for the knob began. A
  restore may give back one of them; as long as nobody else wrote, there is just one.
* ``live``: specs that the agent was shown and may still act upon. A change that has written something is finished
  although a newer spec has come, so only at rest the older ones are forgotten.
* Disturbed: something was moved in the kernel that the agent has not had a look at.

Files and values are in ``tables``, promises 15 and 16 in ``trust``.

Sources: docs/promises.md.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from numamigration_agent.baseline import FILE_NAME
from numamigration_agent.change import WriteKnob
from numamigration_agent.cluster import StateGone, StateSeen
from numamigration_agent.events import Command, Event, JobDone, Run
from numamigration_agent.jobs import MovePages
from numamigration_api.machinery.canonical import wish_revision
from numamigration_api.models.node_state import NodeMigrationStateStatus
from numamigration_api.vocabulary import Dialect
from tests.fakekernel.files import Row
from tests.fakekernel.parsing import KernelError
from tests.fuzz.judgement import require
from tests.fuzz.tables import (
    BALANCING,
    CHANNELS,
    CHANNELS_MAX,
    DEMOTION,
    ENGINE,
    FILES,
    FIXED_REASONS,
    LEGAL,
    MAINLINE,
    MODE,
    NUMBER_OR_BOOLEAN,
    ONLY_TURNED_OFF,
    RATE,
    REASONS,
    SERIES_GROUPS,
    SWITCHES,
    THREADS,
    TRIAL_REASONS,
    asked_reasons,
    hazards,
    taken_for,
    usable_drivers,
)
from tests.fuzz.trust import Trust

if TYPE_CHECKING:
    from tests.fuzz.world import World

IN_FORCE: Final = frozenset({"Applied", "AlreadySet", "Clamped"})
STATUS_BYTES_MAX: Final = 10_000

Spec = Mapping[str, Any]


def groups_of(spec: Spec | None) -> Mapping[str, Any]:
    """Return the wishes of a spec that was written by an operator."""
    return (spec or {}).get("groups") or {}


def group_of(name: str) -> str:
    """Return a field's group."""
    return name.partition(".")[0]


class Oracle:
    """Remembers what has to be known to judge the next step."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._kernel = world.kernel
        self._files = FILES[world.kernel.config.dialect]
        self._rows_of: tuple[object, object] = (None, None)
        self._rows: dict[str, Row] = {}
        self._names = {path: name for name, path in self._files.items()}
        self._groups: dict[str, list[str]] = {}
        for name in self._files:
            self._groups.setdefault(group_of(name), []).append(name)
        self._was_tried = self._on_trial = False
        self._dialect = world.kernel.config.dialect
        self.trust = Trust(self)
        self._live: list[Spec | None] = []
        self._unseen_edit = self._file_gone = self._file_lost = self._status_gone = self.is_spoiled = self._tampered = (
            False
        )
        self._shows_loss = False
        self._begin_boot()

    def _begin_boot(self) -> None:
        self._origins = {name: {value} for name, value in self.held().items()}
        self._read: dict[str, str] = {}
        self._switched_on = False
        self._disturbed, self._reloaded = True, False
        self._others: set[str] = set()
        self._at_rest: dict[str, str] | None = None
        self._asked_since_rest: list[Spec | None] = []
        self._safe_at_rest: frozenset[str] = frozenset()
        self._failed_since_rest = self._is_blind = self._crashed = self._lost_since_rest = False
        self._ours: set[str] = set()
        self._written: list[str] = []
        self._to_undo: list[str] = []

    def path(self, name: str) -> str:
        """Return the file of a settings field; empty when this dialect has none."""
        return self._files.get(name, "")

    # --- what the kernel holds

    def held(self) -> dict[str, str]:
        """Return by field what the kernel holds, spelled as it is written; a missing driver holds nothing."""
        state = self._kernel._state
        if self._rows_of[0] is not state or self._rows_of[1] is not state.dcbm:
            self._rows_of, self._rows = (state, state.dcbm), dict(self._find_rows())
        # Not by a read, which might have to wait for a lock of the kernel.
        return {name: _as_written(name, row.show(state).decode()) for name, row in self._rows.items()}

    def _find_rows(self) -> Iterator[tuple[str, Row]]:
        """Yield what is behind the files that are there; they come and go with the driver."""
        for name, path in self._files.items():
            try:
                yield name, self._kernel.open(path, os.O_RDONLY).file.row
            except KernelError:
                continue

    # --- what the world did

    def started(self) -> None:
        """Note that a new agent has begun: it knows nothing, and when both homes were lost nobody does."""
        self._live = []
        self._read.clear()
        self._is_blind = False
        self._crashed, self._on_trial = True, False
        self._begin_change()
        self.trust.started()
        self._forget_when_both_homes_are_gone()

    def _forget_when_both_homes_are_gone(self) -> None:
        if self._file_lost and self._status_gone:
            for name, value in self.held().items():
                self._origins.setdefault(name, set()).add(value)

    def rebooted(self, *, keeps_folder: bool) -> None:
        """Note that every value of before is another one now; a file that was spoiled may still be."""
        self._begin_boot()
        self.trust.rebooted()
        self._unseen_edit = self._file_gone = self._file_lost = self._status_gone = self._tampered = False
        self.is_spoiled &= keeps_folder

    def disturbed(self) -> None:
        """Note that the kernel is not as the agent has seen it."""
        self._disturbed = True
        self._to_undo.clear()
        self._at_rest = None

    def written_by_others(self, name: str, text: str) -> None:
        """Note that somebody else wrote a knob; where the kernel lets him wait, his value comes later."""
        self.disturbed()
        self._others.add(name)
        if name == ENGINE:
            self.trust.switched_by_others()
        self._begin_change()
        if name in self.held():
            self._origins.setdefault(name, set()).add(self.held()[name])
        if any(call.path == self._files[name] for call in self._kernel.blocked):
            self._origins[name] |= {"0", "1"} if name in {ENGINE, THREADS} else {_as_written(name, text)}

    def driver_came(self) -> None:
        """Note that the driver's knobs are as after loading."""
        self.disturbed()
        self._reloaded = True
        self.trust.driver_came()
        for name, value in self.held().items():
            if name not in MAINLINE:
                self._origins.setdefault(name, set()).add(value)

    def status_lost(self) -> None:
        """Note that the node state is gone with its status."""
        self.trust.lost_home("status")
        self._unseen_edit = self._status_gone = True
        self._forget_when_both_homes_are_gone()

    def status_edited(self) -> None:
        """Note that the status is not what the agent told: with the file lost too, nobody knows what was before."""
        self.trust.lost_home("status")
        self._unseen_edit = self._status_gone = self._tampered = True
        self._forget_when_both_homes_are_gone()

    def file_lost(self, *, spoiled: bool) -> None:
        """Note that the file is not what the agent saved."""
        self._shows_loss, self._lost_since_rest = spoiled, True
        self._file_gone = self._file_lost = True  # the second also when the agent has found out
        self.is_spoiled |= spoiled
        self._forget_when_both_homes_are_gone()

    def tried(self) -> None:
        """Note that the agent has moved own pages, and may have lost its trust in the engine."""
        self._was_tried = self._on_trial = True
        self._begin_change()  # what follows opens the node as it was wished

    def saved(self) -> None:
        """Note that the file is whole."""
        self._shows_loss = False
        self._file_gone = self._file_lost = False
        self.trust.saved()

    # --- what the agent was shown and did

    def handing_over(self, event: Event) -> None:
        """Note what the agent knows from now on."""
        if isinstance(event, StateSeen | StateGone):
            state = event.object if isinstance(event, StateSeen) else None
            self._live.append(state["spec"] if state else None)
            self.trust.shown(self._live[-1])
            if self._asked_since_rest[-1:] != self._live[-1:]:
                self._asked_since_rest.append(self._live[-1])
            self._begin_change()
            pending = [task for task in self.world.tasks if isinstance(task, StateSeen | StateGone)]
            self._unseen_edit = self._unseen_edit and bool(pending)
        if isinstance(event, JobDone):
            self.trust.heard(event.answer)

    def began(self) -> None:
        """Note that the agent has read the file, and knows when it is not as it saved it."""
        status = (self.world.object or {}).get("status") or {}
        nothing_new = not (self._unseen_edit or (self._status_gone and not self.world.object))
        self._is_blind = (
            nothing_new
            and self._shows_loss
            and self._file_gone
            and status.get("bootID") != self._kernel.snapshot().boot_id
        )
        self._file_gone = False

    def _begin_change(self) -> None:
        self._switched_on = False
        self._written, self._to_undo = [], []

    def probed(self) -> None:
        """Note that the agent has had a look at everything, and plans anew."""
        self._begin_change()
        self._disturbed = False
        self.trust.probed()

    def loaded(self, path: str, text: str) -> None:
        """Note what a file showed."""
        self._read[path] = _as_written(self._names.get(path, ""), text)

    def issued(self, command: Command) -> None:
        """Check a write at the moment at which the agent decides on it."""
        if isinstance(command, Run) and isinstance(command.job, MovePages):
            self._on_trial |= not command.job.calm_only  # also of an engine that was on before, and that then hangs
        if not isinstance(command, Run) or not isinstance(command.job, WriteKnob):
            return
        name = self._names.get(command.job.knob.path, "")
        require(name, 14, f"a write to {command.job.knob.path}")
        value = _as_written(name, command.job.knob.codec.format(command.job.value))
        # What is not trusted goes off whatever is wished, and a trial is brought to its end: nothing stays on untried.
        forced = self._on_trial or (name in SWITCHES and value == "0" and self.trust.is_suspect)
        wished = forced or (self._live and (self._live[-1] or {}).get("revision"))
        require(wished, 6, f"{name}: a write although nobody wishes")
        modes = {groups_of(spec).get(group_of(name), {}).get("mode") for spec in self._live}
        opened = self._file_gone or name in self._open_fields()  # a lost file is still in the agent's memory
        require(modes & {"Apply", "Restore"} or opened or forced, 6, f"{name}: a write, modes are {modes}")
        require(not self._is_blind, 1, f"{name}: a write, and nobody knows what was before")
        self._check_homes(name, value, forced=bool(forced))

    def _check_homes(self, name: str, text: str, *, forced: bool) -> None:
        """Both homes have the value of before, unless somebody took it from one and the agent cannot know.

        What goes off because it is not trusted waits for neither, where the other one has it.
        """
        shown = next((row for row in self._shown_rows() if row.get("field") == name), {}).get("baseline")
        hurries = forced and name in SWITCHES and text == "0" and shown is not None
        if not self._file_gone and not (hurries and name not in self.safe()):
            document = self._document()
            require(name in self.safe(), 1, f"{name}: a write, and the file has no value of before")
            before = _as_written(name, document["values"][name])
            self._check_origin(name, before, "the file")
            fresh = not (name in self._safe_at_rest | self._ours or self._tampered or self.is_spoiled or self._crashed)
            seen = self._read.get(self._files[name])
            known = not fresh or before in {text, seen} or seen in self._swaps().get(name, ())
            require(known, 7, f"{name}: written over, and {before} is what is safe")
        if not self._unseen_edit and not forced:
            require(shown is not None, 1, f"{name}: a write, and the status has no value of before")

    def _check_origin(self, name: str, value: str, place: str) -> None:
        if self._tampered or self.is_spoiled:
            return
        origins = self._origins.get(name, set())
        require(value in origins, 7, f"{name}: {place} has {value} as the value of before, which was one of {origins}")

    def _shown_rows(self) -> list[Mapping[str, Any]]:
        status = (self.world.object or {}).get("status") or {}
        rows = status.get("knobs") or []
        return [row for row in rows if isinstance(row, dict)]

    def _document(self) -> Mapping[str, Any]:
        """Return the state file; one of another boot says nothing."""
        try:
            found = json.loads((self.world.folder / FILE_NAME).read_bytes())
        except (OSError, ValueError):
            return {}
        of_this_boot = isinstance(found, dict) and found.get("bootID") == self._kernel.snapshot().boot_id
        return found if of_this_boot else {}

    def safe(self) -> set[str]:
        """Return the fields whose values of before are on file."""
        return set(self._document().get("values", {}))

    def _open_fields(self) -> set[str]:
        return set(self._swaps())

    def _swaps(self) -> dict[str, set[str]]:
        """Return by field what an open change has seen or may have left there.

        The value of before is that of an earlier change then, or somebody wrote just what the change was to write.
        """
        opened = self._document().get("openUnits", {}).values()
        return {name: set(swap.values()) for rows in opened for name, swap in rows.items()}

    def storing(self, path: str, text: str) -> None:
        """Check a write at the moment at which it reaches the kernel."""
        name = self._names.get(path, "")
        require(name, 14, f"a write to {path}")
        require(re.fullmatch(LEGAL.get(name, NUMBER_OR_BOOLEAN), text), 14, f"{path}: {text!r} is no value of it")
        require(self._read.get(path) != text, 2, f"{name}: {text} was written although it was read there before")
        if self._to_undo and group_of(name) == group_of(self._to_undo[0]):
            last = self._to_undo.pop()
            require(name == last, 4, f"{name} is undone before {last}, which was written after it")
        if name in SWITCHES:
            self.trust.storing(name, text, verified=self._is_verified(all))
        if name in SWITCHES and text == "1":
            self._check_turning_on(name)
        elif name not in SWITCHES and group_of(name) in SERIES_GROUPS:
            self._check_order(name)

    def failed(self, path: str) -> None:
        """Note that the kernel did not take a write, so that those before it have to go back."""
        group = group_of(self._names[path])
        self.trust.refused(self._names[path])
        self._switched_on = False
        self._failed_since_rest = True
        ends = self._crashed and self._names[path] in self._open_fields()  # what an earlier agent left open
        if not self._to_undo and self._is_one_change() and not ends:
            self._to_undo = [name for name in self._written if group_of(name) == group]
        self._written = []

    def _is_one_change(self) -> bool:
        return all(spec == self._live[0] for spec in self._live)

    def stored(self, path: str) -> None:
        """Note that the kernel took a write."""
        name = self._names[path]
        self._others.discard(name)
        self._written.append(name)
        self._ours.add(name)
        self._on_trial |= name in SWITCHES and self._is_verified(any)
        self.trust.stored(name, verified=self._is_verified(all))
        self._switched_on = name in SWITCHES and self.held().get(name) == "1"

    def not_held(self, path: str) -> None:
        """Note that the kernel took a write and holds something else, so that those before it have to go back."""
        name = self._names[path]
        if self.held().get(name) != self._read.get(path):
            self._written.append(name)
            self.written_by_others(name, self.held()[name])
            self._ours.add(name)
        self.failed(path)

    def _is_verified(self, of: Callable[[Iterable[bool]], bool]) -> bool:
        """Whether any or all of the wishes that the agent may act upon have engines tried."""
        wishes = [wish for spec in self._live if (wish := groups_of(spec).get("offload"))]
        return bool(wishes) and of(wish.get("verification") != "Off" for wish in wishes)

    def _wished_alone(self, group: str) -> Mapping[str, Any] | None:
        """Return the wish for a group when there is only one that the agent can act upon."""
        wishes = [groups_of(spec).get(group) for spec in self._live if (spec or {}).get("revision")]
        alone = len(wishes) == len(self._live) and all(wish == wishes[0] for wish in wishes)
        return wishes[0] if alone and wishes else None

    def _check_turning_on(self, name: str) -> None:
        wish = self._wished_alone("offload")
        if wish is None:
            return
        if wish["mode"] == "Restore":
            require("1" in self._origins[name], 7, f"{name} is turned on, and it was off before")
            return
        asked = wish["mode"] == "Apply" and wish["settings"]["engine"] == SWITCHES[name]
        require(asked, 4, f"{name} is turned on, the wish is {wish}")
        require(self._disturbed or self.seen not in ONLY_TURNED_OFF, 5, f"{self.seen} is turned on")
        self._check_reasons(wish, tries=wish["verification"] != "Off")
        if self._disturbed:
            return
        other = {ENGINE: THREADS, THREADS: ENGINE}[name]
        require(self.held().get(other) != "1", 4, f"{name} is turned on beside {other}")
        lacking = self._hazards(wish) - set(wish["acceptedRisks"])
        on = self._reasons_on()
        lacking -= {"MemoryFailureOffload"} if on is not None and "memory_failure" not in on else set()
        require(not lacking, 5, f"{name} is turned on and {sorted(lacking)} not accepted")

    def _check_reasons(self, wish: Mapping[str, Any], *, tries: bool) -> None:
        """Reasons fail closed: none is offloaded that was not asked for, but for the one of a trial."""
        on = self._reasons_on()
        if on is None:
            require("reasons" not in wish["settings"], 3, "offload is on, and nobody knows for which reasons")
        elif REASONS not in self._others and not (tries and REASONS in self._files and on in TRIAL_REASONS):
            surplus = on - asked_reasons(wish["settings"])
            # memory_failure is no surplus but a hazard where no list is given and the dialect decides.
            require(not surplus, 3, f"offload is on with {sorted(surplus)} too")

    def _reasons_on(self) -> set[str] | None:
        """Return what is offloaded; None: nobody has written it down."""
        if REASONS in self._files:
            return set(self.held().get(REASONS, "").split(",")) - {"none", ""}
        fixed = FIXED_REASONS.get(self._dialect)
        return None if fixed is None else set(fixed)

    @property
    def seen(self) -> Dialect:
        """What this kernel looks like now."""
        return taken_for(self._dialect, self._drivers(), has_driver=ENGINE in self.held())

    @property
    def _is_misread(self) -> bool:
        """Whether its driver takes one channel only, and nobody can know: more are refused, and all is as before."""
        return self._dialect is Dialect.V6_SDXI and self.seen is Dialect.V6

    def usable(self) -> set[str]:
        """Return the drivers of DMA engines that can copy."""
        return usable_drivers(self.seen, self._drivers())

    def _drivers(self) -> set[str]:
        return {engine.driver for engine in self._kernel._state.engines}

    def _hazards(self, wish: Mapping[str, Any]) -> set[str]:
        config = self._kernel.config
        return hazards(self.seen, self.usable(), wish, set(config.reason_names), built_in=config.built_in)

    def _check_order(self, name: str) -> None:
        require(not self._switched_on, 4, f"{name} is written after the switch that it belongs to")
        wish, held = self._wished_alone("offload"), self.held()
        if wish is None or self._disturbed or (self._crashed and name in self._open_fields()):
            return  # what an earlier agent left open is brought to its end first
        for switch in SWITCHES:
            if held.get(switch) != "1" or switch in self._others:
                continue
            turns_off = wish["mode"] == "Restore" and self._origins[switch] == {"0"}
            turns_off |= wish["mode"] == "Apply" and wish["settings"]["engine"] == "Off"
            require(not turns_off, 4, f"{name} is written before {switch} is off")

    # --- what it told

    def told(self, status: Mapping[str, Any]) -> dict[str, Any]:
        """Check a report; return it as the API server would keep it."""
        document = json.dumps(status)
        require(len(document) < STATUS_BYTES_MAX, 12, f"a status of {len(document)} bytes")
        NodeMigrationStateStatus.model_validate_json(document)
        found: dict[str, Any] = json.loads(document)
        in_force = {
            row["field"] for row in found.get("knobs", ()) if "baseline" in row and row.get("outcome") in IN_FORCE
        }
        self._ours |= in_force  # what comes later is drift
        self._check_soaked(found)
        return found

    def _check_soaked(self, status: Mapping[str, Any]) -> None:
        """No wish is soaked before it was there for so long; when it came into force is known to the agent alone."""
        for group, result in status.get("groups", {}).items():
            if revision := result.get("soakedRevision"):
                since = self.world.now - self.world.asked_at.get((group, revision), self.world.now)
                require(since >= self.world.soak_seconds, 8, f"{group} is soaked {since:g} s after it was asked for")

    def applied(self) -> None:
        """Check what the node state says now."""
        self._status_gone = False
        status = (self.world.object or {}).get("status") or {}
        self.trust.told(status)
        if status.get("bootID") != self._kernel.snapshot().boot_id:
            return
        held = self.held()
        for group, result in status.get("groups", {}).items():
            wish = groups_of((self.world.object or {}).get("spec")).get(group, {})
            if result["state"] != "Restored" or wish.get("mode") != "Restore" or self._disturbed:
                continue
            for name in self._groups.get(group, ()):
                if name in held and not (name in SWITCHES and self.trust.is_corrupt and held[name] == "0"):
                    self._check_origin(name, held[name], "after Restored the kernel")
        if status.get("observedRevision") == ((self.world.object or {}).get("spec") or {}).get("revision"):
            self._end_wishes(status, held)

    def _end_wishes(self, status: Mapping[str, Any], held: Mapping[str, str]) -> None:
        """What the kernel holds is the value of before of the next wish, once the agent has let go of this one."""
        spec = (self.world.object or {}).get("spec") or {}
        for group, names in self._groups.items():
            state = status.get("groups", {}).get(group, {}).get("state")
            if state == "Restored" or (group not in groups_of(spec) and not spec.get("isEdited")):
                self._ours -= set(names)
                for name in names:
                    self._origins.setdefault(name, set()).update({held[name]} if name in held else ())

    # --- after every unit

    def check(self) -> None:
        """Check what holds at any moment, and what holds at rest."""
        world = self.world
        held = self.held()
        spec = self._live[-1] if self._live else None
        for group, names in self._groups.items():
            # Nobody asks for it, or not yet: sooner or later the agent lets go of it, and this is what was before.
            if spec and spec.get("revision") and not spec.get("isEdited") and group not in groups_of(spec):
                for name in names:
                    self._origins.setdefault(name, set()).update({held[name]} if name in held else ())
        opened = self._file_gone or self._open_fields()  # a lost file may have had some
        if world.is_idle and self._live and not opened and self._is_told(spec):
            self._rest(held)

    def _is_told(self, spec: Spec | None) -> bool:
        """Whether the status is about this spec, and nothing waits: for a report, a retry or a file that blocks."""
        status = (self.world.object or {}).get("status") or {}
        results = status.get("groups") or {}
        pending = any(result.get("state") == "Pending" for result in results.values())
        return not pending and status.get("observedRevision") == (spec or {}).get("revision")

    def _rest(self, held: dict[str, str]) -> None:
        self._check_rest(held)
        if not self._disturbed:
            self.trust.check_rest(self._wished_alone("offload"))
        self._live = self._live[-1:]
        self._at_rest = held
        if not self._file_lost:
            self._safe_at_rest = frozenset(self.safe())
        self._failed_since_rest = self._crashed = self._on_trial = self._lost_since_rest = False
        self._begin_change()

    def _check_rest(self, held: Mapping[str, str]) -> None:
        if self._at_rest is not None:
            self._check_all_or_nothing(held, self._at_rest)
        self._asked_since_rest = self._asked_since_rest[-1:]
        wish, before = self._wished_alone("offload"), self._at_rest
        status = (self.world.object or {}).get("status") or {}
        forgotten = self._crashed and self._lost_since_rest  # what an agent left half done stands in the file alone
        if wish is None or before is None or self._disturbed or forgotten:
            return
        result = (status.get("groups") or {}).get("offload", {})
        if result.get("state") == "Failed" and self._failed_since_rest and result.get("reason") != "UndoFailed":
            changed = {name for name in self._groups["offload"] if held.get(name) != before.get(name)}
            allowed = {switch for switch in SWITCHES if held.get(switch) == "0"}
            require(changed <= allowed, 4, f"a failed change left {sorted(changed)} changed")

    def _check_all_or_nothing(self, held: Mapping[str, str], before: Mapping[str, str]) -> None:
        """Whoever no longer asks for a change finds all of it done or nothing, whatever ended the agent amidst."""
        asked = [spec for spec in self._asked_since_rest if (spec or {}).get("revision")]
        if len(asked) != 2 or self._disturbed or self._lost_since_rest:
            return  # what is half done stands in the file alone
        for group in ("offload", "balancing"):
            first, last = (groups_of(spec).get(group) for spec in asked)
            if not first or first["mode"] != "Apply" or (last and last["mode"] != "Hold"):
                continue
            target = _targets(group, first["settings"])
            names = [name for name in target if name in held and name in before]
            done = all(held[name] == target[name] for name in names)
            undone = all(held[name] == before[name] for name in names)
            require(len(names) < 2 or done or undone, 4, f"{group} is half done: {held}, was {before}, asked {target}")

    def check_calm(self) -> None:
        """Check that everything is as it shall be: all troubles are over, and time has passed."""
        world = self.world
        require(world.is_idle, 13, "a calm node does not come to rest")
        if world.object is None or not (world.object.get("spec") or {}).get("revision"):
            return
        status = world.object.get("status") or {}
        require(status.get("observedRevision") == world.object["spec"]["revision"], 13, "the spec was not taken in")
        for group, wish in groups_of(world.object["spec"]).items():
            result = status.get("groups", {}).get(group, {})
            if result.get("reason") == "BaselineNotSaved":
                require(self.is_spoiled, 11, f"{group}: {result}, and nobody spoiled the file")
                continue
            if result.get("reason") == "VersionSkew":
                edited = world.object["spec"].get("isEdited")
                require(edited and wish["mode"] == "Apply", 11, f"{group}: {result}, and nobody edited the spec")
                continue  # waits for the operator to put it right (docs/decisions/0034)
            states = self._states(group, wish)
            require(result.get("state") in states, 11, f"{group} is {result}, not one of {sorted(states)}: {wish}")
            if result["state"] == "Ready":
                self._check_ready(group, wish)
                require(result.get("soakedRevision") == wish_revision(wish), 8, f"{group} was never soaked: {result}")
            elif result["state"] not in {"Restored", "Held"} and group == "offload" and not self._is_misread:
                on = [name for name in SWITCHES if self._is_ours(name) and self.held().get(name) == "1"]
                require(not on, 3, f"{on} is on and {result}")
        require(not self._open_fields(), 4, "a change is open in a calm node")
        lacking = self.safe() - {row.get("field") for row in self._shown_rows() if "baseline" in row}
        lacking &= lacking if not self._reloaded else MAINLINE.keys()  # a driver loaded anew is a new life
        require(not lacking, 1, f"the status of a calm node lacks the values of before of {sorted(lacking)}")

    def _is_ours(self, name: str) -> bool:
        return name in self.safe() and name not in self._others

    def _states(self, group: str, wish: Mapping[str, Any]) -> set[str]:
        if wish["mode"] == "Hold":
            doubted = group == "offload" and (self._was_tried or self.trust.is_suspect)
            return {"Held", "Failed"} if doubted else {"Held"}
        if wish["mode"] == "Restore":
            kept_out = (
                group == "offload" and self._kernel._state.other_migrator and "1" in self._origins.get(ENGINE, ())
            )
            return {"Restored", "Failed"} if kept_out else {"Restored"}
        if group in {"balancing", "demotion"}:
            return {"Ready"}
        return self._offload_states(wish) if group == "offload" else self._series_states(group)

    def _series_states(self, group: str) -> set[str]:
        """What becomes of the other groups of the series; which of their fields a kernel has is not judged."""
        there = any(group_of(name) == group for name in self.held()) and self.seen not in ONLY_TURNED_OFF
        offload = groups_of((self.world.object or {}).get("spec")).get("offload")
        fails = self._states("offload", offload) & {"Failed"} if offload else set[str]()  # all or nothing
        return {"Ready", "Unsupported"} | fails if there else {"Unsupported"}

    def _offload_states(self, wish: Mapping[str, Any]) -> set[str]:
        engine, held = wish["settings"]["engine"], self.held()
        switch = next((name for name, turned_on in SWITCHES.items() if turned_on == engine), None)
        if not SWITCHES.keys() & held.keys():
            return {"Unsupported"}
        if engine == "Off":
            return {"Ready"}
        if switch not in held or self.seen in ONLY_TURNED_OFF:
            return {"Unsupported"}
        found = set[str]()
        if engine == "DMA" and not self.usable():
            # Channels that went are a failure, those that never were are none.
            told = {row.get("field") for row in self._shown_rows() if "baseline" in row}
            found |= {"Unsupported", "Failed"} if ENGINE in told | self.safe() else {"Unsupported"}
        if wish["unsupported"] == "Strict" and not self._has_all(wish["settings"]):
            found.add("Unsupported")
        if self._hazards(wish) - set(wish["acceptedRisks"]):
            found.add("Refused")
        # What an engine shows when it is tried, or could not show, is known to the agent alone.
        if wish["verification"] != "Off" or self._was_tried or self.trust.is_suspect:
            found |= {"Ready", "Refused", "Failed"}
        found |= {"Refused"} if self._are_reasons_refused(wish["settings"]) else set()
        if not found and self._kernel._state.other_migrator and held[switch] == "0":
            found.add("Failed")
        if not found and self._is_misread:
            found |= {"Ready", "Failed"}
        # Which names the kernel knows is seen in the mask alone, and somebody may have narrowed that.
        narrowed = REASONS in held and len(self._origins.get(REASONS, ())) > 1
        return (found or {"Ready"}) | ({"Ready", "Refused"} if narrowed else set())

    def _has_all(self, settings: Mapping[str, Any]) -> bool:
        lacking = {f"offload.{key}" for key in settings} - {name.partition("/")[0] for name in self.held()}
        return not lacking - ({REASONS} if self._dialect in FIXED_REASONS else set())

    def _are_reasons_refused(self, settings: Mapping[str, Any]) -> bool:
        asked = asked_reasons(settings)
        if REASONS in self._files:
            return not asked & set(self._kernel.config.reason_names)
        fixed = FIXED_REASONS.get(self._dialect)
        return "reasons" in settings if fixed is None else not asked >= fixed

    def _check_ready(self, group: str, wish: Mapping[str, Any]) -> None:
        held, settings = self.held(), wish["settings"]
        if wish["drift"] != "Correct":
            return
        if group == "demotion":
            require(held[DEMOTION] == str(int(settings["enabled"])), 11, "demotion is Ready and not as asked")
        elif group == "balancing":
            require(held[MODE] == BALANCING[settings["mode"]], 11, "balancing is Ready and not as asked")
            if "promoteRateLimitMBps" in settings:
                require(held[RATE] == str(settings["promoteRateLimitMBps"]), 11, "the rate limit is not as asked")
            elif wish["release"] == "Restore":
                self._check_origin(RATE, held[RATE], "unnamed, the kernel")
        elif group == "offload":
            self._check_offload_ready(held, wish)

    def _check_offload_ready(self, held: Mapping[str, str], wish: Mapping[str, Any]) -> None:
        settings = wish["settings"]
        for switch in SWITCHES.keys() & held.keys():
            wanted = str(int(settings["engine"] == SWITCHES[switch]))
            require(held[switch] == wanted, 11, f"offload is Ready, and {switch} is {held[switch]}")
        if settings["engine"] != "Off":
            self._check_reasons(wish, tries=False)
        if CHANNELS not in held:
            return
        if settings["engine"] == "DMA" and "channels" in settings:
            usable, highest = self.usable(), CHANNELS_MAX.get(self.seen, 16)
            channels = sum(row.channels for row in self._kernel._state.engines if row.driver in usable)
            wanted = str(min(settings["channels"], channels, highest))
            require(held[CHANNELS] == wanted, 11, f"{held[CHANNELS]} channels, not {wanted}")
        elif wish["release"] == "Restore" and "channels" not in settings:
            self._check_origin(CHANNELS, held[CHANNELS], "unnamed, the kernel")


def _targets(group: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return what a change writes, as far as it is the same on every host."""
    if group == "balancing" and "promoteRateLimitMBps" in settings:
        return {MODE: BALANCING[settings["mode"]], RATE: str(settings["promoteRateLimitMBps"])}
    return {}


def _as_written(name: str, text: str) -> str:
    """Return what would be written to get what a file shows."""
    stripped = text.removesuffix("\n")
    return {"true": "1", "false": "0"}.get(stripped, stripped) if name == DEMOTION else stripped
