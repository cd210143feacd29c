"""The AsyncAPI 3 document of inferd's topics, generated from the wire types.

Source: https://www.asyncapi.com/docs/reference/specification/v3.0.0, and its bindings for Kafka, version 0.5.0.
"""

from inferd.schemas.asyncapi.channels import CHANNELS, Channel
from inferd.schemas.asyncapi.document import Application, describe
from inferd.schemas.asyncapi.messages import MESSAGES, Header, Message
from inferd.schemas.asyncapi.routes import route_channels

__all__ = ["CHANNELS", "MESSAGES", "Application", "Channel", "Header", "Message", "describe", "route_channels"]
