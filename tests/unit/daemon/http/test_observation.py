"""What a tenant's token shows of `/status`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import msgspec

from inferd.daemon.http.routes.observation import OF_TENANTS, of_tenant
from inferd.daemon.settings import Settings
from inferd.daemon.telemetry import Status, StatusBoard


def test_a_tenant_sees_nothing_of_the_others() -> None:
    status = StatusBoard(Settings.from_environment({"INFERD_WORKER_ID": "w1"})).status()
    both: dict[str, Any] = {
        name: tuple(SimpleNamespace(tenant=tenant, lag=1, lifecycle=False) for tenant in ("ours", "theirs"))
        for name in OF_TENANTS
    }
    shown = of_tenant(msgspec.structs.replace(status, **both), "ours")
    for name in OF_TENANTS:
        assert [item.tenant for item in getattr(shown, name)] == ["ours"], name
    assert shown.lag == 1


def test_every_list_of_the_status_is_of_tenants_or_known_not_to_be() -> None:
    lists = {name for name, hint in get_type_hints(Status).items() if get_args(hint)[1:] == (...,)}
    assert lists - OF_TENANTS == {"unready", "model_formats"}
    assert {"models", "aliases", "shadows", "drift", "rollouts"} <= OF_TENANTS
