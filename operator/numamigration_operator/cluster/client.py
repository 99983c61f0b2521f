# SPDX-License-Identifier: Apache-2.0
"""The connection to the API server: bytes in, bytes out, lines of a watch.

Where the server is, whom we trust and who we are comes from the ``kubernetes`` package (kubeconfig, service account,
exec plugins). Its typed API is not touched: one of its classes costs 70 MB, and what we read is decoded by msgspec.

* An answer is an answer, whatever its status: `request` returns it. Only a missing one raises.
* The service account's token changes about hourly: it is read again each minute, and everything once after a 401.
* A watch that is silent for WATCH_SILENCE_SECONDS is dead: the API server sends a bookmark about every minute.
* That the server is away, and back, is said once, here, and not by everyone who noticed.

Sources: Kubernetes API concepts, "Watch bookmarks"; kubernetes-client/python, kubernetes/aio.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from numamigration_api.machinery.backoff import parse_retry_after
from numamigration_api.machinery.listwatch import WATCH_SILENCE_SECONDS
from numamigration_api.vocabulary import JSON
from numamigration_operator import __version__
from numamigration_operator.cluster.api_call import Observer, api_call, unobserved
from numamigration_operator.core.objects import StatusObject

log = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 5.0
REQUEST_SECONDS: Final = 60.0
"""The API server's own bound for requests that are not watches (--request-timeout)."""
RELOAD_SECONDS_MIN: Final = 10.0
"""Between two readings of the configuration after a 401, for an exec plugin may ask a far server."""
READ_BUFFER_BYTES: Final = 1 << 21
MESSAGE_CHARACTERS_MAX: Final = 500
"""Of an answer that is not a Status object; a proxy's error page does not fill the log."""

_status_decoder: Final = msgspec.json.Decoder(StatusObject)

Query = Mapping[str, str]


class ClusterError(Exception):
    """Whatever keeps us from talking to the API server."""


class ClusterConfigError(ClusterError):
    """It is not said, or wrongly said, where the API server is and who we are."""


class NoAnswerError(ClusterError):
    """The API server did not answer: not there, cut, or too slow."""


class StatusError(ClusterError):
    """The API server answered with an error."""

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.retry_after = retry_after


class Response(NamedTuple):
    """An answer of the API server.

    Attributes:
        retry_after: what the server asked for, in seconds.
    """

    status: int
    body: bytes
    retry_after: float | None = None

    @property
    def message(self) -> str:
        """What the server says about an error."""
        try:
            return _status_decoder.decode(self.body).message
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self.body.decode(errors="replace").strip()[:MESSAGE_CHARACTERS_MAX]

    def check(self) -> bytes:
        """Return the body of a success.

        Raises:
            StatusError: the status is not one.
        """
        if self.status >= 400:
            raise StatusError(self.status, self.message, self.retry_after)
        return self.body


class Access(NamedTuple):
    """Which cluster, as whom."""

    kubeconfig: Path | None = None
    context: str | None = None

    async def load(self) -> Any:
        """Return the ``kubernetes`` package's Configuration.

        A given kubeconfig or context counts first, then the service account of a pod, then KUBECONFIG or
        ``~/.kube/config``.

        Raises:
            ClusterConfigError: there is none, or it is broken.
        """
        configuration = Configuration()
        try:
            if not self._given and "KUBERNETES_SERVICE_HOST" in os.environ:
                load_incluster_config(client_configuration=configuration)
            else:
                # persist_config=False: nothing of ours writes a person's kubeconfig.
                await load_kube_config(
                    config_file=self._file(),
                    context=self.context,
                    client_configuration=configuration,
                    persist_config=False,
                )
        except ClusterConfigError:
            raise
        except Exception as error:  # a broken kubeconfig shows in the package as anything, also TypeError
            where = "" if self.kubeconfig is None else f"{self.kubeconfig}: "
            raise ClusterConfigError(f"{where}{' '.join(str(error).split())}") from error
        return configuration

    @property
    def _given(self) -> bool:
        return self.kubeconfig is not None or self.context is not None

    def _file(self) -> str:
        given = os.environ.get("KUBECONFIG") or "~/.kube/config" if self.kubeconfig is None else str(self.kubeconfig)
        if not any(Path(part).expanduser().is_file() for part in given.split(os.pathsep)):
            raise ClusterConfigError(f"no kubeconfig at {given}, and no service account of a pod")
        return given


class Client:
    """One API server as one user, on the running event loop.

    Args:
        access: which cluster, as whom.
        configuration: read from there.
        observe: told of every call, those of `new_session` included.
    """

    def __init__(self, access: Access, configuration: Any, observe: Observer = unobserved) -> None:
        self._access = access
        self._observe = observe
        self._configuration = configuration
        self._loaded_at = time.monotonic()
        self._answers = True
        self._session = self.new_session()

    @classmethod
    async def connect(cls, access: Access, observe: Observer = unobserved) -> Client:
        """Read the configuration; nothing is sent yet.

        Raises:
            ClusterConfigError: there is none, or it is broken.
        """
        configuration = await access.load()
        try:
            return cls(access, configuration, observe)
        except OSError as error:  # ssl.SSLError is one: a certificate or key that cannot be read
            raise ClusterConfigError(f"TLS: {error}") from error

    def __repr__(self) -> str:
        return f"<Client {self.server}>"

    @property
    def server(self) -> str:
        """URL of the API server."""
        return str(self._configuration.host)

    def new_session(self) -> aiohttp.ClientSession:
        """Return a session of the running event loop that authorizes each request; its owner closes it."""
        rest = RESTClientObject(self._configuration)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=rest.ssl_context),
            headers={"User-Agent": f"numamigration-operator/{__version__}"},
            proxy=rest.proxy or environment_proxy(self.server),
            read_bufsize=READ_BUFFER_BYTES,
            middlewares=(self._authorize, self._observed),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Response:
        """Send one request and return the whole answer.

        Raises:
            NoAnswerError: none came.
        """
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS)
        headers = {"Accept": accept, "Content-Type": content_type} if body is not None else {"Accept": accept}
        with self._reachability():
            async with self._session.request(
                method, self.server + path, params=query, data=body, headers=headers, timeout=timeout
            ) as answer:
                response = await _read(answer)
        await self._reload_after(response)
        return response

    @contextlib.asynccontextmanager
    async def stream(self, path: str, *, query: Query, accept: str = JSON) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch and give its lines.

        Raises:
            NoAnswerError: no answer, a cut connection, or silence for WATCH_SILENCE_SECONDS.
            StatusError: the server refused.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=WATCH_SILENCE_SECONDS)
        headers = {"Accept": accept}
        refused = None
        with self._reachability():
            answer = await self._session.get(self.server + path, params=query, headers=headers, timeout=timeout)
            if answer.status >= 400:
                async with answer:
                    refused = await _read(answer)
        if refused is not None:
            await self._reload_after(refused)
            refused.check()
        async with answer:
            try:
                yield _lines(answer.content)
            except (aiohttp.ClientError, TimeoutError) as error:
                raise NoAnswerError(_describe(error)) from error
            finally:
                hang_up(answer)

    @contextlib.contextmanager
    def _reachability(self) -> Any:
        try:
            yield
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if self._answers:
                log.warning(
                    "API server does not answer; trying again", extra={"server": self.server, "error": _describe(error)}
                )
            self._answers = False
            raise NoAnswerError(_describe(error)) from error
        if not self._answers:
            log.info("API server answers again", extra={"server": self.server})
        self._answers = True

    async def _reload_after(self, response: Response) -> None:
        now = time.monotonic()
        if response.status != 401 or now - self._loaded_at < RELOAD_SECONDS_MIN:
            return
        self._loaded_at = now
        try:
            fresh = await self._access.load()
        except ClusterConfigError as error:
            log.warning("cannot read the cluster configuration again", extra={"error": str(error)})
            return
        self._configuration.api_key = fresh.api_key
        self._configuration.refresh_api_key_hook = fresh.refresh_api_key_hook

    async def _authorize(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        try:
            authorization = await self._configuration.get_api_key_with_prefix("BearerToken")
        except (ConfigException, OSError) as error:
            raise aiohttp.ClientError(f"cannot read the service account's token: {error}") from error
        if authorization:
            request.headers["Authorization"] = authorization
        if self._configuration.tls_server_name:
            request.server_hostname = self._configuration.tls_server_name
        return await handler(request)

    async def _observed(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        begun, code = time.monotonic(), None
        try:
            answer = await handler(request)
            code = answer.status
            return answer
        finally:
            url, seconds = request.url, time.monotonic() - begun
            watch = url.query.get("watch") in {"1", "true"}
            self._observe(api_call(request.method, url.path, watch=watch, code=code, seconds=seconds))


async def _read(answer: aiohttp.ClientResponse) -> Response:
    body = await answer.read()
    return Response(answer.status, body, parse_retry_after(answer.headers.get("Retry-After")))


def hang_up(answer: aiohttp.ClientResponse) -> None:
    """Close the connection of an answer that nobody reads to its end, as a watch's.

    Without TLS's goodbye: that waits for the server's (30 s, asyncio's ssl_shutdown_timeout), no session waits for
    that, and so it would outlive the event loop.
    """
    connection = answer.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()


def environment_proxy(server: str) -> str | None:
    """Return the proxy that HTTPS_PROXY and NO_PROXY name for a server's URL; None when there is none.

    Looked up once: aiohttp would do so for each request, in a thread, with a look into ``~/.netrc``.
    """
    url = urlsplit(server)
    return None if proxy_bypass(url.hostname or "") else getproxies().get(url.scheme)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    # aiohttp's own line reader refuses lines longer than its buffer; a policy may have 1.5 MB.
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


def _describe(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return str(error) or "no answer in time"
    return f"{type(error).__name__}: {error}"
