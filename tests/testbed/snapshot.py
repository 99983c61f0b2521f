# SPDX-License-Identifier: Apache-2.0
"""What stands in an API server, remembered and put back, for the next module of tests.

It is done below the API server, in etcd, of which its caches hear as of any other change. So nothing has to know which
kinds there are, no finalizer holds anything up, and what a test broke is whole again.

Sources: "etcd API" (range, put, delete range, and its gateway: JSON with base64).
"""

from __future__ import annotations

import base64
import json
import urllib.request
from typing import Final, NamedTuple

from tests.testbed.api import REQUEST_SECONDS_MAX, Json

OBJECTS: Final = "/registry/"
AFTER_OBJECTS: Final = "/registry0"

KEPT: Final = tuple(
    f"{OBJECTS}{prefix}"
    for prefix in ("apiregistration.k8s.io/", "leases/kube-system/", "masterleases/", "peerserverleases/", "ranges/")
)
"""What an API server keeps by itself, as its own lease and the groups that it serves."""


class Stored(NamedTuple):
    """One object; the value is base64 of what etcd has, and empty where only keys were asked for."""

    revision: str
    value: str


class Snapshot:
    """What was there when it was made.

    Args:
        etcd: URL of an etcd that belongs to one API server alone.
    """

    def __init__(self, etcd: str) -> None:
        self._etcd = etcd
        self._then = self._read(keys_only=False)

    def __repr__(self) -> str:
        return f"<Snapshot of {len(self._then)} objects>"

    def put_back(self) -> None:
        """Make it so again; the caches of the API server follow within a moment."""
        now = self._read(keys_only=True)
        for key in now.keys() - self._then.keys():
            self._ask("deleterange", key=_encoded(key))
        for key, stored in self._then.items():
            if key not in now or now[key].revision != stored.revision:
                answer = self._ask("put", key=_encoded(key), value=stored.value)
                self._then[key] = stored._replace(revision=answer["header"]["revision"])

    def _read(self, *, keys_only: bool) -> dict[str, Stored]:
        found = self._ask("range", key=_encoded(OBJECTS), range_end=_encoded(AFTER_OBJECTS), keys_only=keys_only)
        pairs = {base64.b64decode(pair["key"]).decode(): pair for pair in found.get("kvs", ())}
        return {
            key: Stored(pair["mod_revision"], pair.get("value", ""))
            for key, pair in pairs.items()
            if not key.startswith(KEPT)
        }

    def _ask(self, what: str, **wanted: object) -> Json:
        request = urllib.request.Request(f"{self._etcd}/v3/kv/{what}", json.dumps(wanted).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=REQUEST_SECONDS_MAX) as answer:
            found: Json = json.load(answer)
        return found


def _encoded(key: str) -> str:
    return base64.b64encode(key.encode()).decode()
