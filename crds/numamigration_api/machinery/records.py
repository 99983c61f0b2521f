# SPDX-License-Identifier: Apache-2.0
"""``dataclass``, ``field`` and ``replace`` as far as the agent needs them, without what they cost at start.

The standard library's ``dataclasses`` writes source text for each class and compiles it (1.3 ms of CPU each, and the
agent has some eighty), and imports ``inspect`` with half of the compiler's tools. Here the methods are closures:
a class takes a twentieth of that, an instance some microseconds more, and the agent makes a few hundred a minute. What
can be one function for all classes is one.

Type checkers see the real thing (PEP 681). Not there: inheritance of fields, ordering, ``init=False``, InitVar.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
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
        body |= {"__slots__": names, "__match_args__": () if kw_only else names, "_values_of": _all_of(names)}
        shape = _shape(cls.__qualname__, names, defaults, positional=0 if kw_only else len(names))
        methods: dict[str, Any] = {"__init__": _initializer(shape), "__repr__": _repr, "__eq__": _eq, "__hash__": None}
        if frozen:
            methods |= {"__setattr__": _refuse, "__delattr__": _refuse, "__hash__": _hash}
        return cast("type[T]", type(cls.__name__, cls.__bases__, {**methods, **body}))

    return make


def replace(record: T, /, **changes: Any) -> T:
    """Return a copy with other values in some fields.

    Raises:
        TypeError: there is no such field.
    """
    kind: Any = type(record)
    values = {**dict(zip(kind.__slots__, kind._values_of(record), strict=True)), **changes}
    if kind.__match_args__ and len(values) == len(kind.__slots__):  # fields have positions
        return cast("T", kind(*values.values()))
    return cast("T", kind(**values))


class _Shape(NamedTuple):
    """What it takes to make an instance: all fields, those that have a default, and those at the end that have."""

    title: str
    names: tuple[str, ...]
    plain: dict[str, Any]
    made: dict[str, Callable[[], Any]]
    last: tuple[Any, ...]
    positional: int

    def complete(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return the value of each field.

        Raises:
            TypeError: too many, twice, unknown or missing.
        """
        given = dict(zip(self.names[: self.positional], args, strict=False))
        values = {**self.plain, **given, **kwargs}
        for name, make in self.made.items():
            if name not in values:
                values[name] = make()
        found = tuple(values[name] for name in self.names if name in values)
        if len(found) < len(values) or len(given) < len(args) or (given and given.keys() & kwargs.keys()):
            known = f"{', '.join(self.names)}, each once, {self.positional} of them by position"
            raise TypeError(f"{self.title}() takes {known}")
        if len(found) < len(self.names):
            raise TypeError(f"{self.title}() needs {', '.join(name for name in self.names if name not in values)}")
        return found


def _shape(title: str, names: tuple[str, ...], defaults: dict[str, Any], positional: int) -> _Shape:
    made = {name: default.default_factory for name, default in defaults.items() if isinstance(default, _Field)}
    plain = {name: default for name, default in defaults.items() if name not in made}
    return _Shape(title, names, plain, made, tuple(plain[name] for name in _trailing(names, plain)), positional)


def _initializer(shape: _Shape) -> Callable[..., None]:
    names, last, positional, store = shape.names, shape.last, shape.positional, object.__setattr__

    def __init__(self: Any, /, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        missing = len(names) - len(args)
        if not kwargs and positional and 0 < missing <= len(last):
            args += last[-missing:]
        elif kwargs or missing or not positional:
            args = shape.complete(args, kwargs)
        for name, value in zip(names, args, strict=True):
            store(self, name, value)

    return __init__


def _repr(self: Any) -> str:
    kind = type(self)
    values = zip(kind.__slots__, kind._values_of(self), strict=True)
    return f"{kind.__qualname__}({', '.join(f'{name}={value!r}' for name, value in values)})"


def _eq(self: Any, other: object) -> bool:
    values_of = type(self)._values_of
    return bool(values_of(self) == values_of(other)) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash(type(self)._values_of(self))


def _all_of(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what gets the values of all fields of a record."""
    if len(names) > 1:
        return attrgetter(*names)
    return staticmethod(lambda record: tuple(getattr(record, name) for name in names))


def _trailing(names: tuple[str, ...], plain: dict[str, Any]) -> tuple[str, ...]:
    """Return the last fields that have a plain default, up to the end."""
    needed = [number for number, name in enumerate(names) if name not in plain]
    return names[needed[-1] + 1 :] if needed else names


def _refuse(self: Any, name: str, *_value: Any) -> None:
    raise AttributeError(f"{type(self).__qualname__}.{name} cannot be changed")
