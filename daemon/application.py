"""The application that AsyncAPI documents are about, as the settings say."""

from __future__ import annotations

from inferd.daemon.settings import Settings
from inferd.daemon.version import inferd_version
from inferd.schemas.asyncapi import Application


def application_of(settings: Settings) -> Application:
    """The workers with these settings."""
    return Application(
        version=inferd_version(),
        namespace=settings.namespace,
        tenants=settings.tenants,
        connection=settings.connection(),
    )
