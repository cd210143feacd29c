"""Job records: messages of producers, chunks, results and statuses, with their codecs."""
