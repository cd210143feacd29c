"""The format `cloudevents`: events of CloudEvents 1.0 whose data is in one of the other formats."""

from inferd.streams.routes.formats.cloud_events.format import CloudEventsFormat

__all__ = ["CloudEventsFormat"]
