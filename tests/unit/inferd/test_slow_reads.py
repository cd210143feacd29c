"""A broker that does not answer in time is named by the typed error of every read of a topic as a whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from inferd.errors import BrokerUnreachableError, typed_kafka_error
from inferd.rollouts.rollouts import Rollouts
from inferd.routes.log import RouteLog
from inferd.schemas.connection import KafkaConnection


class SilentCluster:
    """No consumer is connected while it is silent."""

    silent = True

    async def partitions(self, _stream: str) -> list[int]:
        return [0]

    @asynccontextmanager
    async def consumer(self, *_args: object, **_options: object) -> AsyncIterator[None]:
        if self.silent:
            raise TimeoutError
        yield

    def typed(self, error: BaseException, doing: str) -> BaseException:
        assert isinstance(error, Exception)
        return typed_kafka_error(error, doing, KafkaConnection("broker:9092"))


@pytest.mark.parametrize("what", ["rollouts", "routes"])
async def test_a_read_that_takes_too_long_is_a_typed_error(what: str) -> None:
    cluster: Any = SilentCluster()
    other: Any = None
    read = (
        Rollouts(cluster, other, other).list(timeout_s=1)
        if what == "rollouts"
        else RouteLog(cluster, other, other).read(1)
    )
    with pytest.raises(BrokerUnreachableError, match=f"reading the {what}"):
        await read
