"""Predictions of the client: requests sent, results awaited, and what may pass sent again."""

from inferd.predictions.exchange import Call, Exchange, SentCall
from inferd.predictions.pending import PendingRequests
from inferd.predictions.pipeline import sent_ahead

__all__ = ["Call", "Exchange", "PendingRequests", "SentCall", "sent_ahead"]
