"""Moves jobs to another partition, with their status."""

from __future__ import annotations

import structlog

from inferd.schemas.codecs import codec_named
from inferd.schemas.errors import MalformedError
from inferd.schemas.jobs import encode_status
from inferd.schemas.topics import TenantTopics
from inferd.streams.jobs.state import decode_state, encode_state, moved, status_of
from inferd.streams.kafka import Outgoing
from inferd.streams.lane import Move

log = structlog.get_logger(__name__)


def move_job(topics: TenantTopics, key: bytes, value: bytes, old: int, new: int) -> Move | None:
    """What is written when a job moves from partition `old` to `new`. One that cannot be read stays.

    A terminal status is only published from a stored state: one that was not published yet is left to the new owner.
    """
    try:
        state = moved(decode_state(value), old)
    except MalformedError:
        log.exception("job_state_unreadable", tenant=topics.tenant, partition=old, job=key[:80])
        return None
    statuses = topics.name("job-status")
    also: list[tuple[str, int, Outgoing]] = [(statuses, old, (key, None, []))]
    if state.opened_with is not None and (state.announced or not state.ended):
        codec = codec_named(state.encoding)
        also.append((statuses, new, (key, encode_status(status_of(state), codec), [codec.header])))
    return Move(encode_state(state), tuple(also))
