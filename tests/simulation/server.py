# SPDX-License-Identifier: Apache-2.0
"""An API server of dictionaries, as far as operator, agents and people use one, and as unkind as the real one.

* One counter gives every write its resourceVersion; a write that changes nothing gets none, and no event.
* Generations move with the spec, and at deletion; finalizers keep a deleted object.
* Server-side apply with owners of fields (`objects`); a status is written apart from the rest.
* Preconditions: resourceVersion and uid in a body answer 409; an apply for an object that is gone, with its uid, too.
* The rules of the CRDs: leader epochs and verifyEpoch never fall.
* Lists come in pages of one snapshot, watches begin at any version that is not forgotten; then it is 410.

Everything is checked at once and stored at once: what takes time, and what goes wrong on the way, is the network's
(`network`). Who wants to know of every write is told of it (`observers`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Final, NamedTuple

import msgspec

from numamigration_api.machinery.clock import timestamp
from numamigration_api.vocabulary import FENCE_MESSAGE, LATE_MESSAGE
from numamigration_operator.cluster.client import Response
from tests.simulation.clock import Process
from tests.simulation.objects import (
    InvalidPatchError,
    Json,
    Leaves,
    Path,
    drop_leaf,
    find,
    json_patch,
    leaves,
    merge,
    put,
    put_leaf,
)

NAMESPACE: Final = "numamigration-system"
POLICIES: Final = "/apis/numamigration.dev/v1alpha1/migrationpolicies"
STATES: Final = "/apis/numamigration.dev/v1alpha1/nodemigrationstates"
PROFILES: Final = "/apis/numamigration.dev/v1alpha1/migrationprofiles"
NODES: Final = "/api/v1/nodes"
CONFIG_MAPS: Final = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
LEASES: Final = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
REVISIONS: Final = f"/apis/apps/v1/namespaces/{NAMESPACE}/controllerrevisions"
EVENTS: Final = "/apis/events.k8s.io/v1/namespaces/default/events"
COLLECTIONS: Final = (POLICIES, STATES, PROFILES, NODES, CONFIG_MAPS, LEASES, REVISIONS, EVENTS)
WITH_STATUS: Final = frozenset({POLICIES, STATES, PROFILES})
"""Kinds with a status of its own and a generation."""
PAGE_ITEMS_MAX: Final = 5  # fewer than any client asks for, so that every list has pages
APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
ERROR_REASONS: Final = {404: "NotFound", 409: "Conflict", 410: "Expired", 422: "Invalid"}
HISTORY_MAX: Final = 4000
IDENTITY: Final = frozenset({("metadata", "name"), ("metadata", "uid"), ("metadata", "resourceVersion")})
"""What belongs to nobody."""


class Request(NamedTuple):
    """One request; `client` is who sends it, in which of its lives, and when."""

    client: str
    method: str
    path: str
    query: Mapping[str, str]
    body: bytes
    content_type: str
    sent_at: float
    life: int = 0

    @property
    def collection(self) -> str:
        """Of the object or list that is asked for."""
        return collection_of(self.path)

    @property
    def writes(self) -> bool:
        """Whether it changes something."""
        return self.method != "GET"


@lru_cache(maxsize=4096)
def collection_of(path: str) -> str:
    """Return the path of the list that an object is of, or the path itself; empty for what is not kept here."""
    return next((one for one in COLLECTIONS if path == one or path.startswith(f"{one}/")), "")


class Written(NamedTuple):
    """A write that changed something: the object before and after; None where there was or is none."""

    at: float
    request: Request | None
    collection: str
    name: str
    before: Json | None
    after: Json | None

    @property
    def client(self) -> str:
        """Who wrote."""
        return self.request.client if self.request is not None else "server"

    @property
    def identity(self) -> str:
        """Who wrote, and in which of its lives, as the Lease names it."""
        return f"{self.client}_{self.request.life if self.request is not None else 0}"

    @property
    def sent_at(self) -> float:
        """When it was sent."""
        return self.request.sent_at if self.request is not None else self.at


class Change(NamedTuple):
    """One event of a watch."""

    version: int
    collection: str
    name: str
    labels: frozenset[str]
    line: bytes


@dataclass(slots=True)
class Stored:
    """One version of an object, who owns which field of it, and when each owner wrote last."""

    body: Json
    owners: dict[tuple[str, str], frozenset[Path]]
    times: dict[tuple[str, str], str]
    raw: bytes = b""
    known: Leaves = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Its resourceVersion."""
        return str(self.body["metadata"]["resourceVersion"])

    @property
    def labels(self) -> frozenset[str]:
        """The names of its labels."""
        return frozenset(self.body["metadata"].get("labels") or {})

    @property
    def fields(self) -> Leaves:
        """What has an owner."""
        if not self.known:
            self.known = leaves(self.body)
        return self.known

    def encoded(self) -> bytes:
        """Return the object as answers and watches show it."""
        if not self.raw:
            fields = [
                {"manager": manager, "subresource": part, "time": self.times[manager, part]}
                for manager, part in self.owners
            ]
            metadata = {**self.body["metadata"], "managedFields": fields}
            self.raw = msgspec.json.encode({**self.body, "metadata": metadata})
        return self.raw


class Refusal(Exception):  # noqa: N818 - an answer, not an error of ours
    """The server does not do it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _epoch_never_falls(*path: str) -> Callable[[Json, Json], str]:
    def check(before: Json, after: Json) -> str:
        old, new = find(before, path), find(after, path)
        return FENCE_MESSAGE if old is not None and (new is None or new < old) else ""

    return check


def _verify_epoch_never_falls(before: Json, after: Json) -> str:
    old, new = find(before, ("spec", "verifyEpoch")), find(after, ("spec", "verifyEpoch"))
    return "verifyEpoch must not fall" if old is not None and (new is None or new < old) else ""


def _write_sequence_never_falls(before: Json, after: Json) -> str:
    epochs = [find(one, ("spec", "leaderEpoch")) for one in (before, after)]
    if None not in epochs and epochs[1] > epochs[0]:
        return ""
    old, new = find(before, ("spec", "writeSequence")), find(after, ("spec", "writeSequence"))
    return LATE_MESSAGE if old is not None and (new is None or new < old) else ""


def _data_is_immutable(before: Json, after: Json) -> str:
    return "" if before.get("data") == after.get("data") else "data: Forbidden: field is immutable"


def _spec_is_immutable(before: Json, after: Json) -> str:
    return "" if before.get("spec") == after.get("spec") else "a profile is about one class for ever"


RULES: Final[Mapping[str, tuple[Callable[[Json, Json], str], ...]]] = {
    POLICIES: (_epoch_never_falls("status", "rollout", "leaderEpoch"),),
    STATES: (_epoch_never_falls("spec", "leaderEpoch"), _write_sequence_never_falls, _verify_epoch_never_falls),
    PROFILES: (_epoch_never_falls("status", "leaderEpoch"), _spec_is_immutable),
    REVISIONS: (_data_is_immutable,),
}


@dataclass
class SimServer:
    """The server.

    Attributes:
        observers: told of every write that changed something, right after it.
        watchers: told of every event.
        stale_lists: lists that were asked for with resourceVersion=0, which may be answered from any past.
    """

    host: Process
    rng: Random
    observers: list[Callable[[Written], None]] = field(default_factory=list)
    watchers: list[Callable[[Change], None]] = field(default_factory=list)
    stale_lists: int = 0
    history: list[Change] = field(default_factory=list)
    _objects: dict[str, dict[str, Stored]] = field(default_factory=lambda: {one: {} for one in COLLECTIONS})
    _snapshots: dict[str, list[bytes]] = field(default_factory=dict)
    _version: int = 100
    _forgotten: int = 0
    _uids: int = 0

    # --- reading, for the world round it

    def get(self, collection: str, name: str) -> Json | None:
        """Return an object; it must not be changed."""
        stored = self._objects[collection].get(name)
        return stored.body if stored is not None else None

    def all(self, collection: str) -> dict[str, Json]:
        """Return all objects of a kind; they must not be changed."""
        return {name: stored.body for name, stored in self._objects[collection].items()}

    def size(self, collection: str, name: str) -> int:
        """Return the bytes of an object."""
        return len(self._objects[collection][name].encoded())

    # --- requests

    def handle(self, request: Request) -> Response:
        """Answer a request that is no watch."""
        try:
            return Response(200, self._answer(request))
        except Refusal as refusal:
            return error(refusal.status, str(refusal))

    def _answer(self, request: Request) -> bytes:
        collection = request.collection
        name, _, part = request.path[len(collection) + 1 :].partition("/")
        match request.method:
            case "GET" if name:
                return self._existing(collection, name).encoded()
            case "GET":
                return self._page(collection, request.query)
            case "POST":
                return self._create(request, collection)
            case "PATCH":
                return self._patch(request, collection, name, part)
            case "DELETE":
                return self._delete(request, collection, name)
            case _:
                raise Refusal(405, request.method)

    def _existing(self, collection: str, name: str) -> Stored:
        stored = self._objects[collection].get(name)
        if stored is None:
            raise Refusal(404, f'"{name}" not found')
        return stored

    # --- lists and watches

    def _page(self, collection: str, query: Mapping[str, str]) -> bytes:
        if query.get("resourceVersion") == "0":
            self.stale_lists += 1
        token = query.get("continue", "")
        version, _, start = token.partition(":")
        if not token:
            version, start = str(self._version), "0"
        key = f"{version} {collection} {query.get('fieldSelector')} {query.get('labelSelector')}"
        if not token:
            self._snapshots[key] = [
                stored.encoded()
                for name, stored in sorted(self._objects[collection].items())
                if fits(name, stored.labels, query)
            ]
        items = self._snapshots.get(key)
        if items is None or int(version) < self._forgotten:
            raise Refusal(410, "The provided continue parameter is too old")
        end = int(start) + min(int(query.get("limit", "500")), PAGE_ITEMS_MAX)
        more = f"{version}:{end}" if end < len(items) else ""
        metadata = msgspec.json.encode({"resourceVersion": version, "continue": more})
        return b'{"metadata":%s,"items":[%s]}' % (metadata, b",".join(items[int(start) : end]))

    def since(self, collection: str, query: Mapping[str, str]) -> list[Change]:
        """Return the events that a watch begins with.

        Raises:
            Refusal: 410; what came after that version is forgotten.
        """
        version = int(query["resourceVersion"])
        if version < self._forgotten:
            raise Refusal(410, f"too old resource version: {version} ({self._forgotten})")
        found: list[Change] = []
        for change in reversed(self.history):
            if change.version <= version:
                break
            if change.collection == collection and fits(change.name, change.labels, query):
                found.append(change)
        return found[::-1]

    def bookmark(self) -> bytes:
        """Return the line that tells how far a watch is."""
        return b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"%d"}}}' % self._version

    def forget_history(self) -> None:
        """Compact: watches and pages of before cannot be gone on with."""
        self._forgotten = self._version
        self.history.clear()
        self._snapshots.clear()

    # --- writes

    def _create(self, request: Request, collection: str) -> bytes:
        body = msgspec.json.decode(request.body)
        name = body["metadata"].get("name") or f"{body['metadata']['generateName']}{self._next_uid()}"
        if name in self._objects[collection]:
            raise Refusal(409, f'"{name}" already exists')
        manager = request.query.get("fieldManager", request.client), ""
        return self._store_new(request, collection, name, body, manager)

    def _patch(self, request: Request, collection: str, name: str, part: str) -> bytes:
        body = msgspec.json.decode(request.body)
        stored = self._objects[collection].get(name)
        manager = request.query.get("fieldManager", request.client), part
        if request.content_type == APPLY:
            return self._apply(request, collection, stored, body, manager)
        stored = self._existing(collection, name)
        if request.content_type == MERGE:
            _check_preconditions(stored.body, body.get("metadata", {}))
            wanted = merge(stored.body, body)
        else:
            try:
                wanted = json_patch(stored.body, body)
            except InvalidPatchError as problem:
                raise Refusal(
                    422, f"the server rejected our request due to an error in our request: {problem}"
                ) from None
        after = _only_part(collection, part, stored.body, wanted)
        return self._store(request, collection, name, stored, after, _taken_over(stored, after, manager), manager)

    def _apply(
        self, request: Request, collection: str, stored: Stored | None, body: Json, manager: tuple[str, str]
    ) -> bytes:
        metadata, name = body["metadata"], body["metadata"]["name"]
        if stored is None:
            if manager[1]:
                raise Refusal(404, f'"{name}" not found')
            if "uid" in metadata or "resourceVersion" in metadata:
                raise Refusal(409, "Precondition failed: the object does not exist")
            return self._store_new(request, collection, name, body, manager)
        _check_preconditions(stored.body, metadata)
        # An empty object takes nothing out of one that is there, which is no leaf then.
        there = {path for path, value in leaves(body).items() if value == {} and find(stored.body, path)}
        wanted = {
            path: value
            for path, value in leaves(body).items()
            if path not in there and _is_of_part(collection, manager[1], path)
        }
        after, owners = _applied(stored, wanted, manager)
        return self._store(request, collection, name, stored, after, owners, manager)

    def _delete(self, request: Request, collection: str, name: str) -> bytes:
        stored = self._existing(collection, name)
        asked = msgspec.json.decode(request.body) if request.body else {}
        if (asked.get("preconditions") or {}).get("uid") not in {None, stored.body["metadata"]["uid"]}:
            raise Refusal(409, "Precondition failed: UID in precondition")
        if not find(stored.body, ("metadata", "finalizers")):
            self._remove(request, collection, name, stored)
            return stored.encoded()
        if "deletionTimestamp" in stored.body["metadata"]:
            return stored.encoded()
        after = put(stored.body, ("metadata", "deletionTimestamp"), timestamp(self.host.wall()))
        after = put(after, ("metadata", "generation"), after["metadata"]["generation"] + 1)
        return self._store(request, collection, name, stored, after, stored.owners, None)

    def collect_garbage(self) -> None:
        """Delete what belongs to a Node or policy that is gone, as the garbage collector does."""
        for collection, owners in ((STATES, NODES), (REVISIONS, POLICIES)):
            alive = {body["metadata"]["uid"] for body in self.all(owners).values()}
            for name, body in list(self.all(collection).items()):
                owned_by = find(body, ("metadata", "ownerReferences"))
                if owned_by and not any(owner["uid"] in alive for owner in owned_by):
                    self._remove(None, collection, name, self._objects[collection][name])

    def _store_new(self, request: Request, collection: str, name: str, body: Json, manager: tuple[str, str]) -> bytes:
        if collection in WITH_STATUS:  # a status is ignored where an object is made
            body = {key: value for key, value in body.items() if key != "status"}
        owned = frozenset(leaves(body).keys() - IDENTITY)
        return self._store(request, collection, name, None, body, {manager: owned}, manager)

    def _store(
        self,
        request: Request | None,
        collection: str,
        name: str,
        before: Stored | None,
        after: Json,
        owners: dict[tuple[str, str], frozenset[Path]],
        writer: tuple[str, str] | None,
    ) -> bytes:
        now = timestamp(self.host.wall())
        if before is not None and after == before.body:
            before.owners = owners
            before.times |= {} if writer is None else {writer: before.times.get(writer, now)}
            before.raw = b""
            return before.encoded()
        for rule in RULES.get(collection, ()):
            if before is not None and (message := rule(before.body, after)):
                raise Refusal(422, f'"{name}" is invalid: <nil>: Invalid value: {message}')
        times = dict(before.times) if before is not None else {}
        if writer is not None:
            times[writer] = now
        after = self._with_system_fields(collection, name, before, after, now)
        if before is not None and "deletionTimestamp" in after["metadata"] and not after["metadata"].get("finalizers"):
            self._remove(request, collection, name, Stored(after, owners, times))
            return msgspec.json.encode(after)
        stored = self._objects[collection][name] = Stored(after, owners, times)
        self._tell(
            request, "MODIFIED" if before else "ADDED", collection, name, before.body if before else None, stored
        )
        return stored.encoded()

    def _with_system_fields(self, collection: str, name: str, before: Stored | None, after: Json, now: str) -> Json:
        self._version += 1
        fields: Json = {"name": name, "resourceVersion": str(self._version)}
        if before is None:
            fields |= {"uid": self._next_uid(), "creationTimestamp": now}
        if collection in WITH_STATUS:
            generation = before.body["metadata"]["generation"] if before else 0
            edited = before is None or before.body.get("spec") != after.get("spec")
            fields["generation"] = max(generation + edited, after["metadata"].get("generation", 0) if before else 0)
        return {**after, "metadata": {**after["metadata"], **fields}}

    def _remove(self, request: Request | None, collection: str, name: str, stored: Stored) -> None:
        self._version += 1
        last = put(stored.body, ("metadata", "resourceVersion"), str(self._version))
        self._objects[collection].pop(name, None)
        self._tell(request, "DELETED", collection, name, stored.body, Stored(last, stored.owners, stored.times))

    def _tell(
        self, request: Request | None, kind: str, collection: str, name: str, before: Json | None, stored: Stored
    ) -> None:
        line = b'{"type":"%s","object":%s}' % (kind.encode(), stored.encoded())
        change = Change(self._version, collection, name, stored.labels, line)
        self.history.append(change)
        if len(self.history) > HISTORY_MAX:
            self._forgotten = self.history[HISTORY_MAX // 2].version
            del self.history[: HISTORY_MAX // 2]
        after = None if kind == "DELETED" else stored.body
        written = Written(self.host.clock.now, request, collection, name, before, after)
        for observer in self.observers:
            observer(written)
        for watcher in self.watchers:
            watcher(change)

    def _next_uid(self) -> str:
        self._uids += 1
        return f"00000000-0000-4000-8000-{self._uids:012d}"


def error(status: int, message: str, retry_after: float | None = None) -> Response:
    """Return an answer that is no success."""
    body = {"kind": "Status", "code": status, "reason": ERROR_REASONS.get(status, ""), "message": message}
    return Response(status, msgspec.json.encode(body), retry_after)


def error_line(status: int, message: str) -> bytes:
    """Return the line by which a watch tells an error."""
    return b'{"type":"ERROR","object":%s}' % error(status, message).body


def fits(name: str, labels: frozenset[str], query: Mapping[str, str]) -> bool:
    """Whether an object is one that a list or watch asks for: by its name, or by a label that it must have."""
    field_, label = query.get("fieldSelector"), query.get("labelSelector")
    return (not field_ or field_ == f"metadata.name={name}") and (not label or label in labels)


def _check_preconditions(body: Json, asked: Json) -> None:
    for field_, status in (("resourceVersion", 409), ("uid", 422)):
        if asked.get(field_) not in {None, body["metadata"].get(field_)}:
            raise Refusal(status, f"metadata.{field_}: Precondition failed")


def _is_of_part(collection: str, part: str, path: Path) -> bool:
    if path in IDENTITY:
        return False
    if collection not in WITH_STATUS:
        return True
    return (path[0] == "status") is (part == "status") and not (part == "status" and path[0] == "metadata")


def _only_part(collection: str, part: str, before: Json, after: Json) -> Json:
    if collection not in WITH_STATUS:
        return after
    if part == "status":
        return {**before, "status": after.get("status", {})}
    kept = {"status": before["status"]} if "status" in before else {}
    return {**{name: value for name, value in after.items() if name != "status"}, **kept}


def _applied(
    stored: Stored, wanted: Leaves, manager: tuple[str, str]
) -> tuple[Json, dict[tuple[str, str], frozenset[Path]]]:
    """Return the object and its owners after a server-side apply with force."""
    others = {who: owned for who, owned in stored.owners.items() if who != manager}
    body, known = stored.body, stored.fields
    for path in stored.owners.get(manager, frozenset()) - wanted.keys():
        if not any(path in owned for owned in others.values()):
            body = drop_leaf(body, path)
    changed = {path for path, value in wanted.items() if path not in known or known[path] != value}
    for path in wanted:
        if path in changed:
            body = put_leaf(body, path, wanted[path])
    owners = {who: owned - changed for who, owned in others.items()}
    return body, {**owners, manager: frozenset(wanted)}


def _taken_over(stored: Stored, after: Json, manager: tuple[str, str]) -> dict[tuple[str, str], frozenset[Path]]:
    """Return the owners after an update: who changed a field owns it, alone."""
    before, now = stored.fields, leaves(after)
    changed = {path for path in before.keys() | now.keys() if before.get(path) != now.get(path)}
    owners = {who: owned - changed for who, owned in stored.owners.items()}
    mine = owners.get(manager, frozenset()) | (changed & now.keys())
    return {**owners, manager: mine}
