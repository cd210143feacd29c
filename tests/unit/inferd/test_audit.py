"""What is written to the audit, and by whom."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from inferd.actor import Actor, acting_as, current_actor
from inferd.audit import AuditLog
from inferd.models import default_author
from inferd.schemas.audit import DETAILS_MAX, RECORD_BYTES_MAX, AuditRecord, decode_audit, encode_audit
from inferd.schemas.errors import MalformedError, ServerError


class FakeCluster:
    """Keeps what is sent; `fault` is raised instead."""

    def __init__(self, fault: ServerError | None = None) -> None:
        self.values: list[bytes] = []
        self.fault = fault

    async def send(self, stream: str, *, value: bytes, **_others: Any) -> None:
        assert stream == "audit"
        if self.fault is not None:
            raise self.fault
        self.values.append(value)

    async def acknowledged(self, _stream: str, _sent: object) -> None: ...


async def noted(actor: Actor | None, changed_by: str | None) -> AuditRecord:
    cluster = FakeCluster()
    log = AuditLog(cluster, "inferd-client-7")  # type: ignore[arg-type]

    async def note() -> None:
        await log.note("alias", "churn@champion", changed_by=changed_by, target=3, alias=None)

    if actor is None:
        await note()
    else:
        with acting_as(actor):
            await asyncio.create_task(note())
    assert current_actor() is None
    (value,) = cluster.values
    return decode_audit(value)


async def test_a_client_names_itself_and_a_worker_its_caller() -> None:
    record = await noted(None, None)
    assert (record.by, record.origin, record.details) == (default_author(), "kafka inferd-client-7", {"target": "3"})
    assert (await noted(None, "ana")).by == "ana"
    record = await noted(Actor("ci", "http 10.0.0.7"), "ana")
    assert (record.by, record.origin) == ("ci", "http 10.0.0.7")
    assert record.details == {"target": "3", "changed_by": "ana"}
    assert "changed_by" not in (await noted(Actor("ci", "http 10.0.0.7"), "ci")).details


async def test_an_action_succeeds_if_the_audit_cannot_be_written(caplog: pytest.LogCaptureFixture) -> None:
    log = AuditLog(FakeCluster(ServerError("not allowed")), "c")  # type: ignore[arg-type]
    await log.note("deploy", "churn:4")
    assert "deploy of churn:4 was done, but is not in the audit: not allowed" in caplog.text


def test_long_texts_are_cut() -> None:
    long = "\x01" * 10_000
    record = AuditRecord(
        at=1, action="deploy", subject=long, by=long, origin=long, details={f"d{n}": "\x01" * 900 for n in range(50)}
    )
    value = encode_audit(record)
    assert len(decode_audit(value).subject) == 500
    assert len(decode_audit(value).details) == DETAILS_MAX
    assert len(value) <= RECORD_BYTES_MAX


@pytest.mark.parametrize("value", [None, b"", b"{}", b"\xff", b'{"at":"x"}'])
def test_what_is_no_audit_record(value: bytes | None) -> None:
    with pytest.raises(MalformedError):
        decode_audit(value)
