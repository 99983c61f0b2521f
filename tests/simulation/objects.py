# SPDX-License-Identifier: Apache-2.0
"""Objects as an API server keeps them: fields with owners, patches of three kinds. Pure functions on plain JSON.

Stored objects are never changed in place: a write makes new dictionaries along its way and shares the rest.

Sources: Kubernetes API concepts, "Server-Side Apply"; RFC 6902; RFC 7386; structured-merge-diff.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from numamigration_api.machinery.canonical import wish_revision

Json = dict[str, Any]
Path = tuple[str, ...]
Leaves = dict[Path, Any]

ATOMIC: Final = frozenset({("spec", "groups"), ("spec", "nodeSelector")})
"""Objects that are owned as a whole (x-kubernetes-map-type)."""
KEYED: Final[Mapping[Path, str]] = {
    ("metadata", "ownerReferences"): "uid",
    ("metadata", "finalizers"): "",
    ("status", "conditions"): "type",
}
"""Lists whose items have owners of their own, and the field that tells them apart (none: the item itself)."""


class InvalidPatchError(Exception):
    """A patch that cannot be applied: a `test` failed, or there is no such place."""


def revision_of(wish: Mapping[str, Any]) -> str:
    """Return the revision of a wish, as agents and operators know it."""
    return _revision(msgspec.json.encode(wish))


@lru_cache(maxsize=4096)
def _revision(wish: bytes) -> str:
    return wish_revision(msgspec.json.decode(wish))


def leaves(document: Mapping[str, Any]) -> Leaves:
    """Return what has an owner: value by path."""
    found: Leaves = {}
    _collect(document, (), found)
    return found


def _collect(document: Mapping[str, Any], prefix: Path, found: Leaves) -> None:
    for name, value in document.items():
        path, kind = (*prefix, name), type(value)
        if kind is dict:
            if value and path not in ATOMIC and not _is_raw(document, path):
                _collect(value, path, found)
                continue
        elif kind is list and path in KEYED:
            for item in value:
                found[(*path, key_of(path, item))] = item
            continue
        found[path] = value


def _is_raw(document: Mapping[str, Any], path: Path) -> bool:
    """Whether this is the `data` of a ControllerRevision: owned as a whole, other than those of a ConfigMap."""
    return path == ("data",) and document.get("kind") == "ControllerRevision"


def key_of(path: Path, item: Any) -> str:
    """Return what tells an item of a keyed list apart."""
    field = KEYED[path]
    return str(item[field] if field else item)


def put(document: Json, path: Path, value: Any) -> Json:
    """Return the document with a value at a path."""
    name = path[0]
    if len(path) == 1:
        return {**document, name: value}
    child = document.get(name)
    return {**document, name: put(child if isinstance(child, dict) else {}, path[1:], value)}


def put_leaf(document: Json, path: Path, value: Any) -> Json:
    """Return the document with a leaf; items of keyed lists keep their place."""
    parent = path[:-1]
    if parent not in KEYED:
        return put(document, path, value)
    items = list(find(document, parent) or [])
    for index, item in enumerate(items):
        if key_of(parent, item) == path[-1]:
            items[index] = value
            return put(document, parent, items)
    return put(document, parent, [*items, value])


def drop_leaf(document: Json, path: Path) -> Json:
    """Return the document without a leaf, and without the objects that are empty then."""
    parent = path[:-1]
    if parent in KEYED:
        items = [item for item in find(document, parent) or [] if key_of(parent, item) != path[-1]]
        return put(document, parent, items) if items else drop(document, parent)
    return drop(document, path)


def drop(document: Json, path: Path) -> Json:
    """Return the document without what is at a path."""
    name = path[0]
    if name not in document:
        return document
    rest = {key: value for key, value in document.items() if key != name}
    if len(path) == 1:
        return rest
    child = document[name]
    if not isinstance(child, dict):
        return document
    smaller = drop(child, path[1:])
    return {**document, name: smaller} if smaller else rest


def find(document: Any, path: Path) -> Any:
    """Return what is at a path, or None."""
    for name in path:
        if type(document) is not dict:  # what JSON has is a dict itself; asked a million times a minute
            return None
        document = document.get(name)
    return document


def merge(document: Any, patch: Any) -> Any:
    """Return the document after a JSON merge patch."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def json_patch(document: Json, operations: list[Json]) -> Json:
    """Return the document after a JSON patch of `test`, `add`, `replace` and `remove`.

    Raises:
        InvalidPatchError: a test failed, or there is no such place.
    """
    for operation in operations:
        path = tuple(part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:])
        document = _operate(document, path, operation)
    return document


def _operate(document: Any, path: Path, operation: Json) -> Any:
    name, rest = path[0], path[1:]
    if isinstance(document, list):
        if not name.isdecimal() or int(name) >= len(document):
            raise InvalidPatchError(f"no item {name}")
        index = int(name)
        if rest:
            return [*document[:index], _operate(document[index], rest, operation), *document[index + 1 :]]
        return _operate_here(document, index, operation)
    if not isinstance(document, dict) or (rest and name not in document):
        raise InvalidPatchError(f"no field {name}")
    if rest:
        return {**document, name: _operate(document[name], rest, operation)}
    return _operate_here(document, name, operation)


def _operate_here(document: Any, key: Any, operation: Json) -> Any:
    exists = key < len(document) if isinstance(document, list) else key in document
    match operation["op"]:
        case "test" if exists and document[key] == operation["value"]:
            return document
        case "add" | "replace" if isinstance(document, dict):
            return {**document, key: operation["value"]}
        case "remove" if exists and isinstance(document, list):
            return [*document[:key], *document[key + 1 :]]
        case "remove" if exists:
            return {name: value for name, value in document.items() if name != key}
        case _:
            raise InvalidPatchError(f"{operation['op']} at {key} failed")
