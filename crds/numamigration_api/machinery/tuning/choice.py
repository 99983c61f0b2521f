# SPDX-License-Identifier: Apache-2.0
"""Which setting a hardware class shall have, and how sure that is.

A candidate is chosen only when it is surely faster than plain CPU copy, with two bounds: the chance that it is slower
at all, and the far smaller one that it is slower by ``Rules.harm``. Among those that pass, the greatest expected gain
less the cost of its channels wins, and within a tie the fewest channels. Else offload stays off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from numamigration_api.machinery.tuning.measures import (
    SPREAD_USUAL,
    Cells,
    Comparison,
    Standing,
    compare,
    gain,
    pooled_variance,
    standing,
)
from numamigration_api.machinery.tuning.samples import (
    BASELINE,
    FOLIOS_PER_BATCH,
    LeftOut,
    Mix,
    Setting,
    Shape,
)


class Rules(NamedTuple):
    """What a choice is held to.

    Attributes:
        doubt_slower: chance that the choice is slower than plain copy.
        doubt_harm: chance that it is slower by `harm` or more.
        harm: a slowdown that must not happen, as a share.
        tie: settings nearer to each other than this share are equal.
        channel_cost: share of throughput that one more channel or thread must bring, for they are shared.
        doubt_race: chance to lose a candidate that is better than the leader by more than a tie.
        interim: what a doubt is multiplied by where it would end a race early: who looks often is deceived more often.
        proof_samples: of each shape that matters; fewer prove nothing, for their likeness may be chance.
        settled_samples: of the same, before a race ends early.
    """

    doubt_slower: float = 1e-3
    doubt_harm: float = 1e-4
    harm: float = 0.02
    tie: float = 0.01
    channel_cost: float = 0.001
    doubt_race: float = 0.05
    interim: float = 0.1
    proof_samples: int = 3
    settled_samples: int = 5


RULES: Final = Rules()
SHOWN: Final = 0.025
"""Doubt on each side of the intervals of rows: 95 %, as people expect."""


class Candidate(NamedTuple):
    """One line of the table of a choice.

    Attributes:
        bytes_per_second: of the mix, with `low` and `high` as its 95 % interval; 0 where a shape was not measured.
        samples: that were taken.
        cpu_seconds: of one sample, on average.
        gain: over plain copy, as a share, with `gain_low` and `gain_high` as its 95 % interval.
        verdict: in words.
    """

    setting: Setting
    bytes_per_second: float = 0.0
    low: float = 0.0
    high: float = 0.0
    samples: int = 0
    cpu_seconds: float = 0.0
    gain: float = 0.0
    gain_low: float = 0.0
    gain_high: float = 0.0
    verdict: str = ""


class Choice(NamedTuple):
    """A decision with its reasons.

    Attributes:
        setting: the baseline when nothing is surely better.
        gain: expected over plain copy, as a share: 0.24 is 24 % faster.
        gain_low, gain_high: its interval, each bound as sure as `confidence` says, for all candidates together.
        confidence: that `setting` is not slower than plain copy.
        channel_cost: share of throughput that was set against its channels.
        rows: the baseline, then candidates by engine and channels.
        left_out: settings that were not measured, and why.
        reasons_left_out: migration reasons that cannot gain, for `reasons`.
        notes: what a person should know besides, a sentence each.
        probes: measurements that were made.
    """

    setting: Setting
    gain: float
    gain_low: float
    gain_high: float
    confidence: float
    channel_cost: float
    rows: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...]
    reasons_left_out: tuple[str, ...]
    notes: tuple[str, ...]
    probes: int

    def explain(self) -> str:
        """Return it in words and a table, for a terminal of 80 columns."""
        from numamigration_api.machinery.tuning.explain import explain  # the other way round it needs this module

        return explain(self)


class Evidence(NamedTuple):
    """All that a choice is made from.

    Attributes:
        cells: by setting, the baseline among them.
        weights: of the shapes that can gain.
        settings: the candidates.
    """

    cells: Mapping[Setting, Cells]
    weights: Mapping[Shape, float]
    settings: Sequence[Setting]

    @property
    def usual(self) -> float:
        """Relative variance of one sample on this machine."""
        every = (cell for cells in self.cells.values() for cell in cells.values())
        return pooled_variance(every, SPREAD_USUAL**2)

    def is_whole(self, setting: Setting) -> bool:
        """Whether a setting was measured at every shape."""
        cells = self.cells.get(setting, {})
        return bool(self.weights) and all(shape in cells and cells[shape].samples for shape in self.weights)

    def standings(self) -> dict[Setting, Standing]:
        """Return what is known of every whole setting; none when plain copy is not whole."""
        if not self.is_whole(BASELINE):
            return {}
        usual = self.usual
        whole = filter(self.is_whole, (BASELINE, *self.settings))
        return {one: standing(self.cells[one], self.weights, usual) for one in whole}


def cost(setting: Setting, rules: Rules) -> float:
    """Return what a setting's channels or threads cost, as a logarithm of throughput."""
    return rules.channel_cost * setting.channels


def is_surely_faster(found: Comparison, among: int, rules: Rules, *, interim: bool = False) -> bool:
    """Tell whether a candidate may be chosen, being one of so many; `interim` when that would end the race early."""
    share = (rules.interim if interim else 1) / among
    not_slower = found.at_least(rules.doubt_slower * share) > 0
    not_harmful = found.at_least(rules.doubt_harm * share) > math.log1p(-rules.harm)
    return not_slower and not_harmful and found.least >= (rules.settled_samples if interim else rules.proof_samples)


def best(standings: Mapping[Setting, Standing], among: int, rules: Rules) -> Setting:
    """Return the setting to have, of so many candidates."""
    found = {one: _against_baseline(standings, one) for one in standings if one != BASELINE}
    passing = {one: each.log_ratio for one, each in found.items() if is_surely_faster(each, among, rules)}
    return fewest(passing, rules) if passing else BASELINE


def _against_baseline(standings: Mapping[Setting, Standing], setting: Setting) -> Comparison:
    return compare(standings[setting], standings[BASELINE])


def fewest(log_ratios: Mapping[Setting, float], rules: Rules) -> Setting:
    """Return the best one, or one with fewer channels that is as good."""
    worth = {one: ratio - cost(one, rules) for one, ratio in log_ratios.items()}
    top = max(worth.values())
    equal = [one for one, value in worth.items() if value >= top - rules.tie]
    return min(equal, key=lambda one: (one.channels, -worth[one]))


def choose(
    evidence: Evidence,
    mix: Mix,
    *,
    rules: Rules,
    left_out: Iterable[LeftOut] = (),
    notes: Iterable[str] = (),
    cpu_seconds: Mapping[Setting, float] | None = None,
    probes: int = 0,
) -> Choice:
    """Decide, and say why."""
    standings, among = evidence.standings(), max(1, len(evidence.settings))
    setting = best(standings, among, rules)
    rows = tuple(
        _row(one, standings, setting, among, rules)._replace(
            samples=sum(cell.samples for cell in evidence.cells[one].values()),
            cpu_seconds=(cpu_seconds or {}).get(one, 0.0),
        )
        for one in (BASELINE, *evidence.settings)
    )
    found = _against_baseline(standings, setting) if setting != BASELINE else None
    return Choice(
        setting=setting,
        gain=found.gain if found else 0.0,
        gain_low=gain(found.at_least(rules.doubt_slower / among)) if found else 0.0,
        gain_high=gain(found.at_most(rules.doubt_slower / among)) if found else 0.0,
        confidence=1 - rules.doubt_slower,
        channel_cost=cost(setting, rules),
        rows=rows,
        left_out=tuple(left_out),
        reasons_left_out=reasons_left_out(mix),
        notes=tuple(notes),
        probes=probes,
    )


def reasons_left_out(mix: Mix) -> tuple[str, ...]:
    """Return the migration reasons that cannot gain: those of the mix, and those that never batch."""
    batched = {part.reason for part in mix.parts if part.shape.can_gain}
    never = [str(reason) for reason, folios in FOLIOS_PER_BATCH.items() if folios == 1 and reason not in batched]
    return tuple(dict.fromkeys([*mix.reasons_without_gain, *never]))


def _row(
    setting: Setting, standings: Mapping[Setting, Standing], chosen: Setting, among: int, rules: Rules
) -> Candidate:
    if setting not in standings:
        return Candidate(setting, verdict="not measured at every size")
    own, found = standings[setting], _against_baseline(standings, setting)
    speed, width = 1 / own.seconds_per_byte, -compare(own, own).at_least(SHOWN) / math.sqrt(2)  # counted twice
    row = Candidate(setting, speed, speed * (1 + gain(-width)), speed * (1 + gain(width)))
    if setting == BASELINE:
        return row._replace(verdict="chosen: nothing is surely faster" if chosen == BASELINE else "plain copy")
    return row._replace(
        gain=found.gain,
        gain_low=gain(found.at_least(SHOWN)),
        gain_high=gain(found.at_most(SHOWN)),
        verdict=_verdict(
            setting,
            found,
            compare(own, standings[chosen]),
            chosen,
            is_sure=is_surely_faster(found, among, rules),
            rules=rules,
        ),
    )


def _verdict(
    setting: Setting, found: Comparison, ahead: Comparison, chosen: Setting, *, is_sure: bool, rules: Rules
) -> str:
    if setting == chosen:
        return "chosen"
    if found.at_most(rules.doubt_race) < 0:
        return "slower than plain copy"
    if not is_sure:
        return "not surely faster"
    if ahead.log_ratio >= -rules.tie and setting.channels > chosen.channels:
        return "no faster, and more channels"
    return "faster, less than the choice"
