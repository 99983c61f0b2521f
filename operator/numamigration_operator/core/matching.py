# SPDX-License-Identifier: Apache-2.0
"""Which policies select which nodes: an edit looks at every node once, and most nodes share a few answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from numamigration_api.vocabulary import Release, SettingsGroup
from numamigration_operator.core.node_record import NodeRecord
from numamigration_operator.core.pool import POOL_VALUES_MAX
from numamigration_operator.core.resolve import PolicyFacts, Resolution, resolve
from numamigration_operator.core.selectors import keys_of, selects
from numamigration_operator.core.wishes import Spec


class Matching:
    """The policies, the first to win first, and what became of them on nodes with the same labels.

    Attributes:
        edited: uids of policies whose nodes have to be found anew; a dict keeps the order.
    """

    def __init__(self) -> None:
        self.edited: dict[str, None] = {}
        self._ranked: tuple[PolicyFacts, ...] = ()
        self._resolutions: dict[tuple[str, ...], Resolution] = {}
        self._matches: dict[tuple[str | None, ...], Resolution] = {}  # by the values of the labels that are asked for
        self._asked: tuple[str, ...] = ()  # keys of these labels

    def take(self, policies: Iterable[PolicyFacts]) -> None:
        """Take in the policies as they are now."""
        self._ranked = tuple(sorted((one for one in policies if not one.deleting), key=lambda one: one.rank))
        self._resolutions.clear()
        self._matches.clear()
        self._asked = tuple(sorted({key for facts in self._ranked for key in keys_of(facts.selector)}))

    def touched(self, nodes: Mapping[str, NodeRecord]) -> Iterator[str]:
        """Yield the nodes that edited policies select, or have selected."""
        edited = [facts for facts in self._ranked if facts.uid in self.edited]
        for name, record in nodes.items():
            if record.uid is None:
                continue
            labels = record.labels
            if not self.edited.keys().isdisjoint(record.matched) or any(selects(f.selector, labels) for f in edited):
                yield name

    def resolution(self, labels: Mapping[str, str]) -> Resolution:
        """Return the resolution of the policies that select these labels."""
        asked = tuple([labels.get(key) for key in self._asked])
        known = self._matches.get(asked)
        if known is None:
            if len(self._matches) >= POOL_VALUES_MAX:
                self._matches.clear()
            chosen = tuple(facts for facts in self._ranked if selects(facts.selector, labels))
            known = self._matches[asked] = self._resolution_of(chosen)
        return known

    def _resolution_of(self, policies: tuple[PolicyFacts, ...]) -> Resolution:
        uids = tuple(facts.uid for facts in policies)
        known = self._resolutions.get(uids)
        if known is None:
            known = self._resolutions[uids] = resolve(policies)
        return known


def left_behind(policies: Iterable[PolicyFacts], labels: Mapping[str, str]) -> Spec:
    """Return what policies that are being deleted, and restore, may have left on a node of which nothing is known."""
    ending = (one for one in policies if one.deleting and one.armed and one.release is Release.RESTORE)
    ranked = sorted((one for one in ending if selects(one.selector, labels)), key=lambda one: one.rank, reverse=True)
    wishes = {group: wish for one in ranked for group, wish in one.wishes.items()}  # the first to win comes last
    return Spec(tuple((group, wishes[group]) for group in SettingsGroup if group in wishes))
