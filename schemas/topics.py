"""Names of topics: `<namespace>.<tenant>.<stream>`."""

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
]
DEFAULT_TENANT = "default"
"""The one tenant where none is named."""
STREAMS: tuple[Stream, ...] = get_args(Stream)

# A dot would let a tenant reach into another one's prefix; Kafka's own limit is 249 characters for the whole name.
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)


def check_topic_part(what: str, name: str) -> str:
    """`name` if it can be the namespace or a tenant of a topic name, else `InvalidIdError` naming `what`."""
    if not _NAME.fullmatch(name):
        raise InvalidIdError(f"{what} {name!r}: allowed are 1 to 63 of a-z 0-9 _ - and no _ or - in front")
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
        """The topic's whole name."""
        return f"{self.namespace}.{self.tenant}.{stream}"


def tenant_of_topic(topic: str) -> str:
    """The tenant in the name of one of its topics; `InvalidIdError` where the name has another form."""
    match topic.split("."):
        case [_, tenant, _]:
            return tenant
    raise InvalidIdError(f"topic {topic!r}: expected <namespace>.<tenant>.<stream>")
