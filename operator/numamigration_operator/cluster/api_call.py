# SPDX-License-Identifier: Apache-2.0
"""One request to the API server, in the words of RBAC: for whoever counts them.

Source: Kubernetes documentation, "Authorization Overview: determine the request verb".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

_PATH: Final = re.compile(
    r"/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/[^/]+(?=/))?/(?P<resource>[^/]+)(?:/(?P<name>[^/]+)(?P<sub>/[^/]+)?)?$"
)
_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
NO_RESOURCE: Final = "none"
"""What no RBAC rule names: discovery, the server's version."""


class ApiCall(NamedTuple):
    """A request that is over, or a watch that is open.

    Attributes:
        verb: of RBAC, for example list.
        resource: of RBAC, for example ``migrationpolicies/status``; NO_RESOURCE where there is none.
        code: the HTTP status; None when no answer came.
        seconds: until the first bytes of the answer, or until it was given up.
    """

    verb: str
    resource: str
    code: int | None
    seconds: float


Observer = Callable[[ApiCall], None]
"""Told of every call, on whatever thread it was made; it must be quick."""


def unobserved(_: ApiCall) -> None:
    """Count nothing."""


def api_call(method: str, path: str, *, watch: bool, code: int | None, seconds: float) -> ApiCall:
    """Return a call as RBAC names it, from the method and path of HTTP.

    Args:
        method: of HTTP.
        path: of the URL; whatever stands before /api or /apis is a proxy's.
        watch: the query asks for a watch.
        code: the HTTP status, if any.
        seconds: how long it took.
    """
    found = _PATH.search(path)
    resource = f"{found['resource']}{found['sub'] or ''}" if found else NO_RESOURCE
    verb = _VERBS.get(method) or _reading(watch=watch, one=found is None or found["name"] is not None)
    return ApiCall(verb, resource, code, seconds)


def _reading(*, watch: bool, one: bool) -> str:
    if watch:
        return "watch"
    return "get" if one else "list"
