# SPDX-License-Identifier: Apache-2.0
"""One API server for many modules of tests, one after the other, since a new one takes seconds to start."""

from __future__ import annotations

from typing import Final, NamedTuple, Self

import pytest

from tests.apiserver.operator_process import API_VERSION, install_crds, install_rights
from tests.testbed.api import poll
from tests.testbed.controlplane import ControlPlane
from tests.testbed.snapshot import Snapshot

VERSIONS: Final = {"newest": "binaries", "oldest": "oldest_binaries"}
"""Kubernetes versions that we support the ends of: name → the fixture with its programs."""


EVERY_VERSION: Final = [
    pytest.mark.parametrize("version", VERSIONS, indirect=True, scope="module"),
    # By name, so that it is built before the first test.
    pytest.mark.usefixtures(*VERSIONS.values()),
]
"""Marks of a module that runs on each of them."""


class SharedBed(NamedTuple):
    """One API server for many modules, with what stands in it before and after our rights and kinds came."""

    control_plane: ControlPlane
    bare: Snapshot
    furnished: Snapshot

    @classmethod
    def furnish(cls, control_plane: ControlPlane) -> Self:
        """Bring our rights and kinds into an API server that has just started."""
        bare = Snapshot(control_plane.etcd)
        install_rights(control_plane.api)
        install_crds(control_plane.api)
        return cls(control_plane, bare, Snapshot(control_plane.etcd))

    def empty(self) -> ControlPlane:
        """Take away everything that is ours."""
        api = self.control_plane.api
        self.bare.put_back()
        poll(lambda: not api.get_if_exists(f"/apis/{API_VERSION}"), "our kinds being gone")
        return self.control_plane

    def put_back(self) -> None:
        """Leave our rights and kinds and nothing else, whatever a module did."""
        if not self.control_plane.servers[-1].alive:
            self.control_plane.start_apiserver()
        self.furnished.put_back()
        install_crds(self.control_plane.api)  # changes nothing; returns once they are served
