# SPDX-License-Identifier: Apache-2.0
"""From a resolution and what the node's spec says now to what it shall say.

* A wish that ended is rewritten with mode Restore when its `release` says so, and dropped once the agent has confirmed
  it; with Keep it is dropped at once (docs/decisions/0005).
* A paused policy holds what is there: settings edited meanwhile do not reach nodes where it sources the group already.
* Until a winner's finalizer is seen, its groups stay as they are (promise 7: who pushes without it may never restore).

Rendering its own result again changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from numamigration_api.vocabulary import Engine, GroupMode, PolicyMode, Release, SettingsGroup
from numamigration_operator.core.resolve import PolicyFacts, Resolution
from numamigration_operator.core.wishes import Spec, Wish, means_same


def render(resolution: Resolution, now: Spec, restored: Collection[SettingsGroup]) -> Spec:
    """Return the spec that a node shall have.

    Args:
        resolution: who wins what there.
        now: what the spec says, or will say once the open write is through.
        restored: groups of `now` whose restore the agent has confirmed.
    """
    wishes = (
        (group, _wish(resolution.winners.get(group), group, now.wish(group), restored)) for group in SettingsGroup
    )
    return Spec(
        tuple((group, wish) for group, wish in wishes if wish is not None),
        tuple(policy.plan for policy in resolution.plans),
    )


def _wish(
    winner: PolicyFacts | None, group: SettingsGroup, now: Wish | None, restored: Collection[SettingsGroup]
) -> Wish | None:
    if winner is None:
        return None if now is not None and now.release is Release.KEEP else ended(now, done=group in restored)
    if not winner.armed:
        return now
    if winner.mode is PolicyMode.PAUSED and now is not None and _sourced(now, winner):
        return msgspec.structs.replace(now, mode=GroupMode.HOLD, release=winner.release)
    return winner.wishes[group]


def _sourced(now: Wish, winner: PolicyFacts) -> bool:
    return now.source.uid == winner.uid and now.mode is not GroupMode.RESTORE


def ended(now: Wish | None, *, done: bool) -> Wish | None:
    """Return what follows a wish that ends with a restore, which the agent has confirmed when it is `done`."""
    if now is None:
        return None
    if now.mode is GroupMode.RESTORE:
        return None if done else now
    return msgspec.structs.replace(now, mode=GroupMode.RESTORE)


def is_safe(before: Spec, after: Spec) -> bool:
    """Return whether going from `before` to `after` only restores, holds, releases, or turns offload off."""
    pairs = ((group, before.wish(group), after.wish(group)) for group in SettingsGroup)
    return all(means_same(old, new) or is_safe_wish(group, new) for group, old, new in pairs)


def is_safe_wish(group: SettingsGroup, wish: Wish | None) -> bool:
    """Return whether a wish, or the lack of one, only restores, holds, releases, or turns offload off."""
    if wish is None or wish.mode is not GroupMode.APPLY:
        return True
    return group is SettingsGroup.OFFLOAD and bool(msgspec.json.decode(wish.settings).get("engine") == Engine.OFF)
