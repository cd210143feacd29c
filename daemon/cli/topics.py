"""`inferd topics`: creates, grows and lists the topics of tenants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from inferd.daemon.cli.options import settings_options
from inferd.daemon.cli.output import OutputFormat, write_result
from inferd.daemon.cli.session import run_with_broker
from inferd.daemon.settings import Settings

if TYPE_CHECKING:
    from inferd.streams.kafka import TopicState

COLUMNS = ("topic", "partitions", "replicas", "cleanup", "retention", "problem")
DAY_MS = 86_400_000


@click.group(epilog="Example: inferd topics create --tenant acme --partitions 8")
def topics() -> None:
    """Create, grow or list the topics of tenants."""


@topics.command(epilog="Example: inferd topics create --tenant acme --partitions 8 --replication 3")
@settings_options(
    topic_partitions="--partitions", topic_replication="--replication", topic_retention_ms="--retention-ms"
)
def create(settings: Settings, output: OutputFormat) -> None:
    """Create missing topics, and verify the others.

    Existing topics are never changed: a topic with a wrong configuration is reported as an error.
    """
    from inferd.streams.kafka import ensure_topics

    wanted = replace(settings, topics_create=True).streams()
    _write(output, run_with_broker(wanted.connection, lambda: ensure_topics(wanted)))


@topics.command(epilog="Example: inferd topics grow --partitions 8")
@click.option("--partitions", type=click.IntRange(1), required=True, help="The number that the topics shall have.")
@settings_options()
def grow(partitions: int, settings: Settings, output: OutputFormat) -> None:
    """Add partitions to all topics of the tenants and to their changelogs, while workers run.

    The number is INFERD_TOPIC_PARTITIONS doubled, once or more: the state of a job or a label is in the partition of
    its id, and then moves to a new partition or stays. Running workers take the new partitions up by themselves, and
    move those states. Producers that choose partitions by key send a key to another partition from now on.

    Leave INFERD_TOPIC_PARTITIONS as it is: workers refuse another value. Safe to repeat.
    """
    from inferd.streams.kafka import grow_topics

    wanted = settings.streams()
    states = run_with_broker(wanted.connection, lambda: grow_topics(wanted, partitions))
    for tenant in settings.tenants:
        run_with_broker(wanted.connection, partial(_note, settings, tenant, partitions))
    _write(output, states)


async def _note(settings: Settings, tenant: str, partitions: int) -> None:
    from inferd.client import Client

    async with Client(settings.connection(), namespace=settings.namespace, tenant=tenant) as client:
        await client.audit.note("grow", f"{settings.namespace}.{tenant}.requests", partitions=partitions)


@topics.command("list", epilog="Example: inferd topics list --output json")
@settings_options()
def list_topics(settings: Settings, output: OutputFormat) -> None:
    """List the topics of the tenants, and their problems."""
    from inferd.streams.kafka import describe_topics

    wanted = settings.streams()
    _write(output, run_with_broker(wanted.connection, lambda: describe_topics(wanted)))


def _write(output: OutputFormat, states: Sequence[TopicState]) -> None:
    write_result(output, states, COLUMNS, map(_row, states))


def _row(state: TopicState) -> tuple[str | int | None, ...]:
    if state.partitions == 0:
        return state.name, 0, 0, None, None, state.problem
    policy = state.config.get("cleanup.policy")
    return state.name, state.partitions, state.replication, policy, _retention(state), state.problem


def _retention(state: TopicState) -> str | None:
    if state.config.get("cleanup.policy") == "compact":
        return "latest per key"
    retention_ms = int(state.config.get("retention.ms", -1))
    return "unlimited" if retention_ms < 0 else f"{retention_ms / DAY_MS:g} days"
