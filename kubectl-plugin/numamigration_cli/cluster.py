# SPDX-License-Identifier: Apache-2.0
"""The plugin's door to the API server: the operator's client, and answers in words that say what to do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from numamigration_api.machinery.canonical import canonical_json
from numamigration_api.vocabulary import GROUP, JSON, PROFILE_KIND, PROFILE_PLURAL
from numamigration_cli.exits import Exit, Failure
from numamigration_operator.cluster.client import (
    Access,
    Client,
    ClusterConfigError,
    ClusterError,
    Query,
    Response,
    StatusError,
)
from numamigration_operator.cluster.lists import whole_list
from numamigration_operator.core.decisions import Patch

MANAGER: Final = "kubectl-numamigration"
"""Field manager of what people write by this program."""
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
METADATA_ONE: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

Item = TypeVar("Item")


class Cluster:
    """One API server as one user, with the namespace of the operator.

    Every method raises Failure when the API server refuses, and NoAnswerError when it is not there.
    """

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self.namespace = namespace

    @property
    def server(self) -> str:
        """URL of the API server."""
        return self._client.server

    def in_namespace(self, resource: str, name: str = "", api: str = "/api/v1") -> str:
        """Return the path of an object, or collection, of the operator's namespace."""
        return (
            one(f"{api}/namespaces/{self.namespace}/{resource}", name)
            if name
            else (f"{api}/namespaces/{self.namespace}/{resource}")
        )

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Any = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Response:
        """Send one request; an answer is an answer, whatever its status."""
        sent = None if body is None else canonical_json(body)
        return await self._client.request(
            method, path, query=query, body=sent, content_type=content_type, accept=accept
        )

    async def get(self, path: str, kind: type[Item], *, accept: str = JSON, query: Query | None = None) -> Item | None:
        """Return one object, or what else stands there; None when there is none."""
        answer = await self.ask("GET", path, accept=accept, query=query)
        if answer.status == 404 and not _is_kind_missing(answer, path):
            return None
        return decode(checked(answer, path), kind)

    async def list_all(
        self, path: str, kind: type[Item], *, accept: str = JSON, query: Query | None = None
    ) -> list[Item]:
        """Return all objects of a collection, read page by page."""
        decoder = msgspec.json.Decoder(kind)
        try:
            return await whole_list(
                lambda page: self.ask("GET", path, query=page, accept=accept), decoder.decode, query
            )
        except StatusError as error:
            raise refused(error.status, error.message, path) from error
        except msgspec.ValidationError as error:
            raise unreadable(error) from error

    async def patch(self, path: str, steps: list[dict[str, Any]]) -> bytes:
        """Change one object by a JSON patch; return it as it is then."""
        query = {"fieldManager": MANAGER}
        return checked(await self.ask("PATCH", path, query=query, body=steps, content_type=Patch.JSON), path)

    async def apply(self, path: str, body: dict[str, Any]) -> bytes:
        """Apply what this program owns of one object, and return the whole object."""
        query = {"fieldManager": MANAGER, "force": "true"}
        return checked(await self.ask("PATCH", path, query=query, body=body, content_type=Patch.APPLY), path)


def one(collection: str, name: str) -> str:
    """Return the path of one object; a name with odd characters stays a name.

    Raises:
        Failure: no object can have it (k8s.io/apimachinery, IsValidPathSegmentName): as a path it is another one.
    """
    if name in {".", ".."} or "/" in name or "%" in name:
        raise Failure(Exit.FAILED, f"{name!r} is no name of an object")
    return f"{collection}/{quote(name, safe='')}"


def decode(body: bytes, kind: type[Item]) -> Item:
    """Return an answer's body as an object.

    Raises:
        Failure: a newer or older release wrote it.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise unreadable(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failure(Exit.FAILED, f"the answer is no JSON: {error}", "is that server a Kubernetes API?") from error


def unreadable(error: Exception) -> Failure:
    """Return what to say of an object that this release cannot read."""
    return Failure(Exit.FAILED, f"an object cannot be read: {error}", "plugin and CRDs must be of one release")


def checked(answer: Response, path: str) -> bytes:
    """Return the body of a success.

    Raises:
        Failure: it is none.
    """
    if answer.status >= 400:
        raise refused(answer.status, answer.message, path)
    return answer.body


def refused(status: int, message: str, path: str) -> Failure:
    """Return what to say of a refusal."""
    match status:
        case 401:
            return Failure(Exit.NO_RIGHTS, f"not logged in: {message}", "look at the user of the kubeconfig's context")
        case 403:
            return Failure(Exit.NO_RIGHTS, message, "docs/kubectl-plugin.md has the rights that each command needs")
        case 404 if f"/apis/{GROUP}/" in path:
            return _not_installed(path)
        case 409:
            return Failure(Exit.FAILED, message, "somebody else changed it at the same time: look, and try again")
        case _:
            return Failure(Exit.FAILED, f"the API server says {status}: {message}")


def _not_installed(path: str) -> Failure:
    if f"/{PROFILE_PLURAL}" in path:
        text = f"the API server does not know {PROFILE_KIND}: the CRDs here are older than this plugin, or missing"
        return Failure(Exit.NOT_INSTALLED, text, "numamigration-operator crds apply, or helm upgrade; docs/install.md")
    text = "the API server does not know our kinds: the CRDs are not installed here"
    return Failure(Exit.NOT_INSTALLED, text, "look at --context, or install: docs/install.md")


def _is_kind_missing(answer: Response, path: str) -> bool:
    """Whether it is the kind that does not exist, and not one object: then no object is named, or no JSON comes."""
    if f"/apis/{GROUP}/" not in path:
        return False
    try:
        return not msgspec.json.decode(answer.body, type=_Details).details.name
    except msgspec.DecodeError:
        return True


class _Named(msgspec.Struct):
    name: str = ""


class _Details(msgspec.Struct):
    details: _Named = msgspec.field(default_factory=_Named)


@contextlib.asynccontextmanager
async def connected(kubeconfig: Path | None, context: str | None, namespace: str) -> AsyncIterator[Cluster]:
    """Give a cluster; nothing is sent yet.

    Raises:
        Failure: it is not said where the API server is, or it does not answer.
    """
    logging.getLogger("numamigration_operator").addHandler(logging.NullHandler())  # what goes wrong is told once
    try:
        client = await Client.connect(Access(kubeconfig, context))
        try:
            yield Cluster(client, namespace)
        finally:
            await client.close()
    except ClusterConfigError as error:
        raise Failure(Exit.NO_CLUSTER, str(error), "look at --kubeconfig, --context and KUBECONFIG") from error
    except ClusterError as error:
        server = client.server
        text = f"the API server {server} does not answer: {error}"
        raise Failure(Exit.NO_CLUSTER, text, "look at --context; is there a VPN or a proxy between?") from error


def run(work: Callable[[], Coroutine[Any, Any, Item]]) -> Item:
    """Run a command's coroutine to its end."""
    return asyncio.run(work())
