"""The Faust app of a worker: its settings, and the parts that the lane and the status use."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, cast

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition

from inferd.streams.connection import client_options
from inferd.streams.group import LaneApp, LaneAssignor, LaneConsumer
from inferd.streams.settings import StreamSettings
from inferd.streams.state import LaneTableManager


class FaustGroup:
    """The lane's view of the consumer group, whose membership Faust manages."""

    def __init__(self, app: LaneApp) -> None:
        self._app = app

    @property
    def generation(self) -> int:
        return cast(LaneConsumer, self._app.consumer).generation

    @property
    def consumer(self) -> AIOKafkaConsumer:
        return cast(LaneConsumer, self._app.consumer).aiokafka

    def refresh(self, partitions: Mapping[str, int]) -> None:
        """Force a metadata update if a topic's number of partitions has changed; the group then rebalances.

        aiokafka updates its metadata only every five minutes.
        """
        client: Any = self.consumer._client  # noqa: SLF001
        known = client.cluster.partitions_for_topic
        if any(len(known(topic) or ()) != number for topic, number in partitions.items()):
            client.force_metadata_update()

    @property
    def stable(self) -> bool:
        """Whether no rebalance is in progress."""
        return not self._app.rebalancing

    async def change_topics(self, add: Collection[str], remove: Collection[str]) -> None:
        """Changes the subscription, which leads to a rebalance."""
        await cast(LaneConsumer, self._app.consumer).change_topics(add, remove)

    async def seek(self, offsets: dict[TopicPartition, int]) -> None:
        await self._app.consumer.seek_wait(cast(Any, offsets))


def create_app(settings: StreamSettings) -> LaneApp:
    """The Faust app of these settings: membership, tables and low-rate topics; no web server, no topics of Faust."""
    connection, group = settings.connection, settings.group
    return LaneApp(
        group.group_id,
        broker=[f"kafka://{server.strip()}" for server in connection.bootstrap_servers.split(",")],
        broker_credentials=_credentials(settings),
        broker_client_id=f"inferd-{settings.worker_id}",
        broker_session_timeout=group.session_timeout_s,
        broker_heartbeat_interval=group.heartbeat_interval_s,
        broker_rebalance_timeout=group.rebalance_timeout_s,
        broker_request_timeout=group.request_timeout_s,
        # One fetch returns at most one micro-batch; more records would only wait in the lane.
        broker_max_poll_records=settings.lane.batch_rows_max,
        consumer_group_instance_id=group.instance_id,
        # Applies only if retention has removed the current position. The lane seeks to its start offsets itself.
        consumer_auto_offset_reset="earliest",
        datadir=str(settings.data_dir / "faust"),
        store="memory://",
        TableManager=LaneTableManager,
        PartitionAssignor=LaneAssignor,
        # Workers publish their HTTP URLs in the group metadata.
        canonical_url=settings.url,
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        web_enabled=False,
        # Otherwise BROKER_URL, WEB_PORT and a hundred more environment variables override these arguments.
        env={},
        loop=asyncio.get_running_loop(),
    )


def owner_urls(app: LaneApp) -> dict[TopicPartition, str]:
    """URL of the owning worker by lane partition."""
    metadata: Mapping[str, Any] = cast(Any, app.assignor).external_topics_metadata()
    return {
        TopicPartition(topic, number): url
        for url, topics in metadata.items()
        for topic, numbers in topics.items()
        for number in numbers
    }


def _credentials(settings: StreamSettings) -> Any:
    options = client_options(settings.connection)
    context = options.get("ssl_context")
    if "sasl_oauth_token_provider" in options:
        return faust.auth.OAuthCredentials(oauth_cb=options["sasl_oauth_token_provider"], ssl_context=context)
    if "sasl_mechanism" in options:
        return faust.SASLCredentials(
            mechanism=options["sasl_mechanism"],
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context is not None else None
