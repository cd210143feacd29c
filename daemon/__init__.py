"""The process around the streams: settings, ordered start and stop, embedded broker, logs, metrics, HTTP and CLI."""
