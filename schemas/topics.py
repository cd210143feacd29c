"""Topic names: `<namespace>.<tenant>.<stream>`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from inferd.schemas.errors import InvalidIdError

Stream = Literal[
    "requests",
    "results",
    "dead-letters",
    "jobs",
    "job-chunks",
    "job-results",
    "job-status",
    "models",
    "model-artifacts",
    "routes",
    "model-stats",
    "capture",
    "labels",
    "to-label",
    "shadow-results",
    "rollouts",
    "rollout-status",
    "audit",
]
DEFAULT_TENANT = "default"
"""The tenant of settings and clients that name none."""
STREAMS: tuple[Stream, ...] = get_args(Stream)
LABEL_STREAMS: tuple[Stream, ...] = ("labels", "to-label")
"""Topics of one owner for each partition, which joins labels and predictions."""
LIFECYCLE_STREAMS: tuple[Stream, ...] = ("model-stats", "rollouts")
"""Topics about models in production, with one partition each; one worker owns all of them."""

# A dot would let a tenant match another tenant's prefix. Kafka limits the whole name to 249 characters.
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)


def check_topic_part(what: str, name: str) -> str:
    """Return `name` if it is a valid namespace or tenant, else raise `InvalidIdError`; `what` names the field."""
    if not _NAME.fullmatch(name):
        raise InvalidIdError(f"{what} {name!r}: expected 1 to 63 of a-z 0-9 _ -, starting with a letter or a digit")
    return name


@dataclass(frozen=True, slots=True)
class TenantTopics:
    """The topics of one tenant in one namespace."""

    namespace: str
    tenant: str

    def __post_init__(self) -> None:
        check_topic_part("namespace", self.namespace)
        check_topic_part("tenant", self.tenant)

    def name(self, stream: Stream) -> str:
        """The full topic name."""
        return f"{self.namespace}.{self.tenant}.{stream}"


def tenant_of_topic(topic: str) -> str:
    """The tenant in the name of one of its topics; `InvalidIdError` if the name has another form."""
    match topic.split("."):
        case [_, tenant, _]:
            return tenant
    raise InvalidIdError(f"topic {topic!r}: expected <namespace>.<tenant>.<stream>")
