# SPDX-License-Identifier: Apache-2.0
"""Reads one kind of object for ever and tells a sink: the thin async driver of ``machinery.listwatch``.

* Raw bytes are decoded into structs that skip what nobody asked for; nothing is kept here.
* After each complete list the sink hears the names, since what was not listed does not exist.
* An object that this version cannot read (a CRD of a newer release) is left as it was known, and said once. Where a
  missing object would be taken for a wish that ended (policies), the whole list is refused instead: better no
  decision than one from half a list.
* A list can be asked for at any time: what was stored before that is then told, however late the watch is.
* A missing CRD or right is said once, with what to do, tried again with back-off, and said again when it works.

Sources: Kubernetes API concepts, "Efficient detection of changes" and "Metadata-only fetches".
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from numamigration_api.machinery.listwatch import ListPage, ListWatch, Wait, Watch, watch_seconds
from numamigration_api.vocabulary import (
    API_VERSION,
    CONTROL_CONFIG_MAP,
    GROUP,
    JSON,
    METADATA_ONLY,
    POLICY_PLURAL,
    POLICY_UID_LABEL,
    PROFILE_PLURAL,
    STATE_PLURAL,
)
from numamigration_operator.cluster.client import Client, NoAnswerError, StatusError
from numamigration_operator.core.objects import (
    ConfigMapObject,
    ListMeta,
    Meta,
    NodeObject,
    PolicyObject,
    ProfileObject,
    RevisionObject,
    StateObject,
    StatusObject,
    Struct,
    WatchEvent,
)

log = logging.getLogger(__name__)

_ADVICE: Final = {
    401: "the credentials are not valid for this API server",
    403: "grant the right; deploy/rbac.yaml has all that are needed",
    404: "apply the CRDs of this release: kubectl apply --server-side -f crds/",
}


class Named(Protocol):
    """Any object of the API."""

    @property
    def metadata(self) -> Meta:
        """Name, uid and the like."""


class AnyObject(Struct, frozen=True):
    """An object of which only the metadata can be read."""

    metadata: Meta


class Bookmark(Struct, frozen=True):
    """How far a watch is; it is about no object and has no name."""

    metadata: ListMeta


class Page(Struct, frozen=True):
    """One page of a list. An empty list of metadata comes with null in place of items (seen on 1.37)."""

    metadata: ListMeta
    items: list[msgspec.Raw] | None = None


Item = TypeVar("Item", bound=Named)
Heard_contra = TypeVar("Heard_contra", bound=Named, contravariant=True)

_page: Final = msgspec.json.Decoder(Page)
_event: Final = msgspec.json.Decoder(WatchEvent)
_anything: Final = msgspec.json.Decoder(AnyObject)
_bookmark: Final = msgspec.json.Decoder(Bookmark)
_error: Final = msgspec.json.Decoder(StatusObject)


@dataclass(frozen=True, slots=True)
class Resource(Generic[Item]):
    """What is read, and how.

    Attributes:
        name: for log lines.
        path: of the collection.
        decoder: of one object.
        list_accept: what is asked for in lists.
        watch_accept: what is asked for in watches.
        whole: a list with an object that cannot be read is no list.
        field_selector: of the objects that are read; empty for all.
        label_selector: likewise.
    """

    name: str
    path: str
    decoder: msgspec.json.Decoder[Item]
    list_accept: str = JSON
    watch_accept: str = JSON
    whole: bool = False
    field_selector: str = ""
    label_selector: str = ""

    @property
    def query(self) -> dict[str, str]:
        """What lists and watches have in common."""
        selectors = {"fieldSelector": self.field_selector, "labelSelector": self.label_selector}
        return {key: selector for key, selector in selectors.items() if selector}


NODES: Final = Resource(
    name="nodes",
    path="/api/v1/nodes",
    decoder=msgspec.json.Decoder(NodeObject),
    # Kubelets touch their Node every few seconds, and a body has 9 kB and more; labels and uid are all we need.
    list_accept="application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    watch_accept=METADATA_ONLY,
)
STATES: Final = Resource(
    name=f"{STATE_PLURAL}.{GROUP}",
    path=f"/apis/{API_VERSION}/{STATE_PLURAL}",
    decoder=msgspec.json.Decoder(StateObject),
)
POLICIES: Final = Resource(
    name=f"{POLICY_PLURAL}.{GROUP}",
    path=f"/apis/{API_VERSION}/{POLICY_PLURAL}",
    decoder=msgspec.json.Decoder(PolicyObject),
    whole=True,
)

PROFILES: Final = Resource(
    name=f"{PROFILE_PLURAL}.{GROUP}",
    path=f"/apis/{API_VERSION}/{PROFILE_PLURAL}",
    decoder=msgspec.json.Decoder(ProfileObject),
)


def control_resource(namespace: str) -> Resource[ConfigMapObject]:
    """Return the one ConfigMap by which people stop the fleet."""
    return Resource(
        name=f"configmap {namespace}/{CONTROL_CONFIG_MAP}",
        path=f"/api/v1/namespaces/{namespace}/configmaps",
        decoder=msgspec.json.Decoder(ConfigMapObject),
        field_selector=f"metadata.name={CONTROL_CONFIG_MAP}",
    )


def revisions_resource(namespace: str) -> Resource[RevisionObject]:
    """Return the ControllerRevisions that are contents of policies."""
    return Resource(
        name=f"controllerrevisions.apps in {namespace}",
        path=f"/apis/apps/v1/namespaces/{namespace}/controllerrevisions",
        decoder=msgspec.json.Decoder(RevisionObject),
        label_selector=POLICY_UID_LABEL,
    )


class Sink(Protocol[Heard_contra]):
    """Who hears of the objects."""

    def upsert(self, item: Heard_contra) -> None:
        """An object exists, as it is now."""

    def gone(self, item: AnyObject) -> None:
        """An object was deleted."""

    def list_begun(self) -> None:
        """The first page of a list is asked for."""

    def listed(self, names: frozenset[str]) -> None:
        """A list is complete; every object of it was told by `upsert` before."""


class UnreadableError(Exception):
    """An object that this version cannot read."""


@dataclass(slots=True)
class Informer(Generic[Item]):
    """Reads one kind of object for ever.

    Attributes:
        relist_seconds: list only, again after so long; None means watch.
        on_forbidden: told, with the server's words, that we have no right to read; a list tells when that is over.
        lists_begun: number of lists so far, with those that were given up and begun anew.
        list_ended: which of them was complete last; 0 before the first.
        lists: complete ones, since the start.
        failures: lists and watches that failed, since the start; a watch that expired (410) is none.
    """

    client: Client
    resource: Resource[Item]
    sink: Sink[Item]
    rng: Random = field(default_factory=Random)
    relist_seconds: float | None = None
    clock: Callable[[], float] = time.monotonic
    on_forbidden: Callable[[str], None] | None = None
    lists_begun: int = field(default=0, init=False)
    list_ended: int = field(default=0, init=False)
    lists: int = field(default=0, init=False)
    failures: int = field(default=0, init=False)
    machine: ListWatch = field(init=False)
    _list_asked: bool = False
    _list_open: bool = False
    _rest: asyncio.Timeout | None = None
    _names: set[str] = field(default_factory=set)
    _unreadable: set[str] = field(default_factory=set)
    _trouble: str = ""

    def __post_init__(self) -> None:
        self.machine = ListWatch(self.rng)

    def relist(self) -> int:
        """Begin a list at once, or right after the open one; returns its number.

        What was stored before this call has been told once `list_ended` is not below that number.
        """
        if self._rest is not None and not self._list_asked:
            self._rest.reschedule(0.0)
        self._list_asked = True
        return self.lists_begun + 1

    async def run(self) -> None:
        """Read for ever."""
        while True:
            if self._list_asked and not self._list_open:
                self.machine.list_again()
            match self.machine.next(self.clock()):
                case Wait(until=until):
                    await asyncio.sleep(max(0.0, until - self.clock()))
                case ListPage() as page:
                    await self._guarded(self._list_page(page))
                case Watch() as watch if self.relist_seconds is None:
                    await self._until_asked(self._guarded(self._watch(watch)))
                case Watch():
                    await self._until_asked(asyncio.sleep(self.relist_seconds or 0.0))
                    self.machine.list_again()

    async def _until_asked(self, step: Awaitable[None]) -> None:
        """Do a step, and cut it off when a list is asked for."""
        try:
            async with asyncio.timeout(None) as self._rest:
                await step
        except TimeoutError:
            if not self._list_asked:
                raise
        finally:
            self._rest = None

    async def _guarded(self, step: Any) -> None:
        try:
            await step
        except NoAnswerError:
            self.failures += 1
            self.machine.failed(self.clock())
        except StatusError as error:
            self.machine.failed(self.clock(), status=error.status, retry_after=error.retry_after)
            if error.status == 403 and self.on_forbidden is not None:
                self.machine.list_again()  # a watch that works again says nothing of what stands there
                self.on_forbidden(error.message)
            if error.status != 410:  # expired, which the machine answers by listing again
                self.failures += 1
                self._say_trouble(str(error), _ADVICE.get(error.status, "tried again"))
        except (UnreadableError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self.failures += 1
            self.machine.failed(self.clock())
            self._say_trouble(str(error), "operator and CRDs must be of one release")

    async def _list_page(self, step: ListPage) -> None:
        if not step.continue_token:
            self._names.clear()
            self._list_asked, self._list_open = False, True
            self.lists_begun += 1
            self.sink.list_begun()
        query = {**self.resource.query, "limit": str(step.limit)}
        if step.continue_token:
            query["continue"] = step.continue_token
        answer = await self.client.request("GET", self.resource.path, query=query, accept=self.resource.list_accept)
        page = _page.decode(answer.check())
        for item in self._readable(page.items or []):
            self.sink.upsert(item)
        meta = page.metadata
        if self.machine.page_read(self.clock(), resource_version=meta.resource_version, continue_token=meta.continue_):
            self._list_open, self.list_ended = False, self.lists_begun
            self.sink.listed(frozenset(self._names))
            self._say_well()
            self.lists += 1

    def _readable(self, items: list[msgspec.Raw]) -> Iterator[Item]:
        decoded = (self._decode(raw) for raw in items)  # one at a time: a page of node states has megabytes
        for raw, item in zip(items, [*decoded] if self.resource.whole else decoded, strict=True):
            if item is None:
                self._names.add(_anything.decode(raw).metadata.name)
            else:
                self._names.add(item.metadata.name)
                yield item

    def _decode(self, raw: msgspec.Raw) -> Item | None:
        try:
            return self.resource.decoder.decode(raw)
        except msgspec.ValidationError as error:
            name = _anything.decode(raw).metadata.name
            if self.resource.whole:
                raise UnreadableError(f"{name}: {error}") from error
            if name not in self._unreadable:
                log.warning(
                    "object cannot be read; it is left as it was known",
                    extra={"resource": self.resource.name, "object": name, "error": str(error)},
                )
            self._unreadable.add(name)
            return None

    async def _watch(self, step: Watch) -> None:
        query = {
            **self.resource.query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": step.resource_version,
            "timeoutSeconds": str(watch_seconds(step, self.resource.name)),
        }
        async with self.client.stream(self.resource.path, query=query, accept=self.resource.watch_accept) as lines:
            async for line in lines:
                self._event(_event.decode(line))
        self.machine.watch_ended(self.clock())

    def _event(self, event: WatchEvent) -> None:
        match event.type:
            case "ERROR":
                status = _error.decode(event.object)
                raise StatusError(status.code, status.message)
            case "BOOKMARK":
                version = _bookmark.decode(event.object).metadata.resource_version
            case "DELETED":
                gone = _anything.decode(event.object)
                self.sink.gone(gone)
                version = gone.metadata.resource_version
            case _:
                version = self._changed(event.object).metadata.resource_version
        # Last, so that an object that could not be told of is read again.
        self.machine.event_read(self.clock(), version)
        self._say_well()

    def _changed(self, raw: msgspec.Raw) -> Named:
        item = self._decode(raw)
        if item is None:
            return _anything.decode(raw)
        self.sink.upsert(item)
        return item

    def _say_trouble(self, error: str, advice: str) -> None:
        if error != self._trouble:
            log.warning(
                "cannot read objects; trying again",
                extra={"resource": self.resource.name, "error": error, "advice": advice},
            )
        self._trouble = error

    def _say_well(self) -> None:
        if self._trouble:
            log.info("objects can be read again", extra={"resource": self.resource.name})
        self._trouble = ""
