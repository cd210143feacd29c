"""What happens to a record: taken from Kafka, scored, published, acknowledged, committed."""
