# SPDX-License-Identifier: Apache-2.0
"""Finds out that a watch is blind, by comparing what it told with complete lists.

A watch may be alive and tell nothing: kopf that looked for its resource a moment too early never watches it, and a
watch task that ended unexpectedly leaves an operator that looks well (nolar/kopf issue 1276).

A watch may be ahead of a list or a moment behind it. It is blind when a list differs from what it told, and the next
list, a whole interval later, still does, and it has told nothing of that object in between.
"""

from __future__ import annotations

from collections.abc import Mapping


class WatchCheck:
    """What one life of a watch told, by uid: the resource version."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}
        self._differed: dict[str, str | None] = {}

    def begun(self) -> None:
        """A new watch began; it has told nothing yet."""
        self._told, self._differed = {}, {}

    def told(self, uid: str, resource_version: str) -> None:
        """The watch told of an object."""
        self._told[uid] = resource_version

    def told_gone(self, uid: str) -> None:
        """The watch told that an object was deleted."""
        self._told.pop(uid, None)

    def is_blind(self, listed: Mapping[str, str]) -> bool:
        """Compare with a complete list: resource versions by uid."""
        told = self._told
        differs = {uid: told.get(uid) for uid in listed.keys() | told.keys() if listed.get(uid) != told.get(uid)}
        before, self._differed = self._differed, differs
        return any(uid in before and before[uid] == version for uid, version in differs.items())
