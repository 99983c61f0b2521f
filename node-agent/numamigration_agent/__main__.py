# SPDX-License-Identifier: Apache-2.0
"""Starts the agent: settings, threads, signals. What to do is decided in ``loop``.

* The main thread feeds the machine from one queue; one thread for each lane carries out jobs, another watches the node
  state, another applies statuses. All but the main thread are daemons, so nothing that blocks keeps the process
  (promise 10).
* SIGTERM and SIGINT end it at once and change no knob: only Restore restores (promise 6).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from random import SystemRandom
from typing import Any, Final, assert_never

from numamigration_agent import __version__
from numamigration_agent.baseline import BaselineFile
from numamigration_agent.cluster import ApiClient, StateWatcher
from numamigration_agent.events import Command, Event, JobDone, Report, ReportDone, Run, Tick, Timing
from numamigration_agent.health import Health, HealthServer, Question
from numamigration_agent.jobs import Worker, perform
from numamigration_agent.kernel.pages import Mover, move_own_pages
from numamigration_agent.kernel.sysfs import Sysfs
from numamigration_agent.kernel.timed_moves import Movers, TimedMover
from numamigration_agent.lanes import Lane
from numamigration_agent.loop import Agent
from numamigration_agent.settings import AgentSettings, SettingsError, parse_settings
from numamigration_api.machinery.clock import NEVER
from numamigration_api.machinery.logs import LogFormat, LogLevel, set_up_logs
from numamigration_api.machinery.records import dataclass

log = logging.getLogger(__name__)

TICK_SECONDS_MAX: Final = 3600.0  # a wait without end would be one that no clock change ends


@dataclass(frozen=True, slots=True)
class Stop:
    """A signal asked for the end."""

    signal: int


@dataclass(frozen=True, slots=True)
class Crash:
    """A thread ended with an error of this program; an agent that limps would report nothing and look alive."""

    thread: str
    error: BaseException | None


# SimpleQueue, since put() is called from a signal handler, which may interrupt get() on the same thread.
Events = SimpleQueue[Event | Question | Stop | Crash]


class Edges:
    """Threads and connections of one agent."""

    def __init__(self, settings: AgentSettings, events: Events, move: Mover, move_timed: TimedMover) -> None:
        self._settings, self._events, self._move = settings, events, move
        self._sysfs = Sysfs(settings.host_root)
        self._move_timed = move_timed
        self._file = BaselineFile(settings.state_dir)
        self._workers = {lane: Worker(f"{lane.name.lower()}-jobs") for lane in Lane}
        self._reports: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
        self._applier = self._client()
        self._watcher = StateWatcher(
            self._client(),
            settings.node_name,
            events.put,
            rng=SystemRandom(),
            start_jitter_seconds_max=settings.start_jitter_seconds_max,
        )

    def open(self) -> None:
        """Start the threads."""
        self._watcher.start()
        threading.Thread(target=self._apply_reports, name="status-applier", daemon=True).start()

    def do(self, command: Command) -> None:
        """Carry out a command of the machine; the answer comes as an event."""
        match command:
            case Run(lane, job):
                self._workers[lane].start(
                    lambda: perform(job, self._sysfs, self._file, self._move, self._move_timed),
                    lambda answer: self._events.put(JobDone(lane, answer)),
                )
            case Report(status):
                self._reports.put(status)
            case _:
                assert_never(command)

    def close(self) -> None:
        """Let go of the API server; jobs on kernel files are left behind."""
        self._watcher.stop()
        self._applier.close()

    def _client(self) -> ApiClient:
        return ApiClient(self._settings.api_server, self._settings.ca_file, self._settings.token_file)

    def _apply_reports(self) -> None:
        while True:
            result = self._applier.apply_status(self._reports.get(), self._settings.node_name)
            self._events.put(ReportDone(result))


def run(
    settings: AgentSettings,
    events: Events,
    health: Health,
    move: Mover = move_own_pages,
    move_timed: TimedMover | None = None,
) -> int:
    """Run until a Stop or a Crash is in the queue; `health` is told of every event."""
    timing = Timing(
        report_min=settings.report_interval_seconds_min,
        report_max=settings.report_interval_seconds_max,
        drift_check=settings.drift_check_seconds,
        statistics_window=settings.statistics_window_seconds,
    )
    agent = Agent(timing, SystemRandom(), __version__, settings.batch_ceiling_pages)
    edges = Edges(settings, events, move, move_timed or Movers().move_timed)
    edges.open()
    event: Event | Question | Stop | Crash = Tick()
    while not isinstance(event, Stop | Crash):
        if isinstance(event, Question):
            event.answer(lambda: agent.status(time.monotonic(), datetime.now(UTC)))
        else:
            health.heard(event)
            for command in agent.handle(event, time.monotonic(), datetime.now(UTC)):
                edges.do(command)
        event = _next_event(events, agent.wake_at())
    if isinstance(event, Crash):
        log.critical("a thread crashed; ending", extra={"crashed": event.thread}, exc_info=event.error)
        edges.close()
        return 1
    log.info("stopping; every knob stays as it is", extra={"signal": signal.Signals(event.signal).name})
    edges.close()
    return 0


def _next_event(events: Events, wake_at: float) -> Event | Question | Stop | Crash:
    wait = TICK_SECONDS_MAX if wake_at == NEVER else min(max(0.0, wake_at - time.monotonic()), TICK_SECONDS_MAX)
    try:
        return events.get(timeout=wait)
    except Empty:
        return Tick()


def main(
    arguments: Sequence[str] | None = None, move: Mover = move_own_pages, move_timed: TimedMover | None = None
) -> int:
    """Run the agent; returns the exit code.

    Args:
        arguments: of the command line.
        move: moves the agent's own pages; another one where the kernel below --host-root is not the one it runs on.
        move_timed: moves and times them; None means child processes.
    """
    try:
        settings = parse_settings(sys.argv[1:] if arguments is None else arguments, os.environ)
    except SettingsError as error:
        sys.stderr.write(f"numamigration-agent: {error}\n")
        return 2
    set_up_logs(LogFormat(settings.log_format), LogLevel(settings.log_level))
    events: Events = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: events.put(Stop(received)))
    threading.excepthook = lambda args: events.put(Crash(args.thread.name if args.thread else "?", args.exc_value))
    log.info("starting", extra={"version": __version__, "node": settings.node_name})
    health = Health(events.put)
    try:
        server = HealthServer(settings.health_address, health) if settings.health_address else None
    except OSError as error:
        sys.stderr.write(f"numamigration-agent: health_address: cannot listen there: {error}\n")
        return 2
    if server is not None:
        server.start()
    return run(settings, events, health, move, move_timed)


if __name__ == "__main__":
    sys.exit(main())
