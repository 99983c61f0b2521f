# SPDX-License-Identifier: Apache-2.0
"""Hardware classes: what was measured of each, what was chosen and why, and when it is measured anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from numamigration_api.machinery.clock import parse_timestamp, timestamp
from numamigration_api.machinery.profiles import profile_name, settings_of_class
from numamigration_api.vocabulary import PROFILE_SHORT_NAME, ProfilePhase, SettingsGroup
from numamigration_cli.text import Column, duration, plural, since
from numamigration_cli.views.rates import Rate, chosen_setting, gain_text, rates
from numamigration_operator.core.objects import MeasuredNode, ProfileObject, Recommendation, Struct
from numamigration_operator.core.remeasure import seconds_until_due
from numamigration_operator.core.tuned import is_edited

GIGA: Final = 1e9
CLASS_COLUMNS: Final = 16
"""Of a hardware class where there is no room: its beginning and its end."""
NAMES_COLUMNS: Final = 24
DUE: Final = "due"


class ProfileRow(Struct, frozen=True, omit_defaults=True):
    """A MigrationProfile.

    Attributes:
        gain: throughput by that of the plain copy by CPU, the lower end of what is sure; a decimal.
        nodes: how many were measured.
        disputes: how often it did not do in service what was measured.
        measured_anew: timestamp of when it is due; that of the look where it is due already.
        edited: somebody changed it by hand, so it is not used.
    """

    profile: str
    hardware_class: str
    dialect: str
    phase: str
    measured_anew: str
    engine: str = ""
    channels: int | None = None
    gain: str | None = None
    measured: str | None = None
    nodes: int = 0
    disputes: int = 0
    edited: bool = False
    message: str = ""


class ProfileReport(Struct, frozen=True):
    """Everything that is known of a hardware class.

    Attributes:
        effect: what nodes of the class have of it, in words.
        nodes: what each measured node found.
        rates: what the node measured whose choice the class has.
    """

    profile: ProfileRow
    effect: str
    nodes: tuple[MeasuredNode, ...]
    rates: tuple[Rate, ...]


def profiles(found: Iterable[ProfileObject], now: datetime) -> list[ProfileRow]:
    """Return what is shown of all profiles."""
    return [profile_row(one, now) for one in in_order(found)]


def settings_here(group: str, settings: Mapping[str, Any], dialect: str, hardware_class: str) -> Mapping[str, Any]:
    """Return what a group asks of a node: where it names profiles, only that of the node's own class counts."""
    if group != SettingsGroup.OFFLOAD or "profiles" not in settings:
        return settings
    return settings_of_class(settings, profile_name(dialect, hardware_class))


def in_order(found: Iterable[ProfileObject]) -> list[ProfileObject]:
    """Return profiles by hardware class, then dialect."""
    return sorted(found, key=lambda one: (one.spec.hardware_class, one.spec.dialect, one.metadata.name))


def profile_row(profile: ProfileObject, now: datetime) -> ProfileRow:
    """Return what is shown of one profile."""
    said, choice = profile.status, profile.status.recommendation
    edited = is_edited(said)
    wait = 0.0 if edited else max(0.0, seconds_until_due(said, now))
    return ProfileRow(
        profile=profile.metadata.name,
        hardware_class=profile.spec.hardware_class,
        dialect=profile.spec.dialect,
        phase=said.phase or ProfilePhase.MEASURING,
        measured_anew=timestamp(now + timedelta(seconds=wait)),
        engine=choice.engine if choice else "",
        channels=choice.channels if choice else None,
        gain=said.gain,
        measured=said.measured_at,
        nodes=len(said.nodes),
        disputes=said.disputes,
        edited=edited,
        message=said.message or "",
    )


def is_used(profile: ProfileObject) -> bool:
    """Return whether tuned policies have what was measured, or will once something is."""
    return not is_edited(profile.status) and profile.status.phase != ProfilePhase.DISPUTED


def explain(profile: ProfileObject, now: datetime) -> ProfileReport:
    """Return everything that is known of a hardware class."""
    row, choice = profile_row(profile, now), profile.status.recommendation
    return ProfileReport(row, effect(row), profile.status.nodes, rates(profile.status.results, choice))


def effect(row: ProfileRow) -> str:
    """Return what nodes of a class have of its profile."""
    if row.edited:
        return "Somebody edited it by hand, so it is not used."
    if row.phase == ProfilePhase.DISPUTED:
        return "In service it did not do what was measured: under tuning.mode Auto the class goes without offload."
    if not row.engine:
        return "Nothing is known yet: tuning.mode Auto leaves nodes of this class as they are."
    return f"Under tuning.mode Auto nodes of this class have: {_setting(row)}."


def _setting(row: ProfileRow | MeasuredNode) -> str:
    return str(chosen_setting(Recommendation(row.engine, row.channels)))


def table(now: datetime) -> tuple[Column[ProfileRow], ...]:
    """Return the columns of profiles."""
    return (
        Column("PROFILE", lambda row: row.profile),
        Column("PHASE", lambda row: "Edited" if row.edited else row.phase),
        Column("ENGINE", lambda row: row.engine),
        Column("CHANNELS", lambda row: row.channels),
        Column("GAIN", lambda row: gain_text(row.gain)),
        Column("AGE", lambda row: since(row.measured, now)),
        Column("DIALECT", lambda row: row.dialect, wide=True),
        Column("NODES", lambda row: row.nodes, wide=True),
        Column("DISPUTES", lambda row: row.disputes, wide=True),
        Column("ANEW", lambda row: anew(row, now), wide=True),
        Column("CLASS", lambda row: row.hardware_class, least=CLASS_COLUMNS),
        Column("MESSAGE", lambda row: row.message, wide=True),
    )


def anew(row: ProfileRow, now: datetime) -> str:
    """Return when a class is measured anew, such as ``in 27d``."""
    seconds = (parse_timestamp(row.measured_anew) - now).total_seconds()
    return f"in {duration(seconds)}" if seconds >= 1 else DUE


def below(rows: Iterable[ProfileRow], now: datetime) -> list[str]:
    """Return the lines below the table: of each class without a choice in use, why, and when it is measured."""
    lines: list[str] = []
    for row in rows:
        if row.edited or row.phase != ProfilePhase.MEASURED:
            lines += ["", f"{row.profile}: {_why(row)}", f"  {effect(row)}", f"  {_due(row, now)}"]
    return lines


def _why(row: ProfileRow) -> str:
    return f"{row.phase}: {row.message}" if row.message else row.phase


def _due(row: ProfileRow, now: datetime) -> str:
    if not row.measured and row.phase == ProfilePhase.MEASURING:
        return "measured as soon as a node of it is calm" if anew(row, now) == DUE else f"tried again {anew(row, now)}"
    return f"measured anew: {anew(row, now)}; at once: kubectl delete {PROFILE_SHORT_NAME} {row.profile}"


def head(report: ProfileReport, now: datetime) -> list[str]:
    """Return the lines above the tables: what was chosen, why, what follows, until when."""
    row, age = report.profile, since(report.profile.measured, now)
    lines = [
        f"{row.profile}: {row.phase}" + (f" {age} ago" if age else "") + _choice(row),
        *([f"  {row.message}"] if row.message else []),
        f"  {report.effect}",
        f"  dialect: {row.dialect}",
        f"  class: {row.hardware_class}",
        f"  {_due(row, now)}",
    ]
    return lines + ([f"  disputed {plural(row.disputes, 'time')} so far"] if row.disputes else [])


def _choice(row: ProfileRow) -> str:
    if not row.engine:
        return ""
    gain = f", surely {gain_text(row.gain)} against the plain copy by CPU" if row.gain else ""
    return f": {_setting(row)}{gain}"


NODES: Final[tuple[Column[MeasuredNode], ...]] = (
    Column("MEASURED NODE", lambda one: one.node, least=NAMES_COLUMNS),
    Column("CHOICE", _setting),
    Column("GAIN", lambda one: gain_text(one.gain)),
    Column("IN WORDS", lambda one: one.message),
)
RATES: Final[tuple[Column[Rate], ...]] = (
    Column("ONE CALL", lambda one: one.shape),
    Column("SETTING", lambda one: one.setting),
    Column("GB/S", lambda one: f"{one.measured.bytes_per_second / GIGA:.2f}"),
    Column("±", lambda one: f"{one.measured.standard_deviation / GIGA:.2f}" if one.measured.samples > 1 else ""),
    Column("SAMPLES", lambda one: one.measured.samples),
    Column("AGAINST CPU", lambda one: "" if one.is_baseline else gain_text(one.against)),
    Column("CPU S/GIB", lambda one: one.measured.cpu_seconds_per_gi_b, wide=True),
    Column("", lambda one: "chosen" if one.chosen else " "),
)
NO_RATES: Final = "There are no measurements in it."
EMPTY: Final = (
    "No hardware class was measured yet. A policy asks for it by tuning.mode: Recommend or Auto; docs/tuning.md"
)
