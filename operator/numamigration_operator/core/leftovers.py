# SPDX-License-Identifier: Apache-2.0
"""What of ours is still on a node whose settings are to be put back.

Believed is only what a node state says itself: a group that the operator dropped was confirmed by the agent before
(docs/decisions/0005), and one that it has yet to drop is back when the report about that very spec says so.
"""

from __future__ import annotations

from typing import NamedTuple

from numamigration_api.vocabulary import GroupMode, SettingsGroup
from numamigration_operator.core.node_facts import RESTORE_DONE
from numamigration_operator.core.objects import StateObject, StateStatus, Struct, WishView


class KnobView(Struct, frozen=True):
    """One knob, as the agent saw it last."""

    field: str
    observed: str | None = None
    baseline: str | None = None


class KnobStatus(StateStatus, frozen=True):
    """A node state's status with its knobs, which the operator at work never reads."""

    knobs: tuple[KnobView, ...] = ()


class KnobState(StateObject, frozen=True):
    """A NodeMigrationState with its knobs."""

    status: KnobStatus = KnobStatus()


class Leftover(NamedTuple):
    """A node that has not confirmed.

    Attributes:
        groups: that are still there, in the order of ``SettingsGroup``.
        why: for people.
        values: of knobs that are not as they were before, for people: ``offload.channels is 8, was 1``.
    """

    groups: tuple[SettingsGroup, ...]
    why: str
    values: tuple[str, ...] = ()


def leftover(state: KnobState) -> Leftover | None:
    """Return what is left on a node; None when everything there is as it was before."""
    left = {group: wish for group, wish in state.spec.groups.items() if not _is_back(state, group, wish)}
    if not left:
        return None
    values = tuple(
        f"{knob.field} is {_value(knob.observed)}, was {_value(knob.baseline)}"
        for knob in state.status.knobs
        if knob.baseline is not None and knob.observed != knob.baseline
    )
    groups = tuple(group for group in SettingsGroup if group in left)
    return Leftover(groups, "; ".join(dict.fromkeys(_why(state, group, left[group]) for group in groups)), values)


def _is_back(state: KnobState, group: SettingsGroup, wish: WishView) -> bool:
    result = state.status.groups.get(group)
    return wish.mode is GroupMode.RESTORE and _is_about(state) and result is not None and result.state in RESTORE_DONE


def _is_about(state: KnobState) -> bool:
    return state.status.observed_generation == state.metadata.generation


def _why(state: KnobState, group: SettingsGroup, wish: WishView) -> str:
    if wish.mode is not GroupMode.RESTORE:
        return "no operator has asked for it"
    result = state.status.groups.get(group)
    if _is_about(state) and result is not None:
        return f"{group}: {result.reason}{f': {result.message}' if result.message else ''}"
    reported = state.status_stored_at
    return f"the agent has not answered; its last report is of {reported}" if reported else "no agent has ever reported"


def _value(text: str | None) -> str:
    return "unknown" if text is None else text
