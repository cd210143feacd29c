"""Client of a schema registry with Confluent's API, and the cache that formats read schemas from.

`SchemaCache` answers at once; a schema that it does not know is asked for in the background, once at a time.
"""

from inferd.streams.routes.schema_registry.cache import SchemaCache
from inferd.streams.routes.schema_registry.client import SchemaRegistryClient
from inferd.streams.routes.schema_registry.errors import (
    RegistryDeniedError,
    RegistryUnavailableError,
    SchemaRegistryError,
    SchemaRejectedError,
)

__all__ = [
    "RegistryDeniedError",
    "RegistryUnavailableError",
    "SchemaCache",
    "SchemaRegistryClient",
    "SchemaRegistryError",
    "SchemaRejectedError",
]
