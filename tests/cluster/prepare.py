# SPDX-License-Identifier: Apache-2.0
"""What must be there before a cluster starts: a machine that can, programs, images; made once, for minutes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tests.cluster.images import project_images
from tests.cluster.needs import require_containers
from tests.testbed.binaries import ClusterBinaries, find_cluster_binaries
from tests.testbed.helm import find_helm
from tests.testbed.progress import Progress


class Parts(NamedTuple):
    """What a cluster is made of."""

    binaries: ClusterBinaries
    helm: Path
    images: tuple[Path, ...]
    """Archives of the project's own images."""


def prepare(progress: Progress) -> Parts:
    """Find or make everything.

    Raises:
        MissingNeedError: the machine cannot run containers, or something cannot be had; says what to do.
    """
    require_containers()
    return Parts(find_cluster_binaries(progress), find_helm(progress), project_images(progress))
