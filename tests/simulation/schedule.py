# SPDX-License-Identifier: Apache-2.0
"""Schedules: what happens in one cluster, drawn from one seed; run to rest, and made short when something is found."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any, Final, NamedTuple

from tests.shrinking import shrink
from tests.simulation.network import REQUEST_FAULTS
from tests.simulation.objects import Json
from tests.simulation.server import CONFIG_MAPS, NODES, POLICIES, PROFILES, REVISIONS, STATES
from tests.simulation.steps import REQUEST_STEPS, TUNED_STEPS
from tests.simulation.world import LABELS, OPERATORS, PROFILE_EDITS, SETTINGS, World, is_tuned

NODES_MIN, NODES_MAX = 8, 11
MOVES_PER_SCHEDULE: Final = 20
"""Of a fresh schedule; the last scene may bring some more."""
STEPS_MIN: Final = 150
FAULTS_MIN: Final = 4
POLICY_NAMES: Final = ("alpha", "beta", "gamma")
FOLIOS_FAIL: Final[Json] = {"metric": "foliosFailedShare", "max": "0.05", "minFolios": 512}
NOT_READY: Final[Json] = {"metric": "nodeNotReady", "max": "0", "minFolios": 512}
RUNS_MAX: Final = 250
"""To make one schedule shorter; each takes a tenth of a second."""


class Move(NamedTuple):
    """A method of `World` and its arguments, so many seconds after the move before."""

    after: float
    name: str
    args: tuple[Any, ...]

    def __str__(self) -> str:
        """Return it as a line of a replay."""
        return f"+{self.after:6.2f} s  {self.name}({', '.join(map(repr, self.args))})"


class Schedule(NamedTuple):
    """What happens; the same seed draws everything else that chance decides.

    `length` is how many moves were asked for when it was drawn: with the seed, all that it takes to draw it again.
    """

    seed: int
    nodes: int
    moves: tuple[Move, ...]
    length: int


class Finding(NamedTuple):
    """A schedule that does not end well."""

    schedule: Schedule
    at: float
    problem: str
    trace: str

    def __str__(self) -> str:
        """Return a replay that a person can read."""
        lines = "\n".join(f"  {number:2}. {move}" for number, move in enumerate(self.schedule.moves))
        head = f"seed {self.schedule.seed}, {self.schedule.nodes} nodes, at {self.at:.2f} s: {self.problem}"
        return f"{head}\n{lines}\n{self.trace}"


class Outcome(NamedTuple):
    """What running a schedule came to; `seconds` are the cluster's, `cpu` ours."""

    steps: int
    faults: int
    seconds: float
    cpu: float
    met: frozenset[tuple[str, str]]
    finding: Finding | None


# --- drawing --------------------------------------------------------------------------------------------------------


class Dice(NamedTuple):
    """What a move is drawn with."""

    rng: Random
    nodes: int
    tuned: bool = False

    def operator(self) -> int:
        return self.rng.randrange(len(OPERATORS))

    def node(self) -> int:
        return self.rng.randrange(self.nodes)

    def client(self) -> str:
        return OPERATORS[self.operator()] if self.rng.random() < 0.65 else f"agent-node-{self.node():02d}"

    def policy(self) -> str:
        return self.rng.choice(POLICY_NAMES)

    def seconds(self, *most: float) -> float:
        """Return some seconds: up to one of some numbers."""
        return round(self.rng.choice(most) * self.rng.random(), 2)

    def settings(self) -> Json:
        groups = self.rng.sample(sorted(SETTINGS), self.rng.choice((1, 1, 2, 3)))
        return {group: self.rng.choice(SETTINGS[group]) for group in groups}

    def selector(self) -> Json:
        return {"matchLabels": {"app": self.rng.choice(LABELS)}} if self.rng.random() < 0.5 else {}

    def rollout(self) -> Json:
        return {
            "canary": {"nodes": self.rng.choice((1, 2)), "soakSeconds": self.rng.choice((0, 5, 20))},
            "maxUnproven": self.rng.choice((1, 2, "10%", "50%", "100%")),
            "failureThreshold": self.rng.choice(("5%", "34%", 2)),
            "guardrails": self.guardrails(),
            "nodeDeadlineSeconds": 200,
            "onFailure": self.rng.choice(("Halt", "Rollback")),
        }

    def guardrails(self) -> list[Json]:
        return [one for one in (FOLIOS_FAIL, NOT_READY) if self.rng.random() < 0.3]

    def spec(self) -> Json:
        """Return a whole spec, with the API server's defaults in it."""
        plain = self.plain_spec()
        return plain | self.tuning(plain["settings"]) if self.tuned else plain

    def tuning(self, settings: Json) -> Json:
        """Return how settings are tuned: most often what was measured becomes those of offload."""
        mode, fixed = self.rng.choices(TUNING, TUNING_WEIGHTS)[0]
        if fixed:
            return {"tuning": {"mode": mode}, "settings": settings}
        return {"tuning": {"mode": mode}, "settings": {key: settings[key] for key in settings if key != "offload"}}

    def plain_spec(self) -> Json:
        """Return one that is not tuned."""
        return {
            "nodeSelector": self.selector(),
            "priority": self.rng.choice((50, 100, 100, 200)),
            "mode": "Apply",
            "settings": self.settings(),
            "acceptedRisks": [],
            "verification": "FirstUse",
            "unsupported": "BestEffort",
            "drift": "Correct",
            "rollout": self.rollout(),
            "onDelete": self.rng.choice(("Restore", "Restore", "Restore", "Keep")),
        }

    def edit(self) -> Json:
        """Return some fields of a spec."""
        if self.tuned and self.rng.random() < 0.3:
            return self.tuning(self.settings())
        fields: Json = self.rng.choice(
            (
                {"settings": self.settings()},
                {"settings": self.settings()},
                {"settings": self.settings()},
                {"priority": self.rng.choice((50, 100, 200))},
                {"nodeSelector": self.selector()},
                {"mode": self.rng.choice(("Apply", "Apply", "Paused", "Plan"))},
                {"rollout": self.rollout()},
                {"onDelete": self.rng.choice(("Restore", "Keep"))},
            )
        )
        return fields

    def jump(self) -> float:
        return self.rng.choice((-1, 1)) * self.seconds(1.0, 100.0, 100_000.0)

    def step(self) -> str:
        """Return a step that a request takes, most often one that bears the protocol."""
        return self.rng.choice(WEIGHTY_STEPS if self.rng.random() < 0.6 else REQUEST_STEPS)

    def end(self) -> tuple[str, str, float]:
        """Return what the next request of a step meets, what becomes of its sender, and for how long."""
        end = self.rng.choice(("crash_operator", "stop_operator"))
        return self.rng.choice(("", "late", "lost answer")), end, round(self.rng.uniform(*END_SECONDS), 2)

    def faults(self) -> list[str]:
        return [self.rng.choice(REQUEST_FAULTS) for _ in range(self.rng.choice((1, 1, 2, 4)))]


TUNING: Final = (("Auto", False), ("Auto", True), ("Recommend", True), ("Off", True))
"""How a policy is tuned, and whether it may name an engine and channels itself."""
TUNING_WEIGHTS: Final = (65, 10, 10, 15)
Draw = Callable[[Dice], tuple[Any, ...]]
WEIGHTY_STEPS: Final = ("push", "push", "reservation", "claim", "verdict", "hold", "policy status", "revision stored")
"""Of the protocol: what is promised here is lost if a failure is not thought of."""
END_SECONDS: Final = (2.0, 60.0)  # shorter and longer than a lease
SWITCHES: Final = ("run", "", "hold", "off", "restore", "nonsense")
TROUBLES: Final = ("refuses", "corrupts", "stalls", "fails")
WATCHED: Final = (POLICIES, STATES, NODES, REVISIONS, CONFIG_MAPS)
MOVES: Final[tuple[tuple[int, str, Draw], ...]] = (
    (6, "create_policy", lambda dice: (dice.policy(), dice.spec())),
    (12, "edit_policy", lambda dice: (dice.policy(), dice.edit())),
    (6, "delete_policy", lambda dice: (dice.policy(),)),
    (1, "strip_finalizer", lambda dice: (dice.policy(),)),
    (1, "wipe_policy_status", lambda dice: (dice.policy(),)),
    (3, "turn_switch", lambda dice: (dice.rng.choice(SWITCHES),)),
    (2, "delete_state", lambda dice: (dice.node(),)),
    (1, "edit_state", lambda dice: (dice.node(),)),
    (2, "wipe_status", lambda dice: (dice.node(),)),
    (1, "delete_lease", lambda _: ()),
    (3, "add_node", lambda dice: (dice.rng.randrange(dice.nodes + 3),)),
    (2, "remove_node", lambda dice: (dice.node(),)),
    (2, "relabel", lambda dice: (dice.node(), dice.rng.choice(LABELS))),
    (4, "crash_agent", lambda dice: (dice.node(), dice.seconds(1.0, 10.0, 60.0))),
    (3, "stop_agent", lambda dice: (dice.node(), dice.seconds(1.0, 10.0, 60.0))),
    (3, "reboot", lambda dice: (dice.node(), dice.seconds(10.0, 60.0))),
    (1, "lose_node", lambda dice: (dice.node(),)),
    (2, "unready", lambda dice: (dice.node(), dice.seconds(20.0, 100.0))),
    (2, "remove_hold", lambda _: ()),
    (1, "delete_revision", lambda dice: (dice.rng.randrange(10),)),
    (4, "spoil_kernel", lambda dice: (dice.node(), dice.rng.choice(TROUBLES))),
    (3, "heal_kernel", lambda dice: (dice.node(),)),
    (4, "crash_operator", lambda dice: (dice.operator(), dice.seconds(2.0, 10.0, 60.0))),
    (2, "terminate_operator", lambda dice: (dice.operator(),)),
    (4, "stop_operator", lambda dice: (dice.operator(), dice.seconds(2.0, 10.0, 60.0))),
    (3, "jump_clock", lambda dice: (dice.rng.choice(("server", dice.client())), dice.jump())),
    (7, "spoil_requests", lambda dice: (dice.client(), dice.faults())),
    (9, "spoil_step", lambda dice: (dice.step(), dice.rng.choice(REQUEST_FAULTS))),
    (6, "strike", lambda dice: (dice.step(), *dice.end())),
    (4, "cut_off", lambda dice: (dice.client(), dice.seconds(40.0))),
    (5, "cut_watches", lambda dice: (dice.client(),)),
    (4, "slow_watch", lambda dice: (dice.client(), dice.rng.choice(WATCHED), dice.seconds(20.0))),
    (4, "duplicate_events", lambda dice: (dice.client(), dice.rng.choice((1, 3)))),
    (2, "compact", lambda _: ()),
)
STRUCK: Final = ("delete_state", "lose_node", "remove_node", "reboot", "crash_agent")
TUNED_MOVES: Final[tuple[tuple[int, str, Draw], ...]] = (
    (8, "edit_profile", lambda dice: (dice.rng.randrange(3), dice.rng.choice(sorted(PROFILE_EDITS)))),
    (4, "delete_profile", lambda dice: (dice.rng.randrange(3),)),
    (8, "strike_probed", lambda dice: (dice.rng.choice(STRUCK),)),
    (3, "edit_probe", lambda dice: (dice.node(),)),
    (4, "spoil_tuned", lambda dice: (dice.rng.choice(("fails", "stalls", "refuses")),)),
    (8, "spoil_step", lambda dice: (dice.rng.choice(TUNED_STEPS), dice.rng.choice(REQUEST_FAULTS))),
    (8, "strike", lambda dice: (dice.rng.choice(TUNED_STEPS), *dice.end())),
    (3, "slow_watch", lambda dice: (dice.client(), PROFILES, dice.seconds(20.0))),
    *MOVES,
)
"""Of schedules whose policies are tuned."""


# --- scenes: what only some moves one after the other come to


def _late_push(dice: Dice) -> Iterator[Move]:
    """A push is under way for long, and overtaken by what takes it back."""
    name = dice.policy()
    yield Move(0.0, "spoil_step", ("push", "late"))
    yield Move(0.0, "edit_policy", (name, {"settings": dice.settings()}))
    back = ("delete_policy", (name,)) if dice.rng.random() < 0.5 else ("turn_switch", ("restore",))
    yield Move(dice.seconds(10.0), *back)
    yield Move(60.0, "turn_switch", ("run",))


def _late_reservation(dice: Dice) -> Iterator[Move]:
    """A reservation is under way for long, and overtaken by the next ones."""
    rollout = dice.rollout() | {"canary": {"nodes": 1, "soakSeconds": 5}, "maxUnproven": "50%"}
    yield Move(0.0, "spoil_step", ("reservation", "late"))
    yield Move(0.0, "edit_policy", (dice.policy(), {"settings": dice.settings(), "rollout": rollout}))
    yield Move(60.0, "cut_watches", (dice.client(),))


def _newcomer(dice: Dice) -> Iterator[Move]:
    """A node comes while its cell has something proven, and something newer is tried there."""
    rollout = dice.rollout() | {"canary": {"nodes": 1, "soakSeconds": 20}, "maxUnproven": "100%"}
    edit = {"settings": dice.settings(), "rollout": rollout}
    yield Move(60.0, "edit_policy", (dice.rng.choice(POLICY_NAMES[:2]), edit))
    for number in dice.rng.sample(range(dice.nodes, dice.nodes + 4), 2):
        yield Move(dice.seconds(3.0), "add_node", (number,))


def _bad_revision(dice: Dice) -> Iterator[Move]:
    """A revision fails on some nodes."""
    trouble = dice.rng.choice(("refuses", "fails"))
    rollout = dice.rollout() | {"guardrails": [FOLIOS_FAIL]}
    for node in dice.rng.sample(range(dice.nodes), 4):
        yield Move(0.0, "spoil_kernel", (node, trouble))
    yield Move(0.0, "strike", (dice.rng.choice(("verdict", "push", "proven", "policy status")), *dice.end()))
    settings = dice.settings() | {"offload": dice.rng.choice(SETTINGS["offload"][:2])}
    yield Move(1.0, "edit_policy", (dice.policy(), {"settings": settings, "rollout": rollout}))
    yield Move(20.0, "heal_kernel", (dice.node(),))


def _corrupt_class(dice: Dice) -> Iterator[Move]:
    """An engine is wrong, while more of its class are to be turned on."""
    for node in dice.rng.sample(range(dice.nodes), 3):
        yield Move(0.0, "spoil_kernel", (node, "corrupts"))
    if dice.rng.random() < 0.5:
        yield Move(0.0, "strike", ("hold", *dice.end()))
    settings = {"offload": dice.rng.choice(SETTINGS["offload"][:2])}
    yield Move(0.0, "edit_policy", (dice.policy(), {"settings": settings}))
    yield Move(30.0, "edit_policy", (dice.policy(), {"settings": settings | dice.settings()}))
    if dice.rng.random() < 0.5:
        yield Move(60.0, "remove_hold", ())


def _turned_away(dice: Dice) -> Iterator[Move]:
    """The fleet switch is turned in the middle of a rollout, and then the leader ends."""
    yield Move(0.0, "edit_policy", (dice.policy(), {"settings": dice.settings()}))
    yield Move(dice.seconds(5.0), "turn_switch", (dice.rng.choice(("hold", "off", "restore", "nonsense")),))
    for number in range(len(OPERATORS)):
        yield Move(1.0, "crash_operator", (number, 2.0))
    yield Move(60.0, "turn_switch", ("run",))


def _disputed(dice: Dice) -> Iterator[Move]:
    """What was measured does not do in service, and is taken back."""
    name = dice.policy()
    rollout = dice.rollout() | {"onFailure": "Rollback", "canary": {"nodes": 1, "soakSeconds": 20}}
    spec = dice.plain_spec() | {"tuning": {"mode": "Auto"}, "settings": {}, "rollout": rollout, "priority": 200}
    yield Move(0.0, "delete_policy", (name,))
    yield Move(5.0, "create_policy", (name, spec))
    for node in dice.rng.sample(range(dice.nodes), 5):
        yield Move(0.0, "spoil_kernel", (node, "fails"))
    yield Move(150.0, "spoil_tuned", ("fails",))
    yield Move(100.0, "heal_kernel", (dice.node(),))


def _measured(dice: Dice) -> Iterator[Move]:
    """A class is measured, and while that goes on, or after it, something befalls what was found."""
    yield Move(dice.seconds(60.0), "strike_probed", (dice.rng.choice(STRUCK),))
    if dice.rng.random() < 0.5:
        yield Move(dice.seconds(30.0), "turn_switch", ("hold",))
        yield Move(dice.seconds(60.0), "turn_switch", ("run",))
    yield Move(dice.seconds(120.0), "edit_profile", (dice.rng.randrange(3), dice.rng.choice(sorted(PROFILE_EDITS))))
    for number in range(len(OPERATORS)):
        yield Move(dice.seconds(20.0), "crash_operator", (number, 2.0))


SCENES: Final = (_late_push, _late_reservation, _newcomer, _bad_revision, _corrupt_class, _turned_away)
TUNED_SCENES: Final = (*SCENES, _disputed, _disputed, _measured, _measured)
SCENES_SHARE: Final = 0.06
WAYS_OFF: Final = ("off", "restore")
WAYS_OFF_EVERY: Final = 4  # schedules


def make_schedule(seed: int, length: int = MOVES_PER_SCHEDULE) -> Schedule:
    """Return the schedule of a seed and a number of moves: two policies first, then whatever comes."""
    rng = Random(f"schedule {seed}")
    nodes = rng.randint(NODES_MIN, NODES_MAX)
    tuned = is_tuned(seed)
    dice = Dice(rng, nodes, tuned)
    scenes, table = (TUNED_SCENES, TUNED_MOVES) if tuned else (SCENES, MOVES)
    weights = [weight for weight, _, _ in table]
    moves = [Move(0.0, "create_policy", (name, dice.spec())) for name in POLICY_NAMES[:2]]
    pace = rng.choice((2.0, 8.0, 20.0))
    while len(moves) < length:
        if rng.random() < SCENES_SHARE:
            moves += rng.choice(scenes)(dice)
            continue
        _, name, draw = rng.choices(table, weights)[0]
        gap = 0.0 if rng.random() < 0.15 else round(rng.expovariate(1 / pace), 2)
        moves.append(Move(gap, name, draw(dice)))
    last = rng.choices(("run", "hold", "off", "restore", None), (65, 5, 12, 8, 10))[0]
    if last is not None:
        moves.append(Move(1.0, "turn_switch", (last,)))
    return Schedule(seed, nodes, tuple(moves), length)


# --- running --------------------------------------------------------------------------------------------------------


def run(schedule: Schedule) -> Outcome:
    """Run a schedule to rest, or to the first thing that is not as it shall be."""
    logging.disable(logging.CRITICAL)
    begun = time.process_time()
    world = World(schedule.seed, schedule.nodes)
    finding = None
    try:
        for move in schedule.moves:
            world.pass_time(move.after)
            getattr(world, move.name)(*move.args)
        world.settle()
        if is_tuned(schedule.seed):
            world.stay_at_rest()
        if schedule.seed % WAYS_OFF_EVERY == 0:
            world.go_off(WAYS_OFF[schedule.seed // WAYS_OFF_EVERY % len(WAYS_OFF)])
    except Exception as error:  # noqa: BLE001 - whatever it is, it is found
        problem = f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(error)[-4:])
        finding = Finding(schedule, world.clock.now, problem, trace)
    finally:
        world.close()
        logging.disable(logging.NOTSET)
    return Outcome(
        steps=world.clock.steps,
        faults=world.coverage.faults,
        seconds=world.clock.now,
        cpu=time.process_time() - begun,
        met=frozenset(world.coverage.met),
        finding=finding,
    )


def run_seed(seed: int) -> Outcome:
    """Run the schedule of a seed."""
    return run(make_schedule(seed))


def shorten(finding: Finding) -> Finding:
    """Return a schedule that fails for the same reason with as few moves as can be."""

    def again(moves: tuple[Move, ...]) -> Finding | None:
        other = run(finding.schedule._replace(moves=moves)).finding
        return other if other is not None and _alike(other, finding) else None

    return shrink(finding, lambda one: one.schedule.moves, _left_out, again, RUNS_MAX)


def _left_out(moves: tuple[Move, ...], size: int) -> Iterable[tuple[Move, ...]]:
    """Yield shorter lists; what is left out leaves its time to the next move."""
    for start in range(0, len(moves), size):
        out, rest = moves[start : start + size], moves[start + size :]
        if rest:
            later = sum(move.after for move in out)
            rest = (rest[0]._replace(after=round(rest[0].after + later, 2)), *rest[1:])
        yield moves[:start] + rest


def _alike(one: Finding, other: Finding) -> bool:
    return one.problem[:40] == other.problem[:40]
