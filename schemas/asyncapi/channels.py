"""The channels: one for each stream of a tenant, with who writes and who reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from inferd.schemas.asyncapi import messages
from inferd.schemas.asyncapi.messages import Message
from inferd.schemas.topics import Stream

Action = Literal["receive", "send"]
"""What inferd does with the records: `receive` for those that users write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A topic, or the topics of one stream of all tenants."""

    name: str
    address: str
    """The name of the topic, or `<namespace>.{tenant}.<stream>`."""
    summary: str
    messages: Sequence[Message]
    actions: Sequence[Action]
    compacted: bool | None = None
    """None: unknown, since the topic is another application's."""
    reply: str | None = None
    """The channel of the answers to what is received."""
    internal: bool = False
    raw: Mapping[str, Any] | None = None
    """A finished description of the only message, instead of `messages`."""


@dataclass(frozen=True, slots=True)
class _Stream:
    summary: str
    messages: Sequence[Message]
    actions: Sequence[Action]
    compacted: bool = False
    reply: Stream | None = None
    internal: bool = False


_STREAMS: Mapping[Stream, _Stream] = {
    "requests": _Stream(
        "Prediction requests. A result has its request's key and partition number.",
        messages.REQUESTS,
        ("receive",),
        reply="results",
    ),
    "results": _Stream("One result per request: a prediction or a typed error.", messages.RESULTS, ("send",)),
    "dead-letters": _Stream("Records that could not be decoded.", messages.DEAD_LETTERS, ("send",)),
    "jobs": _Stream("Messages of batch jobs.", messages.JOBS, ("receive",), reply="job-status"),
    "job-chunks": _Stream(
        "Chunks of jobs, distributed over all partitions.", messages.JOB_CHUNKS, ("send", "receive"), internal=True
    ),
    "job-results": _Stream("Results of jobs, one record per chunk.", messages.JOB_RESULTS, ("send",)),
    "job-status": _Stream("The latest status of each job.", messages.JOB_STATUS, ("send",), compacted=True),
    "models": _Stream(
        "Model versions and aliases: deploying a model is producing a record.",
        (*messages.MODELS, *messages.BASELINES),
        ("receive",),
        compacted=True,
    ),
    "routes": _Stream("Routes: creating one is producing a record.", messages.ROUTES, ("receive",), compacted=True),
    "model-stats": _Stream(
        "What each model version scored, minute by minute.",
        (*messages.MODEL_STATS, *messages.BASELINES),
        ("send", "receive"),
        internal=True,
    ),
    "labels": _Stream("What was true of requests, known later.", messages.LABELS, ("receive", "send")),
    "to-label": _Stream(
        "Predictions that wait for their labels.", messages.TO_LABEL, ("send", "receive"), internal=True
    ),
    "capture": _Stream(
        "A share of the requests, with the values of their features and the outputs.", messages.CAPTURE, ("send",)
    ),
    "shadow-results": _Stream(
        "What shadow versions say about requests that other versions have answered.", messages.SHADOW_RESULTS, ("send",)
    ),
    "rollouts": _Stream("Messages of rollouts.", messages.ROLLOUTS, ("receive",), reply="rollout-status"),
    "rollout-status": _Stream(
        "The newest status of each model's rollout.", messages.ROLLOUT_STATUS, ("send",), compacted=True
    ),
    "audit": _Stream("Who changed what, when and from where.", messages.AUDIT, ("send",)),
    "model-artifacts": _Stream("Model files in parts.", messages.ARTIFACTS, ("receive",), compacted=True),
}


def _channel(stream: Stream, found: _Stream) -> Channel:
    return Channel(
        name=stream,
        address=f"{{namespace}}.{{tenant}}.{stream}",
        summary=found.summary,
        messages=found.messages,
        actions=found.actions,
        compacted=found.compacted,
        reply=found.reply,
        internal=found.internal,
    )


CHANNELS: tuple[Channel, ...] = tuple(_channel(stream, found) for stream, found in _STREAMS.items())
"""The channels of a tenant."""
