# SPDX-License-Identifier: Apache-2.0
"""``dataclass``, ``field`` and ``replace`` as far as the agent needs them, without what they cost at start.

The standard library's ``dataclasses`` writes source text for each class and compiles it (1.3 ms of CPU each, and the
agent has more than fifty), and imports ``inspect`` with half of the compiler's tools. Here the methods are closures:
a class takes a twentieth of that, an instance some microseconds more, and the agent makes a few hundred a minute.

Type checkers see the real thing (PEP 681). Not there: inheritance of fields, ordering, ``init=False``, InitVar.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast, dataclass_transform

T = TypeVar("T")


class _Field(NamedTuple):
    default_factory: Callable[[], Any]


def field(*, default_factory: Callable[[], T]) -> T:
    """Give a field a value that is made anew for each instance."""
    return _Field(default_factory)  # type: ignore[return-value]  # as for dataclasses: the class takes it away


@dataclass_transform(field_specifiers=(field,))
def dataclass(*, slots: bool, frozen: bool = False, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """Make a class of its annotations.

    Args:
        slots: must be True: instances have these fields and no others.
        frozen: instances cannot be changed, and can be hashed.
        kw_only: fields are given by name.
    """
    if not slots:
        raise TypeError("only classes with slots are made here")

    def make(cls: type[T]) -> type[T]:
        names = tuple(cls.__annotations__)
        defaults = {name: cls.__dict__[name] for name in names if name in cls.__dict__}
        body = {name: value for name, value in cls.__dict__.items() if name not in {*names, "__dict__", "__weakref__"}}
        body |= {"__slots__": names, "__match_args__": () if kw_only else names}
        methods = _methods(cls.__qualname__, names, defaults, positional=0 if kw_only else len(names))
        if frozen:
            methods |= {"__setattr__": _refuse, "__delattr__": _refuse, "__hash__": lambda self: hash(_values(self))}
        return cast("type[T]", type(cls.__name__, cls.__bases__, {**methods, **body}))

    return make


def replace(record: T, /, **changes: Any) -> T:
    """Return a copy with other values in some fields.

    Raises:
        TypeError: there is no such field.
    """
    values = [changes.pop(name) if name in changes else getattr(record, name) for name in _names(record)]
    if type(record).__match_args__:  # type: ignore[attr-defined]  # fields have positions
        return type(record)(*values, **changes)
    return type(record)(**dict(zip(_names(record), values, strict=True)), **changes)


def _methods(title: str, names: tuple[str, ...], defaults: dict[str, Any], positional: int) -> dict[str, Any]:
    made = {name: default.default_factory for name, default in defaults.items() if isinstance(default, _Field)}
    plain = {name: default for name, default in defaults.items() if name not in made}
    last = tuple(plain[name] for name in _trailing(names, plain))

    store = object.__setattr__

    def complete(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        given = dict(zip(names[:positional], args, strict=False))
        if len(args) > positional or given.keys() & kwargs.keys() or not kwargs.keys() <= set(names):
            raise TypeError(f"{title}() takes {', '.join(names)}, each once, {positional} of them by position")
        values = plain | {name: make() for name, make in made.items()} | given | kwargs
        if missing := [name for name in names if name not in values]:
            raise TypeError(f"{title}() needs {', '.join(missing)}")
        return tuple(values[name] for name in names)

    def __init__(self: Any, /, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        missing = len(names) - len(args)
        if not kwargs and positional and 0 < missing <= len(last):
            args += last[-missing:]
        elif kwargs or missing or not positional:
            args = complete(args, kwargs)
        for name, value in zip(names, args, strict=True):
            store(self, name, value)

    def __repr__(self: Any) -> str:  # noqa: N807
        return f"{title}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    def __eq__(self: Any, other: object) -> bool:  # noqa: N807
        return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented

    return {"__init__": __init__, "__repr__": __repr__, "__eq__": __eq__, "__hash__": None}


def _trailing(names: tuple[str, ...], plain: dict[str, Any]) -> tuple[str, ...]:
    """Return the last fields that have a plain default, up to the end."""
    needed = [number for number, name in enumerate(names) if name not in plain]
    return names[needed[-1] + 1 :] if needed else names


def _names(record: Any) -> tuple[str, ...]:
    names: tuple[str, ...] = type(record).__slots__
    return names


def _values(record: Any) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in _names(record))


def _refuse(self: Any, name: str, *_value: Any) -> None:
    raise AttributeError(f"{type(self).__qualname__}.{name} cannot be changed")
