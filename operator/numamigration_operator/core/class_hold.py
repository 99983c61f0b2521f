# SPDX-License-Identifier: Apache-2.0
"""Corruption stops a class: one engine that copied wrong, and nothing is turned on where the same could happen.

* A class is a hardware class, a dialect and a driver of DMA engines. Its hold is a key of the control ConfigMap, put
  there by the operator and removed by a person; the three names are in its value.
* What offload a node has is paused once that is done: an agent turns nothing on then, after a reboot either.
* Every node of the class verifies again at once: ``spec.verifyEpoch`` of each is raised to the one in the hold.
* An agent keeps a corrupt engine off for the whole boot, whatever the epoch. So a spec whose epoch is greater than that
  of the report says that the report was taken in, and a key that a person removed does not come back.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from numamigration_api.machinery.canonical import revision_hash
from numamigration_api.vocabulary import CONTROL_CONFIG_MAP, HOLD_KEY_PREFIX
from numamigration_operator.core.decisions import Write, WriteKey, WriteKind
from numamigration_operator.core.node_record import NodeRecord
from numamigration_operator.core.objects import Struct

HOLD_KEY: Final = re.compile(re.escape(HOLD_KEY_PREFIX) + "[0-9a-f]{16}")


class Hold(Struct, frozen=True):
    """A held class.

    Attributes:
        verify_epoch: with which its nodes verify again.
        node: where the corruption was found first.
    """

    hardware_class: str
    dialect: str
    driver: str
    verify_epoch: int = 0
    node: str = ""

    @property
    def key(self) -> str:
        """Its key in the control ConfigMap."""
        names = {"hardwareClass": self.hardware_class, "dialect": self.dialect, "driver": self.driver}
        return HOLD_KEY_PREFIX + revision_hash(names)

    def concerns(self, record: NodeRecord) -> bool:
        """Return whether a node is of the class; one whose driver nobody knows is."""
        cell, report = record.cell, record.report
        if cell is None or (cell.hardware_class, cell.dialect) != (self.hardware_class, self.dialect):
            return False
        driver = report.verification.driver if report is not None else ""
        return not driver or not self.driver or driver == self.driver

    def __str__(self) -> str:
        return f"{self.key}: {self.driver or 'an engine'} corrupted pages on {self.node}"


def read_hold(text: str) -> Hold | None:
    """Return the hold that the value of a key says; None for a value that cannot be understood."""
    try:
        return msgspec.json.decode(text, type=Hold)
    except msgspec.DecodeError:
        return None


def hold_write(hold: Hold) -> Write:
    """Return the apply that puts one key into the control ConfigMap."""
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONTROL_CONFIG_MAP},
        "data": {hold.key: msgspec.json.encode(hold).decode()},
    }
    return Write(WriteKey(WriteKind.CLASS_HOLD, hold.key), msgspec.json.encode(body), safe=True)


def fresh_corruption(record: NodeRecord) -> int | None:
    """Return the epoch under which a node found its engine corrupt, unless that was taken in; else None."""
    if record.report is None or not record.is_corrupt:
        return None
    epoch = record.report.verification.epoch
    return epoch if record.base.verify_epoch <= epoch else None


def hold_of(record: NodeRecord, epoch: int) -> Hold:
    """Return the hold of a corrupt node's class, whose nodes shall verify with `epoch`."""
    cell, report = record.cell, record.report
    return Hold(
        hardware_class=cell.hardware_class if cell is not None else "",
        dialect=cell.dialect if cell is not None else "",
        driver=report.verification.driver if report is not None else "",
        verify_epoch=epoch,
        node=record.name,
    )
