"""Scoring, pure and synchronous: no asyncio, no clock, no environment; the disposable trial process is the one edge."""
