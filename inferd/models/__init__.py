"""The models of a tenant: read from its topics and changed there."""

from inferd.models.alias_changes import Author, default_author
from inferd.models.changes import ModelChanges
from inferd.models.model_list import ModelList, check_deployable, manifest_behind
from inferd.models.model_log import ModelLog

__all__ = ["Author", "ModelChanges", "ModelList", "ModelLog", "check_deployable", "default_author", "manifest_behind"]
