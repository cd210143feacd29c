"""`inferd demo`: the whole way on real data, from a model in memory to predictions out of Kafka."""

from inferd.daemon.demo.command import demo

__all__ = ["demo"]
