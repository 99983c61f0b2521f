# SPDX-License-Identifier: Apache-2.0
"""One node's agent on the simulated network: production's list/watch machine and answers, round a brain.

The brain is the real agent, whose jobs are done on a fake kernel (`machines`), or a model of what the operator can see
of one:

* it applies, holds and restores groups, a while after it has seen a spec, and keeps the values of before;
* it tries an engine before it turns it on, finds what corrupts or stalls, and keeps a corrupt engine off for this boot;
* it measures a soak on its own clock, keeps what was soaked over restarts and reboots, and reports at once then;
* it tells of folios that fail, and at once when a guardrail is crossed; then nothing soaks;
* it measures when it is asked to, and offload is pending meanwhile (`measuring`);
* it reports on a transition and in between, one report at a time, and anew what was lost or edited.

What the model does not have: knobs, codecs, hazards, all-or-nothing changes, drift, and counters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from random import Random
from typing import Any, Final, Protocol

import msgspec

from numamigration_agent.cluster import (
    COLLECTION,
    Answer,
    ApplyKind,
    StateGone,
    StateSeen,
    classify_apply,
    encode,
    list_query,
    read_event,
    read_page,
    watch_query,
)
from numamigration_agent.events import Command, Event, JobDone, Report, ReportDone, Run, Tick
from numamigration_agent.jobs import Job
from numamigration_agent.lanes import Lane
from numamigration_api.machinery.backoff import Backoff
from numamigration_api.machinery.clock import NEVER, timestamp
from numamigration_api.machinery.guardrails import crossed
from numamigration_api.machinery.listwatch import ListPage, ListWatch, Wait, Watch
from numamigration_api.vocabulary import AGENT_MANAGER, API_VERSION, STATE_KIND
from numamigration_operator.cluster.client import Response
from tests.simulation.clock import Clock, Process
from tests.simulation.kernels import ModelKernel, phrase
from tests.simulation.measuring import Bench, Probing
from tests.simulation.network import Network, Stream
from tests.simulation.objects import revision_of
from tests.simulation.server import APPLY, Request

REPORT_SECONDS: Final = (60.0, 100.0)
CHANGE_SECONDS: Final = (0.05, 2.0)
JOB_SECONDS: Final = (0.001, 0.05)
"""Until a thread does a job, and until its answer is heard: whatever happens may fall in between."""
TRIAL_SECONDS: Final = 2.0
RETRY_SECONDS: Final = (8.0, 30.0)
FOLIOS: Final = 1000  # more than any guardrail waits for

Status = dict[str, Any]


class Brain(Protocol):
    """What decides for one node: the interface of ``numamigration_agent.loop.Agent``."""

    def handle(self, event: Event, now: float, wall: Any) -> list[Command]:
        """Take an event; return what to do."""

    def wake_at(self) -> float:
        """Return when a Tick is due."""


class Hands(Protocol):
    """What does a brain's jobs."""

    def begin(self, lane: Lane, job: Job) -> JobDone | None:
        """Do a job; None while the kernel holds it up."""

    def over(self) -> Iterator[JobDone]:
        """Yield what is answered now of what was held up."""

    def due_at(self) -> float:
        """Return when to look again for what is held up; NEVER when nothing is."""


class StateFolder:
    """What an agent keeps on tmpfs: until the node boots anew."""

    def __init__(self) -> None:
        self.before: dict[str, str] = {}
        self.corrupt = False
        self.tried: tuple[str, int] | None = None
        self.probe: dict[str, Any] = {}


class ModelAgent:
    """A model of an agent; `settled` groups need nothing more."""

    def __init__(self, kernel: ModelKernel, folder: StateFolder, rng: Random, bench: Bench) -> None:
        self._kernel, self._folder, self._rng = kernel, folder, rng
        self._probing = Probing(bench, folder.probe, rng)
        self._object: Mapping[str, Any] | None = None
        self._spec: Mapping[str, Any] = {}
        self._generation = 0
        self._seen: tuple[Mapping[str, Any], int] = ({}, 0)
        self._results: dict[str, dict[str, str]] = {}
        self._in_force: dict[str, tuple[str, float]] = {}
        self._soaked: dict[str, str] = {}
        self._work_at, self._report_at = NEVER, NEVER
        self._sent: Status | None = None
        self._under_way = False
        self._retries = Backoff(1.0, 30.0)
        self._worked = False
        self._unlooked = True
        self._folios = 0
        self._crossed = self._told_crossed = False

    def handle(self, event: Event, now: float, wall: Any) -> list[Command]:
        """Take an event; return what to do."""
        match event:
            case StateSeen(state):
                self._see(state, now)
            case StateGone():
                self._object, self._work_at, self._report_at, self._sent = None, NEVER, NEVER, None
                self._retries.reset()  # the next object is told at once
            case ReportDone(result):
                self._under_way = False
                if result.kind is ApplyKind.APPLIED:
                    self._retries.reset()
                elif self._object is not None:
                    self._sent, self._unlooked = None, True
                    self._report_at = now + self._retries.next_wait(self._rng, result.retry_after)
            case _:
                pass
        if now >= self._work_at:
            self._work(now)
        self._measure(now)
        if self._is_crossed() is not self._crossed:
            self._crossed, self._unlooked = not self._crossed, True
        self._soak(now)
        return self._report(now, wall)

    def wake_at(self) -> float:
        """Return when a Tick is due."""
        report = NEVER if self._under_way else self._report_at
        soaks = (self._soak_ends(group) for group in self._in_force)
        probe = self._probing.due_at if self._may_measure else NEVER
        return min(self._work_at, report, probe, *soaks)

    # --- the node state

    def _see(self, state: Mapping[str, Any], now: float) -> None:
        first = self._object is None
        other = not first and self._object is not None and _uid(self._object) != _uid(state)
        self._object = state
        spec, generation = state.get("spec") or {}, int(state["metadata"].get("generation", 0))
        if first and not self._worked:
            told = (state.get("status") or {}).get("groups") or {}
            self._soaked = {name: one["soakedRevision"] for name, one in told.items() if one.get("soakedRevision")}
            self._probing.recall((state.get("status") or {}).get("probe") or {})
        if first or other or (spec, generation) != self._seen:
            self._seen = spec, generation
            self._work_at = now + self._rng.uniform(*CHANGE_SECONDS) + self._trial_seconds()
        elif self._worked and not self._under_way and _significant(state.get("status") or {}) != self._told():
            self._sent, self._report_at, self._unlooked = None, now, True  # somebody edited it, or it was lost

    def _told(self) -> Status | None:
        return None if self._sent is None else _significant(self._sent)

    def _trial_seconds(self) -> float:
        wish = (self._seen[0].get("groups") or {}).get("offload")
        wants = wish is not None and wish["mode"] == "Apply" and self._phrase("offload", wish).startswith("DMA")
        return TRIAL_SECONDS if wants and self._folder.tried != self._trial() else 0.0

    def _trial(self) -> tuple[str, int]:
        return self._kernel.boot_id, int(self._seen[0].get("verifyEpoch") or 0)

    # --- changes

    def _work(self, now: float) -> None:
        self._work_at, self._worked, self._unlooked = NEVER, True, True
        self._spec, self._generation = self._seen  # before, the results are about another one
        groups = self._spec.get("groups") or {}
        self._results = {name: self._done(name, wish, now) for name, wish in groups.items()}
        for name in [name for name in self._in_force if name not in groups]:
            del self._in_force[name]
        if any(result["state"] == "Failed" for result in self._results.values()) and not self._folder.corrupt:
            self._work_at = now + self._rng.uniform(*RETRY_SECONDS)

    def _done(self, group: str, wish: Mapping[str, Any], now: float) -> dict[str, str]:
        if group not in self._kernel.kind.groups:
            return _result("Unsupported", "KernelUnsupported")
        match wish["mode"]:
            case "Restore":
                self._in_force.pop(group, None)
                before = self._folder.before.get(group)
                if before is not None and not self._write(group, before, now):
                    return _result("Failed", "KernelError")
                self._folder.before.pop(group, None)
                return _result("Restored", "Restored")
            case "Hold":
                return _result("Held", "Paused")
            case _:
                return self._applied(group, wish, now)

    def _applied(self, group: str, wish: Mapping[str, Any], now: float) -> dict[str, str]:
        text = self._phrase(group, wish)
        if not text:  # a class that was not measured has what it had before
            keeps = wish["release"] == "Keep"
            text = self._kernel.values[group] if keeps else self._folder.before.get(group, self._kernel.values[group])
        elif group == "offload" and text != "Off":
            reason = self._distrust(wish)
            if reason:
                if self._kernel.values[group] != "Off" and group in self._folder.before:
                    self._write(group, "Off", now)
                self._in_force.pop(group, None)
                return _result("Failed", reason)
        self._folder.before.setdefault(group, self._kernel.values[group])
        if not self._write(group, text, now):
            self._in_force.pop(group, None)
            return _result("Failed", "KernelError")
        revision = revision_of(wish)
        if self._in_force.get(group, ("", 0.0))[0] != revision:
            self._in_force[group] = revision, now
        return _result("Ready", "AsExpected")

    def _phrase(self, group: str, wish: Mapping[str, Any]) -> str:
        return phrase(group, wish["settings"], self._kernel.kind.profile)

    def _distrust(self, wish: Mapping[str, Any]) -> str:
        if wish.get("verification") != "Off" and self._folder.tried != self._trial():
            self._folder.tried = self._trial()
            self._folder.corrupt |= self._kernel.corrupts
        if self._folder.corrupt:
            return "CorruptionDetected"
        return "EngineStalled" if self._kernel.stalls else ""

    def _write(self, group: str, text: str, now: float) -> bool:
        return self._kernel.values[group] == text or self._kernel.write(group, text, now)

    # --- the probe

    @property
    def _may_measure(self) -> bool:
        return self._object is not None and self._worked

    def _measure(self, now: float) -> None:
        """Go on with a measurement; it ends with the wish under which it began, and soaks begin anew after it."""
        if not self._may_measure:
            return
        before = self._probing.document()
        if self._wish_of_offload(self._seen[0]) != self._wish_of_offload(self._spec):
            self._probing.stop()
        self._probing.ask(str(((self._seen[0].get("probe")) or {}).get("id") or ""), now)
        wish, result = self._wish_of_offload(self._spec), self._results.get("offload")
        at_rest = wish is None or (wish["mode"] == "Apply" and result is not None and result["state"] == "Ready")
        while self._probing.go_on(now, may_begin=at_rest and self._work_at >= NEVER):
            pass
        if self._probing.runs:
            self._in_force.pop("offload", None)
        elif (before or {}).get("phase") == "Running" and result is not None and result["state"] == "Ready":
            self._in_force["offload"] = revision_of(self._spec["groups"]["offload"]), now
        self._unlooked |= before != self._probing.document()

    def _wish_of_offload(self, spec: Mapping[str, Any]) -> Mapping[str, Any] | None:
        wish = (spec.get("groups") or {}).get("offload")
        return None if wish is None else {**wish, "source": None}

    # --- soak

    def _soak_ends(self, group: str) -> float:
        revision, since = self._in_force[group]
        if self._soaked.get(group) == revision or self._crossed:
            return NEVER
        return since + float((self._spec.get("observe") or {}).get("soakSeconds") or 0)

    def _window(self) -> Status:
        """Return the numbers since the change: of engines that are on, and whose folios fail, or do not."""
        if not self._spec.get("observe") or self._kernel.values.get("offload", "Off") == "Off":
            return {}
        failed = FOLIOS if self._kernel.fails else 0
        after = {"foliosMigrated": FOLIOS, "foliosFailed": failed}
        return {"revision": self._spec.get("revision", ""), "before": {}, "after": after}

    def _is_crossed(self) -> bool:
        window, observe = self._window(), self._spec.get("observe") or {}
        return any(crossed(one, {}, window["after"]) is not None for one in observe.get("guardrails") or () if window)

    def _soak(self, now: float) -> None:
        if self._crossed:
            return
        for group, (revision, _) in self._in_force.items():
            if self._soak_ends(group) <= now:
                self._soaked[group], self._unlooked = revision, True

    # --- reports

    def _report(self, now: float, wall: Any) -> list[Command]:
        if self._object is None or self._under_way or not self._worked:
            return []
        if not self._unlooked and now < self._report_at:
            return []
        self._unlooked = False
        status = self._status(wall)
        news = self._sent is None or _significant(status) != self._told() or self._told_crossed is not self._crossed
        if not news and now < self._report_at:
            return []
        if self._sent is None and self._retries.attempts and now < self._report_at:
            self._unlooked = True
            return []
        self._sent, self._under_way, self._told_crossed = status, True, self._crossed
        self._report_at = now + self._rng.uniform(*REPORT_SECONDS)
        return [Report(status)]

    def _status(self, wall: Any) -> Status:
        groups = {}
        for name, result in self._results.items():
            soaked = self._soaked.get(name)
            wish = (self._spec.get("groups") or {}).get(name)
            same = soaked is not None and wish is not None and revision_of(wish) == soaked
            groups[name] = {**result, "soakedRevision": soaked} if same else result
        if self._probing.runs and groups.get("offload", {}).get("state") == "Ready":
            groups["offload"] = groups["offload"] | _result("Pending", "Probing")
        failed = any(result["state"] == "Failed" for result in self._results.values())
        status: Status = {
            "observedGeneration": self._generation,
            "reportedAt": timestamp(wall),
            "bootID": self._kernel.boot_id,
            "dialect": self._kernel.kind.dialect,
            "hardwareClass": self._kernel.kind.hardware_class,
            "groups": groups,
            "plans": [_planned(plan) for plan in self._spec.get("plans") or []] if self._worked else [],
            "conditions": [{"type": "Ready", "status": "False" if failed else "True", "reason": "AsExpected"}],
        }
        if self._spec.get("revision"):
            status["observedRevision"] = self._spec["revision"]
        if (probe := self._probing.document()) is not None:
            status["probe"] = probe
        if self._folder.tried is not None:
            status["verification"] = {
                "result": "Failed" if self._folder.corrupt else "Passed",
                "epoch": self._folder.tried[1],
                "driver": self._kernel.kind.driver,
            }
        if self._kernel.values.get("offload", "Off") != "Off":
            self._folios += self._rng.randrange(1000)
            status["statistics"] = {"foliosMigrated": self._folios, "foliosFailed": 0}
        if window := self._window():
            status["window"] = window
        if self._kernel.kind.driver:
            status["dmaEngines"] = [{"driver": self._kernel.kind.driver, "channels": 4, "usable": True}]
        return status


class SimAgent(Process):
    """A node's agent process: its watch, its reports, its brain.

    Attributes:
        on_delivered: told of each node state that reaches the agent; None when it is told that there is none.
        on_report: told of each status that the agent wants to be applied.
    """

    def __init__(self, clock: Clock, network: Network, rng: Random, node: str) -> None:
        super().__init__(clock)
        self.node, self.name = node, f"agent-{node}"
        self.on_delivered: Callable[[str, Mapping[str, Any] | None], None] = _unheard
        self.on_report: Callable[[Mapping[str, Any]], None] = _unread
        self._network, self._rng = network, rng
        self._waking = NEVER

    def start(self, brain: Brain, hands: Hands | None = None) -> None:
        """Start a life; a brain that wants jobs to be done needs hands."""
        self._network.drop_all(self.name)
        self.begin()
        self._brain, self._hands, self._machine = brain, hands, ListWatch(self._rng)
        self._looking = False
        self._listed: Mapping[str, Any] | None = None
        self._watch: Stream | None = None
        self._waking = NEVER
        self.at(self.now() + self._rng.uniform(0.0, 1.0), self._read)
        self.at(self.now(), lambda: self.take(Tick()))

    def die(self) -> None:
        """End this life."""
        self.end()
        self._network.drop_all(self.name)

    # --- brain

    def take(self, event: Event) -> None:
        """Hand an event to the brain and do what it asks for."""
        for command in self._brain.handle(event, self.now(), self.wall()):
            match command:
                case Report(status):
                    self.on_report(status)
                    self._apply(status)
                case Run():
                    self._soon(partial(self._perform, command))
        self._wake()

    def _soon(self, action: Callable[[], None]) -> None:
        self.at(self.now() + self._rng.uniform(*JOB_SECONDS), action)

    def _perform(self, run: Run) -> None:
        assert self._hands is not None
        self._hear(self._hands.begin(run.lane, run.job))

    def _hear(self, *answers: JobDone | None) -> None:
        """Bring answers to the brain, and look later for those that the kernel holds up."""
        for answer in answers:
            if answer is not None:
                self._soon(partial(self.take, answer))
        if self._hands is not None and not self._looking and (due := self._hands.due_at()) < NEVER:
            self._looking = True
            self.at(due, self._look_for_answers)

    def _look_for_answers(self) -> None:
        assert self._hands is not None
        self._looking = False
        self._hear(*self._hands.over())

    def _wake(self) -> None:
        when = self._brain.wake_at()
        if when >= NEVER or when == self._waking:
            return
        self._waking = when
        self.at(max(when, self.now()), lambda: self._tick(when))

    def _tick(self, when: float) -> None:
        if self._waking == when:
            self._waking = NEVER
            self.take(Tick())

    def _apply(self, status: Mapping[str, Any]) -> None:
        document = {"apiVersion": API_VERSION, "kind": STATE_KIND, "metadata": {"name": self.node}, "status": status}
        query = {"fieldManager": AGENT_MANAGER, "force": "true", "fieldValidation": "Ignore"}
        request = self._request("PATCH", f"{COLLECTION}/{self.node}/status", query, encode(document))
        self._network.send(self, request, lambda answer: self.take(ReportDone(classify_apply(_answer(answer)))))

    # --- the watch

    def _read(self) -> None:
        match self._machine.next(self.now()):
            case Wait(until=until):
                self.at(until, self._read)
            case ListPage() as page:
                request = self._request("GET", COLLECTION, list_query(page, self.node), b"")
                self._network.send(self, request, lambda answer: self._take_page(page, _answer(answer)))
            case Watch() as watch:
                request = self._request("GET", COLLECTION, watch_query(watch, self.node), b"")
                self._watch = self._network.watch(self, request, self._take_line, self._opened)

    def _take_page(self, step: ListPage, answer: Answer) -> None:
        page = read_page(answer)
        if isinstance(page, Answer):
            self._machine.failed(self.now(), status=page.status, retry_after=page.retry_after)
            self._read()
            return
        found = page.items[0] if page.items else None
        self._listed = found if not step.continue_token else self._listed or found
        last = self._machine.page_read(
            self.now(), resource_version=page.resource_version, continue_token=page.continue_token
        )
        if last:
            self._see(StateGone() if self._listed is None else StateSeen(self._listed))
            self._listed = None
        self._read()

    def _opened(self, answer: Response | None) -> None:
        if answer is None or answer.status >= 300:
            self._end_watch()
            self._machine.failed(self.now(), status=answer.status if answer is not None else None)
            self._read()

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.abandon()
            self._watch = None

    def _take_line(self, line: bytes | None) -> None:
        if line is None:
            self._end_watch()
            self._machine.watch_ended(self.now())
            self._read()
            return
        event = read_event(line)
        if isinstance(event, Answer):
            self._end_watch()
            self._machine.failed(self.now(), status=event.status, retry_after=event.retry_after)
            self._read()
            return
        self._machine.event_read(self.now(), event.resource_version)
        if event.state is not None:
            self._see(event.state)

    def _see(self, event: StateSeen | StateGone) -> None:
        self.on_delivered(self.node, event.object if isinstance(event, StateSeen) else None)
        self.take(event)

    def _request(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> Request:
        return Request(self.name, method, path, query, body, APPLY, self.now())


def _unheard(_node: str, _state: Mapping[str, Any] | None) -> None:
    pass


def _unread(_status: Mapping[str, Any]) -> None:
    pass


def _answer(answer: Response | None) -> Answer:
    return Answer(None, problem="no answer") if answer is None else Answer(*answer)


def _result(state: str, reason: str) -> dict[str, str]:
    return {"state": state, "reason": reason}


def _planned(plan: Mapping[str, Any]) -> dict[str, Any]:
    return {**plan["source"], **_result("Ready", "PlanOnly"), "wouldChange": 1}


def _uid(state: Mapping[str, Any]) -> Any:
    return state["metadata"].get("uid")


def _significant(status: Mapping[str, Any]) -> Status:
    plain = {key: value for key, value in status.items() if key not in {"reportedAt", "statistics", "window"}}
    return msgspec.json.decode(msgspec.json.encode(plain))  # type: ignore[no-any-return] # what an object has is no part of us
