"""Requests in other protocols: each is converted to a request of ours, and the result of that to an answer in kind."""

from inferd.schemas.protocols.exchange import Answer, Exchange, Exchanges

__all__ = ["Answer", "Exchange", "Exchanges"]
