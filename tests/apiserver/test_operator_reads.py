# SPDX-License-Identifier: Apache-2.0
"""The operator's informers on a real kube-apiserver."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from random import Random

from numamigration_operator.cluster.client import Access, Client
from numamigration_operator.cluster.informer import NODES, AnyObject, Informer
from numamigration_operator.core.objects import NodeObject
from tests.testbed.api import Api, Json
from tests.testbed.controlplane import ControlPlane

UniqueName = Callable[[str], str]
NODE_PATH = "/api/v1/nodes"


def node(name: str, **labels: str) -> Json:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {"podCIDR": ""}}


class Heard:
    """A sink that keeps labels by name, and counts lists."""

    def __init__(self) -> None:
        self.labels: dict[str, dict[str, str]] = {}
        self.listed_names: list[frozenset[str]] = []
        self.news = asyncio.Event()

    def upsert(self, item: NodeObject) -> None:
        self.labels[item.metadata.name] = item.metadata.labels
        self.news.set()

    def gone(self, item: AnyObject) -> None:
        del self.labels[item.metadata.name]
        self.news.set()

    def list_begun(self) -> None:
        """Not of interest."""

    def listed(self, names: frozenset[str]) -> None:
        self.listed_names.append(names)
        self.news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await self.news.wait()
                self.news.clear()


@contextlib.asynccontextmanager
async def informing(control_plane: ControlPlane, heard: Heard) -> AsyncIterator[Client]:
    client = await Client.connect(Access(control_plane.kubeconfig))
    task = asyncio.create_task(Informer(client, NODES, heard, Random(0)).run())
    try:
        await heard.until(lambda: bool(heard.listed_names))
        yield client
    finally:
        task.cancel()
        await asyncio.wait([task])
        await client.close()


def test_nodes_are_heard_of_as_they_come_change_and_go(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName
) -> None:
    known, new = unique_name("known"), unique_name("new")
    api.create(NODE_PATH, node(known, pool="db"))

    async def work() -> None:
        heard = Heard()
        async with informing(control_plane, heard):
            assert known in heard.listed_names[0]
            assert heard.labels[known] == {"pool": "db"}
            api.create(NODE_PATH, node(new, pool="web"))
            await heard.until(lambda: heard.labels.get(new) == {"pool": "web"})
            api.merge_patch(f"{NODE_PATH}/{new}", {"metadata": {"labels": {"pool": "db"}}})
            await heard.until(lambda: heard.labels.get(new) == {"pool": "db"})
            api.delete(f"{NODE_PATH}/{new}")
            await heard.until(lambda: new not in heard.labels)

    asyncio.run(work())


def test_neither_lists_nor_watches_carry_the_bodies_of_nodes(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName
) -> None:
    """The real server honors the Accept header of both; a body has 9 kB and more, and changes every few seconds."""
    name = unique_name("node")
    created = api.create(NODE_PATH, node(name))

    async def work() -> None:
        client = await Client.connect(Access(control_plane.kubeconfig))
        listed = json.loads((await client.request("GET", NODE_PATH, accept=NODES.list_accept)).check())
        before = str(int(created["metadata"]["resourceVersion"]) - 1)
        query = {"watch": "true", "resourceVersion": before, "timeoutSeconds": "5"}
        async with client.stream(NODE_PATH, query=query, accept=NODES.watch_accept) as lines:
            watched = json.loads(await anext(lines))["object"]
        await client.close()
        item = next(item for item in listed["items"] if item["metadata"]["name"] == name)
        assert (listed["kind"], item["kind"]) == ("PartialObjectMetadataList", "PartialObjectMetadata")
        assert watched["kind"] == "PartialObjectMetadata"
        assert item.keys() == watched.keys() == {"kind", "apiVersion", "metadata"}

    asyncio.run(work())
