# SPDX-License-Identifier: Apache-2.0
"""What the fake kernel makes of each spelling; the tables are what a 7.3-rc7 kernel was seen to answer."""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL, ERANGE

import pytest

from tests.fakekernel.config import REASONS_7_2, REASONS_7_3
from tests.fakekernel.parsing import (
    INT_MAX,
    KernelError,
    format_reason_mask,
    kstrtobool,
    kstrtoint,
    kstrtouint,
    parse_reason_mask,
    sysctl_int,
)

pytestmark = pytest.mark.uncounted


def value_or_errno(parse: Callable[[bytes], int], text: bytes) -> int | str:
    try:
        return parse(text)
    except KernelError as error:
        return {EINVAL: "EINVAL", ERANGE: "ERANGE"}[error.errno or 0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param(b"1", True, id="one"),
        pytest.param(b"1\n", True, id="one as echo writes it"),
        pytest.param(b"0\n", False, id="zero as echo writes it"),
        pytest.param(b"y", True, id="y"),
        pytest.param(b"Yes", True, id="Yes"),
        pytest.param(b"n", False, id="n"),
        pytest.param(b"No", False, id="No"),
        pytest.param(b"on", True, id="on"),
        pytest.param(b"oN", True, id="second letter in capitals"),
        pytest.param(b"off", False, id="off"),
        pytest.param(b"of", False, id="of is off"),
        pytest.param(b"OF", False, id="OF is off"),
        pytest.param(b"true", True, id="true, on new kernels"),
        pytest.param(b"Enabled", True, id="Enabled, on new kernels"),
        pytest.param(b"false", False, id="false, on new kernels"),
        pytest.param(b"disabled", False, id="disabled, on new kernels"),
        pytest.param(b"10", True, id="ten is true"),
        pytest.param(b"1garbage", True, id="only the first character counts"),
        pytest.param(b"1 ", True, id="blank behind"),
        pytest.param(b"01", False, id="01 is false"),
        pytest.param(b"00", False, id="00 is false"),
        pytest.param(b"0x1", False, id="0x1 is false"),
        pytest.param(b"2", "EINVAL", id="two"),
        pytest.param(b" 1", "EINVAL", id="blank before"),
        pytest.param(b"+1", "EINVAL", id="plus"),
        pytest.param(b"-1", "EINVAL", id="minus"),
        pytest.param(b"o", "EINVAL", id="o alone"),
        pytest.param(b"ox", "EINVAL", id="o with neither n nor f"),
        pytest.param(b"\n", "EINVAL", id="newline alone"),
        pytest.param(b"", "EINVAL", id="nothing"),
        pytest.param(b"\x001", "EINVAL", id="a C string ends at NUL"),
    ],
)
def test_a_boolean_is_read_as_the_kernel_reads_it(text: bytes, value: bool | str) -> None:
    assert value_or_errno(kstrtobool, text) == value


UNSIGNED = [
    pytest.param(b"4", 4, id="four"),
    pytest.param(b"4\n", 4, id="one newline"),
    pytest.param(b"0", 0, id="zero"),
    pytest.param(b"0\n", 0, id="zero and newline"),
    pytest.param(b"+4", 4, id="one plus"),
    pytest.param(b"007", 7, id="octal seven"),
    pytest.param(b"010", 8, id="8 to the kernel, 10 to people"),
    pytest.param(b"020", 16, id="octal twenty is sixteen"),
    pytest.param(b"0x10", 16, id="hexadecimal"),
    pytest.param(b"0X0a", 10, id="hexadecimal in capitals"),
    pytest.param(b"4294967295", 2**32 - 1, id="greatest"),
    pytest.param(b"4294967296", "ERANGE", id="one past the greatest"),
    pytest.param(b"0x100000000", "ERANGE", id="one past the greatest, hexadecimal"),
    pytest.param(b"18446744073709551616", "ERANGE", id="past 64 bits"),
    pytest.param(b"99999999999999999999x", "ERANGE", id="overflow is seen before garbage"),
    pytest.param(b"4294967296x", "EINVAL", id="garbage is seen before 32 bits"),
    pytest.param(b"-1", "EINVAL", id="minus"),
    pytest.param(b"-0", "EINVAL", id="minus zero"),
    pytest.param(b"08", "EINVAL", id="no octal digit"),
    pytest.param(b"0x", "EINVAL", id="x without digits"),
    pytest.param(b"0b11", "EINVAL", id="no binary"),
    pytest.param(b"++4", "EINVAL", id="two plus signs"),
    pytest.param(b" 4", "EINVAL", id="blank before"),
    pytest.param(b"4 ", "EINVAL", id="blank behind"),
    pytest.param(b"4\r\n", "EINVAL", id="line end of another system"),
    pytest.param(b"4\n\n", "EINVAL", id="two newlines"),
    pytest.param(b"1e1", "EINVAL", id="exponent"),
    pytest.param(b"", "EINVAL", id="nothing"),
    pytest.param(b"\n", "EINVAL", id="newline alone"),
    pytest.param(b"four", "EINVAL", id="a word"),
    pytest.param(b"4\x00x", 4, id="a C string ends at NUL"),
]


@pytest.mark.parametrize(("text", "value"), UNSIGNED)
def test_an_unsigned_number_is_read_in_base_0(text: bytes, value: int | str) -> None:
    assert value_or_errno(kstrtouint, text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param(b"-0", 0, id="minus zero"),
        pytest.param(b"-010\n", -8, id="octal with sign"),
        pytest.param(b"-2147483648", -(2**31), id="smallest"),
        pytest.param(b"-2147483649", "ERANGE", id="one past the smallest"),
        pytest.param(b"2147483647", 2**31 - 1, id="greatest"),
        pytest.param(b"2147483648", "ERANGE", id="one past the greatest"),
        pytest.param(b"-+4", "EINVAL", id="both signs"),
        pytest.param(b"+-4", "EINVAL", id="both signs, the other way"),
        pytest.param(b"-", "EINVAL", id="sign alone"),
    ],
)
def test_a_signed_number_is_read_in_base_0(text: bytes, value: int | str) -> None:
    assert value_or_errno(kstrtoint, text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param(b"2\n", 2, id="two"),
        pytest.param(b" \t2", 2, id="blanks before"),
        pytest.param(b"2 whatever", 2, id="what follows a blank is ignored"),
        pytest.param(b"2\nwhatever", 2, id="what follows a newline is ignored"),
        pytest.param(b"0x2", 2, id="hexadecimal"),
        pytest.param(b"02", 2, id="octal"),
        pytest.param(b"-0", 0, id="minus zero"),
        pytest.param(b"4", 4, id="greatest"),
        pytest.param(b"5", "EINVAL", id="one past the greatest"),
        pytest.param(b"-1", "EINVAL", id="one below the smallest"),
        pytest.param(b"-", "EINVAL", id="sign alone"),
        pytest.param(b"+2", "EINVAL", id="no plus here"),
        pytest.param(b"2x", "EINVAL", id="garbage right behind"),
        pytest.param(b"2\r\n", "EINVAL", id="line end of another system"),
        pytest.param(b"\n", "EINVAL", id="blanks alone"),
        pytest.param(b"99999999999999999999999", "EINVAL", id="overflow is EINVAL here"),
        pytest.param(b"0" * 30 + b"2", "EINVAL", id="too many digits for the scratch buffer"),
    ],
)
def test_a_sysctl_number_has_rules_of_its_own(text: bytes, value: int | str) -> None:
    assert value_or_errno(lambda data: sysctl_int(data, 0, 4), text) == value


def test_a_sysctl_int_ends_at_the_greatest_int() -> None:
    assert sysctl_int(b"2147483647", 0, INT_MAX) == INT_MAX
    with pytest.raises(KernelError):
        sysctl_int(b"2147483648", 0, INT_MAX)


DEMOTION, MISPLACED, COMPACTION = 1 << 8, 1 << 5, 1 << 0


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        pytest.param(b"demotion", DEMOTION, id="a name"),
        pytest.param(b"demotion\n", DEMOTION, id="a name and newline"),
        pytest.param(b"demotion,numa_misplaced", DEMOTION | MISPLACED, id="two names"),
        pytest.param(b" demotion ,\tcompaction \n", DEMOTION | COMPACTION, id="blanks round a name"),
        pytest.param(b"demotion,,compaction,", DEMOTION | COMPACTION, id="empty tokens are skipped"),
        pytest.param(b"demotion,demotion", DEMOTION, id="a name twice"),
        pytest.param(b"all", 0x3FF, id="all"),
        pytest.param(b"none", 0, id="none"),
        pytest.param(b"compaction,none", 0, id="none takes back what stands left of it"),
        pytest.param(b"none,demotion", DEMOTION, id="a name after none"),
        pytest.param(b"none,all", 0x3FF, id="all after none"),
        pytest.param(b"\n", 0, id="an empty line means none"),
        pytest.param(b" ", 0, id="a blank means none"),
        pytest.param(b",", 0, id="a comma means none"),
        pytest.param(b",,", 0, id="two commas mean none"),
        pytest.param(b"0x120", DEMOTION | MISPLACED, id="hexadecimal number"),
        pytest.param(b"288\n", DEMOTION | MISPLACED, id="decimal number"),
        pytest.param(b"0", 0, id="zero"),
        pytest.param(b"0xffffffff", 0x3FF, id="unknown bits are dropped"),
        pytest.param(b"0xffffffffffffffff", 0x3FF, id="greatest number"),
        pytest.param(b"0x400", 0, id="only unknown bits"),
        pytest.param(b"18446744073709551616", "EINVAL", id="overflow is taken for a name"),
        pytest.param(b"-1", "EINVAL", id="minus is taken for a name"),
        pytest.param(b"288 ", "EINVAL", id="a number with a blank is taken for a name"),
        pytest.param(b"demotion,0x1", "EINVAL", id="a number in a list"),
        pytest.param(b"Demotion", "EINVAL", id="case matters"),
        pytest.param(b"MR_DEMOTION", "EINVAL", id="name of the C enum"),
        pytest.param(b"syscall", "EINVAL", id="half a name"),
        pytest.param(b"demotion compaction", "EINVAL", id="blank instead of comma"),
        pytest.param(b"none,bogus", "EINVAL", id="unknown name after none"),
    ],
)
def test_a_reason_mask_is_read_as_the_kernel_reads_it(text: bytes, mask: int | str) -> None:
    assert value_or_errno(lambda data: parse_reason_mask(data, REASONS_7_2), text) == mask


@pytest.mark.parametrize(
    ("mask", "shown"),
    [
        pytest.param(0, b"none\n", id="none"),
        pytest.param(DEMOTION | COMPACTION, b"compaction,demotion\n", id="in bit order"),
        pytest.param(0x3FF, ",".join(REASONS_7_2).encode() + b"\n", id="all is spelled out"),
    ],
)
def test_a_reason_mask_is_shown_by_names(mask: int, shown: bytes) -> None:
    assert format_reason_mask(mask, REASONS_7_2) == shown


def test_a_7_3_kernel_knows_one_reason_more() -> None:
    assert parse_reason_mask(b"all", REASONS_7_3) == 0x7FF
    assert parse_reason_mask(b"never_migrated", REASONS_7_3) == 0x400
