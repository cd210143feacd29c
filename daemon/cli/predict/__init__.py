"""`inferd predict`: rows through Kafka, and their predictions in order."""
