# SPDX-License-Identifier: Apache-2.0
"""The three kinds as pydantic models: the single source of the CRDs (``crds/*.yaml`` are generated from here)."""

from numamigration_api.models.node_state import NodeMigrationState, NodeMigrationStateSpec, NodeMigrationStateStatus
from numamigration_api.models.policy import MigrationPolicy, MigrationPolicySpec, MigrationPolicyStatus
from numamigration_api.models.profile import MigrationProfile

__all__ = [
    "MigrationPolicy",
    "MigrationPolicySpec",
    "MigrationPolicyStatus",
    "MigrationProfile",
    "NodeMigrationState",
    "NodeMigrationStateSpec",
    "NodeMigrationStateStatus",
]
