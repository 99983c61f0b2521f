# SPDX-License-Identifier: Apache-2.0
"""What ``tuning.mode: Auto`` makes of a policy's settings: pure functions of the policy and of what was measured.

All profiles are in the content of every tuned policy, not only those of its nodes. So it does not follow from where
nodes are, and neither a restart nor a node that comes or goes makes a new revision; a node takes what its own class
has (``machinery.profiles``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from numamigration_api.machinery.canonical import revision_hash
from numamigration_api.vocabulary import PROFILES_MAX, Engine, GuardrailMetric, ProfilePhase, SettingsGroup, TuningMode
from numamigration_operator.core.objects import (
    Guardrail,
    PolicySpec,
    ProfileObject,
    ProfileStatus,
    Recommendation,
    Rollout,
    Struct,
)


class ClassSettings(Struct, frozen=True, omit_defaults=True):
    """``settings.offload.profiles[]``: engine and channels of one class, by the name of its profile."""

    name: str
    engine: str
    channels: int | None = None


Profiles = tuple[ClassSettings, ...]


GUARDRAILS: Final = (
    Guardrail(GuardrailMetric.FOLIOS_FAILED_SHARE, "0.01"),
    Guardrail(GuardrailMetric.MIGRATION_RATE_DROP, "0.5"),
    Guardrail(GuardrailMetric.MEMORY_PRESSURE, "10"),
    Guardrail(GuardrailMetric.CPU_PRESSURE, "50"),
)
"""Of a tuned policy that names none: live numbers may not fall behind those of before.

An engine that fails one folio in a hundred is not what was measured. Load alone moves the others, so their limits are
wide: a rate of migrations that halved, and pressure that is felt and worse than before.
"""


class Tuned(StrEnum):
    """What is made of measurements."""

    NO = "no"
    """Nothing is measured."""
    SHOWN = "shown"
    """It is measured, and shown in MigrationProfiles."""
    FIXED = "fixed"
    """The same, for the numbers that the policy gives win over Auto."""
    APPLIED = "applied"
    """What was measured becomes the settings."""


def is_fixed(spec: PolicySpec) -> bool:
    """Return whether a policy gives the numbers itself, which win over what is measured."""
    offload = spec.settings.get(SettingsGroup.OFFLOAD, {})
    return bool({"channels", "profiles"} & offload.keys()) or offload.get("engine") in (Engine.OFF, Engine.CPU_THREADS)


def tuned_by(spec: PolicySpec) -> Tuned:
    """Return what a policy makes of measurements."""
    if spec.tuning.mode is TuningMode.OFF:
        return Tuned.NO
    if spec.tuning.mode is TuningMode.RECOMMEND:
        return Tuned.SHOWN
    return Tuned.FIXED if is_fixed(spec) else Tuned.APPLIED


def guarded(spec: PolicySpec) -> Rollout:
    """Return how carefully a policy goes; what was measured is watched in service, also where nobody asked for it."""
    if tuned_by(spec) is not Tuned.APPLIED or spec.rollout.guardrails:
        return spec.rollout
    return msgspec.structs.replace(spec.rollout, guardrails=GUARDRAILS)


def profiles_of(objects: Iterable[ProfileObject]) -> Profiles:
    """Return what tuned policies have: of each measured class its recommendation, of a disputed one no offload."""
    usable = ((one.metadata.name, _settled(one)) for one in sorted(objects, key=lambda one: one.metadata.name))
    found = (ClassSettings(name, one.engine, one.channels) for name, one in usable if one is not None)
    return tuple(found)[:PROFILES_MAX]


def _settled(profile: ProfileObject) -> Recommendation | None:
    """Return what the nodes of a class shall have; None while nothing is known, or somebody edited it."""
    status = profile.status
    if status.digest != digest_of(status) or status.recommendation is None:
        return None
    return Recommendation(Engine.OFF) if status.phase == ProfilePhase.DISPUTED else status.recommendation


def digest_of(status: ProfileStatus) -> str:
    """Return the hash of what was measured, and of what is made of it."""
    content = {"phase": status.phase, "recommendation": status.recommendation, "nodes": status.nodes}
    return revision_hash(msgspec.to_builtins(content))


def is_edited(status: ProfileStatus) -> bool:
    """Return whether somebody changed by hand what the operator wrote; nothing is written yet in an empty one."""
    return status.digest != digest_of(status) and status != ProfileStatus()


def tuned_settings(spec: PolicySpec, profiles: Profiles) -> Mapping[SettingsGroup, dict[str, Any]]:
    """Return the settings of a policy; those of offload with what was measured, if it is tuned.

    The engine is left out: a class that was not measured yet stays as it is.
    """
    if tuned_by(spec) is not Tuned.APPLIED:
        return spec.settings
    offload = {key: value for key, value in spec.settings.get(SettingsGroup.OFFLOAD, {}).items() if key != "engine"}
    named = [
        {key: value for key, value in (("name", one.name), ("engine", one.engine), ("channels", one.channels)) if value}
        for one in profiles
    ]
    return {**spec.settings, SettingsGroup.OFFLOAD: {**offload, "profiles": named}}
