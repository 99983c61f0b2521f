# SPDX-License-Identifier: Apache-2.0
"""The twin of the module that moves the agent's own pages: on a fake kernel they move inside the model.

    python -m tests.twin --host-root=... (and the agent's other flags)

is the agent itself, with the twin of the fake host whose files are there. The program that people install has no such
door: it moves its pages on the kernel that it runs on.
"""

from __future__ import annotations

from typing import Protocol

from numamigration_agent.kernel.pages import MoveAnswer, Mover, MoveRequest, Passage
from numamigration_api.vocabulary import MigrationReason
from tests.fakekernel.config import Workload
from tests.fakekernel.migration import THP_PAGES
from tests.fakekernel.model import Snapshot


class Kernel(Protocol):
    """A fake kernel, in this process or in another one."""

    def migrate(self, workload: Workload, folios: int) -> None:
        """Let a program migrate some folios now."""

    def snapshot(self) -> Snapshot:
        """Return the kernel's state."""


def twin(kernel: Kernel) -> Mover:
    """Return a mover for one host; on an engine that takes time it does not wait for the copies."""

    def move(request: MoveRequest) -> MoveAnswer:
        ways = [
            (way, batch.small, batch.huge)
            for batch in request.batches
            for way in ((batch.source, batch.destination), (batch.destination, batch.source))
        ]
        passages = []
        for (source, destination), small, huge in ways:
            wrong = sum(_migrate(kernel, request.reason, *part) for part in ((1, small), (THP_PAGES, huge)))
            wrong_at = 0 if wrong else -1
            passages.append(Passage(source, destination, small + huge, huge, wrong=wrong, wrong_at=wrong_at))
        return MoveAnswer(tuple(passages))

    return move


def _migrate(kernel: Kernel, reason: str, folio_pages: int, folios: int) -> int:
    """Migrate folios of one size and return how many of them are wrong then."""
    if not folios:
        return 0
    before = kernel.snapshot().corrupted_pages
    kernel.migrate(Workload(MigrationReason(reason), 0, folio_pages=folio_pages), folios)
    return -(-(kernel.snapshot().corrupted_pages - before) // folio_pages)
