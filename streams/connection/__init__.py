"""Connections to brokers: options, TLS, back-off, and why a broker cannot be reached. Only for aiokafka."""

from inferd.streams.connection.clients import client_options, why_unreachable
from inferd.streams.connection.fetcher import set_bulk_topics
from inferd.streams.connection.unreachable import Kind, reason_of, setting_name

__all__ = ["Kind", "client_options", "reason_of", "set_bulk_topics", "setting_name", "why_unreachable"]
