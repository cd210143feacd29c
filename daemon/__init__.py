"""The process around the streams: settings, ordered start and stop, the embedded broker, logs, metrics, HTTP and CLI."""
