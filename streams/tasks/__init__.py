"""Tasks of asyncio: ending several at once, and exceptions in callbacks."""
