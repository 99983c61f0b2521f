# SPDX-License-Identifier: Apache-2.0
"""Asks for one measurement after the other until it is clear which setting is best, or the budget is spent.

Successive elimination (Even-Dar, Mannor, Mansour 2006) as a race in blocks (Maron, Moore 1993; Birattari and others
2002): a block measures every setting that is still in the race, and plain copy, once at one shape, in random order.

* All that are compared share their blocks, so a drift of the machine hits them alike (interleaved trials in random
  order: Abedi, Brecht 2017).
* The first block of each shape comes after a warm-up, whose sample counts as a probe and says nothing. Then the next
  block is of the shape that narrows the intervals most, by its weight and spread.
* A candidate leaves the race when it is surely not better than the leader by more than a tie, channels paid for
  (an indifference zone: Kim, Nelson 2001). What it costs to be wrong there is speed; so the doubt may be larger than
  that of the choice itself.
* The race ends when one is left that is surely faster than plain copy, or none, or with the budget. Who looks after
  every block is deceived more often, so ending early takes a tenth of the doubt (Haybittle 1971; Peto and others 1976).

A step machine: ``next()`` tells what to measure, ``take()`` what came out, ``choice()`` decides at any time. Whatever
the samples are, nothing raises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from random import Random
from typing import Final, TypeVar

from numamigration_api.machinery.tuning.choice import (
    RULES,
    Choice,
    Evidence,
    Rules,
    choose,
    cost,
    is_surely_faster,
)
from numamigration_api.machinery.tuning.measures import Cell, Comparison, Standing, compare, is_number, is_speed
from numamigration_api.machinery.tuning.samples import (
    BASELINE,
    Mix,
    Probe,
    Sample,
    Setting,
    Shape,
    candidates,
)

T = TypeVar("T")

GRID_ROUNDS: Final = 10
"""Measurements of each cell in a full grid: what the published numbers were made with."""
BUDGET_SHARE: Final = 3
"""A search takes at most one grid divided by this."""
RESERVE: Final = 0.5
"""Share of the budget that is kept to prove that the leader is faster than plain copy."""
SEEN_MIN: Final = 8
"""Samples of a leader before the race ends early: one that stalls now and then shall have the time to do so."""
CPU_SECONDS_MAX: Final = 1e6
"""That one measurement can take."""
FAILURES_MAX: Final = 3
"""Measurements of a setting without a number, before it leaves the race."""


def grid_probes(settings: Iterable[Setting], mix: Mix) -> int:
    """Return how many measurements a full grid takes: a warm-up and all settings, at every shape that can gain."""
    return (1 + (len(set(settings) - {BASELINE}) + 1) * GRID_ROUNDS) * len(mix.gaining)


def usual_budget(settings: Iterable[Setting], mix: Mix) -> int:
    """Return the probes that a search may take."""
    return grid_probes(settings, mix) // BUDGET_SHARE


class Search:
    """One search for the best setting of one machine.

    Args:
        settings: candidates, in any order.
        mix: what the node migrates.
        budget: probes at most.
        rng: source of chance.
        channels_present: DMA channels that the node has; None when nobody knows.
        rules: of race and choice.
    """

    def __init__(
        self,
        settings: Iterable[Setting],
        mix: Mix,
        budget: int,
        rng: Random,
        *,
        channels_present: int | None = None,
        rules: Rules = RULES,
    ) -> None:
        self._mix, self._budget, self._rng, self._rules = mix, budget, rng, rules
        self._settings, self._left_out = candidates(settings, mix, channels_present)
        self._racing = list(self._settings)
        self._weights = mix.gaining
        self._cells = {one: {shape: Cell() for shape in self._weights} for one in (BASELINE, *self._settings)}
        self._evidence = Evidence(self._cells, self._weights, self._settings)
        self._unseen = deque(self._shuffled(self._weights))
        self._queue: deque[tuple[Probe, bool]] = deque()
        self._failures: dict[Setting, int] = {}
        self._cpu_seconds: dict[Setting, float] = {}
        self._made = 0
        self._unasked = 0
        self._ended = False

    def next(self) -> Probe | None:
        """Return the measurement to be made, the same until it is taken; None when nothing is left to find out."""
        while not self._queue and not self._ended:
            self._plan()
        return self._queue[0][0] if self._queue and not self._ended else None

    def take(self, sample: Sample) -> None:
        """Take a measurement; one that was not asked for is only counted."""
        asked = self.next()
        if asked is None or (sample.setting, sample.shape) != asked:
            self._unasked += 1
            return
        _, counts = self._queue.popleft()
        self._made += 1
        self._ended = self._made >= self._budget
        if not counts:
            return
        if is_speed(sample.bytes_per_second):
            self._cells[asked.setting][asked.shape].add(1 / sample.bytes_per_second)
            if is_number(sample.cpu_seconds) and 0 < sample.cpu_seconds < CPU_SECONDS_MAX:
                self._cpu_seconds[asked.setting] = self._cpu_seconds.get(asked.setting, 0.0) + sample.cpu_seconds
        else:
            self._failed(asked)

    def choice(self) -> Choice:
        """Decide with what is known; after ``next()`` gave None that is the decision."""
        return choose(
            self._evidence,
            self._mix,
            rules=self._rules,
            left_out=self._left_out,
            notes=self._notes(),
            cpu_seconds={
                one: total / sum(cell.samples for cell in self._cells[one].values())
                for one, total in self._cpu_seconds.items()
            },
            probes=self._made,
        )

    # --- the race

    def _plan(self) -> None:
        """Fill the queue with one more block, or end."""
        if not self._weights or not self._racing:
            self._ended = True
        elif self._unseen:
            shape = self._unseen.popleft()
            self._ask([(Probe(BASELINE, shape), False), *self._block(shape)])
        else:
            standings = self._eliminate()
            if not self._ended:
                self._ask(self._block(self._most_wanted(standings)))

    def _ask(self, block: list[tuple[Probe, bool]]) -> None:
        if self._made + len(block) > self._budget:
            self._ended = True
        else:
            self._queue.extend(block)

    def _block(self, shape: Shape) -> list[tuple[Probe, bool]]:
        return [(Probe(one, shape), True) for one in self._shuffled([BASELINE, *self._racing])]

    def _shuffled(self, things: Iterable[T]) -> list[T]:
        found = list(things)
        self._rng.shuffle(found)
        return found

    def _eliminate(self) -> Mapping[Setting, Standing]:
        """Let go who cannot win any more; end when the winner is clear. Return what is known."""
        rules, among, standings = self._rules, len(self._settings), self._evidence.standings()
        found = {one: compare(standings[one], standings[BASELINE]) for one in self._racing}
        worth = {one: each.log_ratio - cost(one, rules) for one, each in found.items()}
        leader = max(worth, key=worth.__getitem__)
        self._racing = [
            one
            for one in self._racing
            if found[one].at_most(rules.doubt_race) > 0
            and (one == leader or self._may_beat(compare(standings[one], standings[leader]), one, leader))
        ]
        if self._made + len(self._racing) + 1 > self._budget * (1 - RESERVE) and leader in self._racing:
            self._racing = [leader]
        seen = sum(cell.samples for cell in self._cells[leader].values())
        is_clear = seen >= SEEN_MIN and is_surely_faster(found[leader], among, rules, interim=True)
        self._ended = not self._racing or (self._racing == [leader] and is_clear)
        return standings

    def _may_beat(self, found: Comparison, one: Setting, leader: Setting) -> bool:
        paid = cost(one, self._rules) - cost(leader, self._rules)
        return found.at_most(self._rules.doubt_race) - paid > self._rules.tie

    def _most_wanted(self, standings: Mapping[Setting, Standing]) -> Shape:
        """Return the shape that narrows the intervals most; for a proof, first the one of which least is known."""
        running = [standings[one] for one in (BASELINE, *self._racing)]
        thinnest = min(running, key=lambda one: one.least)
        if len(self._racing) == 1 and thinnest.least < self._rules.settled_samples:
            return thinnest.thinnest
        return max(self._weights, key=lambda shape: sum(one.narrowing[shape] for one in running))

    # --- what went wrong

    def _failed(self, probe: Probe) -> None:
        """Try once more, so that a block stays whole; leave out who fails again and again."""
        count = self._failures[probe.setting] = self._failures.get(probe.setting, 0) + 1
        if count < FAILURES_MAX:
            self._queue.append((probe, True))
            return
        self._queue = deque(one for one in self._queue if one[0].setting != probe.setting)
        self._racing = [] if probe.setting == BASELINE else [one for one in self._racing if one != probe.setting]
        if not self._racing:
            self._ended = True

    def _notes(self) -> list[str]:
        lost = sum(self._failures.values())
        gone = [str(one) for one, count in self._failures.items() if count >= FAILURES_MAX]
        share = self._mix.single_folio_share
        told = (
            (lost, f"{lost} measurements gave no speed (zero, negative, infinite or no number) and were dropped."),
            (gone, f"No more measured after {FAILURES_MAX} such: {'; '.join(gone)}."),
            (self._unasked, f"{self._unasked} samples were not asked for and were dropped."),
            (share, f"{100 * share:.0f} % of the bytes move one folio a batch; offload cannot speed these up."),
            (self._settings and not self._weights, "Nothing that this node migrates comes in batches."),
            (not self._settings, "There is no setting to try."),
            (self._weights and not self._evidence.is_whole(BASELINE), "Too few measurements to compare anything."),
        )
        return [text for applies, text in told if applies]
