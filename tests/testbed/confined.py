# SPDX-License-Identifier: Apache-2.0
"""The node agent under the seccomp profile that the chart publishes: ``python -m tests.testbed.confined FLAGS``.

``confine(profile)`` does for this process, and all that it starts, what a container runtime does for a container.

Sources: OCI runtime specification, "Seccomp" (the JSON); libseccomp's seccomp_rule_add(3), whose library is on every
Debian (apt needs it); seccomp(2): without CAP_SYS_ADMIN a filter takes no_new_privs.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from numamigration_agent.__main__ import main
from tests.testbed.chart import CHART

PROFILE: Final = CHART / "seccomp" / "numamigration-agent.json"
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_COMPARE: Final = {"SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}


class _Argument(ctypes.Structure):
    """``struct scmp_arg_cmp`` of seccomp.h."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def confine(profile: Path) -> None:
    """Put a profile in force, for good.

    Raises:
        OSError: libseccomp is missing, or refuses.
    """
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    document = json.loads(profile.read_text())
    context = ctypes.c_void_p(library.seccomp_init(_action(document["defaultAction"], document["defaultErrnoRet"])))
    for rule in document["syscalls"]:
        for name in rule["names"]:
            _add(library, context, name, rule)
    _check(library.seccomp_load(context), "load")


def _action(name: str, number: int) -> ctypes.c_uint32:
    return ctypes.c_uint32(_ALLOW if name == "SCMP_ACT_ALLOW" else _ERRNO | number)


def _add(library: Any, context: ctypes.c_void_p, name: str, rule: dict[str, Any]) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:  # of another architecture, or younger than the library
        return
    given = rule.get("args", ())
    arguments = (_Argument * len(given))(
        *(_Argument(one["index"], _COMPARE[one["op"]], one["value"], one.get("valueTwo", 0)) for one in given)
    )
    action = _action(rule["action"], rule.get("errnoRet", 0))
    _check(library.seccomp_rule_add_array(context, action, number, len(given), arguments), name)


def _check(answer: int, what: str) -> None:
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer), what)


if __name__ == "__main__":
    confine(PROFILE)
    sys.exit(main(sys.argv[1:]))
