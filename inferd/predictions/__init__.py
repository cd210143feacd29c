"""Predictions of the client: requests sent, results awaited, and what may pass sent again."""
