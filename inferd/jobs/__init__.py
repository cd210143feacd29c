"""Batch jobs of the client: rows become messages, and chunk results become rows in order."""
