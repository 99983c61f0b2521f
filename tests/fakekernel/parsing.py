# SPDX-License-Identifier: Apache-2.0
"""How the kernel reads what is written to its files: text in, value or errno out.

Pure functions ``bytes -> value`` that raise ``KernelError``. They differ from what people and Python expect:

* ``kstrtobool`` looks at one character, so ``10`` is true and ``01`` is false.
  The ``e`` and ``d`` of "enabled" and "disabled" came after 6.12, which answers EINVAL (seen in the guest).
* Base 0 means that ``010`` is eight and ``08`` is nothing.
* Overflow is ERANGE for the ``kstrto*`` family, and EINVAL for sysctls and for ``reason_mask`` (where an overflown
  number falls through to the names).
* A sysctl takes blanks round its number and ignores what follows a blank; a sysfs file takes one newline, no blank.
* A sysfs handler sees a C string: it ends at the first NUL.

Sources: lib/kstrtox.c; kernel/sysctl.c (proc_get_long, do_proc_dointvec); "mm: batch migration copy offload", RFC v6
patches 3/5 and 4/5 (reason_mask). The odd spellings were run on a 7.3-rc7 kernel carrying that series.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from errno import EINVAL, ERANGE
from typing import Final

UINT_MAX: Final = 2**32 - 1
INT_MAX: Final = 2**31 - 1
ULONG_MAX: Final = 2**64 - 1

BLANKS: Final = b" \t\n\v\f\r\xa0"
"""What isspace() of lib/ctype.c takes for a blank; 0xa0 is one of them."""

SYSCTL_DIGITS_MAX: Final = 20
"""A sysctl refuses longer numbers: its scratch buffer (TMPBUFLEN 22) would be full."""

_BASE_0: Final = re.compile(rb"0[xX]([0-9a-fA-F]+)|0([0-7]*)|([1-9][0-9]*)")


class KernelError(OSError):
    """A system call on a kernel file fails with this errno."""

    def __init__(self, number: int) -> None:
        super().__init__(number, os.strerror(number))


def c_string(data: bytes) -> bytes:
    """Cut at the first NUL, as C does."""
    return data.split(b"\0", 1)[0]


def kstrtobool(data: bytes) -> bool:
    """Read a truth value from the first character, for ``o`` from the second."""
    text = c_string(data)
    if text[:1] in {b"o", b"O"}:
        decides, yes, no = text[1:2], b"nN", b"fF"
    else:
        decides, yes, no = text[:1], b"eEyYtT1", b"dDnNfF0"
    if not decides or decides not in yes + no:
        raise KernelError(EINVAL)
    return decides in yes


def kstrtoul(data: bytes) -> int:
    """Read 0..2^64-1 in base 0: one ``+`` may lead, one newline may follow."""
    return _magnitude(c_string(data).removeprefix(b"+"))


def kstrtouint(data: bytes) -> int:
    """Read 0..2^32-1 in base 0."""
    return _within(kstrtoul(data), 0, UINT_MAX)


def kstrtoint(data: bytes) -> int:
    """Read -2^31..2^31-1 in base 0; a minus takes no plus behind it."""
    text = c_string(data)
    value = -_magnitude(text[1:]) if text.startswith(b"-") else kstrtoul(text)
    return _within(value, -INT_MAX - 1, INT_MAX)


def _magnitude(text: bytes) -> int:
    found = _BASE_0.match(text)
    if not found:
        raise KernelError(EINVAL)
    value = _value_of(found)
    # The digits are judged before what follows them, so an overflow with garbage behind is still ERANGE.
    if value > ULONG_MAX:
        raise KernelError(ERANGE)
    if text[found.end() :] not in {b"", b"\n"}:
        raise KernelError(EINVAL)
    return value


def _value_of(found: re.Match[bytes]) -> int:
    hexadecimal, octal, decimal = found.groups()
    if hexadecimal is not None:
        return int(hexadecimal, 16)
    if octal is not None:
        return int(octal or b"0", 8)
    return int(decimal)


def _within(value: int, lowest: int, highest: int) -> int:
    if not lowest <= value <= highest:
        raise KernelError(ERANGE)
    return value


def sysctl_int(data: bytes, lowest: int, highest: int) -> int:
    """Read one int as proc_dointvec_minmax does; every refusal is EINVAL, overflow too."""
    text = data.lstrip(BLANKS)
    sign = -1 if text.startswith(b"-") and len(text) > 1 else 1
    text = text[1:] if sign < 0 else text
    found = _BASE_0.match(text)
    if not found or found.end() > SYSCTL_DIGITS_MAX or text[found.end() : found.end() + 1] not in {b"", *SYSCTL_ENDS}:
        raise KernelError(EINVAL)
    value = sign * _value_of(found)
    if not lowest <= value <= highest:
        raise KernelError(EINVAL)
    return value


def sysctl_bytes_taken(data: bytes) -> int:
    """Return what write(2) says of a sysctl's number: it counts up to what stands behind the blanks that follow."""
    rest = data.lstrip(BLANKS)
    found = _BASE_0.match(rest.removeprefix(b"-"))
    if not found:
        return len(data)
    behind = rest.removeprefix(b"-")[found.end() :]
    return len(data) - len(behind.lstrip(BLANKS))


SYSCTL_ENDS: Final = frozenset({b" ", b"\t", b"\n"})
"""What may stand right behind a sysctl's number; anything may come after that."""


def parse_reason_mask(data: bytes, names: Sequence[str]) -> int:
    """Read a ``reason_mask``: a number, or comma-separated names with ``all`` and ``none``, left to right.

    An empty line succeeds and means no reason at all. Bits of a number above the known names are dropped.
    """
    full = (1 << len(names)) - 1
    try:
        return kstrtoul(data) & full
    except KernelError:
        return _parse_reason_names(c_string(data), names, full)


def _parse_reason_names(text: bytes, names: Sequence[str], full: int) -> int:
    known = {name.encode(): 1 << bit for bit, name in enumerate(names)}
    mask = 0
    for token in (part.strip(BLANKS) for part in text.split(b",")):
        if token == b"none":
            mask = 0
        elif token == b"all":
            mask = full
        elif token and token not in known:
            raise KernelError(EINVAL)
        else:
            mask |= known.get(token, 0)
    return mask


def format_reason_mask(mask: int, names: Sequence[str]) -> bytes:
    """Show a mask: names in bit order, ``none`` for zero, never ``all``."""
    chosen = [name for bit, name in enumerate(names) if mask >> bit & 1]
    return (",".join(chosen) or "none").encode() + b"\n"
