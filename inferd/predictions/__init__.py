"""Predictions of the client: sends requests, awaits results, retries transient failures."""

from inferd.predictions.exchange import Call, Exchange, SentCall
from inferd.predictions.pending import PendingRequests
from inferd.predictions.pipeline import sent_ahead

__all__ = ["Call", "Exchange", "PendingRequests", "SentCall", "sent_ahead"]
