"""Errors of a schema registry. All of them are waited for; an id that it does not have is a `SchemaNotFoundError`.

SchemaRegistryError
├── RegistryUnavailableError   away, slow, overloaded, or something else answers
├── RegistryDeniedError        it refuses the credentials, or they cannot be read
└── SchemaRejectedError        the subject does not take the schema
"""

from inferd.schemas.errors import ServerError


class SchemaRegistryError(ServerError):
    """Base of these errors. `message` is one line with the cause and the remedy."""


class RegistryUnavailableError(SchemaRegistryError):
    """The registry cannot be reached, did not answer in time, or did not give an answer of its API."""


class RegistryDeniedError(SchemaRegistryError):
    """The registry refused the credentials, or the client's own files cannot be read."""


class SchemaRejectedError(SchemaRegistryError):
    """The schema is not compatible with earlier ones of the subject, or not valid for the registry."""
