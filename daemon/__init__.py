"""The process around the streams: settings, start and graceful stop, embedded broker, logs, metrics, HTTP and CLI."""
