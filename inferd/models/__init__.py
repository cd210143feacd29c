"""The models of a tenant, as clients read them from its topics and write them there."""

from inferd.models.model_list import (
    ModelList,
    aliases_to_move,
    check_alias_target,
    check_deployable,
    keys_to_remove,
    manifest_behind,
    orphaned_parts,
)
from inferd.models.model_records import read_models, send_alias, send_artifact, send_manifest, send_tombstones

__all__ = [
    "ModelList",
    "aliases_to_move",
    "check_alias_target",
    "check_deployable",
    "keys_to_remove",
    "manifest_behind",
    "orphaned_parts",
    "read_models",
    "send_alias",
    "send_artifact",
    "send_manifest",
    "send_tombstones",
]
