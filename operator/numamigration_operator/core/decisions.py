# SPDX-License-Identifier: Apache-2.0
"""What the core decides, as plain data for the edges to carry out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from numamigration_api.vocabulary import Reason


class WriteKind(StrEnum):
    """What is written; path, field manager and subresource follow from it (``cluster.applier``)."""

    STATE_SPEC = "StateSpec"
    POLICY_STATUS = "PolicyStatus"
    POLICY_FINALIZER = "PolicyFinalizer"
    REVISION = "Revision"
    """A ControllerRevision in the operator's namespace, whole."""
    REVISION_DELETION = "RevisionDeletion"
    """Its end; the key's name is the ControllerRevision's, `patch` is DELETE."""
    PROBE = "Probe"
    """A node state's spec.probe, and nothing else of it."""
    PROFILE = "Profile"
    PROFILE_STATUS = "ProfileStatus"
    CLASS_HOLD = "ClassHold"
    """One key of the control ConfigMap; the key's name is that key, ``hold.<16 hex>``."""


class Patch(StrEnum):
    """How a write is sent; values are content types."""

    APPLY = "application/apply-patch+yaml"
    """Server-side apply: the body is all that this field manager wants to be there."""
    CREATE = "application/yaml"
    """No patch: the object is new, or stays as it is. JSON is YAML, and the other name is the deletion's."""
    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    """With `test` operations: for what must go also where another field manager owns it too."""
    DELETE = "application/json"
    """No patch: the object goes, if the preconditions of the body (``metav1.DeleteOptions``) hold."""


@dataclass(frozen=True, slots=True)
class WriteKey:
    """One place that is written; of several writes to one place only the latest counts."""

    kind: WriteKind
    name: str


@dataclass(frozen=True, slots=True)
class Write:
    """One request that changes one place.

    Attributes:
        key: kind and object name.
        head: the document that `patch` asks for, as JSON, or how it begins.
        safe: it only turns offload off or restores, so it is neither soaked nor budgeted, only paced.
        patch: how it is sent.
        asks: what of the body stays the same when it is decided anew, where that is not all of it.
        rest: how it goes on; thousands of writes that wait share these bytes.
    """

    key: WriteKey
    head: bytes
    safe: bool = False
    patch: Patch = Patch.APPLY
    asks: str = ""
    rest: bytes = b""

    @property
    def body(self) -> bytes:
        """The whole document."""
        return self.head + self.rest


@dataclass(frozen=True, slots=True)
class EventWish:
    """A Kubernetes Event on a policy, for people who type ``kubectl describe``."""

    policy: str
    policy_uid: str
    warning: bool
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Decisions:
    """What one look at the fleet asks for.

    Attributes:
        writes: in the order in which they should be started.
        events: to be posted, best effort.
        look_again: when time alone changes something (monotonic seconds); None when only events do.
        readiness: names of the Nodes whose Ready condition is to be read now.
        relist: Nodes and node states are to be listed once more, by lists that begin after this decision.
    """

    writes: tuple[Write, ...] = ()
    events: tuple[EventWish, ...] = ()
    look_again: float | None = None
    readiness: tuple[str, ...] = ()
    relist: bool = False
