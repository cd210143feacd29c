"""`inferd asyncapi`: prints the AsyncAPI document."""

from __future__ import annotations

import click
import msgspec

from inferd.daemon.cli.options import settings_options
from inferd.daemon.cli.output import OutputFormat
from inferd.daemon.settings import Settings


@click.command(epilog="Example: inferd asyncapi --broker kafka:9092 --tenant acme > asyncapi.json")
@settings_options()
def asyncapi(settings: Settings, output: OutputFormat) -> None:
    """Print the AsyncAPI 3 document of the tenants' topics, without connecting to the broker.

    GET /asyncapi.json of a worker has the tenants' routes, too.
    """
    from inferd.daemon.application import application_of
    from inferd.schemas.asyncapi import describe

    document = msgspec.json.encode(describe(application_of(settings)))
    click.echo(document if output == "json" else msgspec.json.format(document, indent=2))
