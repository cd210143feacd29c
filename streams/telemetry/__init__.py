"""What a worker measures: counters, latencies, steps, traces and stalls of the event loop."""
