# SPDX-License-Identifier: Apache-2.0
"""The fleet switch: one word in a ConfigMap that beats every policy (promise 17).

* Absent means run. What is there and cannot be understood means hold, with the reason: a person who reached for the
  switch and mistyped must not see the fleet go on.
* ``hold`` lets through what only restores, releases, pauses or turns offload off; ``off`` turns offload off besides,
  where this project set it; ``restore`` puts back what was there before, whatever ``onDelete`` says.
* No switch touches a group that a node does not have: on a node that is not ours nothing happens.
* Back at ``run``, policies are pushed as if they had just been written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

import msgspec

from numamigration_api.vocabulary import CONTROL_CONFIG_MAP, FLEET_KEY, Engine, FleetSwitch, GroupMode, SettingsGroup
from numamigration_operator.core.class_hold import HOLD_KEY, read_hold
from numamigration_operator.core.objects import ConfigMapObject
from numamigration_operator.core.render import ended, is_safe_wish
from numamigration_operator.core.wishes import Spec, Wish, means_same

ENGINE_OFF: Final = msgspec.json.encode({"engine": Engine.OFF})
SHOWN_CHARACTERS_MAX: Final = 40  # of what somebody wrote into the ConfigMap


class Control(NamedTuple):
    """What the control ConfigMap says.

    Attributes:
        problem: why the switch is at hold although nobody wrote so; empty when somebody did, or it is not at hold.
        holds: values of the keys that each hold a class, by key.
    """

    switch: FleetSwitch = FleetSwitch.RUN
    problem: str = ""
    holds: tuple[tuple[str, str], ...] = ()


def read_control(config_map: ConfigMapObject | None) -> Control:
    """Return what the control ConfigMap says; None is an absent one. A word that is misspelled ends no hold."""
    if config_map is None:
        return Control()
    holds = tuple(sorted((key, value) for key, value in config_map.data.items() if HOLD_KEY.fullmatch(key)))
    return _read_switch(config_map, holds)._replace(holds=holds)


def _read_switch(config_map: ConfigMapObject, holds: tuple[tuple[str, str], ...]) -> Control:
    for key in sorted({*config_map.data, *config_map.binary_data} - {FLEET_KEY, *dict(holds)}):
        return unreadable(f"{_shown(key)}: not a key of it")
    for key, value in holds:
        if read_hold(value) is None:
            return unreadable(f"{key}: its value cannot be understood; remove the key to end the hold")
    if FLEET_KEY in config_map.binary_data:
        return unreadable(f"{FLEET_KEY}: is in binaryData, not in data")
    word = config_map.data.get(FLEET_KEY, "").strip()
    try:
        return Control(FleetSwitch(word.lower()) if word else FleetSwitch.RUN)
    except ValueError:
        return unreadable(f"{FLEET_KEY}: {_shown(word)} is none of {', '.join(FleetSwitch)}")


def unreadable(problem: str) -> Control:
    """Return the safe side of a ConfigMap that cannot be understood, or not be read."""
    return Control(FleetSwitch.HOLD, f"ConfigMap {CONTROL_CONFIG_MAP} cannot be understood: {problem}")


def under_switch(switch: FleetSwitch, now: Spec, wished: Spec, restored: Collection[SettingsGroup]) -> Spec:
    """Return what a node shall have once the switch has had its say.

    Args:
        switch: where it stands.
        now: what the node's spec says, or will say once the open write is through.
        wished: what the policies want.
        restored: groups of `now` whose restore the agent has confirmed.
    """
    if switch is FleetSwitch.RUN:
        return wished
    rule = RULES[switch]
    groups = ((group, rule(group, now.wish(group), wished.wish(group), group in restored)) for group in SettingsGroup)
    return wished._replace(groups=tuple((group, wish) for group, wish in groups if wish is not None))


def withheld(wished: Spec, wanted: Spec) -> frozenset[SettingsGroup]:
    """Return the groups that are not as the policies want them."""
    if wished is wanted:
        return frozenset()
    return frozenset(group for group in SettingsGroup if not means_same(wished.wish(group), wanted.wish(group)))


def _hold(group: SettingsGroup, now: Wish | None, wished: Wish | None, _restored: bool) -> Wish | None:
    return wished if means_same(now, wished) or is_safe_wish(group, wished) else now


def _off(group: SettingsGroup, now: Wish | None, wished: Wish | None, restored: bool) -> Wish | None:
    ours = group is SettingsGroup.OFFLOAD and now is not None
    if not ours or wished is None or wished.mode is GroupMode.RESTORE:
        return _hold(group, now, wished, restored)
    return msgspec.structs.replace(wished, mode=GroupMode.APPLY, settings=ENGINE_OFF)


def _restore(_group: SettingsGroup, now: Wish | None, _wished: Wish | None, restored: bool) -> Wish | None:
    return ended(now, done=restored)


Rule = Callable[[SettingsGroup, Wish | None, Wish | None, bool], Wish | None]
RULES: Final[Mapping[FleetSwitch, Rule]] = {
    FleetSwitch.HOLD: _hold,
    FleetSwitch.OFF: _off,
    FleetSwitch.RESTORE: _restore,
}


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[:SHOWN_CHARACTERS_MAX]}…")
