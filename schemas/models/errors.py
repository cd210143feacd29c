"""Errors of whoever changes models; none of them is ever a result."""

from __future__ import annotations

from inferd.schemas.errors import ModelServingError


class VersionExistsError(ModelServingError):
    """The version is deployed already, with other bytes or another manifest."""

    code = "version_exists"
    http_status = 409
    meaning = "the version is there, with other bytes or another manifest"


class VersionInUseError(ModelServingError):
    """An alias leads to the version that is to be removed."""

    code = "version_in_use"
    http_status = 409
    meaning = "an alias leads to the version that is to be removed"
