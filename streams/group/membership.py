"""How a worker joins the group: with the topics that it has by then, and once for an instance id.

A worker that joins with an instance id replaces the member that had it, as a restart requires. A second running worker
with the same id does so too; the first one would join again and replace the second, endlessly. A replaced worker
therefore asks the group who has its id, and stays out. Kafka names static members `<instance id>-<UUID>`.

Private names used, each covered by `tests/unit/streams/group/test_membership.py`: `GroupCoordinator._do_rejoin_group`
(replaced), `_group_instance_id` and `_send_req`.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DescribeGroupsRequest

from inferd.streams.settings import GroupSettings

UUID_CHARS = 36
PAUSE_S = 1.0
_stock_rejoin: Any = GroupCoordinator._do_rejoin_group  # noqa: SLF001
_joined: weakref.WeakSet[Any] = weakref.WeakSet()
"""Coordinators that have joined."""
_replaced: weakref.WeakSet[Any] = weakref.WeakSet()
"""Coordinators whose instance id now belongs to another member."""


def install() -> None:
    """Applies to every consumer of this process; repeated calls have no effect."""
    coordinator: Any = GroupCoordinator
    coordinator._do_rejoin_group = _rejoin  # noqa: SLF001


def was_replaced(coordinator: Any) -> bool:
    """Whether another member has joined with our instance id."""
    return coordinator in _replaced


def instance_id_conflict(group: GroupSettings) -> str:
    """Why a replaced worker ends. The other worker is unknown: the group keeps the metadata of the first one."""
    return (
        f"INFERD_INSTANCE_ID={group.instance_id} is used twice in group {group.group_id}: another worker joined with it"
        " after this one, and keeps it. Give each worker its own name"
    )


async def _rejoin(coordinator: Any, subscription: Any) -> bool:
    """Like aiokafka's own, unless another member has our instance id.

    aiokafka forgets a request to join again that comes while it joins: if the topics have changed meanwhile, the group
    may know only the former ones.
    """
    if coordinator in _joined and await _is_replaced(coordinator):
        return False
    topics = frozenset(subscription.topics)
    try:
        joined: bool = await _stock_rejoin(coordinator, subscription)
    except KafkaError:
        if await _is_replaced(coordinator):
            return False
        raise
    if joined:
        _joined.add(coordinator)
        if topics != frozenset(subscription.topics):
            coordinator.request_rejoin()
    return joined


async def _is_replaced(coordinator: Any) -> bool:
    instance_id = coordinator._group_instance_id  # noqa: SLF001
    if instance_id is None:
        return False
    try:
        response = await coordinator._send_req(DescribeGroupsRequest([coordinator.group_id]))  # noqa: SLF001
    except KafkaError:
        return False  # Joining again reveals it.
    holders = {member[0] for member in response.groups[0][5] if member[0][: -UUID_CHARS - 1] == instance_id}
    if not holders - {coordinator.member_id}:
        return False
    _replaced.add(coordinator)
    await asyncio.sleep(PAUSE_S)
    return True
