"""Where clients get the tokens of OAUTHBEARER from: a file, a token endpoint, or a class of the user."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token for a broker; `expires_at_s`: Unix seconds, None if unknown, in which case the token is used once."""

    value: str = field(repr=False)
    expires_at_s: float | None = None
    extensions: Mapping[str, str] = field(default_factory=dict)
    """SASL extensions (RFC 7628) that some brokers require."""


class TokenProvider(ABC):
    """Base class of a token provider of your own, which is constructed without arguments."""

    @abstractmethod
    def token(self) -> AccessToken:
        """A new token. It is called in a thread of its own, one call at a time, and may raise anything."""


@dataclass(frozen=True, slots=True)
class OAuth:
    """The source of the tokens: exactly one of `token_file`, `token_url` and `provider`.

    `token_file` has a token, and is read before each authentication. `token_url` is the token endpoint of the grant
    "client credentials" (RFC 6749, section 4.4), which needs `client_id` and a secret; `client_secret_file` overrides
    `client_secret`; `scope` is optional; `ssl_cafile` has the authorities of the endpoint (default: those of the
    system). `provider` names a `TokenProvider` as `module.Class`.
    """

    token_file: str | None = None
    token_url: str | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    client_secret_file: str | None = None
    scope: str | None = None
    ssl_cafile: str | None = None
    provider: str | None = None

    @property
    def identity(self) -> str:
        """What tells this source from others, without secrets."""
        names = (self.token_file, self.token_url, self.client_id, self.scope, self.provider)
        return " ".join(filter(None, names))
