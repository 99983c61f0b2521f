# SPDX-License-Identifier: Apache-2.0
"""A real control plane on loopback: etcd and kube-apiserver, up in seconds, gone without a trace.

``with ControlPlane(find_binaries(progress)) as control_plane: control_plane.api.get("/version")``

* There is no kube-controller-manager: no ``default`` ServiceAccount, no garbage collection, and a deleted Namespace
  stays Terminating. Tests use names of their own rather than namespaces of their own.
* The kube-apiserver stops before its etcd; the other way round it waits for etcd for 10 s and more.
* Both are tied to this process (``tether.py``), so a killed test run leaves no server, only a folder in /tmp.
* etcd listens on loopback without authentication: nothing but throw-away data belongs in here.
* Ports are chosen below the kernel's ephemeral range (net.ipv4.ip_local_port_range begins at 32768), so that no
  outgoing connection takes the port of a server that is down for a moment.

Sources: the command references of kube-apiserver and etcd; "Authenticating" (token file, service accounts).
"""

from __future__ import annotations

import base64
import json
import random
import secrets
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, NamedTuple, Self

from tests.testbed import pki, processes
from tests.testbed.api import BED_MANAGER, Api, ApiError, Json, poll
from tests.testbed.binaries import Binaries
from tests.testbed.errors import BedError, ServerDiedError

ADDRESS: Final = "127.0.0.1"

ADMIN: Final = "test-bed-admin"

PORT_RANGE: Final = range(20000, 30000)
"""Below the ephemeral ports and below the NodePorts (30000-32767)."""

PORT_TRIES_MAX: Final = 100
"""Of 10,000 ports; more means that something is wrong with binding at all."""

START_TRIES_MAX: Final = 3
"""A port may be taken between choosing and listening; three times in a row is no accident."""

READY_SECONDS_MAX: Final = 90.0
"""Ready in 3 s on two idle cores; a loaded machine gets thirty times that."""

APISERVER_GRACE_SECONDS: Final = 20.0
"""It ends watches and open requests first, which took 1 s."""

ETCD_GRACE_SECONDS: Final = 10.0

TOKEN_SECONDS: Final = 3600
"""Default lifetime of service-account tokens; the API server takes no less than 600."""

ADDRESS_IN_USE: Final = "address already in use"
"""strerror(EADDRINUSE), as Go prints it."""


class Ports(NamedTuple):
    """Where the servers of one control plane listen."""

    etcd_client: int
    etcd_peer: int
    apiserver: int


class ControlPlane:
    """etcd and kube-apiserver from ``__enter__`` to ``__exit__``.

    Args:
        binaries: what to start.
        folder: where data, keys and logs go; must be new or empty, and stays. None means a temporary folder, which
            goes with the servers.
        flags: more flags of the kube-apiserver.
        users: more users, with their group or none, whose tokens are then in ``tokens``.
    """

    def __init__(
        self,
        binaries: Binaries,
        folder: Path | None = None,
        *,
        flags: Sequence[str] = (),
        users: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.binaries = binaries
        self._given_folder = folder
        self._flags, self._users = flags, {ADMIN: "system:masters", **users}

    def __repr__(self) -> str:
        return f"<ControlPlane {self.server} {self._etcd!r} {self._apiserver!r}>"

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self.folder = self._enter_folder(cleanup)
            self._pki = pki.write_pki(self.folder / "pki")
            self.tokens = {user: secrets.token_urlsafe(24) for user in self._users}
            lines = (f"{token},{user},{user},{self._users[user]}\n" for user, token in self.tokens.items())
            pki.write_private(self.folder / "tokens.csv", "".join(lines).encode())
            self._start(cleanup)
            self.kubeconfig = self.kubeconfig_for(self.admin_token, name="admin")
            # Made by a loop of the kube-apiserver that /readyz does not wait for.
            self.api.watch_until("/api/v1/namespaces/default", bool)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    # --- who and where -------------------------------------------------------------------------------------------

    @property
    def admin_token(self) -> str:
        """Token of whoever may do everything."""
        return self.tokens[ADMIN]

    @property
    def service_account_key(self) -> Path:
        """Private key that signs service-account tokens."""
        return self._pki.service_account_key

    @property
    def server(self) -> str:
        """URL of the kube-apiserver."""
        return f"https://{ADDRESS}:{self._ports.apiserver}"

    @property
    def etcd(self) -> str:
        """URL of etcd."""
        return f"http://{ADDRESS}:{self._ports.etcd_client}"

    @property
    def ca(self) -> Path:
        """Certificate of the authority that signed the kube-apiserver's."""
        return self._pki.ca

    @property
    def serving_certificate(self) -> tuple[Path, Path]:
        """Certificate and key of the kube-apiserver, for whoever stands in front of it."""
        return self._pki.server_cert, self._pki.server_key

    @property
    def api(self) -> Api:
        """Client with all rights."""
        return self.api_as(self.admin_token)

    def api_as(self, token: str) -> Api:
        """Client with the rights of `token`."""
        return Api(self.server, self.ca, token)

    @property
    def servers(self) -> tuple[processes.Server, processes.Server]:
        """Both servers: etcd, kube-apiserver."""
        return self._etcd, self._apiserver

    def check_alive(self) -> None:
        """Raise ServerDiedError when a server has ended by itself."""
        for server in self.servers:
            server.check_alive()

    def kubeconfig_for(self, token: str, *, name: str, server: str | None = None) -> Path:
        """Write a kubeconfig for `token`, readable by us only; return its path.

        It stands alone (the authority is inside) and is JSON, which every YAML reader reads. `server` is the URL of
        whatever stands in front of the API server; None means nothing does.
        """
        authority = base64.b64encode(self.ca.read_bytes()).decode()
        cluster = {"server": server or self.server, "certificate-authority-data": authority}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "bed", "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": name}}],
            "current-context": "bed",
        }
        path = self.folder / f"{name}.kubeconfig"
        pki.write_private(path, json.dumps(config, indent=2).encode())
        return path

    # --- service accounts ----------------------------------------------------------------------------------------

    def service_account_token(
        self,
        namespace: str,
        name: str,
        *,
        pod: str | None = None,
        audience: str | None = None,
        seconds: int = TOKEN_SECONDS,
    ) -> str:
        """Return a token of an existing service account (TokenRequest).

        Args:
            namespace: of service account and Pod.
            name: of the service account.
            pod: an existing Pod that uses the service account; the token is bound to it and to its Node.
            audience: whom the token is for; None means the API server.
            seconds: lifetime, at least 600.
        """
        spec: Json = {"expirationSeconds": seconds}
        if audience:
            spec["audiences"] = [audience]
        if pod:
            uid = self.api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")["metadata"]["uid"]
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}
        answer = self.api.create(
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
        )
        token: str = answer["status"]["token"]
        return token

    def node_bound_token(self, namespace: str, service_account: str, node: str) -> str:
        """Return the token that a Pod of `service_account` on `node` would have.

        Service account and Pod are made when absent; no kubelet is needed, ``spec.nodeName`` is enough. The token
        carries the Node's uid only if the Node exists by now.
        """
        base = f"/api/v1/namespaces/{namespace}"
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": service_account}}
        self.api.apply(f"{base}/serviceaccounts/{service_account}", account, BED_MANAGER)
        name = f"{service_account}-{node}"
        spec = {
            "nodeName": node,
            "serviceAccountName": service_account,
            "containers": [{"name": "main", "image": "none.invalid/none"}],
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        self.api.apply(f"{base}/pods/{name}", pod, BED_MANAGER)
        return self.service_account_token(namespace, service_account, pod=name)

    # --- faults --------------------------------------------------------------------------------------------------

    def stop_apiserver(self) -> None:
        """Stop the kube-apiserver; its data stay in etcd, its port stays ours."""
        self._apiserver.stop(APISERVER_GRACE_SECONDS)

    def kill_apiserver(self) -> None:
        """End the kube-apiserver in the middle of whatever it does."""
        self._apiserver.kill()

    def start_apiserver(self) -> None:
        """Start the kube-apiserver again, on the same port with the same data; return when it is ready."""
        self._apiserver = processes.start(
            "kube-apiserver", self._apiserver_command(), self.folder / "kube-apiserver.log"
        )
        self._await_ready()

    def restart_apiserver(self) -> None:
        """Stop and start the kube-apiserver; every watch is cut."""
        self.stop_apiserver()
        self.start_apiserver()

    def kill_etcd(self) -> None:
        """End etcd in the middle of whatever it does; the kube-apiserver stays, and answers nobody for a while."""
        self._etcd.kill()

    def start_etcd(self) -> None:
        """Start etcd again, on the same port with the same data; return when the kube-apiserver is ready."""
        self._etcd = processes.start("etcd", self._etcd_command(), self.folder / "etcd.log")
        self._await_ready()

    # --- start and stop ------------------------------------------------------------------------------------------

    def _enter_folder(self, cleanup: ExitStack) -> Path:
        if self._given_folder is None:
            return Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="numamigration-testbed-")))
        folder = self._given_folder.absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise BedError(f"{folder} is not empty; give a new folder")
        return folder

    def _start(self, cleanup: ExitStack) -> None:
        for tries_left in reversed(range(START_TRIES_MAX)):
            self._ports = Ports(*free_ports(3))
            with ExitStack() as attempt:
                try:
                    self._start_servers(attempt)
                except ServerDiedError as error:
                    if tries_left and ADDRESS_IN_USE in str(error):
                        continue
                    raise
                cleanup.push(attempt.pop_all())
                return

    def _start_servers(self, cleanup: ExitStack) -> None:
        # A data folder of an earlier try remembers the port of its peer.
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)
        self._etcd = processes.start("etcd", self._etcd_command(), self.folder / "etcd.log")
        # By name, both of them, for it may be another one by then.
        cleanup.callback(lambda: self._etcd.stop(ETCD_GRACE_SECONDS))
        self._apiserver = processes.start(
            "kube-apiserver", self._apiserver_command(), self.folder / "kube-apiserver.log"
        )
        cleanup.callback(self.stop_apiserver)
        self._await_ready()

    def _await_ready(self) -> None:
        api = self.api

        def ready() -> bool:
            self.check_alive()
            try:
                return api.text("/readyz") == "ok"
            except (OSError, ApiError):
                return False

        poll(ready, f"kube-apiserver ready (log: {self._apiserver.log})", timeout=READY_SECONDS_MAX)

    def _etcd_command(self) -> list[str | Path]:
        peer = f"http://{ADDRESS}:{self._ports.etcd_peer}"
        return [
            self.binaries.etcd,
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={self.etcd}",
            f"--advertise-client-urls={self.etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        ]

    def _apiserver_command(self) -> list[str | Path]:
        return [
            self.binaries.kube_apiserver,
            f"--etcd-servers={self.etcd}",
            f"--bind-address={ADDRESS}",
            # Otherwise that of the default route, and no start where there is none, as in a new network namespace.
            f"--advertise-address={ADDRESS}",
            f"--secure-port={self._ports.apiserver}",
            f"--tls-cert-file={self._pki.server_cert}",
            f"--tls-private-key-file={self._pki.server_key}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={self._pki.service_account_key}",
            f"--service-account-key-file={self._pki.service_account_pub}",
            "--service-cluster-ip-range=10.96.0.0/24",
            # Otherwise refused on loopback: it would publish its own address in the kubernetes Service.
            "--endpoint-reconciler-type=none",
            "--allow-privileged=true",
            # 0, the default, waits for every open HTTP/1.1 watch to end by itself, which kept a stop for over 20 s.
            "--shutdown-watch-termination-grace-period=1s",
            *self._flags,
        ]


def free_ports(count: int) -> list[int]:
    """Return ports on which nobody listens now; each is tried by binding to it."""
    found: list[int] = []
    for port in random.sample(PORT_RANGE, PORT_TRIES_MAX):
        if len(found) == count:
            break
        if is_free(port):
            found.append(port)
    if len(found) < count:
        raise BedError(f"no free port between {PORT_RANGE.start} and {PORT_RANGE.stop - 1}")
    return found


def is_free(port: int) -> bool:
    """Tell whether a server could listen on `port` now."""
    with socket.socket() as candidate:
        # As Go's listeners do: connections of an earlier server that are still closing are no obstacle.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((ADDRESS, port))
        except OSError:
            return False
    return True
