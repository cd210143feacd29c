"""The clients that requests to a worker share: one that failed is replaced, and stopped when nobody uses it."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

import inferd.client
from inferd.daemon.http.core import UnavailableError
from inferd.daemon.http.worker import ClusterModels
from inferd.daemon.settings.settings import Settings
from inferd.schemas.errors import ServerError


class FakeClient:
    made: ClassVar[list[FakeClient]] = []

    def __init__(self, *_arguments: Any, **_options: Any) -> None:
        self.stopped = False
        self.made.append(self)

    async def start(self) -> None:
        return

    async def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> ClusterModels:
    FakeClient.made = []
    monkeypatch.setattr(inferd.client, "Client", FakeClient)
    return ClusterModels(Settings.from_environment({}), lambda: None)


async def fail(models: ClusterModels) -> None:
    with pytest.raises(UnavailableError):
        async with models.client("default"):
            raise ServerError("no broker")


async def test_requests_share_a_client(models: ClusterModels) -> None:
    async with models.client("default") as first, models.client("default") as second:
        assert first is second
    assert not FakeClient.made[0].stopped
    await models.close()
    assert FakeClient.made[0].stopped


async def test_a_client_that_failed_is_replaced_and_stopped_by_its_last_user(models: ClusterModels) -> None:
    async with models.client("default"):
        await fail(models)
        assert [each.stopped for each in FakeClient.made] == [False]
        async with models.client("default"):
            assert [each.stopped for each in FakeClient.made] == [False, False]
    assert [each.stopped for each in FakeClient.made] == [True, False]


async def fail_late(models: ClusterModels) -> None:
    async with models.client("default"):
        await fail(models)
        async with models.client("default"):
            assert len(FakeClient.made) == 2
        raise ServerError("no broker")


async def test_a_late_failure_of_a_replaced_client_leaves_the_new_one(models: ClusterModels) -> None:
    with pytest.raises(UnavailableError):
        await fail_late(models)
    first, second = FakeClient.made
    assert (first.stopped, second.stopped) == (True, False)
