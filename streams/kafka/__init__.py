"""Topics and records on Kafka: producing, transactions, offsets, topic metadata, access rights."""
