"""Changelog topics of a tenant's tables: names and configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

TableName = Literal["predictions", "jobs", "model-windows", "rollouts", "labels"]
TABLE_NAMES: tuple[TableName, ...] = get_args(TableName)

LIFECYCLE_TABLES: tuple[TableName, ...] = ("model-windows", "rollouts")
"""Tables of the topics of `LIFECYCLE_STREAMS`, with as many partitions."""

SEGMENT_MS = 3_600_000
"""Compaction and deletion skip the active segment: without this limit, the log of an idle table would never shrink."""


def table_name(tenant: str, table: TableName) -> str:
    """Name of a table in the Faust app, unique per tenant."""
    return f"{tenant}.{table}"


def changelog_name(group_id: str, tenant: str, table: TableName) -> str:
    """Changelog topic of a table, as Faust names it."""
    return f"{group_id}-{table_name(tenant, table)}-changelog"


def changelog_config(table: TableName, cache_ttl_max_s: float) -> Mapping[str, str]:
    """Topic settings. Cache entries are deleted after the longest TTL; all else only by tombstones."""
    if table != "predictions":
        return {"cleanup.policy": "compact", "segment.ms": str(SEGMENT_MS)}
    return {
        "cleanup.policy": "compact,delete",
        "retention.ms": str(int(cache_ttl_max_s * 1000)),
        "segment.ms": str(SEGMENT_MS),
    }
