# SPDX-License-Identifier: Apache-2.0
"""Where the guest's parts are kept: ``${XDG_CACHE_HOME:-~/.cache}/numa-migration-operator/kernel/``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.testbed.binaries import cache_folder


def folder(environ: Mapping[str, str]) -> Path:
    """Return the cache folder of the guest's parts."""
    return cache_folder(environ).with_name("kernel")
