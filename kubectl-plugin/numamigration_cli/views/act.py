# SPDX-License-Identifier: Apache-2.0
"""Changes that people ask for, as JSON patches that change nothing else, and only what was looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from numamigration_api.vocabulary import (
    CONTROL_CONFIG_MAP,
    FLEET_KEY,
    HOLD_KEY_PREFIX,
    FleetSwitch,
    PolicyMode,
    SettingsGroup,
)
from numamigration_cli.exits import Exit, Failure
from numamigration_operator.core.class_hold import Hold, read_hold
from numamigration_operator.core.fleet_switch import Control
from numamigration_operator.core.objects import Meta, PolicySpec
from numamigration_operator.core.tuned import Tuned, tuned_by

SWITCHES: Final[Mapping[FleetSwitch, str]] = {
    FleetSwitch.RUN: "policies hold again, rolled out as if they had just been written",
    FleetSwitch.HOLD: "nothing new is pushed, but what turns off or restores",
    FleetSwitch.OFF: "offload is turned off wherever this project turned it on, and nothing new is pushed",
    FleetSwitch.RESTORE: "every value of before is put back, whatever onDelete says",
}

Step = dict[str, Any]


def _same(meta: Meta) -> list[Step]:
    """Return the steps by which a patch is about this very spec of an object; its status moves all the time."""
    return [
        {"op": "test", "path": "/metadata/uid", "value": meta.uid},
        {"op": "test", "path": "/metadata/generation", "value": meta.generation},
    ]


def mode_steps(meta: Meta, now: str, wanted: PolicyMode) -> list[Step]:
    """Return the patch that pauses or resumes a policy; empty when it is so already.

    Raises:
        Failure: it is in mode Plan, which neither pausing nor resuming is about.
    """
    if now == PolicyMode.PLAN:
        advice = "it writes nothing; to write, edit the policy and set mode: Apply"
        raise Failure(Exit.FAILED, f"{meta.name} is in mode Plan", advice)
    if now == wanted:
        return []
    return [*_same(meta), {"op": "add", "path": "/spec/mode", "value": wanted}]


def rollback_steps(meta: Meta, content: Mapping[str, Any]) -> list[Step]:
    """Return the patch that makes an earlier content of a policy its spec; selector, priority and rollout stay.

    A field of the content replaces that of the spec as a whole, groups too.
    """
    return _same(meta) + [{"op": "add", "path": f"/spec/{field}", "value": content[field]} for field in sorted(content)]


def tuning_ends(spec: PolicySpec, content: Mapping[str, Any]) -> list[str]:
    """Return what to say before a tuned policy gets what was measured once as numbers of its own; else nothing."""
    offload = content["settings"].get(SettingsGroup.OFFLOAD, {})
    if tuned_by(spec) is not Tuned.APPLIED or "profiles" not in offload:
        return []
    return [
        "What was measured then stands in the policy as numbers of its own, which win over tuning.mode Auto.",
        "Take settings.offload.profiles out of it to have it tuned again.",
    ]


def switch_document(wanted: FleetSwitch) -> dict[str, Any]:
    """Return the apply that turns the fleet switch, and touches no hold."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONTROL_CONFIG_MAP},
        "data": {FLEET_KEY: wanted},
    }


def switch_question(wanted: FleetSwitch, server: str, now: FleetSwitch | None) -> str:
    """Return what a person is asked before the fleet switch is turned; `now` is None when nobody may tell."""
    stands = "" if now is None else f" from {now}"
    return f"{server}: turn the fleet switch{stands} to {wanted} ({SWITCHES[wanted]})?"


def held(control: Control, wanted: str) -> tuple[str, str, Hold | None]:
    """Return key, value and content of the hold that a person means by its key, digits, or a part of the class's name.

    Raises:
        Failure: there is none, or more than one.
    """
    holds = [(key, text, read_hold(text)) for key, text in control.holds]
    keys = {wanted, HOLD_KEY_PREFIX + wanted}
    found = [one for one in holds if one[0] in keys] or [
        one for one in holds if one[2] is not None and wanted.lower() in one[2].hardware_class.lower()
    ]
    if len(found) == 1:
        return found[0]
    stored = ", ".join(f"{key} ({hold.hardware_class if hold else 'unreadable'})" for key, _, hold in holds)
    problem = "more than one held class is" if found else "no held class is"
    raise Failure(Exit.FAILED, f"{problem} {wanted}", f"held are: {stored}" if stored else "no class is held")


def release_steps(key: str, text: str) -> list[Step]:
    """Return the patch that takes one hold out, unless it has changed."""
    return [{"op": "test", "path": f"/data/{key}", "value": text}, {"op": "remove", "path": f"/data/{key}"}]
