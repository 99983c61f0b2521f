# SPDX-License-Identifier: Apache-2.0
"""How a knob's value is spelled: by the kernel, for the kernel, and for people.

Everywhere else a value is a ``Value``: one canonical spelling of what the kernel holds, so that two values are the
same exactly when they are equal, and a baseline is plain text in a file.

* ``parse`` takes what was read; None is "not something this file says" and is never guessed at. Octal ``010``, ``+4``
  and ``0x10`` are refused, although the kernel would take them: they are 8 to it and 10 to people.
* ``format`` is what is written, and is not always what is read: ``demotion_enabled`` shows ``true``, but kernels
  before 2025 take only ``1`` or ``y`` for it (lib/kstrtox.c, kstrtobool).
* ``legal`` says in one short phrase what a wish may be; a range that ends in ``..`` is wider than the API's.
* ``reason_mask``: an empty line would succeed and mean none, so no reason is always spelled ``none``. In a list
  ``none`` and ``all`` are no names: the kernel never shows them there, and takes them for what they say.
* A value is short enough for a status to hold it whole, or it is none: one that cannot be told cannot be put back.

Sources: lib/kstrtox.c; kernel/sysctl.c; mm/memory-tiers.c; RFC v6 4/5 of the batch copy offload series (reason_mask).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NewType

from numamigration_api.machinery.quantities import size_bytes, size_text
from numamigration_api.machinery.records import dataclass
from numamigration_api.vocabulary import MigrationReason

Value = NewType("Value", str)
"""What a knob holds, in its one canonical spelling."""

NO_REASONS: Final = "none"
OPEN_ABOVE: Final = 1 << 30  # the API's own bounds are below

VALUE_LENGTH_MAX: Final = 256  # of a knob's text in the CRD; the eleven names of kernel 7.3 take 137

_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,19}")
_REASON_NAME: Final = re.compile(r"(?!(all|none)\Z)[a-z][a-z0-9_]{0,39}")
_BIT_ORDER: Final = {reason.value: bit for bit, reason in enumerate(MigrationReason)}


@dataclass(frozen=True, slots=True)
class Word:
    """One legal value: as the kernel shows it, as people say it, and as it is written (as shown, unless given)."""

    kernel: str
    shown: str
    written: str = ""


@dataclass(frozen=True, slots=True)
class Words:
    """A handful of values with a word each; with `numbers`, other whole numbers are passed through as numbers."""

    words: tuple[Word, ...]
    numbers: bool = False

    @property
    def legal(self) -> str:
        """What a wish may be."""
        return "|".join(word.shown for word in self.words)

    def parse(self, text: str) -> Value | None:
        """Return the value of what the kernel shows."""
        stripped = text.removesuffix("\n")
        known = any(word.kernel == stripped for word in self.words)
        return Value(stripped) if known or (self.numbers and _DECIMAL.fullmatch(stripped)) else None

    def format(self, value: Value) -> str:
        """Return what to write."""
        return next((word.written for word in self.words if word.kernel == value and word.written), value)

    def show(self, value: Value) -> str:
        """Return what people say."""
        return next((word.shown for word in self.words if word.kernel == value), value)

    def unshow(self, shown: str) -> Value | None:
        """Return the value of what people say."""
        return next((Value(word.kernel) for word in self.words if word.shown == shown), self.parse(shown))


@dataclass(frozen=True, slots=True)
class UInt:
    """A whole number; the bounds are those of a wish, the kernel may hold what it likes."""

    lowest: int
    highest: int

    @property
    def legal(self) -> str:
        """What a wish may be."""
        return f"{self.lowest}.." + (str(self.highest) if self.highest < OPEN_ABOVE else "")

    def parse(self, text: str) -> Value | None:
        """Return the value of what the kernel shows."""
        stripped = text.removesuffix("\n")
        return Value(stripped) if _DECIMAL.fullmatch(stripped) else None

    def format(self, value: Value) -> str:
        """Return what to write: plain decimal."""
        return value

    def show(self, value: Value) -> str:
        """Return what people say."""
        return value

    def unshow(self, shown: str) -> Value | None:
        """Return the value of what people say."""
        return self.parse(shown)


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes, which people write as ``32Ki``; the bounds are those of a wish."""

    lowest: int
    highest: int

    @property
    def legal(self) -> str:
        """What a wish may be."""
        return f"{size_text(self.lowest)}.."

    def parse(self, text: str) -> Value | None:
        """Return the value of what the kernel shows: plain bytes."""
        stripped = text.removesuffix("\n")
        return Value(stripped) if _DECIMAL.fullmatch(stripped) else None

    def format(self, value: Value) -> str:
        """Return what to write: plain bytes."""
        return value

    def show(self, value: Value) -> str:
        """Return what people say."""
        return size_text(int(value))

    def unshow(self, shown: str) -> Value | None:
        """Return the value of what people say."""
        try:
            return Value(str(size_bytes(shown)))
        except ValueError:
            return self.parse(shown)


@dataclass(frozen=True, slots=True)
class ReasonMask:
    """A set of migration reasons by name; canonical in bit order, names that are new to this release behind."""

    @property
    def legal(self) -> str:
        """What a wish may be."""
        return "names of migration reasons"

    def parse(self, text: str) -> Value | None:
        """Return the value of what the kernel shows."""
        stripped = text.removesuffix("\n")
        names = stripped.split(",")
        if names == [NO_REASONS]:
            return Value(NO_REASONS)
        legal = len(stripped) <= VALUE_LENGTH_MAX and all(map(is_reason_name, names))
        return reasons_value(names) if legal else None

    def format(self, value: Value) -> str:
        """Return what to write."""
        return value

    def show(self, value: Value) -> str:
        """Return what people say."""
        return value

    def unshow(self, shown: str) -> Value | None:
        """Return the value of what people say."""
        return self.parse(shown)


Codec = Words | UInt | Size | ReasonMask


def is_reason_name(text: str) -> bool:
    """Tell whether this can be the name of a migration reason, known to this release or not."""
    return _REASON_NAME.fullmatch(text) is not None


def reasons_value(names: Iterable[str]) -> Value:
    """Return the value of a set of migration reasons."""
    ordered: Sequence[str] = sorted(set(names), key=lambda name: (_BIT_ORDER.get(name, len(_BIT_ORDER)), name))
    return Value(",".join(ordered) or NO_REASONS)


def reason_names(value: Value) -> frozenset[str]:
    """Return the names in a mask's value."""
    return frozenset() if value == NO_REASONS else frozenset(value.split(","))
