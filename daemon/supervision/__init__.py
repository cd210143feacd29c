"""The life of the process: signals, exit, a watchdog of the event loop, and the embedded broker kept running."""
