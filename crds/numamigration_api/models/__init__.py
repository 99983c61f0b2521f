# SPDX-License-Identifier: Apache-2.0
"""The two kinds as pydantic models: the single source of the CRDs (``crds/*.yaml`` are generated from here)."""

from numamigration_api.models.node_state import NodeMigrationState, NodeMigrationStateSpec, NodeMigrationStateStatus
from numamigration_api.models.policy import MigrationPolicy, MigrationPolicySpec, MigrationPolicyStatus

__all__ = [
    "MigrationPolicy",
    "MigrationPolicySpec",
    "MigrationPolicyStatus",
    "NodeMigrationState",
    "NodeMigrationStateSpec",
    "NodeMigrationStateStatus",
]
