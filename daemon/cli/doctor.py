"""`inferd doctor`: checks whether a worker can run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import click

from inferd.daemon.checks import Check, attempt, attempt_all
from inferd.daemon.cli.options import settings_options
from inferd.daemon.cli.output import (
    EXIT_FAILED,
    OutputFormat,
    report,
    write_result,
)
from inferd.daemon.settings import Settings

COLUMNS = ("check", "state", "detail", "remedy")
MODELS_TIMEOUT_S = 300.0


@click.command(epilog="Example: inferd doctor --broker kafka:9092 --tenant acme")
@settings_options()
@click.option("--acls", "user", metavar="USER", help="Only print the commands that grant USER the rights of a worker.")
def doctor(settings: Settings, output: OutputFormat, user: str | None) -> None:
    """Check settings, broker, topics, permissions, consumer group, models, routes, schema registry and this machine.

    Changes nothing, and writes nothing to a topic. Exits with 1 if a check fails.
    """
    if user is not None:
        _print_grants(settings, user)
        return
    checks = asyncio.run(_collect(settings))
    write_result(output, checks, COLUMNS, [(check.name, check.state, check.detail, check.remedy) for check in checks])
    if any(check.state == "fail" for check in checks):
        sys.exit(EXIT_FAILED)


def _print_grants(settings: Settings, user: str) -> None:
    from inferd.daemon.checks.kafka import grants

    for command in grants(settings, user):
        click.echo(command)


async def _collect(settings: Settings) -> list[Check]:
    checks = []
    async for check in all_checks(settings):
        if sys.stderr.isatty():
            report(f"{check.name}: {check.state}")
        checks.append(check)
    return checks


async def all_checks(settings: Settings) -> AsyncIterator[Check]:
    """All checks, those of this machine first; cluster checks are skipped if the broker does not respond."""
    from inferd.daemon.checks import kafka, machine, routes

    for found in (
        machine.check_settings(settings),
        machine.check_certificates(settings),
        machine.check_disk(settings.data_dir),
        machine.check_memory(settings),
        machine.check_model_formats(),
        machine.check_kernels(settings),
        machine.check_embedded_broker(settings),
    ):
        for check in found:
            yield check
    for check in await attempt("schema registry", lambda: routes.check_schema_registry(settings.schema_registry())):
        yield check
    connection = settings.connection()
    answered = await attempt("broker", lambda: kafka.check_broker(connection))
    for check in answered:
        yield check
    if answered[0].state == "fail":
        yield Check("cluster", "skip", "topics, permissions, group, clock, models, routes: the broker does not respond")
        return
    in_cluster = {
        "brokers": lambda: kafka.check_brokers(connection),
        "topics": lambda: kafka.check_topics(settings),
        "access": lambda: kafka.check_access(settings),
        "group": lambda: kafka.check_group(settings),
        "clock": lambda: kafka.check_clock(settings),
    }
    async for check in attempt_all(in_cluster):
        yield check
    for check in await _models(settings):
        yield check


async def _models(settings: Settings) -> list[Check]:
    from inferd.daemon.checks import models

    return await attempt("models", lambda: models.check_models_and_routes(settings), MODELS_TIMEOUT_S)
