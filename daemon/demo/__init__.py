"""`inferd demo`: trains a model on real data, deploys it, and scores requests and a job through Kafka."""

from inferd.daemon.demo.command import demo

__all__ = ["demo"]
