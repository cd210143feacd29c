"""One instance id, one worker: who was replaced does not join again."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError
from aiokafka.protocol.admin import DescribeGroupsRequest

from inferd.streams.group import membership

OURS, OTHERS, RESTARTED = (f"one-{uuid.UUID(int=number)}" for number in range(3))


class Coordinator:
    """The attributes of aiokafka that `_rejoin` uses; joins succeed unless `fails` is set."""

    def __init__(self, instance_id: str | None = "one") -> None:
        self._group_instance_id, self.group_id, self.member_id = instance_id, "inferd", ""
        self.members: list[str] | None = []
        self.joins, self.fails = 0, False
        self.subscription = SimpleNamespace(topics=frozenset({"requests"}))
        self.meanwhile: frozenset[str] | None = None
        """The topics that it is subscribed to while it joins."""
        self.requested = 0

    async def _send_req(self, request: DescribeGroupsRequest) -> Any:
        if self.members is None:
            raise GroupCoordinatorNotAvailableError
        members = [(name, "inferd-w1", "/10.0.0.7", b"", b"") for name in self.members]
        return SimpleNamespace(groups=[(0, "inferd", "Stable", "consumer", "faust", members)])

    async def join(self, _subscription: object) -> bool:
        self.joins += 1
        if self.fails:
            raise KafkaError("fenced")
        self.member_id = OURS
        self.subscription.topics = self.meanwhile or self.subscription.topics
        return True

    def request_rejoin(self) -> None:
        self.requested += 1

    async def rejoin(self) -> bool:
        return await membership._rejoin(self, self.subscription)

    async def dropped(self) -> None:
        """The group does not know us any more."""
        assert await self.rejoin()
        self.member_id = ""


@pytest.fixture(autouse=True)
def stock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "_stock_rejoin", Coordinator.join)
    monkeypatch.setattr(membership, "PAUSE_S", 0)


async def test_a_replaced_member_does_not_rejoin() -> None:
    coordinator = Coordinator()
    await coordinator.dropped()
    coordinator.members = ["stranger-" + OTHERS, OTHERS]
    assert not await coordinator.rejoin()
    assert coordinator.joins == 1
    assert membership.was_replaced(coordinator)


@pytest.mark.parametrize("members", [[], ["two" + OTHERS[3:]], ["one-two" + OTHERS[3:]], None])
async def test_who_was_only_dropped_joins_again(members: list[str] | None) -> None:
    coordinator = Coordinator()
    await coordinator.dropped()
    coordinator.members = members
    assert await coordinator.rejoin()
    assert not membership.was_replaced(coordinator)


async def test_a_rebalance_among_others_is_joined() -> None:
    coordinator = Coordinator()
    assert await coordinator.rejoin()
    coordinator.members = [OURS]
    assert await coordinator.rejoin()


async def test_a_restart_replaces_its_former_self() -> None:
    coordinator = Coordinator()
    coordinator.members = [RESTARTED]
    assert await coordinator.rejoin()


async def test_without_an_instance_id_no_request_is_sent() -> None:
    coordinator = Coordinator(instance_id=None)
    await coordinator.dropped()
    coordinator.members = [OTHERS]
    assert await coordinator.rejoin()


async def test_a_member_fenced_while_joining_does_not_rejoin() -> None:
    coordinator = Coordinator()
    coordinator.fails = True
    with pytest.raises(KafkaError, match="fenced"):
        await coordinator.rejoin()
    coordinator.members = [OTHERS]
    assert not await coordinator.rejoin()


async def test_topics_that_change_while_it_joins_are_joined_again() -> None:
    coordinator = Coordinator()
    assert await coordinator.rejoin()
    assert coordinator.requested == 0
    coordinator.meanwhile = frozenset({"requests", "orders"})
    assert await coordinator.rejoin()
    assert coordinator.requested == 1
    assert await coordinator.rejoin()
    assert coordinator.requested == 1


def test_aiokafka_is_replaced() -> None:
    membership.install()
    membership.install()
    assert GroupCoordinator._do_rejoin_group is membership._rejoin
    assert {"_group_instance_id", "_do_rejoin_group", "_send_req"} <= {
        *GroupCoordinator.__init__.__code__.co_names,
        *vars(GroupCoordinator),
    }
