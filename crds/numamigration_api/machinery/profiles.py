# SPDX-License-Identifier: Apache-2.0
"""Which MigrationProfile a node belongs to, and what a group that names profiles asks of it.

Shared by the agent, which does it, and by the operator and the plugin, which say it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from numamigration_api.machinery.canonical import revision_hash
from numamigration_api.vocabulary import Engine

_OF_DMA: Final = ("channels", "reasons", "locality", "cacheAllocate")


def profile_name(dialect: str, hardware_class: str) -> str:
    """Return the name of the profile of a class, such as ``v6-0f3c9a1b2d4e5f60``."""
    return f"{dialect.lower()}-{revision_hash({'dialect': dialect, 'hardwareClass': hardware_class})}"


def settings_of_class(offload: Mapping[str, Any], profile: str) -> dict[str, Any]:
    """Return the settings of the group offload for a node of a profile's class; empty: nothing is to be touched.

    A class that ``profiles`` names has its engine and channels, any other one those of the group itself.
    """
    plain = {key: value for key, value in offload.items() if key != "profiles"}
    named = next((one for one in offload.get("profiles") or () if one.get("name") == profile), None)
    if named is not None:
        plain = {key: value for key, value in plain.items() if key != "channels"}
        plain |= {key: named[key] for key in ("engine", "channels") if named.get(key) is not None}
    if "engine" not in plain:
        return {}
    if plain["engine"] == Engine.DMA:
        return plain
    return {key: value for key, value in plain.items() if key not in _OF_DMA}
