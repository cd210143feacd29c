"""What an operator sees of the process: logs, metrics and status."""
