"""Names of subjects, by the three strategies of Confluent's serializers."""

from __future__ import annotations

from inferd.schemas.routes import Subjects


def subject_of(strategy: Subjects, topic: str, record: str) -> str:
    """The subject of the values of `topic`, which are records of the full name `record`."""
    if strategy == "topic":
        return f"{topic}-value"
    return record if strategy == "record" else f"{topic}-{record}"
