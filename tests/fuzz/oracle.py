# SPDX-License-Identifier: Apache-2.0
"""What is promised, looked at from outside after every unit of work: kernel, file, objects, reports, writes.

Nothing here asks the agent's planner, tables or codecs; files and values are spelled anew from the kernel's documents.
What cannot be known from outside is not checked, never guessed: each "unless" below says why.

* ``origins``: by knob, every value of this boot that did not come from the agent since its wish for the knob began. A
  restore may give back one of them; as long as nobody else wrote, there is just one.
* ``live``: specs that the agent was shown and may still act upon. A change that has written something is finished
  although a newer spec has come, so only at rest the older ones are forgotten.
* Disturbed: something was moved in the kernel that the agent has not had a look at.

Sources: docs/promises.md; kernel/params.c; RFC v6 4/5 of the batch copy offload series (reason_mask, nr_dma_chan).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from numamigration_agent.baseline import FILE_NAME
from numamigration_agent.change import WriteKnob
from numamigration_agent.cluster import StateGone, StateSeen
from numamigration_agent.loop import Command, Event, Run
from numamigration_api.models.node_state import NodeMigrationStateStatus
from numamigration_api.vocabulary import Dialect
from tests.fakekernel.parsing import KernelError

if TYPE_CHECKING:
    from tests.fuzz.world import World

STATUS_BYTES_MAX: Final = 10_000

ENGINE, CHANNELS, REASONS = "offload.engine", "offload.channels", "offload.reasons"
MODE, RATE, DEMOTION = "balancing.mode", "balancing.promoteRateLimitMBps", "demotion.enabled"
THREADS, THREAD_COUNT = "offload.engine/CPUThreads", "cpuThreads.count"
PLACEMENT, DIE = "cpuThreads.placement", "cpuThreads.placement/die"

MAINLINE: Final = {
    MODE: "/proc/sys/kernel/numa_balancing",
    RATE: "/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps",
    DEMOTION: "/sys/kernel/mm/numa/demotion_enabled",
}
V5_DIR, V6_DIR = "/sys/module/dcbm", "/sys/module/dcbm/parameters"
DCBM_DIR, THREADS_DIR = "/sys/kernel/dcbm", "/sys/kernel/cpu_mt"
V4_FILES: Final = {ENGINE: f"{DCBM_DIR}/offloading", CHANNELS: f"{DCBM_DIR}/nr_dma_chan"}
V6_FILES: Final = {
    ENGINE: f"{V6_DIR}/offloading",
    CHANNELS: f"{V6_DIR}/nr_dma_chan",
    REASONS: f"{V6_DIR}/reason_mask",
}
THREAD_FILES: Final = {
    THREADS: f"{THREADS_DIR}/offloading",
    THREAD_COUNT: f"{THREADS_DIR}/threads",
    DIE: f"{THREADS_DIR}/cpuselect",
}
F_MID_FILES: Final = {
    **V6_FILES,
    "offload.cacheAllocate": f"{V6_DIR}/cache_ctrl",
    "batch.sgElements": f"{V6_DIR}/sg_elems",
}
F_EXT_FILES: Final = {
    **F_MID_FILES,
    "offload.locality": "/sys/module/mm_offload_dma/parameters/cross_node",
    "batch.minSize": f"{V6_DIR}/min_bytes",
    "batch.chunkMinSize": f"{V6_DIR}/min_chunk_bytes",
    "batch.chunkMaxSize": f"{V6_DIR}/max_chunk_bytes",
    "batch.descriptorsPerChannel": f"{V6_DIR}/max_inflight",
    "mapCache.enabled": f"{V6_DIR}/map_cache",
    "mapCache.capMiB": f"{V6_DIR}/map_cache_cap_mb",
    "mapCache.minKiB": f"{V6_DIR}/map_cache_min_kb",
    "mapCache.quantumKiB": f"{V6_DIR}/map_quantum_kb",
}
FILES: Final = {
    Dialect.NO_SERIES: MAINLINE,
    Dialect.V5: {ENGINE: f"{V5_DIR}/offloading", CHANNELS: f"{V5_DIR}/nr_dma_chan", **MAINLINE},
    Dialect.V6: {**V6_FILES, **MAINLINE},
    Dialect.V1: {ENGINE: f"{DCBM_DIR}/offloading", **MAINLINE},
    Dialect.ZY: {
        THREADS: "/proc/sys/vm/use_mt_copy",
        THREAD_COUNT: "/proc/sys/vm/limit_mt_num",
        PLACEMENT: "/proc/sys/vm/push_0_pull_1",
        **MAINLINE,
    },
    Dialect.V2: {**V4_FILES, **THREAD_FILES, **MAINLINE},
    Dialect.V3: {**V4_FILES, **THREAD_FILES, **MAINLINE},
    Dialect.V4: {**V4_FILES, **MAINLINE},
    Dialect.V6_SDXI: {**V6_FILES, **MAINLINE},
    Dialect.F_MID: {**F_MID_FILES, **MAINLINE},
    Dialect.F_EXT: {**F_EXT_FILES, **MAINLINE},
}
"""Every file that may ever be written, by dialect."""
JUDGED: Final = frozenset({Dialect.NO_SERIES, Dialect.V5, Dialect.V6})
"""Dialects of which is known here what shall become of a wish for offload; of the others only that nothing is lost."""

LEGAL: Final = {
    ENGINE: r"[01]",
    CHANNELS: r"[1-9]|1[0-6]",
    REASONS: r"none|(?!(?:.*,)?(?:all|none)(?:,|$))[a-z_]+(?:,[a-z_]+)*",
    MODE: r"[0-4]",
    RATE: r"0|[1-9][0-9]{0,9}",
    DEMOTION: r"[01]",
    THREADS: r"[01]",
}
NUMBER_OR_BOOLEAN: Final = r"0|[1-9][0-9]{0,9}|[YN]"
V5_REASONS: Final = frozenset({"compaction", "syscall_or_cpuset", "demotion", "numa_misplaced"})
TRIAL_REASONS: Final = {"mempolicy_mbind"}
"""Offloaded while an engine is tried: the least used one that the agent can cause."""
HAZARDS: Final = {"idxd": "OutOfOrderEngine", "ioatdma": "SharedEngine"}
USABLE: Final = frozenset({"ptdma", "ae4dma", "idxd", "ioatdma"})
BALANCING: Final = {"Off": "0", "Normal": "1", "Tiering": "2"}

Spec = Mapping[str, Any]


class BrokenPromiseError(AssertionError):
    """A promise does not hold; the text begins with its number."""


def require(holds: object, promise: int, text: str) -> None:
    """Raise unless it holds."""
    if not holds:
        raise BrokenPromiseError(f"promise {promise}: {text}")


def knob_path(dialect: Dialect, name: str) -> str:
    """Return the file of a settings field; empty when this dialect has none."""
    return FILES[dialect].get(name, "")


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
        self._names = {path: name for name, path in self._files.items()}
        self._groups: dict[str, list[str]] = {}
        for name in self._files:
            self._groups.setdefault(group_of(name), []).append(name)
        self._was_tried = self._on_trial = False
        self._judged = world.kernel.config.dialect in JUDGED
        self._live: list[Spec | None] = []
        self._unseen_edit = self._file_gone = self._file_lost = self._status_gone = self.is_spoiled = self._tampered = (
            False
        )
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
        self._failed_since_rest = self._is_blind = self._crashed = False
        self._ours: set[str] = set()
        self._written: list[str] = []
        self._to_undo: list[str] = []

    # --- what the kernel holds

    def held(self) -> dict[str, str]:
        """Return by field what the kernel holds, spelled as it is written; a missing driver holds nothing."""
        values: dict[str, str] = {}
        for name, path in self._files.items():
            try:
                file = self._kernel.open(path, os.O_RDONLY).file
            except KernelError:
                continue
            # Not by a read, which might have to wait for a lock of the kernel.
            values[name] = _as_written(name, file.row.show(self._kernel._state).decode())
        return values

    # --- what the world did

    def started(self) -> None:
        """Note that a new agent has begun: it knows nothing, and when both homes were lost nobody does."""
        self._live = []
        self._read.clear()
        self._is_blind = False
        self._crashed, self._on_trial = True, False
        self._begin_change()
        self._forget_when_both_homes_are_gone()

    def _forget_when_both_homes_are_gone(self) -> None:
        if self._file_lost and self._status_gone:
            for name, value in self.held().items():
                self._origins.setdefault(name, set()).add(value)

    def rebooted(self, *, keeps_folder: bool) -> None:
        """Note that every value of before is another one now; a file that was spoiled may still be."""
        self._begin_boot()
        self._unseen_edit = self._file_gone = self._file_lost = self._status_gone = self._tampered = False
        self.is_spoiled &= keeps_folder

    def disturbed(self) -> None:
        """Note that the kernel is not as the agent has seen it."""
        self._disturbed = True
        self._to_undo.clear()
        self._at_rest = None

    def written_by_others(self, name: str) -> None:
        """Note that somebody else wrote a knob; where the kernel lets him wait, his value comes later."""
        self.disturbed()
        self._others.add(name)
        self._begin_change()
        if name in self.held():
            self._origins.setdefault(name, set()).add(self.held()[name])
        if any(call.path == self._files[name] for call in self._kernel.blocked):
            self._origins[name] |= {"0", "1"} if name in {ENGINE, THREADS} else set()

    def driver_came(self) -> None:
        """Note that the driver's knobs are as after loading."""
        self.disturbed()
        self._reloaded = True
        for name, value in self.held().items():
            if name not in MAINLINE:
                self._origins.setdefault(name, set()).add(value)

    def status_lost(self) -> None:
        """Note that the node state is gone with its status."""
        self._unseen_edit = self._status_gone = True
        self._forget_when_both_homes_are_gone()

    def status_edited(self) -> None:
        """Note that the status is not what the agent told: with the file lost too, nobody knows what was before."""
        self._unseen_edit = self._status_gone = self._tampered = True
        self._forget_when_both_homes_are_gone()

    def file_lost(self, *, spoiled: bool) -> None:
        """Note that the file is not what the agent saved."""
        self._file_gone = self._file_lost = True  # the second also when the agent has found out
        self.is_spoiled |= spoiled
        self._forget_when_both_homes_are_gone()

    def tried(self) -> None:
        """Note that the agent has moved own pages, and may have lost its trust in the engine."""
        self._was_tried = self._on_trial = True
        self._begin_change()  # what follows opens the node as it was wished

    def saved(self) -> None:
        """Note that the file is whole."""
        self._file_gone = self._file_lost = False

    # --- what the agent was shown and did

    def handing_over(self, event: Event) -> None:
        """Note what the agent knows from now on."""
        if isinstance(event, StateSeen | StateGone):
            state = event.object if isinstance(event, StateSeen) else None
            self._live.append(state["spec"] if state else None)
            if self._asked_since_rest[-1:] != self._live[-1:]:
                self._asked_since_rest.append(self._live[-1])
            self._begin_change()
            pending = [task for task in self.world.tasks if isinstance(task, StateSeen | StateGone)]
            self._unseen_edit = self._unseen_edit and bool(pending)

    def began(self) -> None:
        """Note that the agent has read the file, and knows when it is not as it saved it."""
        status = (self.world.object or {}).get("status") or {}
        nothing_new = not (self._unseen_edit or (self._status_gone and not self.world.object))
        self._is_blind = (
            nothing_new
            and self.is_spoiled
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

    def loaded(self, path: str, text: str) -> None:
        """Note what a file showed."""
        self._read[path] = _as_written(self._names.get(path, ""), text)

    def issued(self, command: Command) -> None:
        """Check a write at the moment at which the agent decides on it."""
        if not isinstance(command, Run) or not isinstance(command.job, WriteKnob):
            return
        name = self._names.get(command.job.knob.path, "")
        require(name, 14, f"a write to {command.job.knob.path}")
        # A trial is brought to its end whatever comes: an engine that nobody has tried must not stay on.
        wished = self._on_trial or (self._live and (self._live[-1] or {}).get("revision"))
        require(wished, 6, f"{name}: a write although nobody wishes")
        modes = {groups_of(spec).get(group_of(name), {}).get("mode") for spec in self._live}
        opened = self._file_gone or name in self._open_fields()  # a lost file is still in the agent's memory
        require(modes & {"Apply", "Restore"} or opened or self._on_trial, 6, f"{name}: a write, modes are {modes}")
        require(not self._is_blind, 1, f"{name}: a write, and nobody knows what was before")
        self._check_homes(name, _as_written(name, command.job.knob.codec.format(command.job.value)))

    def _check_homes(self, name: str, text: str) -> None:
        """Both homes have the value of before, unless somebody took it from one and the agent cannot know."""
        if not self._file_gone:
            document = self._document()
            require(name in document.get("values", {}), 1, f"{name}: a write, and the file has no value of before")
            before = _as_written(name, document["values"][name])
            self._check_origin(name, before, "the file")
            fresh = not (name in self._safe_at_rest | self._ours or self._tampered or self.is_spoiled or self._crashed)
            known = not fresh or text == before or self._read.get(self._files[name]) == before
            require(known, 7, f"{name}: written over, and {before} is what is safe")
        shown = next((row for row in self._shown_rows() if row.get("field") == name), {}).get("baseline")
        if not self._unseen_edit and not self._on_trial:
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

    def _open_fields(self) -> set[str]:
        return {name for rows in self._document().get("openUnits", {}).values() for name in rows}

    def storing(self, path: str, text: str) -> None:
        """Check a write at the moment at which it reaches the kernel."""
        name = self._names.get(path, "")
        require(name, 14, f"a write to {path}")
        require(re.fullmatch(LEGAL.get(name, NUMBER_OR_BOOLEAN), text), 14, f"{path}: {text!r} is no value of it")
        require(self._read.get(path) != text, 2, f"{name}: {text} was written although it was read there before")
        if self._to_undo and group_of(name) == group_of(self._to_undo[0]):
            last = self._to_undo.pop()
            require(name == last, 4, f"{name} is undone before {last}, which was written after it")
        if not self._judged:
            return
        if name == ENGINE and text == "1":
            self._check_turning_on()
        elif name in {CHANNELS, REASONS}:
            self._check_order(name)

    def failed(self, path: str) -> None:
        """Note that the kernel did not take a write, so that those before it have to go back."""
        group = group_of(self._names[path])
        self._switched_on = False
        self._failed_since_rest = True
        if not self._to_undo and self._is_one_change():
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
        wishes = [groups_of(spec).get("offload", {}) for spec in self._live]
        self._on_trial |= name in {ENGINE, THREADS} and any(
            wish.get("verification") != "Off" for wish in wishes if wish
        )
        self._switched_on = name == ENGINE and self.held().get(ENGINE) == "1"

    def _wished_alone(self, group: str) -> Mapping[str, Any] | None:
        """Return the wish for a group when there is only one that the agent can act upon."""
        wishes = [groups_of(spec).get(group) for spec in self._live if (spec or {}).get("revision")]
        alone = len(wishes) == len(self._live) and all(wish == wishes[0] for wish in wishes)
        return wishes[0] if alone and wishes else None

    def _check_turning_on(self) -> None:
        wish = self._wished_alone("offload")
        if wish is None:
            return
        if wish["mode"] == "Restore":
            require("1" in self._origins[ENGINE], 7, "offload is turned on, and it was off before")
            return
        require(wish["mode"] == "Apply" and wish["settings"]["engine"] == "DMA", 4, f"offload on, the wish is {wish}")
        surplus = self._reasons_on() - _asked(wish["settings"])
        tries = wish["verification"] != "Off" and self._reasons_on() <= TRIAL_REASONS
        require(not surplus or tries or REASONS in self._others, 3, f"offload is turned on with {sorted(surplus)} too")
        if not self._disturbed:
            lacking = self._hazards(wish) - set(wish["acceptedRisks"])
            lacking -= set() if "memory_failure" in self._reasons_on() else {"MemoryFailureOffload"}
            require(not lacking, 5, f"offload is turned on and {sorted(lacking)} not accepted")

    def _reasons_on(self) -> set[str]:
        held = self.held().get(REASONS)
        return set(V5_REASONS) if held is None else set(held.split(",")) - {"none"}

    def _hazards(self, wish: Mapping[str, Any]) -> set[str]:
        drivers = {engine.driver for engine in self._kernel._state.engines}
        found = {HAZARDS[driver] for driver in drivers if driver in HAZARDS}
        if self._kernel.config.dialect is Dialect.V5:
            found.add("DirectIOLostWrite")
        if self._kernel.config.built_in:
            found.add("BuiltInDriverStall")
        if "memory_failure" in (wish["settings"].get("reasons") or ()):
            found.add("MemoryFailureOffload")
        return found | ({"UnverifiedEngine"} if wish["verification"] == "Off" else set())

    def _check_order(self, name: str) -> None:
        require(not self._switched_on, 4, f"{name} is written after the switch that it belongs to")
        wish = self._wished_alone("offload")
        if wish is None or self._disturbed or self.held().get(ENGINE) != "1" or ENGINE in self._others:
            return
        turns_off = wish["mode"] == "Restore" and self._origins[ENGINE] == {"0"}
        turns_off |= wish["mode"] == "Apply" and wish["settings"]["engine"] == "Off"
        require(not turns_off, 4, f"{name} is written before offload is off")

    # --- what it told

    def told(self, status: Mapping[str, Any]) -> dict[str, Any]:
        """Check a report; return it as the API server would keep it."""
        document = json.dumps(status)
        require(len(document) < STATUS_BYTES_MAX, 12, f"a status of {len(document)} bytes")
        NodeMigrationStateStatus.model_validate_json(document)
        found: dict[str, Any] = json.loads(document)
        return found

    def applied(self) -> None:
        """Check what the node state says now."""
        self._status_gone = False
        status = (self.world.object or {}).get("status") or {}
        if status.get("bootID") != self._kernel.snapshot().boot_id:
            return
        held = self.held()
        for group, result in status.get("groups", {}).items():
            wish = groups_of((self.world.object or {}).get("spec")).get(group, {})
            if result["state"] != "Restored" or wish.get("mode") != "Restore" or self._disturbed:
                continue
            for name in self._groups.get(group, ()):
                if name in held:
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
        if world.is_idle and self._live and not self._open_fields() and self._is_told(spec):
            self._rest(held)

    def _is_told(self, spec: Spec | None) -> bool:
        """Whether the status is about this spec, and nothing waits: for a report, a retry or a file that blocks."""
        status = (self.world.object or {}).get("status") or {}
        results = status.get("groups") or {}
        pending = any(result.get("state") == "Pending" for result in results.values())
        return not pending and status.get("observedRevision") == (spec or {}).get("revision")

    def _rest(self, held: dict[str, str]) -> None:
        self._check_rest(held)
        self._live = self._live[-1:]
        self._at_rest = held
        if not self._file_lost:
            self._safe_at_rest = frozenset(self._document().get("values", {}))
        self._failed_since_rest = self._crashed = self._on_trial = False
        self._begin_change()

    def _check_rest(self, held: Mapping[str, str]) -> None:
        if self._at_rest is not None:
            self._check_all_or_nothing(held, self._at_rest)
        self._asked_since_rest = self._asked_since_rest[-1:]
        wish, before = self._wished_alone("offload"), self._at_rest
        status = (self.world.object or {}).get("status") or {}
        if wish is None or before is None or self._disturbed or not self._judged:
            return
        result = (status.get("groups") or {}).get("offload", {})
        if result.get("state") == "Failed" and self._failed_since_rest and result.get("reason") != "UndoFailed":
            changed = {name for name in self._groups["offload"] if held.get(name) != before.get(name)}
            allowed = {ENGINE} if held.get(ENGINE) == "0" else set()
            require(changed <= allowed, 4, f"a failed change left {sorted(changed)} changed")

    def _check_all_or_nothing(self, held: Mapping[str, str], before: Mapping[str, str]) -> None:
        """Whoever no longer asks for a change finds all of it done or nothing, whatever ended the agent amidst."""
        asked = [spec for spec in self._asked_since_rest if (spec or {}).get("revision")]
        if len(asked) != 2 or self._disturbed:
            return
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
            if group not in {"balancing", "demotion"} and wish["mode"] == "Apply" and not self._judged:
                continue
            states = self._states(group, wish)
            require(result.get("state") in states, 11, f"{group} is {result}, not one of {sorted(states)}: {wish}")
            if result["state"] == "Ready":
                self._check_ready(group, wish)
            elif result["state"] != "Restored" and group == "offload" and self._judged and self._is_ours(ENGINE):
                require(self.held().get(ENGINE) != "1" or result["state"] == "Held", 3, f"offload is on and {result}")
        require(not self._open_fields(), 4, "a change is open in a calm node")
        safe = self._document().get("values", {})
        lacking = safe.keys() - {row.get("field") for row in self._shown_rows() if "baseline" in row}
        lacking &= lacking if not self._reloaded else MAINLINE.keys()  # a driver loaded anew is a new life
        require(not lacking, 1, f"the status of a calm node lacks the values of before of {sorted(lacking)}")

    def _is_ours(self, name: str) -> bool:
        return name in self._document().get("values", {}) and name not in self._others

    def _states(self, group: str, wish: Mapping[str, Any]) -> set[str]:
        if wish["mode"] == "Hold":
            return {"Held"}
        if wish["mode"] == "Restore":
            kept_out = (
                group == "offload" and self._kernel._state.other_migrator and "1" in self._origins.get(ENGINE, ())
            )
            return {"Restored", "Failed"} if kept_out else {"Restored"}
        if group in {"balancing", "demotion"}:
            return {"Ready"}
        return self._offload_states(wish) if group == "offload" else {"Unsupported"}

    def _offload_states(self, wish: Mapping[str, Any]) -> set[str]:
        engine, held = wish["settings"]["engine"], self.held()
        if ENGINE not in held or engine == "CPUThreads":
            return {"Unsupported"}
        if engine == "Off":
            return {"Ready"}
        drivers = {row.driver for row in self._kernel._state.engines}
        found = set[str]()
        if not drivers & USABLE:
            found.add("Unsupported")
        if self._hazards(wish) - set(wish["acceptedRisks"]):
            found.add("Refused")
        # What an engine shows when it is tried, or could not show, is known to the agent alone.
        if wish["verification"] != "Off" or self._was_tried:
            found |= {"Ready", "Refused", "Failed"}
        asked = _asked(wish["settings"])
        if REASONS in held and not asked & set(self._kernel.config.reason_names):
            found.add("Refused")
        if REASONS not in held and not asked >= V5_REASONS:
            found.add("Refused")
        if not found and self._kernel._state.other_migrator and held[ENGINE] == "0":
            found.add("Failed")
        # Which names the kernel knows is seen in the mask alone, and somebody may have narrowed that.
        narrowed = REASONS in held and len(self._origins.get(REASONS, ())) > 1
        return (found or {"Ready"}) | ({"Ready", "Refused"} if narrowed else set())

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
        else:
            self._check_offload_ready(held, wish)

    def _check_offload_ready(self, held: Mapping[str, str], wish: Mapping[str, Any]) -> None:
        settings = wish["settings"]
        on = settings["engine"] == "DMA"
        require(held[ENGINE] == str(int(on)), 11, "offload is Ready and not as asked")
        if on:
            surplus = self._reasons_on() - _asked(settings)
            require(not surplus, 3, f"offload is on with {sorted(surplus)} too")
        if on and "channels" in settings:
            usable = sum(row.channels for row in self._kernel._state.engines if row.driver in USABLE)
            wanted = min(settings["channels"], usable, 16)
            require(held[CHANNELS] == str(wanted), 11, f"{held[CHANNELS]} channels, not {wanted}")
        elif wish["release"] == "Restore":
            self._check_origin(CHANNELS, held[CHANNELS], "unnamed, the kernel")


def _targets(group: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return what a change writes, as far as it is the same on every host."""
    if group == "balancing" and "promoteRateLimitMBps" in settings:
        return {MODE: BALANCING[settings["mode"]], RATE: str(settings["promoteRateLimitMBps"])}
    return {}


def _asked(settings: Mapping[str, Any]) -> set[str]:
    """Return the migration reasons that may be offloaded; without a list every one but memory_failure."""
    every = {
        *("compaction", "memory_hotplug", "syscall_or_cpuset", "mempolicy_mbind", "numa_misplaced"),
        *("contig_range", "longterm_pin", "demotion", "damon", "never_migrated"),
    }
    return set(settings["reasons"]) if "reasons" in settings else every


def _as_written(name: str, text: str) -> str:
    """Return what would be written to get what a file shows."""
    stripped = text.removesuffix("\n")
    return {"true": "1", "false": "0"}.get(stripped, stripped) if name == DEMOTION else stripped


def listed(names: Iterable[str]) -> str:
    """Return names for people."""
    return ", ".join(sorted(names))
