# SPDX-License-Identifier: Apache-2.0
"""MigrationProfile: what was measured on a few nodes of one hardware class, and what follows for all of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from numamigration_api.models.base import (
    ApiModel,
    Count,
    DecimalText,
    Epoch,
    Name,
    Revision,
    Rule,
    Text,
    Timestamp,
    extensions,
    leader_epoch_never_falls,
)
from numamigration_api.models.node_state import ProbeResult
from numamigration_api.models.settings import Channels
from numamigration_api.vocabulary import PROBE_ROWS_MAX, PROFILE_NODES_MAX, Dialect, Engine, ProfilePhase


class MigrationProfileSpec(ApiModel):
    """Whom it is about. The name of the profile follows from it."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": extensions(
            Rule("self == oldSelf", "a profile is about one class for ever; delete it, and it is measured anew")
        )
    }

    dialect: Dialect
    """File layout of the nodes' kernels."""
    hardware_class: Annotated[str, Field(max_length=253)]
    """As in status.hardwareClass of their node states."""


class Recommendation(ApiModel):
    """What nodes of the class should have."""

    engine: Engine
    channels: Channels | None = None


class MeasuredNode(ApiModel):
    """What one node's own measurement says."""

    node: Name
    engine: Engine
    channels: Channels | None = None
    gain: DecimalText | None = None
    """Expected throughput of that, against the plain copy by CPU; the lower end of the interval."""
    message: Text | None = None
    """The choice in words, or why there is none."""


class MigrationProfileStatus(ApiModel):
    """What was measured. Written by the operator only; what somebody else wrote is not used, and measured anew."""

    phase: ProfilePhase
    recommendation: Recommendation | None = None
    gain: DecimalText | None = None
    """The least of the measured nodes'."""
    nodes: Annotated[
        list[MeasuredNode], Field(max_length=PROFILE_NODES_MAX, json_schema_extra=extensions(list_type="atomic"))
    ] = []
    """The nodes that were measured; in the phase Measuring those of the last time."""
    results: Annotated[
        list[ProbeResult], Field(max_length=PROBE_ROWS_MAX, json_schema_extra=extensions(list_type="atomic"))
    ] = []
    """What the node measured whose choice the recommendation is."""
    measured_at: Timestamp | None = None
    attempted_at: Timestamp | None = None
    """When a node was asked last; another one is asked after a while."""
    disputes: Count = 0
    """How often it did not do in service what was measured; each doubles the time until it is measured anew."""
    digest: Revision | None = None
    """Hash of recommendation and nodes, by which an edit by hand is known."""
    leader_epoch: Epoch | None = None
    """Fencing token of the writer; the API server refuses a smaller one."""
    message: Text | None = None


class MigrationProfile(ApiModel):
    """The best offload settings of one hardware class, as measured. Made by the operator; delete it to measure anew."""

    model_config = ApiModel.model_config | {"json_schema_extra": extensions(leader_epoch_never_falls("status"))}

    spec: MigrationProfileSpec
    status: MigrationProfileStatus | None = None
