"""Processing of records: fetched from Kafka, scored, produced, acknowledged, committed."""
