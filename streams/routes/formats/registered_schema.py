"""A schema as a registry holds it, or as a route gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SchemaKind = Literal["AVRO", "PROTOBUF", "JSON"]


@dataclass(frozen=True, slots=True)
class Reference:
    """A version of another subject, which the schema imports under `name`."""

    name: str
    subject: str
    version: int

    def to_json(self) -> dict[str, str | int]:
        """As the API has it."""
        return {"name": self.name, "subject": self.subject, "version": self.version}


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """The text of a schema, and what it imports."""

    kind: SchemaKind
    text: str
    references: tuple[Reference, ...] = ()
    imported: Sequence[tuple[str, str]] = ()
    """Name and text of every schema that it imports, directly or through others: each after those that it imports."""
    schema_id: int | None = None
    """None for a schema that a route gives."""
