"""Errors of commands that change models. They are never sent as results."""

from __future__ import annotations

from inferd.schemas.errors import ModelServingError


class VersionExistsError(ModelServingError):
    """The version is or was deployed, with other bytes or another manifest."""

    code = "version_exists"
    http_status = 409
    meaning = "the version exists already, with other bytes or another manifest"


class VersionInUseError(ModelServingError):
    """An alias points at the version that is to be removed."""

    code = "version_in_use"
    http_status = 409
    meaning = "an alias points at the version that is to be removed"


class AliasChangedError(ModelServingError):
    """The alias was changed by somebody else in the meantime; nothing was changed now."""

    code = "alias_changed"
    http_status = 409
    meaning = "the alias was changed by somebody else in the meantime: look at it, and decide again"


class NoEarlierTargetError(ModelServingError):
    """A rollback of an alias that has no earlier target."""

    code = "no_earlier_target"
    http_status = 409
    meaning = "the alias has no earlier target to roll back to"
