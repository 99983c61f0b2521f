# SPDX-License-Identifier: Apache-2.0
"""Settings groups: what a policy may wish of a node's kernel, shared by policy and node state.

Bounds are the widest any dialect takes; the agent checks the bounds of the dialect it found and reports them in
``status.capabilities``.

Sources: mm/migrate.c and drivers/migrate_offload/dcbm of the "batch copy + hardware offload" series (V6:
"[PATCH RFC v6 0/5]", 2026-06-30); Documentation/admin-guide/sysctl/kernel.rst;
Documentation/ABI/testing/sysfs-kernel-mm-numa.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from numamigration_api.models.base import ApiModel, Rule, Size, extensions, some_of
from numamigration_api.vocabulary import (
    CHANNELS_MAX,
    PROFILES_MAX,
    BalancingMode,
    Engine,
    Locality,
    MigrationReason,
    Placement,
)

_ONLY_DMA = " is for engine: DMA only; remove it or set engine: DMA"
_OFFLOAD_RULES = (
    Rule("!has(self.channels) || (has(self.engine) && self.engine == 'DMA')", "channels" + _ONLY_DMA),
    *(
        Rule(f"!has(self.{name}) || !has(self.engine) || self.engine == 'DMA' || has(self.profiles)", name + _ONLY_DMA)
        for name in ("reasons", "locality", "cacheAllocate")
    ),
)

Channels = Annotated[int, Field(ge=1, le=CHANNELS_MAX)]


class ClassSettings(ApiModel):
    """What nodes of one hardware class shall have in place of the group's own engine and channels."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": extensions(Rule("!has(self.channels) || self.engine == 'DMA'", "channels" + _ONLY_DMA))
    }

    name: Annotated[str, Field(min_length=1, max_length=64)]
    """Of the class's MigrationProfile."""
    engine: Engine
    """Who copies there."""
    channels: Channels | None = None
    """DMA channels per batch there."""


class OffloadSettings(ApiModel):
    """Whether the copy of a migration batch is offloaded, to whom, and for which migration reasons."""

    model_config = ApiModel.model_config | {"json_schema_extra": extensions(*_OFFLOAD_RULES)}

    engine: Engine | None = None
    """Who copies: DMA, CPUThreads, or "Off" (the migrating task itself). Off needs quotes: bare, YAML reads false.
    Left out, with profiles or tuning: Auto: nodes of other classes than those of profiles are not touched."""
    channels: Channels | None = None
    """DMA channels per batch. Channels times concurrent migrators must not exceed the channels of the node, or the
    kernel silently copies by CPU. Left out: the kernel's value stays."""
    reasons: (
        Annotated[
            list[MigrationReason], Field(min_length=1, max_length=16, json_schema_extra=extensions(list_type="set"))
        ]
        | None
    ) = None
    """Migration reasons whose batches may be offloaded. Left out: every reason the node knows but memory_failure.
    Fails closed: a node that cannot restrict reasons as asked keeps offload off."""
    locality: Locality | None = None
    """Where the DMA channel may be, relative to the folios (F-ext only)."""
    cache_allocate: bool | None = None
    """Whether destination writes allocate in the CPU cache (F-mid, F-ext only)."""
    profiles: (
        Annotated[list[ClassSettings], Field(max_length=PROFILES_MAX, json_schema_extra=extensions(list_type="atomic"))]
        | None
    ) = None
    """Other engines and channels for some hardware classes. tuning: Auto fills it from MigrationProfiles, where it is
    not given and neither engine: "Off" nor channels are."""


class BatchSettings(ApiModel):
    """How much is handed to the engine at once (F-mid, F-ext only; no other kernel has these at run time)."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": extensions(
            Rule(
                "!has(self.chunkMinSize) || !has(self.chunkMaxSize)"
                " || quantity(self.chunkMinSize).compareTo(quantity(self.chunkMaxSize)) <= 0",
                "chunkMinSize must not be larger than chunkMaxSize",
            ),
            some_of(
                "minSize",
                "chunkMinSize",
                "chunkMaxSize",
                "sgElements",
                "descriptorsPerChannel",
                message="batch needs at least one field",
            ),
        )
    }

    min_size: Size | None = None
    """A smaller batch is copied by the CPU."""
    chunk_min_size: Size | None = None
    """Smallest piece of a folio that one channel gets."""
    chunk_max_size: Size | None = None
    """Largest piece of a folio that one channel gets."""
    sg_elements: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Segments per descriptor; the kernel does not guard against 0, so the API does."""
    descriptors_per_channel: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Descriptors in flight per channel."""


class CpuThreadsSettings(ApiModel):
    """Multi-threaded CPU copy (ZY, V2, V3); only with engine: CPUThreads."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": extensions(
            some_of("count", "placement", message="cpuThreads needs at least one field"),
        )
    }

    count: Annotated[int, Field(ge=1, le=64)] | None = None
    """Copy threads per batch."""
    placement: Placement | None = None
    """Where the threads run."""


class MapCacheSettings(ApiModel):
    """Reuse of IOMMU mappings (F-ext only)."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": extensions(
            some_of("enabled", "capMiB", "minKiB", "quantumKiB", message="mapCache needs at least one field"),
            Rule(
                f"!has(self.quantumKiB) || self.quantumKiB in {[0, *(1 << power for power in range(12))]}",
                "quantumKiB must be 0 or a power of two up to 2048",
            ),
        )
    }

    enabled: bool | None = None
    """Whether mappings are kept; turning it off flushes them."""
    cap_mi_b: Annotated[int, Field(ge=0, le=1 << 20)] | None = Field(default=None, alias="capMiB")
    """Upper bound of mapped memory, in MiB; 0 disables and revokes."""
    min_ki_b: Annotated[int, Field(ge=1, le=1 << 20)] | None = Field(default=None, alias="minKiB")
    """Smaller mappings are not kept, in KiB."""
    quantum_ki_b: Annotated[int, Field(ge=0, le=2048)] | None = Field(default=None, alias="quantumKiB")
    """Mapping granule in KiB: 0 (the device's optimum) or a power of two up to 2048."""


class BalancingSettings(ApiModel):
    """NUMA balancing of every current kernel."""

    mode: BalancingMode
    """"Off" (in quotes: bare, YAML reads false), Normal, or Tiering (promotion of hot pages from slower memory)."""
    promote_rate_limit_m_bps: Annotated[int, Field(ge=0, le=1 << 20)] | None = Field(
        default=None, alias="promoteRateLimitMBps"
    )
    """Upper bound of promotion per destination NUMA node, in MB/s. Left out: the kernel's value stays."""


class DemotionSettings(ApiModel):
    """Demotion of cold pages to slower memory, of every current kernel."""

    enabled: bool
    """Whether reclaim may demote instead of swapping out."""


class Settings(ApiModel):
    """Settings groups; a group left out is not touched."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": extensions(
            Rule(
                "!has(self.cpuThreads) || (has(self.offload) && self.offload.engine == 'CPUThreads')",
                "cpuThreads needs offload.engine: CPUThreads; remove cpuThreads or change the engine",
            ),
        )
    }

    offload: OffloadSettings | None = None
    batch: BatchSettings | None = None
    cpu_threads: CpuThreadsSettings | None = None
    map_cache: MapCacheSettings | None = None
    balancing: BalancingSettings | None = None
    demotion: DemotionSettings | None = None
