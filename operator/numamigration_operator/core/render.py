# SPDX-License-Identifier: Apache-2.0
"""From a resolution and what the node's spec says now to what it shall say.

* A wish that ended is rewritten with mode Restore when its `release` says so, and dropped once the agent has confirmed
  it; with Keep it is dropped at once (docs/decisions/0005).
  What it was to take over from, and may never have, may be there still: that ends as it is to end, or is held until a
  watch has shown what is there.
* What moves a knob waits for the rollout of the policy that wins the group; until then what is there stays, unless
  the policy whose wish that was is gone.
* What moves none is not held back: a release that changed, a pause and its end.
* A paused policy holds what is there: settings edited meanwhile do not reach nodes where it sources the group already.
* Until a winner's finalizer is seen, its groups stay as they are (promise 7: who pushes without it may never restore).

Rendering its own result again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from numamigration_api.vocabulary import Engine, GroupMode, PolicyMode, Release, SettingsGroup
from numamigration_operator.core.course import KEEP, Goal
from numamigration_operator.core.resolve import PolicyFacts, Resolution
from numamigration_operator.core.wishes import Spec, Wish, means_same, moves_same

SETTINGS_CACHED: Final = 4096
NO_RIVALS: Final = Spec()


class Turn(NamedTuple):
    """What the rollout of one policy says of one node.

    Attributes:
        goal: what the node shall have.
        admitted: it may be pushed now.
        stopped: nothing is turned on there for now, whatever the rollout says.
    """

    goal: Goal = KEEP
    admitted: bool = False
    stopped: bool = False


def render(
    resolution: Resolution,
    now: Spec,
    restored: Collection[SettingsGroup],
    turn: Callable[[PolicyFacts], Turn],
    rivals: Spec = NO_RIVALS,
) -> Spec:
    """Return the spec that a node shall have.

    Args:
        resolution: who wins what there.
        now: what the spec says, or will say once the open write is through.
        restored: groups of `now` whose restore the agent has confirmed.
        turn: what each winner's rollout says of this node.
        rivals: what other sources may have there in place of `now`.
    """
    sources = {policy.uid for policy in resolution.policies}
    groups = []
    for group in SettingsGroup:
        winner, wish = resolution.winners.get(group), now.wish(group)
        rival = rivals.wish(group)
        if rival is not None and wish is not None and _is_over(wish, winner, sources) and _keeps(wish):
            wish = wish if _keeps(rival) else _left(rival, sources)
        after = wish if winner is None else _wish(winner, group, wish, _wary(turn(winner), rival))
        if after is wish and wish is not None and _is_over(wish, winner, sources):
            after = _end(wish, done=group in restored)
        if after is not None:
            groups.append((group, after))
    return now._replace(groups=tuple(groups), plans=resolution.plan_wishes)


def _left(rival: Wish, sources: Collection[str]) -> Wish:
    """What stays of a wish that may have been replaced: where it goes on, nothing moves before it is seen."""
    moves = rival.source.uid in sources and rival.mode is GroupMode.APPLY
    return msgspec.structs.replace(rival, mode=GroupMode.HOLD) if moves else rival


def _wary(turn: Turn, rival: Wish | None) -> Turn:
    """What is held stays so while it is not known what is there."""
    return turn if rival is None else turn._replace(stopped=True)


def _is_over(wish: Wish, winner: PolicyFacts | None, sources: Collection[str]) -> bool:
    """Nobody wishes the group, although its policy may go on here with others; or that one is gone, or gave it up."""
    return winner is None or wish.source.uid not in sources or wish.mode is GroupMode.RESTORE


def _wish(winner: PolicyFacts, group: SettingsGroup, now: Wish | None, turn: Turn) -> Wish | None:
    if not winner.armed:
        return now
    sourced = now is not None and now.source.uid == winner.uid and now.mode is not GroupMode.RESTORE
    if winner.mode is PolicyMode.PAUSED:
        return msgspec.structs.replace(now, mode=GroupMode.HOLD, release=winner.release) if sourced and now else now
    kept = _kept(now, winner, stopped=turn.stopped) if sourced and now is not None else now
    if turn.goal.wishes is None:
        return kept
    goal = turn.goal.wishes.get(group)
    if goal is None:
        if not sourced:
            return now
        return ended(now, done=False) if turn.goal.undoing else _end(now, done=False)  # dropped once it is restored
    same = sourced and moves_same(now, goal) and not (turn.stopped and now is not None and now.mode is GroupMode.HOLD)
    if not (turn.admitted or same or is_safe_wish(group, goal)):
        return kept
    return goal if goal.release is winner.release else msgspec.structs.replace(goal, release=winner.release)


def _kept(now: Wish, winner: PolicyFacts, *, stopped: bool) -> Wish:
    """What stays while its policy's rollout has not come here: how it will end is as the policy says by now."""
    mode = now.mode if stopped else GroupMode.APPLY
    if (now.mode, now.release) == (mode, winner.release):
        return now
    return msgspec.structs.replace(now, mode=mode, release=winner.release)


def _end(now: Wish | None, *, done: bool) -> Wish | None:
    return None if now is not None and _keeps(now) else ended(now, done=done)


def _keeps(wish: Wish) -> bool:
    return wish.release is Release.KEEP and wish.mode is not GroupMode.RESTORE


def ended(now: Wish | None, *, done: bool) -> Wish | None:
    """Return what follows a wish that ends with a restore, which the agent has confirmed when it is `done`."""
    if now is None:
        return None
    if now.mode is GroupMode.RESTORE:
        return None if done else now
    return msgspec.structs.replace(now, mode=GroupMode.RESTORE)


def paused_offload(spec: Spec) -> Spec:
    """Return a spec whose offload is paused, if it asks for an engine: an agent turns nothing on then."""
    groups = (
        (group, wish)
        if group is not SettingsGroup.OFFLOAD or is_safe_wish(group, wish)
        else (group, msgspec.structs.replace(wish, mode=GroupMode.HOLD))
        for group, wish in spec.groups
    )
    return spec._replace(groups=tuple(groups))


def is_safe(before: Spec, after: Spec) -> bool:
    """Return whether going from `before` to `after` only restores, holds, releases, or turns offload off."""
    pairs = ((group, before.wish(group), after.wish(group)) for group in SettingsGroup)
    return all(means_same(old, new) or is_safe_wish(group, new) for group, old, new in pairs)


def is_safe_wish(group: SettingsGroup, wish: Wish | None) -> bool:
    """Return whether a wish, or the lack of one, only restores, holds, releases, or turns offload off."""
    if wish is None or wish.mode is not GroupMode.APPLY:
        return True
    return group is SettingsGroup.OFFLOAD and _engines(wish.settings) <= {Engine.OFF}


@lru_cache(maxsize=SETTINGS_CACHED)
def _engines(settings: bytes) -> frozenset[str]:
    """Return all that a node may be asked for, whatever its class; none where nothing is touched."""
    offload = msgspec.json.decode(settings)
    named = (one.get("engine") for one in offload.get("profiles") or ())
    return frozenset(str(one) for one in (offload.get("engine"), *named) if one is not None)
