"""`inferd predict`: sends rows through Kafka and prints their predictions in order."""
