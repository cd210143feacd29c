"""Connections to brokers: options, TLS, back-off, and why a broker cannot be reached."""

from inferd.streams.connection.clients import client_options, why_unreachable
from inferd.streams.connection.fetcher import set_bulk_topics
from inferd.streams.connection.oauth import TokenError, load_provider
from inferd.streams.connection.tls import RenewingContext
from inferd.streams.connection.unreachable import Kind, Reason, causes, reason_of, setting_name, tls_reason

__all__ = [
    "Kind",
    "Reason",
    "RenewingContext",
    "TokenError",
    "causes",
    "client_options",
    "load_provider",
    "reason_of",
    "set_bulk_topics",
    "setting_name",
    "tls_reason",
    "why_unreachable",
]
